"""`VectorQuantiser` against `vector-quantize-pytorch` and against the bare matrix product: processor time and memory.

    pip install --target SOMEWHERE vector-quantize-pytorch
    PYTHONPATH=SOMEWHERE python benchmarks/speed/quantiser_speed.py

Both sides get the same codebook and the same N encoder outputs with gradient, must choose the same codes, and compute
the same gradient: straight-through against straight-through, rotation against rotation, set explicitly on both. One
round is forward and codebook update (EMA with revival) in training mode; of "with backward" also the gradient of the
sum of the vectors and of the commitment term. The sides alternate. Settings of the other side: EMA decay 0.99,
commitment weight 0.25, dead-code threshold at the same share of the tokens expected per code, no k-means, everything
else its default; its forward includes the update.

The product is N x D times D x K, all that an exact search cannot do without, written into memory that is there already.
Its share is its time over that of a round without backward. Times are processor seconds, which other programs disturb
less than they do the clock. Peak memory is the growth of the process's resident set over one round without backward, in
a fresh process per side and size.
"""

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from stage1_vqvae import VectorQuantiser

TOKENS = 16_384
SIZES = tuple((codes, width) for codes in (512, 8192) for width in (64, 256))
REVIVAL_SHARE = 0.03


def data(codes: int, width: int) -> tuple[Tensor, Tensor]:
    """Codebook `[K, D]` and encoder outputs `[N, D]` scattered around its vectors."""
    generator = torch.Generator().manual_seed(0)
    codebook_KD = torch.randn(codes, width, generator=generator)
    chosen_N = torch.randint(codes, (TOKENS,), generator=generator)
    return codebook_KD, codebook_KD[chosen_N] + 0.3 * torch.randn(TOKENS, width, generator=generator)


def ours(codes: int, width: int, gradient: str, *, backward: bool = False) -> Callable[[], Tensor]:
    """One round of this project's quantiser; returns the codes `[N]`."""
    codebook_KD, z_ND = data(codes, width)
    quantiser = VectorQuantiser(
        codebook_size=codes, embedding_dim=width, revival_threshold=REVIVAL_SHARE, gradient=cast(Any, gradient)
    )
    quantiser.codebook.copy_(codebook_KD[None])
    quantiser.usage.fill_(1 / codes)
    quantiser.sums.copy_(quantiser.codebook / codes)
    quantiser.weight.fill_(1.0)
    z_BDS = z_ND.reshape(16, -1, width).movedim(2, 1).contiguous().requires_grad_()

    def one_round() -> Tensor:
        z_BDS.grad = None
        quantised = quantiser(z_BDS)
        if backward:
            (quantised.vectors.sum() + quantiser.loss(quantised)).backward()
        assert quantised.statistics is not None
        quantiser.update(quantised.statistics)
        return quantised.codes.flatten()

    return one_round


def theirs(codes: int, width: int, gradient: str, *, backward: bool = False) -> Callable[[], Tensor]:
    """One round of vector-quantize-pytorch; returns the codes `[N]`."""
    from vector_quantize_pytorch import VectorQuantize

    codebook_KD, z_ND = data(codes, width)
    expected = TOKENS / codes
    quantiser = VectorQuantize(
        dim=width,
        codebook_size=codes,
        decay=0.99,
        commitment_weight=0.25,
        threshold_ema_dead_code=REVIVAL_SHARE * expected,
        rotation_trick=gradient == "rotation",
    )
    inner = quantiser._codebook
    inner.embed.data.copy_(codebook_KD[None])
    inner.embed_avg.data.copy_(codebook_KD[None] * expected)
    inner.cluster_size.data.fill_(expected)
    z_BND = z_ND.reshape(16, -1, width).contiguous().requires_grad_()

    def one_round() -> Tensor:
        z_BND.grad = None
        vectors, indices, loss = quantiser(z_BND)
        if backward:
            (vectors.sum() + loss.sum()).backward()
        return cast(Tensor, indices).flatten()

    return one_round


SIDES = {"ours": ours, "theirs": theirs}
GRADIENTS = ("straight-through", "rotation")


