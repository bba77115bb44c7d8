"""Seconds until `twostage --help` and every `twostage VERB --help` have answered, and whether they imported torch.

    python benchmarks/speed/start_up.py
    python benchmarks/speed/start_up.py --work        # verbs that do something, in CPU seconds

Each command runs as its own process, the commands in turn, `--rounds` times; medians. Imports are read from a further
run under `-X importtime`. With `--work` the models have the sizes of recipe `digits`, trained for two steps: to load
them and to sample takes as long as after a whole training. `import torch` alone stands beside.
"""

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VERBS = ("", "train", "train-codebook", "train-prior", "train-baseline", "evaluate", "report", "generate")
VERBS += ("reconstruct", "recipes", "doctor", "demo")
HEAVY = ("torch._dynamo", "sympy", "matplotlib")
SHORT = "--{0}.steps 2 --{0}.warmup-steps 0"


def seconds(command: list[str]) -> float:
    """Wall-clock time of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def cpu_seconds(command: list[str]) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(arguments: list[str]) -> set[str]:
    """Names of the modules that `python ARGUMENTS` imports."""
    command = [sys.executable, "-X", "importtime", *arguments]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return {line.rsplit("|", 1)[-1].strip() for line in report.splitlines()}


def work(rounds: int) -> None:
    """Print a Markdown table of the verbs that load or train a model."""
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        verb = ["-m", "twostage_pipelines"]
        codebook = [*verb, "train-codebook", "digits", *SHORT.format("codebook-training").split(), "--out"]
        prior = [*verb, "train-prior", run, *SHORT.format("prior-training").split()]
        baseline = [*verb, "train-baseline", run, *SHORT.format("baseline-training").split()]
        for arguments in ([*codebook, run], prior, baseline):
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        commands = {
            "import torch": ["-c", "import torch"],
            "twostage generate RUN --count 64": [*verb, "generate", run, "--count", "64"],
            "twostage generate RUN --model vae --count 64": [*verb, "generate", run, "--model", "vae", "--count", "64"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):  # the first round warms the disk cache and is dropped
            for name, arguments in commands.items():
                times[name].append(cpu_seconds([sys.executable, *arguments]))
        commands["twostage train-codebook digits"] = [*codebook, f"{folder}/other"]
        print("| command | CPU seconds | imports |\n|---|---:|---|")
        for name, arguments in commands.items():
            seconds = f"{statistics.median(times[name][1:]):.2f}" if name in times else "-"
            found = imported(arguments)
            print(f"| {name} | {seconds} | {', '.join(m for m in HEAVY if m in found) or 'none of these'} |")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", action="store_true", help="verbs that do something instead of --help")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    if arguments.work:
        print(f"Python {platform.python_version()}, {rounds} rounds, medians, load {os.getloadavg()[0]:.1f}\n")
        work(rounds)
        return
    program = str(Path(sys.executable).with_name("twostage"))
    commands = {verb: [*([verb] if verb else []), "--help"] for verb in VERBS}
    times: dict[str, list[float]] = {verb: [] for verb in VERBS}
    for _ in range(rounds + 1):  # the first round warms the disk cache and is dropped
        for verb, words in commands.items():
            times[verb].append(seconds([program, *words]))
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}, {rounds} rounds, medians\n")
    print("| command | seconds | imports torch |\n|---|---:|---|")
    for verb, words in commands.items():
        torch = "yes" if "torch" in imported(["-m", "twostage_pipelines", *words]) else "no"
        print(f"| twostage {' '.join(words)} | {statistics.median(times[verb][1:]):.3f} | {torch} |")


if __name__ == "__main__":
    main()
