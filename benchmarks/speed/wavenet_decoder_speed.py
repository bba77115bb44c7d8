"""Cached sampling from the WaveNet decoder against a forward over the receptive field per sample, on one CPU thread.

    python benchmarks/speed/wavenet_decoder_speed.py --blocks 2 --layers 9 --channels 64 --sample-rate 8000

The decoder is untrained; its cost does not depend on its weights. Per batch size, rounds of the two sides alternate, so
that a noisy machine disturbs both. The cached side draws whole sounds, those of a batch side by side. The other side
would take hours: it is measured at `--positions` samples per round and taken as the cost of every sample. Each of them
is what it takes to draw one sample without a cache: the stack over the samples that it depends on, then head and draw
at that sample alone; the first samples of a sound, which depend on fewer, would be cheaper. Medians over the rounds, by
the thread's CPU time (which other processes do not lengthen, but for the caches they share).

Samples per second count those of all sounds of a batch; the real-time factor is seconds of sound per second, of the
whole batch. The floor is the time that the multiplications of one step would take at the rate of a layer's own product,
the batch's taps with its weights, measured in the same rounds; the share of the floor is floor over CPU time.

A second table says where the time of a sample goes, and a third what a training step costs per sample, with fp32 and
with bf16 products.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stage1_vqvae import WaveNetDecoder
from stage1_vqvae.audio.wavenet_decoder import NEAREST
from twostage.layers.dilated_step import DilatedStackState

CODES_WIDTH = 64
"""Width of the codes' vectors."""


