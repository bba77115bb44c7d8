"""Forward and backward pass of the categorical likelihood against autograd over the same formula, and their memory.

    python benchmarks/speed/softmax_speed.py

The plain side is how this project computed it before: logits of all pixels at once, then cross-entropy. Both sides have
the same parameters, features and images, at one thread; they alternate, and a ratio is the median over rounds of the
ratio within one. Times are processor milliseconds, which other programs disturb less than they do the clock. Memory is
the most that tensors made in one forward and backward pass take at a time. The differences are the largest of any
log-mass, of the mean log-mass, and of any gradient as a share of the largest of its kind.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from two_sides import begin, row

from twostage.likelihoods.images import CategoricalLikelihood

SIZES = ((32, 3, 32, 32, 64), (16, 3, 64, 64, 64), (32, 1, 28, 28, 32), (8, 1, 1, 8192, 32))
"""Items, channels, rows, columns, features; the last is of sound."""
LEVELS = 256


def plain(likelihood: CategoricalLikelihood, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Log-mass of every sub-pixel, `[B, C, H, W]`."""
    logits = likelihood.logits(features_BFHW.movedim(1, -1)).unflatten(-1, (likelihood.channels, LEVELS))
    nats = F.cross_entropy(logits.movedim(-2, 1).flatten(0, -2), x_BCHW.flatten(), reduction="none")
    return -nats.view(x_BCHW.shape)


def main() -> None:
    """Print a Markdown table."""
    rounds = begin(__doc__, about=f"{LEVELS} levels", column="features", rounds=7)
    for batch, channels, height, width, number in SIZES:
        torch.manual_seed(0)
        likelihood = CategoricalLikelihood(features=number, channels=channels, levels=LEVELS)
        features = torch.randn(batch, number, height, width, requires_grad=True)
        x = torch.randint(0, LEVELS, (batch, channels, height, width))
        sides = {"ours": partial(likelihood.log_prob, features, x), "plain": partial(plain, likelihood, features, x)}
        print(row([str(list(x.shape)), str(number)], sides, [features, *likelihood.parameters()], rounds), flush=True)


if __name__ == "__main__":
    main()
