"""The k-means start of a codebook: processor seconds and memory against the number of codes.

    python benchmarks/speed/kmeans_start.py

Per K, as many random vectors of 64 channels as a training encodes for its start (`vectors_wanted`), one thread, medians
of the rounds. Peak memory is the growth of the process's resident set over one start, in a process of its own.
`--all-vectors` shows k-means 64 vectors per code in one block, which is quadratic in K: what the blocks are there for.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from stage1_vqvae.quantiser import kmeans as module
from stage1_vqvae.quantiser.kmeans import kmeans, vectors_wanted

WIDTH = 64
SIZES = (512, 1024, 2048, 4096, 8192)


def vectors(codes: int, *, everything: bool) -> Tensor:
    """`[N, D]` normal vectors."""
    count = 64 * codes if everything else vectors_wanted(codes)
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0))


def start(codes: int, vectors_ND: Tensor) -> float:
    """Processor seconds of one start."""
    began = time.process_time()
    kmeans(vectors_ND, clusters=codes, generator=torch.Generator().manual_seed(0))
    return time.process_time() - began


def status_kib(field: str) -> int:
    """A size of this process as Linux tells it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def peak_mib(codes: int, *, everything: bool) -> float:
    """Growth of the resident set over one start, in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", str(codes), *(["--all-vectors"] if everything else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--all-vectors", action="store_true")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.all_vectors:
        module.BLOCK = 2**62
    if options.peak_of:
        vectors_ND = vectors(options.peak_of, everything=options.all_vectors)
        before = status_kib("VmRSS:")
        Path("/proc/self/clear_refs").write_text("5")
        start(options.peak_of, vectors_ND)
        print((status_kib("VmHWM:") - before) / 1024)
        return
    print(f"D = {WIDTH}, fp32, one thread, medians of {options.rounds} rounds; torch {torch.__version__}, ", end="")
    print(f"Python {platform.python_version()}, {torch.backends.cpu.get_cpu_capability()}\n")
    print("| K | vectors | CPU s | ms per code | peak MiB |")
    print("|---:|---:|---:|---:|---:|")
    for codes in options.sizes:
        vectors_ND = vectors(codes, everything=options.all_vectors)
        seconds = statistics.median(start(codes, vectors_ND) for _ in range(options.rounds))
        peak = peak_mib(codes, everything=options.all_vectors)
        print(
            f"| {codes} | {len(vectors_ND):,} | {seconds:.2f} | {1e3 * seconds / codes:.2f} | {peak:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
