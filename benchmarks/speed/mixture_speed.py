"""Forward and backward pass of the logistic mixture against autograd over the same formula, and their memory.

    python benchmarks/speed/mixture_speed.py

The plain side is how this project computed it before: pixels outermost, a log-sigmoid for either edge, every step's
result kept for autograd. Both sides have the same parameters, features and images, at one thread; they alternate, and a
ratio is the median over rounds of the ratio within one. Times are processor milliseconds, which other programs disturb
less than they do the clock. Memory is the most that tensors made in one forward and backward pass take at a time. The
differences are the largest of any log-mass, of the mean log-mass, and of any gradient as a share of the largest of its
kind.

Shapes: B items, C channels, M components, F features.
"""

from functools import partial

import torch
from torch import Tensor
from two_sides import begin, row

from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood, bin_log_mass

SIZES = ((16, 3, 64), (8, 3, 32))
MIXTURES = (5, 10)
FEATURES, LEVELS = 64, 256


def plain(likelihood: LogisticMixtureLikelihood, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Log-mass of every sub-pixel, `[B, C, H, W]`."""
    assert likelihood.frame is not None
    channels, bounds = likelihood.channels, likelihood.alphabet.log_scales
    features_BHWF = features_BFHW.movedim(1, -1)
    raw = likelihood.project(features_BHWF).unflatten(-1, (likelihood.mixtures, -1))
    common, own, log_unit, link = likelihood.frame.project(features_BHWF).split([1, channels, 1, 3], dim=-1)
    centre, link, log_unit = common + 0.5 * own, link.tanh(), log_unit.clamp(*bounds)[..., None]
    log_weight, location, log_scale = raw.split([1, channels, channels], dim=-1)
    log_weight = log_weight.squeeze(-1).log_softmax(-1)
    location = centre[..., None, :] + location * log_unit.exp()
    log_scale = (log_scale + log_unit).clamp(*bounds)
    residuals, result = list[Tensor](), []
    for c in range(channels):
        level, first = x_BCHW[:, c, ..., None], c * (c - 1) // 2
        shift = sum((link[..., first + j, None] * residuals[j] for j in range(c)), torch.zeros(()))
        mean, inverse = location[..., c] + shift, torch.exp(-log_scale[..., c])
        high, low = (_edge(likelihood, mean, inverse, at) for at in (level, level - 1))
        width = inverse * (2.0 / (LEVELS - 1))
        joint = log_weight + bin_log_mass(high, low, width, lowest=level == 0, highest=level == LEVELS - 1)
        result.append(joint.logsumexp(-1))
        log_weight = joint.log_softmax(-1)
        residuals.append(likelihood.alphabet.scaled(level) - centre[..., c, None])
    return torch.stack(result, 1)


def _edge(likelihood: LogisticMixtureLikelihood, mean: Tensor, inverse: Tensor, level: Tensor) -> Tensor:
    edge, rest = likelihood.alphabet.upper_edge(level)
    return ((edge - mean) + rest) * inverse


def problem(size: tuple[int, int, int], mixtures: int) -> tuple[LogisticMixtureLikelihood, Tensor, Tensor]:
    """Likelihood as it starts, random features, images around the middle of the alphabet with some ends."""
    torch.manual_seed(0)
    batch, channels, side = size
    likelihood = LogisticMixtureLikelihood(features=FEATURES, channels=channels, levels=LEVELS, mixtures=mixtures)
    features = torch.randn(batch, FEATURES, side, side, requires_grad=True)
    x = (128 + 60 * torch.randn(batch, channels, side, side)).clamp(0, LEVELS - 1).long()
    return likelihood, features, x


def main() -> None:
    """Print a Markdown table."""
    rounds = begin(__doc__, about=f"{FEATURES} features, {LEVELS} levels", column="components", rounds=9)
    for size in SIZES:
        for mixtures in MIXTURES:
            likelihood, features, x = problem(size, mixtures)
            sides = {
                "ours": partial(likelihood.log_prob, features, x),
                "plain": partial(plain, likelihood, features, x),
            }
            print(row([str(list(x.shape)), str(mixtures)], sides, [features, *likelihood.parameters()], rounds))


if __name__ == "__main__":
    main()
