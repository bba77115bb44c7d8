"""Markdown of a run's evaluation, with what is needed to repeat it: command, commit, versions, machine, recipe.

    twostage train mnist --data.path FOLDER
    python benchmarks/studies/bits_per_dim.py runs/mnist > benchmarks/results/DATE_mnist_bits_per_dim.md

Nothing is measured here: the numbers are those of RUN/evaluation.json.
"""

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path

import torch

from twostage_pipelines.evaluate.rows import Evaluation
from twostage_pipelines.evaluate.sizes import ONE_TRAINING
from twostage_pipelines.evaluate.tables import difference_lines


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout.strip()


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder with evaluation.json")
    run = parser.parse_args().run
    evaluation = json.loads((run / "evaluation.json").read_text())
    print(f"# Bits/dim of recipe `{evaluation['recipe']}`\n")
    items = f"{evaluation['items']} items x {evaluation['dims']} dims"
    print(f"- data: {evaluation['dataset']}, {evaluation['split']} set, {items}")
    print(f"- commit {_commit()}; torch {torch.__version__}, Python {platform.python_version()}")
    print(f"- machine: {_processor()}, {os.cpu_count()} cores\n")
    columns = (
        "model", "codebook_update", "prior", "bound", "bits_per_dim", "standard_error", "distortion_bits_per_dim",
        "rate_bits_per_dim", "psnr_db", "codebook_used", "codebook_perplexity", "parameters", "steps", "train_seconds",
        "labels", "swapped_distortion_bits_per_dim", "search_items", "searched",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for row in evaluation["rows"]:
        print("| " + " | ".join(_cell(row[column]) for column in columns) + " |")
    differences = difference_lines(Evaluation.read(run / "evaluation.json"))
    for reference, lines in differences.items():
        print(f"\nAgainst {reference}, bits/dim more, paired standard error:\n")
        print("\n".join(f"- {line}" for line in lines))
    if differences:
        print(f"\n{ONE_TRAINING}")
    for score in evaluation.get("sample_scores", []):
        print("\nSamples: " + ", ".join(f"{key} {_cell(value)}" for key, value in score.items()))
    # Where the data lay is of no use elsewhere; their digest is in every checkpoint.
    lines = (run / "config.toml").read_text().strip().splitlines()
    recipe = "\n".join(line for line in lines if not line.startswith("path = "))
    print(f"\n## Recipe\n\n```toml\n{recipe}\n```")


if __name__ == "__main__":
    main()