def cpu_seconds(call: Callable[[], object]) -> float:
    started = time.thread_time()
    call()
    return time.thread_time() - started


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    decoder = WaveNetDecoder(
        condition_channels=CODES_WIDTH,
        stride=arguments.stride,
        likelihood=arguments.likelihood,
        mixtures=arguments.mixtures,
        speakers=6,
        channels=arguments.channels,
        blocks=arguments.blocks,
        layers_per_block=arguments.layers,
        head_channels=arguments.head_channels,
    ).eval()
    parameters = sum(parameter.numel() for parameter in decoder.parameters())
    print(
        f"WaveNet decoder, {arguments.blocks} x {arguments.layers} dilations x {arguments.channels} channels, head "
        f"{arguments.head_channels}, {arguments.likelihood}, {arguments.stride} samples per code, receptive field "
        f"{decoder.receptive_field}, {parameters:,} parameters, {flop_per_sample(decoder) / 1e6:.2f} MFLOP per sample; "
        f"sounds of {arguments.samples} samples at {arguments.sample_rate} Hz; torch {torch.__version__}, 1 thread, "
        f"{platform.processor() or platform.machine()}; medians of {arguments.rounds} alternating rounds, forward over "
        f"the receptive field from {arguments.positions} samples per round and extrapolated.\n"
    )
    print(
        "| batch | cached, CPU ms/step | samples/s | real-time factor | forward per sample, CPU ms | ratio "
        "| share of the FLOP floor |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for batch in arguments.batch:
        print(sampling_line(decoder, batch, arguments), flush=True)
    print("\nWhere a step goes, CPU ms:\n")
    print("| batch | stack | embedding and head | draw |")
    print("|---:|---:|---:|---:|")
    for batch in arguments.batch:
        print(share_line(decoder, batch, arguments.samples, rounds=arguments.rounds), flush=True)
    print("\nTraining step (forward and backward), CPU microseconds per sample:\n")
    print("| segments | fp32 | bf16 |")
    print("|---:|---:|---:|")
    for items, samples in ((4, 1024), (8, 2048)):
        print(training_line(decoder, items=items, samples=samples, rounds=arguments.rounds), flush=True)


def sampling_line(decoder: WaveNetDecoder, batch: int, arguments: argparse.Namespace) -> str:
    """Time both sides in turn and write a line of the table."""
    samples, positions = arguments.samples, arguments.positions
    cached(decoder, batch, samples // 8)  # warm-up
    forward_per_sample(decoder, batch, positions=1)
    gates = torch.randn(batch, decoder.stack.layers[0].taps.in_features)
    weight = decoder.stack.layers[0].taps.weight.detach().T.contiguous()
    product_flop = 2 * gates.shape[0] * weight.numel()
    cached_rounds, forward_rounds, product_rounds = [], [], []
    for _ in range(arguments.rounds):
        cached_rounds.append(cpu_seconds(lambda: cached(decoder, batch, samples)) / samples)
        forward_rounds.append(cpu_seconds(lambda: forward_per_sample(decoder, batch, positions=positions)) / positions)
        product_rounds.append(cpu_seconds(lambda: [gates @ weight for _ in range(2000)]) / 2000)
    step, forward = statistics.median(cached_rounds), statistics.median(forward_rounds)
    flop_per_second = product_flop / statistics.median(product_rounds)
    floor = batch * flop_per_sample(decoder) / flop_per_second
    return (
        f"| {batch} | {1e3 * step:.3f} | {batch / step:.0f} | {batch / step / arguments.sample_rate:.2f} "
        f"| {1e3 * forward:.1f} | {forward / step:.0f}x | {floor / step:.0%} at {flop_per_second / 1e9:.0f} GFLOP/s |"
    )


def share_line(decoder: WaveNetDecoder, batch: int, samples: int, *, rounds: int) -> str:
    """The parts of a step, each timed alone for as many steps as a sound has samples."""
    codes = -(-samples // decoder.stride)
    condition_BFX = condition_of(decoder, batch, codes)
    embedded_BC = torch.randn(batch, decoder.stack.channels)
    features_B1H = torch.randn(batch, 1, decoder.hidden.out_features)
    nearest_B1N = torch.randn(batch, 1, NEAREST)
    sound_B1 = (torch.randn(batch, 1) * 2000).to(torch.int16)
    uniform_B1 = torch.rand(batch, 1, dtype=torch.float64)

    def stack() -> None:
        state = DilatedStackState(decoder.stack, batch_size=batch, condition_BFX=condition_BFX)
        for t in range(samples):
            state.advance(embedded_BC if t else None)

    @torch.no_grad()
    def embedding_and_head() -> Tensor:
        decoder._embed(sound_B1)
        decoder._scaled(sound_B1)
        return decoder._head(features_B1H, nearest_B1N)

    features_BL1 = embedding_and_head().transpose(1, 2)
    parts = (
        (stack, samples),
        (lambda: [embedding_and_head() for _ in range(samples)], samples),
        (lambda: [decoder.likelihood.draw(features_BL1, uniform_B1) for _ in range(samples)], samples),
    )
    medians = [statistics.median(cpu_seconds(call) / count for _ in range(rounds)) for call, count in parts]
    return f"| {batch} |" + "".join(f" {1e3 * median:.3f} |" for median in medians)


def training_line(decoder: WaveNetDecoder, *, items: int, samples: int, rounds: int) -> str:
    """Forward and backward of a batch of segments, in both precisions in turn."""
    samples_BS = (torch.randn(items, samples) * 2000).to(torch.int16)
    mask_BS = torch.ones_like(samples_BS, dtype=torch.bool)
    vectors_BDT, speaker_B = torch.randn(items, CODES_WIDTH, samples // decoder.stride), torch.arange(items) % 6

    def step(precise: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            loss = -decoder.log_prob(samples_BS, mask_BS, vectors_BDT, speaker_B).mean()
        loss.backward()
        decoder.zero_grad()

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for precise in (True, False):
        step(precise)  # warm-up
    for _ in range(rounds):
        for precise, results in seconds.items():
            results.append(cpu_seconds(lambda precise=precise: step(precise)) / (items * samples))
    fp32, bf16 = (1e6 * statistics.median(results) for results in seconds.values())
    return f"| {items} x {samples} | {fp32:.1f} | {bf16:.1f} |"


def condition_of(decoder: WaveNetDecoder, batch: int, codes: int) -> Tensor:
    """The condition of a batch of random codes."""
    inside_B1T = torch.ones(batch, 1, codes, dtype=torch.bool)
    with torch.no_grad():
        return decoder.condition(torch.randn(batch, CODES_WIDTH, codes), inside_B1T, torch.arange(batch) % 6)


def cached(decoder: WaveNetDecoder, batch: int, samples: int) -> Tensor:
    """Draw sounds of so many samples."""
    vectors_BDT = torch.randn(batch, CODES_WIDTH, -(-samples // decoder.stride))
    return decoder.sample(vectors_BDT, torch.full((batch,), samples), torch.arange(batch) % 6, seed=0)


@torch.no_grad()
def forward_per_sample(decoder: WaveNetDecoder, batch: int, *, positions: int) -> None:
    """Draw one sample `positions` times the slow way; the condition, which is the same for both sides, is not timed."""
    hold = decoder.stack.condition_hold
    vectors = -(-(decoder.receptive_field + 1) // hold)
    samples_BS = (torch.randn(batch, vectors * hold) * 2000).to(torch.int16)
    condition_BFX = torch.randn(batch, decoder.stack.condition_channels, vectors)
    uniform_B1 = torch.rand(batch, 1, dtype=torch.float64)
    for _ in range(positions):
        features_BHS = decoder.stack(decoder._embed(samples_BS).transpose(1, 2), condition_BFX=condition_BFX)
        nearest_B1N = decoder._scaled(samples_BS[:, None, -NEAREST - 1 : -1])
        features_BL1 = decoder._head(features_BHS[:, None, :, -1], nearest_B1N).transpose(1, 2)
        decoder.likelihood.draw(features_BL1, uniform_B1)


def flop_per_sample(decoder: WaveNetDecoder) -> int:
    """Two for each weight of a matrix that a sample multiplies; the condition is multiplied once per `hold` samples."""
    stack = sum(layer.taps.weight.numel() + layer.output.weight.numel() for layer in decoder.stack.layers)
    condition = sum(layer.condition.weight.numel() for layer in decoder.stack.layers) / decoder.stack.condition_hold
    head = [decoder.values, decoder.hidden, decoder.shape, decoder.likelihood]
    head += [] if decoder.coefficients is None else [decoder.coefficients]
    matrices = sum(weight.numel() for module in head for weight in module.parameters() if weight.dim() > 1)
    return int(2 * (stack + condition + matrices))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=9, help="per block")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--head-channels", type=int, default=64)
    parser.add_argument("--likelihood", choices=("logistic-mixture", "mu-law"), default="logistic-mixture")
    parser.add_argument("--mixtures", type=int, default=10)
    parser.add_argument("--stride", type=int, default=64, help="samples per code")
    parser.add_argument("--samples", type=int, default=2048, help="of a sound")
    parser.add_argument("--sample-rate", type=int, default=8000, metavar="HZ")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--positions", type=int, default=2, help="forwards per round (the rest is extrapolated)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
