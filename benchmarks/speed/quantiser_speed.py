"""Forward plus EMA update with revival of `VectorQuantiser` against `vector-quantize-pytorch`: time and peak memory.

    pip install vector-quantize-pytorch
    python benchmarks/speed/quantiser_speed.py

Both sides get the same codebook and the same N encoder outputs with gradient, and must choose the same codes. One round
is forward and codebook update in training mode, without backward; the sides alternate. Settings of the other side: EMA
decay 0.99, commitment weight 0.25, dead-code threshold at the same share of the tokens expected per code, no k-means,
everything else its default; its forward includes the update. Peak memory is the growth of the process's resident set
over one round, in a fresh process per side and size.
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


def ours(codes: int, width: int) -> Callable[[], Tensor]:
    """One round of this project's quantiser; returns the codes `[N]`."""
    codebook_KD, z_ND = data(codes, width)
    quantiser = VectorQuantiser(codebook_size=codes, embedding_dim=width, revival_threshold=REVIVAL_SHARE)
    quantiser.codebook.copy_(codebook_KD[None])
    quantiser.usage.fill_(1 / codes)
    quantiser.sums.copy_(quantiser.codebook / codes)
    quantiser.weight.fill_(1.0)
    z_BDS = z_ND.reshape(16, -1, width).movedim(2, 1).contiguous().requires_grad_()

    def one_round() -> Tensor:
        quantised = quantiser(z_BDS)
        assert quantised.statistics is not None
        quantiser.update(quantised.statistics)
        return quantised.codes.flatten()

    return one_round


def theirs(codes: int, width: int) -> Callable[[], Tensor]:
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
    )
    inner = quantiser._codebook
    inner.embed.data.copy_(codebook_KD[None])
    inner.embed_avg.data.copy_(codebook_KD[None] * expected)
    inner.cluster_size.data.fill_(expected)
    z_BND = z_ND.reshape(16, -1, width).contiguous().requires_grad_()
    return lambda: quantiser(z_BND)[1].flatten()


SIDES = {"ours": ours, "theirs": theirs}


def peak_mib(side: str, codes: int, width: int) -> float:
    """Growth of the resident set over one round, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", side, str(codes), str(width)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _status_kib(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def print_peak(side: str, codes: int, width: int) -> None:
    """Reset the high-water mark (Linux), run one round, print by how much it rose above what was resident."""
    one_round = SIDES[side](codes, width)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kib("VmRSS:")
    one_round()
    print((_status_kib("VmHWM:") - before) / 1024)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-of", nargs=3, metavar=("SIDE", "K", "D"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        side, codes, width = arguments.peak_of
        return print_peak(side, int(codes), int(width))
    print(
        f"N = {TOKENS}, fp32, {arguments.threads} thread(s), medians of {arguments.rounds} alternating rounds; torch "
        f"{torch.__version__}, vector-quantize-pytorch {version('vector-quantize-pytorch')}, Python "
        f"{platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
    )
    print("| K | D | ours ms | theirs ms | ratio | ours MiB | theirs MiB | share | same codes |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---|")
    ratios = []
    for codes, width in SIZES:
        rounds = {name: side(codes, width) for name, side in SIDES.items()}
        same = bool((rounds["ours"]() == rounds["theirs"]()).all())
        times: dict[str, list[float]] = {name: [] for name in SIDES}
        for _ in range(arguments.rounds):
            for name, one_round in rounds.items():
                start = time.perf_counter()
                one_round()
                times[name].append(1e3 * (time.perf_counter() - start))
        mine, other = statistics.median(times["ours"]), statistics.median(times["theirs"])
        ratios.append(other / mine)
        memory = {name: peak_mib(name, codes, width) for name in SIDES}
        print(
            f"| {codes} | {width} | {mine:.1f} | {other:.1f} | {other / mine:.1f}x | {memory['ours']:.0f} | "
            f"{memory['theirs']:.0f} | {memory['ours'] / memory['theirs']:.2f} | {'yes' if same else 'no'} |"
        )
    print(f"\nGeometric mean of the ratios: {math.prod(ratios) ** (1 / len(ratios)):.1f}x")


if __name__ == "__main__":
    main()
