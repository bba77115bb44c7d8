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

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood, bin_log_mass
from twostage.training.live_bytes import LiveBytes

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


def row(size: tuple[int, int, int], mixtures: int, rounds: int) -> str:
    likelihood, features, x = problem(size, mixtures)
    inputs = [features, *likelihood.parameters()]
    sides = {"ours": lambda: likelihood.log_prob(features, x), "plain": lambda: plain(likelihood, features, x)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            found = timed(sides[name], inputs)
            if number:
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
    cells = [f"[{size[0]}, {size[1]}, {size[2]}, {size[2]}]", str(mixtures)]
    for name in ("plain", "ours"):
        cells += [f"{statistics.median(part):.1f}" for part in zip(*times[name], strict=True)]
    cells += [f"{ratio:.2f}x", f"{peaks['plain']:.1f}", f"{peaks['ours']:.1f}", f"{float(difference.abs().max()):.0e}"]
    cells += [f"{float(difference.mean().abs()):.0e}", f"{of_gradients:.0e}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{FEATURES} features, {LEVELS} levels, fp32, 1 thread, seed 0, medians of {arguments.rounds} alternating "
        f"rounds in CPU ms; torch {torch.__version__}, Python {platform.python_version()}, "
        f"{torch.backends.cpu.get_cpu_capability()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| images | components | plain forward | backward | ours forward | backward | ratio ", end="")
    print("| plain MiB | ours MiB | log-mass | mean | gradient |\n|---|" + 11 * "---:|")
    for size in SIZES:
        for mixtures in MIXTURES:
            print(row(size, mixtures, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()
