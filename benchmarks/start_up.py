"""Seconds until `twostage --help` and every `twostage VERB --help` have answered, and whether they imported torch.

    python benchmarks/start_up.py

Each command runs as its own process, the commands in turn, `--rounds` times; medians. Imports are read from a further
run under `-X importtime`.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

VERBS = ("", "train", "train-codebook", "train-prior", "train-baseline", "evaluate", "report", "generate")
VERBS += ("reconstruct", "recipes", "doctor", "demo")


def seconds(command: list[str]) -> float:
    """Wall-clock time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def imports_torch(arguments: list[str]) -> bool:
    """Whether the command imported torch."""
    command = [sys.executable, "-X", "importtime", "-m", "twostage_pipelines", *arguments]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in report.splitlines())


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    program = str(Path(sys.executable).with_name("twostage"))
    commands = {verb: [*([verb] if verb else []), "--help"] for verb in VERBS}
    times: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for _ in range(rounds + 1):  # the first round warms the disk cache and is dropped
        for verb, arguments in commands.items():
            times[verb].append(seconds([program, *arguments]))
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}, {rounds} rounds, medians\n")
    print("| command | seconds | imports torch |\n|---|---:|---|")
    for verb, arguments in commands.items():
        torch = "yes" if imports_torch(arguments) else "no"
        print(f"| twostage {' '.join(arguments)} | {statistics.median(times[verb][1:]):.3f} | {torch} |")


if __name__ == "__main__":
    main()
