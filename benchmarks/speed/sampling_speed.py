"""Cached sampling from the gated PixelCNN against one full forward per code, on one CPU thread.

    python benchmarks/speed/sampling_speed.py --layers 15 --channels 64 --codebook-size 512 --grid 32 32 --batch 1 16

Per batch size, rounds of the two sides alternate, so that a noisy machine disturbs both. The cached side draws complete
grids. The full-forward side would take many minutes: it is measured at `--positions` codes per round, each one forward
over the whole grid plus the same draw, and taken as the cost of every code, which is fair because a forward costs the
same at every position. Medians over the rounds. The last column is the largest difference between the logits of the
cached walk and of one forward over the codes that were drawn.
"""

import argparse
import platform
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from stage2_prior import PixelCNN, sample
from twostage.categorical import draw


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    batch: int
    cached_ms_per_code: float  # per step of the whole batch
    full_ms_per_code: float
    largest_logit_difference: float


def measure(prior: PixelCNN, *, batch: int, rounds: int, positions: int) -> Result:
    """Time both sides in turn and compare their logits."""
    codes_per_item = torch.Size(prior.code_shape).numel()
    cached, full = [], []
    codes = sample(prior, count=batch, batch_size=batch)  # warm-up
    full_forward_codes(prior, codes, positions=1)
    for index in range(rounds):
        start = time.perf_counter()
        sample(prior, count=batch, batch_size=batch, seed=index)
        middle = time.perf_counter()
        full_forward_codes(prior, codes, positions=positions)
        cached.append((middle - start) / codes_per_item)
        full.append((time.perf_counter() - middle) / positions)
    return Result(
        batch=batch,
        cached_ms_per_code=1e3 * statistics.median(cached),
        full_ms_per_code=1e3 * statistics.median(full),
        largest_logit_difference=largest_logit_difference(prior, codes),
    )


@torch.no_grad()
def full_forward_codes(prior: PixelCNN, codes_BGHW: Tensor, *, positions: int) -> None:
    """Draw `positions` codes the slow way."""
    noise_B = torch.rand(len(codes_BGHW), dtype=torch.float64)
    for _ in range(positions):
        draw(prior(codes_BGHW)[:, -1, -1, -1], noise_B, temperature=1.0, top_k=0, top_p=1.0)


@torch.no_grad()
def largest_logit_difference(prior: PixelCNN, codes_BGHW: Tensor) -> float:
    """Largest absolute difference of any logit between `step` and `forward` over the given codes."""
    expected_BNK = prior(codes_BGHW).movedim(1, 3).flatten(1, 3)
    codes_BN = codes_BGHW.movedim(1, 3).flatten(1)
    state, largest = prior.initial_state(len(codes_BGHW)), 0.0
    for n in range(codes_BN.shape[1]):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None)
        largest = max(largest, (logits_BK - expected_BNK[:, n]).abs().max().item())
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=15)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--codebook-size", type=int, default=512)
    parser.add_argument("--codebooks", type=int, default=1)
    parser.add_argument("--grid", type=int, nargs=2, default=[32, 32], metavar=("H", "W"))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--positions", type=int, default=4, help="full forwards per round (the rest is extrapolated)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    prior = PixelCNN(
        codebook_size=arguments.codebook_size,
        grid=tuple(arguments.grid),
        codebooks=arguments.codebooks,
        channels=arguments.channels,
        layers=arguments.layers,
    ).eval()
    # An untrained head gives nearly equal logits whatever came before; larger weights make the comparison sharp.
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    print(
        f"Gated PixelCNN, {arguments.layers} layers x {arguments.channels} channels, K = {arguments.codebook_size}, "
        f"G = {arguments.codebooks}, grid {arguments.grid[0]}x{arguments.grid[1]}; torch {torch.__version__}, "
        f"1 thread, {platform.processor() or platform.machine()}; medians of {arguments.rounds} alternating rounds, "
        f"full forward from {arguments.positions} codes per round and extrapolated.\n"
    )
    print("| batch | cached, ms/code | full forward, ms/code | ratio | largest logit difference |")
    print("|---:|---:|---:|---:|---:|")
    for batch in arguments.batch:
        result = measure(prior, batch=batch, rounds=arguments.rounds, positions=arguments.positions)
        print(
            f"| {batch} | {result.cached_ms_per_code:.3f} | {result.full_ms_per_code:.1f} "
            f"| {result.full_ms_per_code / result.cached_ms_per_code:.0f}x | {result.largest_logit_difference:.1e} |"
        )


if __name__ == "__main__":
    main()
