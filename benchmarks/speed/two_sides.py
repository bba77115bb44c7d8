"""Two ways to compute the same log-masses, alternating: processor time, memory and differences, as a row of a table.

Shared by `mixture_speed.py` and `softmax_speed.py`, whose docstrings say what the columns are.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from twostage.training.live_bytes import LiveBytes

Side = Callable[[], Tensor]


def timed(side: Side, inputs: Sequence[Tensor]) -> tuple[float, float]:
    """Processor milliseconds forward and backward."""
    start = time.process_time()
    log_prob = side()
    middle = time.process_time()
    torch.autograd.grad(log_prob.mean(), inputs)
    return 1e3 * (middle - start), 1e3 * (time.process_time() - middle)


def peak_mib(side: Side, inputs: Sequence[Tensor]) -> float:
    """Most memory that tensors made in one forward and backward pass take at a time."""
    with LiveBytes() as live:
        torch.autograd.grad(side().mean(), inputs)
    return live.peak / 2**20


def row(first_cells: Sequence[str], sides: dict[str, Side], inputs: Sequence[Tensor], rounds: int) -> str:
    """A Markdown row of the sides `ours` and `plain`; a first round is not counted."""
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
    cells = list(first_cells)
    for name in ("plain", "ours"):
        cells += [f"{statistics.median(part):.1f}" for part in zip(*times[name], strict=True)]
    cells += [f"{ratio:.2f}x", f"{peaks['plain']:.1f}", f"{peaks['ours']:.1f}", f"{float(difference.abs().max()):.0e}"]
    cells += [f"{float(difference.mean().abs()):.0e}", f"{of_gradients:.0e}"]
    return "| " + " | ".join(cells) + " |"


def begin(description: str | None, *, about: str, column: str, rounds: int) -> int:
    """Read the command line, print the head of the table and return how many rounds are asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    asked: int = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(
        f"{about}, fp32, 1 thread, seed 0, medians of {asked} alternating rounds in CPU ms; torch {torch.__version__}, "
        f"Python {platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}, load "
        f"{os.getloadavg()[0]:.1f}\n"
    )
    print(f"| images | {column} | plain forward | backward | ours forward | backward | ratio ", end="")
    print("| plain MiB | ours MiB | log-mass | mean | gradient |\n|---|" + 11 * "---:|")
    return asked