def product(codes: int, width: int) -> Callable[[], Tensor]:
    """The matrix product alone."""
    codebook_KD, z_ND = data(codes, width)
    scores_NK = torch.empty(TOKENS, codes)
    return lambda: torch.mm(z_ND, codebook_KD.t(), out=scores_NK)


def milliseconds(rounds: dict[str, Callable[[], Tensor]], count: int) -> dict[str, float]:
    """Median processor time of each, in turn; one round before they count."""
    times: dict[str, list[float]] = {name: [] for name in rounds}
    for number in range(count + 1):
        for name, one_round in rounds.items():
            start = time.process_time()
            one_round()
            if number:
                times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_mib(side: str, codes: int, width: int, gradient: str) -> float:
    """Growth of the resident set over one round, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", side, str(codes), str(width), gradient]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _status_kib(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def print_peak(side: str, codes: int, width: int, gradient: str) -> None:
    """Reset the high-water mark (Linux), run one round, print by how much it rose above what was resident."""
    one_round = SIDES[side](codes, width, gradient)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kib("VmRSS:")
    one_round()
    print((_status_kib("VmHWM:") - before) / 1024)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-of", nargs=4, metavar=("SIDE", "K", "D", "GRADIENT"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--alone", action="store_true", help="only ours beside the product, which no other side disturbs"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        return print_alone(arguments.rounds)
    if arguments.peak_of:
        side, codes, width, gradient = arguments.peak_of
        return print_peak(side, int(codes), int(width), gradient)
    print(
        f"N = {TOKENS}, fp32, {arguments.threads} thread(s), medians of {arguments.rounds} alternating rounds in CPU "
        f"ms; torch {torch.__version__}, vector-quantize-pytorch {version('vector-quantize-pytorch')}, Python "
        f"{platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print(
        "| gradient | K | D | product | ours | share | theirs | ratio | with backward: ours | theirs | ratio ", end=""
    )
    print("| ours MiB | theirs MiB | same codes |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    ratios = []
    for gradient in GRADIENTS:
        for codes, width in SIZES:
            ratios.append(print_row(gradient, codes, width, arguments.rounds))
    print(f"\nGeometric mean of the ratios without backward: {math.prod(ratios) ** (1 / len(ratios)):.1f}x")


def print_alone(count: int) -> None:
    """Our rounds and the product in turn, at every size."""
    print(f"medians of {count} alternating rounds in CPU ms, load {os.getloadavg()[0]:.1f}\n")
    print("| gradient | K | D | product | ours | share |\n|---|---:|---:|---:|---:|---:|")
    for gradient in GRADIENTS:
        for codes, width in SIZES:
            found = milliseconds({"ours": ours(codes, width, gradient), "product": product(codes, width)}, count)
            share = found["product"] / found["ours"]
            print(f"| {gradient} | {codes} | {width} | {found['product']:.1f} | {found['ours']:.1f} | {share:.2f} |")


def print_row(gradient: str, codes: int, width: int, count: int) -> float:
    """One row of the table; returns the ratio of both sides' times without backward."""
    sides = {name: side(codes, width, gradient) for name, side in SIDES.items()}
    same = bool((sides["ours"]() == sides["theirs"]()).all())
    forward = milliseconds({**sides, "product": product(codes, width)}, count)
    both = milliseconds({name: side(codes, width, gradient, backward=True) for name, side in SIDES.items()}, count)
    memory = {name: peak_mib(name, codes, width, gradient) for name in SIDES}
    ratio = forward["theirs"] / forward["ours"]
    print(
        f"| {gradient} | {codes} | {width} | {forward['product']:.1f} | {forward['ours']:.1f} | "
        f"{forward['product'] / forward['ours']:.2f} | {forward['theirs']:.1f} | {ratio:.1f}x | {both['ours']:.1f} | "
        f"{both['theirs']:.1f} | {both['theirs'] / both['ours']:.1f}x | {memory['ours']:.0f} | "
        f"{memory['theirs']:.0f} | {'yes' if same else 'no'} |",
        flush=True,
    )
    return ratio


if __name__ == "__main__":
    main()
