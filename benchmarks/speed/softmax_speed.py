"""Forward and backward pass of the categorical likelihood against autograd over the same formula, and their memory.

    python benchmarks/speed/softmax_speed.py

The plain side is how this project computed it before: logits of all pixels at once, then cross-entropy. Both sides have
the same parameters, features and images, at one thread; they alternate, and a ratio is the median over rounds of the
ratio within one. Times are processor milliseconds, which other programs disturb less than they do the clock. Memory is
the most that tensors made in one forward and backward pass take at a time. The differences are the largest of any
log-mass, of the mean log-mass, and of any gradient as a share of the largest of its kind.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from twostage.likelihoods.images import CategoricalLikelihood
from twostage.training.live_bytes import LiveBytes

SIZES = ((32, 3, 32, 32, 64), (16, 3, 64, 64, 64), (32, 1, 28, 28, 32), (8, 1, 1, 8192, 32))
"""Items, channels, rows, columns, features; the last is of sound."""
LEVELS = 256


def plain(likelihood: CategoricalLikelihood, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """Log-mass of every sub-pixel, `[B, C, H, W]`."""
    logits = likelihood.logits(features_BFHW.movedim(1, -1)).unflatten(-1, (likelihood.channels, LEVELS))
    nats = F.cross_entropy(logits.movedim(-2, 1).flatten(0, -2), x_BCHW.flatten(), reduction="none")
    return -nats.view(x_BCHW.shape)


def timed(side: Callable[[], Tensor], inputs: list[Tensor]) -> tuple[float, float]:
    """Processor milliseconds forward and backward."""
    start = time.process_time()
    log_prob = side()
    middle = time.process_time()
    torch.autograd.grad(log_prob.mean(), inputs)
    return 1e3 * (middle - start), 1e3 * (time.process_time() - middle)


def peak_mib(side: Callable[[], Tensor], inputs: list[Tensor]) -> float:
    with LiveBytes() as live:
        torch.autograd.grad(side().mean(), inputs)
    return live.peak / 2**20


def row(size: tuple[int, int, int, int, int], rounds: int) -> str:
    torch.manual_seed(0)
    batch, channels, height, width, number = size
    likelihood = CategoricalLikelihood(features=number, channels=channels, levels=LEVELS)
    features = torch.randn(batch, number, height, width, requires_grad=True)
    x = torch.randint(0, LEVELS, (batch, channels, height, width))
    inputs = [features, *likelihood.parameters()]
    sides = {"ours": lambda: likelihood.log_prob(features, x), "plain": lambda: plain(likelihood, features, x)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for index in range(rounds + 1):
        for name in sorted(sides, reverse=bool(index % 2)):
            found = timed(sides[name], inputs)
            if index:
                times[name].append(found)
    ratio = statistics.median(sum(p) / sum(o) for o, p in zip(times["ours"], times["plain"], strict=True))
    peaks = {name: peak_mib(side, inputs) for name, side in sides.items()}
    log_probs = {name: side() for name, side in sides.items()}
    difference = log_probs["ours"].detach().double() - log_probs["plain"].detach().double()
    gradients = {name: torch.autograd.grad(log_prob.mean(), inputs) for name, log_prob in log_probs.items()}
    of_gradients = max(
        float((ours - theirs).abs().max() / theirs.abs().max())
        for ours, theirs in zip(gradients["ours"], gradients["plain"], strict=True)
    )
    cells = [f"[{batch}, {channels}, {height}, {width}]", str(number)]
    for name in ("plain", "ours"):
        cells += [f"{statistics.median(part):.1f}" for part in zip(*times[name], strict=True)]
    cells += [f"{ratio:.2f}x", f"{peaks['plain']:.1f}", f"{peaks['ours']:.1f}", f"{float(difference.abs().max()):.0e}"]
    cells += [f"{float(difference.mean().abs()):.0e}", f"{of_gradients:.0e}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{LEVELS} levels, fp32, 1 thread, seed 0, medians of {arguments.rounds} alternating rounds in CPU ms; torch "
        f"{torch.__version__}, Python {platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}, load "
        f"{os.getloadavg()[0]:.1f}\n"
    )
    print("| images | features | plain forward | backward | ours forward | backward | ratio ", end="")
    print("| plain MiB | ours MiB | log-mass | mean | gradient |\n|---|" + 11 * "---:|")
    for size in SIZES:
        print(row(size, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
