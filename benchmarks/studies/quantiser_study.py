"""Quantiser study: every kind of quantiser with as many bits a position, all else as in the recipe, on validation data.

    python benchmarks/studies/quantiser_study.py digits --steps 600 --prior-steps 400

All have 64 codes or combinations of codes a position, 6 bits, but for one that has the recipe's 12. Every setting and
seed is a run folder of its own under `--work`, with codebook, codes and prior; an interrupted study goes on where it
stopped when the same command is run again, and finished settings are only read. The table goes to stdout, everything
else to stderr: means over the seeds, and for the total their standard deviation.

Totals are distortion + rate of an exact two-part code with the learned prior; `used` counts the codes that occur in the
validation items, perplexity is that of their frequencies, the geometric mean over a position's codebooks.
"""

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from codebook_study import study, with_steps

from twostage.config.check import check_recipe
from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL
from twostage.config.quantiser import QuantiserConfig
from twostage.config.schema import Recipe
from twostage.data import load_dataset
from twostage.errors import TwoStageError
from twostage_pipelines.evaluate.rows import Row

SETTINGS: dict[str, QuantiserConfig] = {
    "vq, ema": QuantiserConfig(codebook_size=64),
    "vq, ema, 12 codes": QuantiserConfig(codebook_size=12),
    "vq, ema, rate weight 0.01": QuantiserConfig(codebook_size=64, rate_weight=0.01),
    "vq, ema, rate weight 0.03": QuantiserConfig(codebook_size=64, rate_weight=0.03),
    "vq, ema, rate weight 0.1": QuantiserConfig(codebook_size=64, rate_weight=0.1),
    "vq, loss": QuantiserConfig(codebook_size=64, update="loss"),
    "vq, ema, 2 parts": QuantiserConfig(codebook_size=8, codebooks=2),
    "residual, 2 levels": QuantiserConfig(kind="residual", codebook_size=8, codebooks=2),
    "residual, 2 levels, dropout 0.5": QuantiserConfig(
        kind="residual", codebook_size=8, codebooks=2, quantiser_dropout=0.5
    ),
    "fsq, 4 x 4 x 4": QuantiserConfig(kind="fsq", fsq_levels=(4, 4, 4)),
    "cosine, 8 channels": QuantiserConfig(kind="cosine", codebook_size=64, code_dim=8),
    "simvq": QuantiserConfig(kind="simvq", codebook_size=64),
}


def recipe_of(name: str, seed: int, arguments: argparse.Namespace) -> Recipe:
    """The recipe with that quantiser and the study's budgets; only the main model, nothing searched."""
    recipe: Recipe = arguments.recipe
    recipe = replace(
        recipe,
        name="".join(letter if letter.isalnum() else "-" for letter in f"{name}-seed{seed}"),
        seed=seed,
        threads=1,
        models=(MAIN_MODEL,),
        data=replace(recipe.data, path=arguments.data or recipe.data.path),
        quantiser=replace(SETTINGS[name], embedding_dim=recipe.quantiser.embedding_dim),
        codebook_training=with_steps(recipe.codebook_training, arguments.steps),
        prior_training=with_steps(recipe.prior_training, arguments.prior_steps),
        evaluation=replace(recipe.evaluation, search_items=0, frechet_samples=0),
    )
    check_recipe(recipe, source="quantiser study")
    return recipe


HEADINGS = (
    "quantiser", "used", "perplexity", "distortion", "rate, learned prior", "total", "± s.d.", "parameters", "s",
)  # fmt: skip


def line(name: str, rows: Sequence[Row]) -> str:
    """One line of the table, from the row of every seed."""
    totals = [row.bits_per_dim for row in rows if row.bits_per_dim is not None]
    used = statistics.mean(row.codebook_used or 0 for row in rows)
    cells = [name, f"{used:.1f} of {rows[0].codebook_size}"]
    cells.append(f"{statistics.mean(row.codebook_perplexity or 0.0 for row in rows):.1f}")
    cells.append(f"{statistics.mean(row.distortion_bits_per_dim or 0.0 for row in rows):.4f}")
    cells.append(f"{statistics.mean(row.rate_bits_per_dim or 0.0 for row in rows):.4f}")
    cells += [f"{statistics.mean(totals):.4f}", f"{statistics.stdev(totals):.4f}" if len(totals) > 1 else "-"]
    cells += [str(rows[0].parameters), f"{statistics.mean(row.train_seconds or 0.0 for row in rows):.0f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Train, score and print a Markdown table, a line as soon as all seeds of a setting are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file, of images")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--work", type=Path, default=Path("runs/quantiser-study"))
    parser.add_argument("--steps", type=int, default=600, help="of stage one")
    parser.add_argument("--prior-steps", type=int, default=400)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), metavar="SETTING")
    arguments = parser.parse_args()
    try:
        arguments.recipe = load_recipe(arguments.recipe)
        recipes = {name: [recipe_of(name, seed, arguments) for seed in arguments.seeds] for name in arguments.only}
        dataset = load_dataset(arguments.recipe.data)
        print(
            f"Recipe {arguments.recipe.name}, {arguments.steps} steps of stage one and {arguments.prior_steps} of the "
            f"prior, seeds {', '.join(map(str, arguments.seeds))}; {dataset.name}, validation set, "
            f"{len(dataset.validation)} items x {dataset.dims} dims, bits/dim; 1 thread, torch {torch.__version__}, "
            f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
        )
        print("| " + " | ".join(HEADINGS) + " |\n|---|" + "---:|" * (len(HEADINGS) - 1), flush=True)
        for name, of_seeds in recipes.items():
            found = [study(recipe.name, recipe, dataset, arguments.work) for recipe in of_seeds]
            rows = [next(row for row in evaluation.rows if row.prior == "learned") for evaluation in found]
            print(line(name, rows), flush=True)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
