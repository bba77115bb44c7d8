"""What `precision` costs on this CPU and on those that it can be made to be: steps of recipe `mnist`, stage one.

    python benchmarks/speed/precision.py --data FOLDER

FOLDER holds the official MNIST files. ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY keep torch from instructions that the
processor has: AVX512_CORE emulates bf16 by AVX-512, and AVX2 is a common processor without AVX-512. Every row is
a process of its own, in which trainings in fp32, auto and bf16-forced take steps in turn; medians of the CPU time of a
step on one thread, which other programs disturb little. The first steps, which compile kernels, do not count.

The cost is what `auto` goes by and a refusal quotes (`twostage.training.precision.cpu_cost`), measured anew several
times.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from training_step import our_training

from twostage.config.load import load_recipe
from twostage.data import load_dataset
from twostage.training.precision import Setting, cpu_cost

CPUS: dict[str, dict[str, str]] = {
    "as it is": {},
    "AVX-512 without bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
SETTINGS = [setting for setting in get_args(Setting) if setting != "bf16"]  # which is refused or the same
UNCOUNTED, COSTS = 2, 5


def measure(data: str, steps: int) -> dict[str, Any]:
    """Costs, what `auto` chose, and CPU seconds of a step under every setting, in this process."""
    torch.set_num_threads(1)
    costs = [cpu_cost(), *(cpu_cost.__wrapped__() for _ in range(COSTS - 1))]
    dataset = load_dataset(replace(load_recipe("mnist").data, path=data))
    with tempfile.TemporaryDirectory() as folder:
        fits = {setting: our_training(dataset, Path(folder), setting)[0] for setting in SETTINGS}
        seconds: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(UNCOUNTED + steps):
            for setting, fit in fits.items():
                start = time.process_time()
                fit.train_step()
                seconds[setting].append(time.process_time() - start)
        chosen = fits["auto"].budget.precision
    return {"costs": costs, "chosen": chosen, "seconds": {key: value[UNCOUNTED:] for key, value in seconds.items()}}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with the MNIST files")
    parser.add_argument("--steps", type=int, default=20, help="counted steps under every setting")
    parser.add_argument("--here", action="store_true", help="measure in this process only, and print JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(measure(arguments.data, arguments.steps)))
        return
    print(f"torch {torch.__version__}, 1 thread, {arguments.steps} steps a setting, load {os.getloadavg()[0]:.1f}\n")
    print(f"| CPU | cost of bf16, {COSTS} times | auto is | {' | '.join(f'{key}, ms' for key in SETTINGS)} |")
    print(f"|---|---:|---|{'---:|' * len(SETTINGS)}")
    for name, variables in CPUS.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--here"]
        done = subprocess.run(command, env={**os.environ, **variables}, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        medians = [f"{1e3 * statistics.median(found['seconds'][setting]):.0f}" for setting in SETTINGS]
        span = f"{min(found['costs']):.2f} to {max(found['costs']):.2f}"
        print(f"| {name} | {span} | {found['chosen']} | {' | '.join(medians)} |", flush=True)


if __name__ == "__main__":
    main()
