"""Cached sampling from the WaveNet prior against a forward over the receptive field per code, on one CPU thread.

    python benchmarks/speed/wavenet_speed.py --blocks 2 --layers 10 --channels 64 --codebook-size 512 --length 2048

Per batch size, rounds of the two sides alternate, so that a noisy machine disturbs both. The cached side draws
complete sequences. The other side would take minutes to hours: it is measured at `--positions` codes per round and
taken as the cost of every code. Each of them is a forward of the stack over the codes that the next one can depend on,
the head at the last position alone, and the same draw; early codes of a sequence, which see less, would be cheaper.
Medians over the rounds, by the thread's CPU time (which other processes do not lengthen, but for the caches they share)
and by the wall.

The floor is the time that the multiplications of one step would take at the rate of a product of two 512 x 512
matrices, measured in the same rounds; the share of the floor is floor over CPU time. The largest difference is between
the logits of the cached walk and of one forward over the codes that were drawn. A second table has the cost per code,
cached, for sequences of other lengths.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_prior import WaveNet, sample_sequences
from twostage.categorical import draw


@dataclass(frozen=True)
class Seconds:
    """What one call took."""

    cpu: float
    wall: float


def timed(call: Callable[[], object]) -> Seconds:
    cpu, wall = time.thread_time(), time.perf_counter()
    call()
    return Seconds(cpu=time.thread_time() - cpu, wall=time.perf_counter() - wall)


def median_ms(rounds: list[Seconds], *, per: int) -> Seconds:
    """Medians in milliseconds, divided by `per`."""
    return Seconds(
        cpu=1e3 * statistics.median(seconds.cpu for seconds in rounds) / per,
        wall=1e3 * statistics.median(seconds.wall for seconds in rounds) / per,
    )


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(1)
    settings = {
        "codebook_size": arguments.codebook_size,
        "codebooks": arguments.codebooks,
        "channels": arguments.channels,
        "blocks": arguments.blocks,
        "layers_per_block": arguments.layers,
    }
    prior = sharp_prior(max_length=arguments.length, **settings)
    print(
        f"WaveNet prior, {arguments.blocks} x {arguments.layers} dilations x {arguments.channels} channels, "
        f"K = {arguments.codebook_size}, G = {arguments.codebooks}, T = {arguments.length}, receptive field "
        f"{prior.stack.receptive_field}; torch {torch.__version__}, 1 thread, "
        f"{platform.processor() or platform.machine()}; medians of {arguments.rounds} alternating rounds, forward over "
        f"the receptive field from {arguments.positions} codes per round and extrapolated.\n"
    )
    print(
        "| batch | cached, CPU ms/code | forward per code, CPU ms | ratio, CPU | ratio, wall | share of the FLOP floor "
        "| largest logit difference |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for batch in arguments.batch:
        print(ratio_line(prior, batch=batch, rounds=arguments.rounds, positions=arguments.positions), flush=True)
    print("\nCached, CPU ms per code against the length of the sequences (the making of the state included):\n")
    print("| batch |" + "".join(f" T = {length} |" for length in arguments.lengths))
    print("|---:|" + "---:|" * len(arguments.lengths))
    priors = [sharp_prior(max_length=length, **settings) for length in arguments.lengths]
    for batch in arguments.batch:
        print(length_line(priors, batch=batch, rounds=arguments.rounds), flush=True)


def ratio_line(prior: WaveNet, *, batch: int, rounds: int, positions: int) -> str:
    """Time both sides in turn, compare their logits, and write a line of the table."""
    codebooks, length = prior.code_shape
    codes_BGT = cached(prior, batch=batch)  # warm-up
    forward_per_code(prior, codes_BGT, positions=1)
    square = torch.randn(512, 512)
    cached_rounds, forward_rounds, product_rounds = [], [], []
    for _ in range(rounds):
        cached_rounds.append(timed(lambda: cached(prior, batch=batch)))
        forward_rounds.append(timed(lambda: forward_per_code(prior, codes_BGT, positions=positions)))
        product_rounds.append(timed(lambda: [square @ square for _ in range(20)]))
    fast = median_ms(cached_rounds, per=length * codebooks)
    slow = median_ms(forward_rounds, per=positions)
    flop_per_ms = 2 * 512**3 / median_ms(product_rounds, per=20).cpu
    floor_ms = batch * flop_per_position(prior) / codebooks / flop_per_ms
    return (
        f"| {batch} | {fast.cpu:.3f} | {slow.cpu:.1f} | {slow.cpu / fast.cpu:.0f}x | {slow.wall / fast.wall:.0f}x "
        f"| {floor_ms / fast.cpu:.0%} at {flop_per_ms / 1e6:.0f} GFLOP/s "
        f"| {largest_logit_difference(prior, codes_BGT):.1e} |"
    )


def length_line(priors: list[WaveNet], *, batch: int, rounds: int) -> str:
    """Time all lengths in turn, and write a line of the table."""

    def once(prior: WaveNet) -> Seconds:
        return timed(lambda: cached(prior, batch=batch))

    rounds_by_prior = zip(*([once(prior) for prior in priors] for _ in range(rounds)), strict=True)
    costs = [
        median_ms(list(seconds), per=torch.Size(prior.code_shape).numel()).cpu
        for prior, seconds in zip(priors, rounds_by_prior, strict=True)
    ]
    return f"| {batch} |" + "".join(f" {cost:.3f} |" for cost in costs)


def sharp_prior(**settings: int) -> WaveNet:
    """An untrained head gives nearly equal logits whatever came before; larger weights make the comparison sharp."""
    torch.manual_seed(0)
    prior = WaveNet(**settings).eval()
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    return prior


def cached(prior: WaveNet, *, batch: int) -> Tensor:
    """Draw whole sequences of the greatest length."""
    return sample_sequences(prior, count=batch, batch_size=batch, length=prior.max_length).codes_BGT


@torch.no_grad()
def forward_per_code(prior: WaveNet, codes_BGT: Tensor, *, positions: int) -> None:
    """Draw the last position's codes `positions` times the slow way."""
    noise_B = torch.rand(len(codes_BGT), dtype=torch.float64)
    window_BGT = codes_BGT[:, :, -prior.stack.receptive_field :]
    for _ in range(positions):
        x_BCT = prior.embedding(window_BGT + prior.offset_G[:, None]).sum(dim=1).transpose(1, 2)
        features_BST = prior.stack(F.pad(x_BCT, (0, 1)))
        logits_BGTK = prior.head(features_BST[:, :, None, -1:], codes_BGT[:, :, None, -1:])
        draw(logits_BGTK[:, -1, 0, -1], noise_B, temperature=1.0, top_k=0, top_p=1.0)


