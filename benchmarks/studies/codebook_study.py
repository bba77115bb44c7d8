"""Codebook study: update rule x start x revival x size, all else as in the recipe, scored on validation data.

    python benchmarks/studies/codebook_study.py mnist --data FOLDER --steps 2000 --prior-steps 1000

Every setting is a run folder of its own under `--work`, with codebook, codes and prior; an interrupted study goes on
where it stopped when the same command is run again, and finished settings are only read. To use several cores, start
one process per share (`--only 1/2` and `--only 2/2`), then once more without `--only` for the whole table. All settings
have the same seed, number of steps and validation items. The table goes to stdout, everything else to stderr.

Totals are distortion + rate of an exact two-part code; `used` counts the codes that occur in the validation items,
perplexity is that of their frequencies; seconds are those of codebook and prior training, validations included.
"""

import argparse
import itertools
import os
import platform
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from twostage.config.check import check_recipe
from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data import ImageDataset, load_dataset
from twostage.errors import TwoStageError
from twostage_pipelines.evaluate.evaluate import evaluate_run
from twostage_pipelines.evaluate.rows import Evaluation
from twostage_pipelines.runs.run import Run
from twostage_pipelines.runs.session import prepare
from twostage_pipelines.train.train import all_jobs, train_jobs


@dataclass(frozen=True)
class Setting:
    """One point of the grid."""

    update: Literal["ema", "loss"]
    init: Literal["kmeans", "random"]
    revival: float
    codebook_size: int

    @property
    def name(self) -> str:
        return f"{self.update}-{self.init}-revival{self.revival:g}-k{self.codebook_size}"


def share(text: str) -> tuple[int, int]:
    """`i/n` as numbers; argparse turns the error into a usage message."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, got {text!r}")
    return int(match[1]), int(match[2])


def with_steps(training: TrainingConfig, steps: int) -> TrainingConfig:
    """That budget with other steps; a warm-up longer than these is cut to them."""
    return replace(training, steps=steps, warmup_steps=min(training.warmup_steps, steps))


def recipe_of(setting: Setting, arguments: argparse.Namespace) -> Recipe:
    """The recipe with that codebook and the study's budgets; only the main model, nothing searched."""
    recipe: Recipe = arguments.recipe
    recipe = replace(
        recipe,
        name=setting.name,
        threads=1,
        models=(MAIN_MODEL,),
        data=replace(recipe.data, path=arguments.data or recipe.data.path),
        quantiser=replace(
            recipe.quantiser,
            update=setting.update,
            init=setting.init,
            revival_threshold=setting.revival,
            codebook_size=setting.codebook_size,
        ),
        codebook_training=with_steps(recipe.codebook_training, arguments.steps),
        prior_training=with_steps(recipe.prior_training, arguments.prior_steps),
        evaluation=replace(recipe.evaluation, search_items=0, frechet_samples=0),
    )
    check_recipe(recipe, source="codebook study")
    return recipe


def study(name: str, recipe: Recipe, dataset: ImageDataset, work: Path) -> Evaluation:
    """Train and score one setting, or read what is there; other steps than last time are refused by the run folder."""
    run = Run(path=work / name, recipe=recipe)
    jobs = all_jobs(run, dataset)
    with redirect_stdout(sys.stderr):
        session = prepare(run, dataset, jobs, device="cpu", resume="auto", dry_run=False)
        assert session is not None
        train_jobs(session, all_jobs(session.run, dataset))
        written = run.path / "evaluation-validation.json"
        if not written.is_file():
            evaluate_run(run, dataset, device=session.device, split="validation")
    return Evaluation.read(written)


HEADINGS = (
    "update", "init", "revival", "K", "used", "perplexity", "distortion", "rate, learned prior", "total", "± s.e.",
    "total, unigram prior", "seconds",
)  # fmt: skip


def row(setting: Setting, evaluation: Evaluation) -> str:
    """One line of the table."""
    rows = {row.prior: row for row in reversed(evaluation.rows)}
    learned, unigram = rows["learned"], rows["unigram"]
    bits = (learned.distortion_bits_per_dim, learned.rate_bits_per_dim, learned.bits_per_dim, learned.standard_error)
    cells = [setting.update, setting.init, f"{setting.revival:g}", str(setting.codebook_size)]
    cells += [str(learned.codebook_used), f"{learned.codebook_perplexity:.1f}"]
    cells += ["-" if value is None else f"{value:.4f}" for value in (*bits, unigram.bits_per_dim)]
    cells.append(f"{learned.train_seconds:.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Train, score and print a Markdown table, a line as soon as a setting is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--work", type=Path, default=Path("runs/codebook-study"))
    parser.add_argument("--steps", type=int, default=2000, help="of stage one")
    parser.add_argument("--prior-steps", type=int, default=1000)
    parser.add_argument("--updates", nargs="+", choices=["ema", "loss"], default=["ema", "loss"])
    parser.add_argument("--inits", nargs="+", choices=["kmeans", "random"], default=["kmeans", "random"])
    parser.add_argument("--revivals", nargs="+", type=float, default=[0.03, 0.0])
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--only", type=share, default=(1, 1), metavar="I/N", help="every N-th setting, from the I-th")
    arguments = parser.parse_args()
    grid = itertools.product(arguments.sizes, arguments.updates, arguments.inits, arguments.revivals)
    settings = [Setting(update, init, revival, size) for size, update, init, revival in grid]
    first, shares = arguments.only
    try:
        arguments.recipe = load_recipe(arguments.recipe)
        recipes = {setting: recipe_of(setting, arguments) for setting in settings[first - 1 :: shares]}
        dataset = load_dataset(next(iter(recipes.values())).data)
        print(
            f"Recipe {arguments.recipe.name}, {arguments.steps} steps of stage one and {arguments.prior_steps} of the "
            f"prior; {dataset.name}, validation set, {len(dataset.validation)} items x {dataset.dims} dims, bits/dim; "
            f"1 thread, torch {torch.__version__}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
        )
        print("| " + " | ".join(HEADINGS) + " |\n|---|---|" + "---:|" * (len(HEADINGS) - 2), flush=True)
        for setting, recipe in recipes.items():
            print(row(setting, study(setting.name, recipe, dataset, arguments.work)), flush=True)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