@torch.no_grad()
def largest_logit_difference(prior: WaveNet, codes_BGT: Tensor) -> float:
    """Largest absolute difference of any logit between `step` and `forward` over the given codes."""
    expected_BNK = prior(codes_BGT)[0].transpose(1, 2).flatten(1, 2)
    codes_BN = codes_BGT.transpose(1, 2).flatten(1)
    state, largest = prior.initial_state(len(codes_BGT)), 0.0
    for n in range(codes_BN.shape[1]):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None)
        largest = max(largest, (logits_BK - expected_BNK[:, n]).abs().max().item())
    return largest


def flop_per_position(prior: WaveNet) -> int:
    """Two for each weight of a matrix that a position multiplies: all of stack and head."""
    weights = [*prior.stack.parameters(), *prior.head.parameters()]
    embedded = prior.head.embedding.weight.numel() if prior.code_shape[0] > 1 else 0
    return 2 * (sum(weight.numel() for weight in weights if weight.dim() > 1) - embedded)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=10, help="per block")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--codebook-size", type=int, default=512)
    parser.add_argument("--codebooks", type=int, default=1)
    parser.add_argument("--length", type=int, default=2048, metavar="T")
    parser.add_argument("--lengths", type=int, nargs="*", default=[256, 1024, 4096], help="of the second table")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--positions", type=int, default=2, help="forwards per round (the rest is extrapolated)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
