"""Quantiser comparison: every kind of quantiser at equal bits a position, equal networks and equal budgets.

    python benchmarks/studies/quantiser_comparison.py mnist --data FOLDER --out mnist.jsonl

Every training appends one JSON line to `--out`; what has a line there is not trained again, so that an interrupted
study goes on when the same command is run again. `quantiser_table.py` makes tables and the picture of the lines.

Networks are the recipe's with a plain decoder and half its widths; the prior is a small PixelCNN without labels. A
setting has 16, 128 or 1024 combinations of codes a position: of one codebook K itself, of two codebooks (`product`,
`residual`) 4, 11 or 32 codes in each, 11 x 11 = 121 being as near to 128 as equal codebooks come. Codes used and their
perplexity are those of the combinations, whatever the number of codebooks. A residual quantiser of four levels, whose
prefixes decode, stands beside them.

All numbers are of validation items, spread over the split: bits/dim of distortion and of rate (uniform, and under the
learned prior), PSNR of mean images, and the Fréchet distance of `--samples` decoded samples in the features of the
classifier of `evaluate`, where the data have labels.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from codebook_study import with_steps
from quantiser_trainings import Study

from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL
from twostage.config.quantiser import QuantiserConfig
from twostage.config.schema import PriorConfig, Recipe, TrainingConfig
from twostage.data import load_dataset
from twostage.errors import TwoStageError

WIDTH = 32
"""Channels at the bottleneck."""
PAIRS = {16: 4, 128: 11, 1024: 32}
"""Codes in each of two codebooks, by combinations."""
LEVELS = {16: (4, 4), 128: (8, 4, 4), 1024: (8, 8, 4, 4)}
PREFIXES = "residual, 4 levels of 16, dropout 0.5"


def quantiser_of(name: str, combinations: int) -> QuantiserConfig:
    """The setting of that name."""
    if name == PREFIXES:
        return QuantiserConfig(
            kind="residual", codebook_size=16, codebooks=4, quantiser_dropout=0.5, embedding_dim=WIDTH
        )
    single, pair = {"codebook_size": combinations}, {"codebook_size": PAIRS[combinations], "codebooks": 2}
    settings: dict[str, dict[str, Any]] = {
        "vq, EMA": single,
        "vq, loss": {**single, "update": "loss"},
        "vq, EMA, rotation": {**single, "gradient": "rotation"},
        "product, 2 parts": pair,
        "residual, 2 levels": {**pair, "kind": "residual"},
        "FSQ": {"kind": "fsq", "fsq_levels": LEVELS[combinations]},
        "FSQ, beta 0": {"kind": "fsq", "fsq_levels": LEVELS[combinations], "commitment_beta": 0.0},
        "cosine": {**single, "kind": "cosine", "code_dim": 8},
        "SimVQ": {**single, "kind": "simvq"},
        "vq, EMA, rate weight 0.03": {**single, "rate_weight": 0.03},
    }
    return QuantiserConfig(embedding_dim=WIDTH, **settings[name])


KINDS = (
    "vq, EMA", "vq, loss", "vq, EMA, rotation", "product, 2 parts", "residual, 2 levels", "FSQ", "FSQ, beta 0",
    "cosine", "SimVQ", "vq, EMA, rate weight 0.03",
)  # fmt: skip


def plan(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """(setting, combinations, seed), a seed after the other."""
    for seed in range(arguments.seeds):
        for size in arguments.sizes:
            yield from ((name, size, seed) for name in arguments.kinds if name != PREFIXES)
        if PREFIXES in arguments.kinds:
            yield PREFIXES, 16**4, seed


def lines(path: Path) -> list[dict[str, Any]]:
    """What has been measured so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def half_width(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    """The recipe with a plain decoder, half its widths, a small prior without labels, and the study's budgets."""

    def budget(training: TrainingConfig, steps: int) -> TrainingConfig:
        few = with_steps(training, steps)
        return replace(few, batch_size=arguments.batch_size, validate_every=steps, checkpoint_every=steps)

    networks = recipe.stage1
    return replace(
        recipe,
        threads=1,
        models=(MAIN_MODEL,),
        data=replace(recipe.data, path=arguments.data or recipe.data.path),
        stage1=replace(
            networks,
            channels=networks.channels // 2,
            residual_channels=networks.residual_channels // 2,
            autoregressive_layers=0,
        ),
        codebook_training=budget(recipe.codebook_training, arguments.steps),
        prior=PriorConfig(layers=6, channels=32, conditional=False),
        prior_training=budget(recipe.prior_training, arguments.prior_steps),
    )


def main() -> None:
    """Train what is missing, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file, of images")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--out", type=Path, default=Path("quantiser_comparison.jsonl"))
    parser.add_argument("--steps", type=int, default=1000, help="of stage one")
    parser.add_argument("--prior-steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16, help="of both")
    parser.add_argument("--validation-items", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=1000, help="of the Fréchet distance; 0: none")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, PREFIXES], default=[*KINDS, PREFIXES])
    parser.add_argument("--sizes", nargs="+", type=int, choices=list(PAIRS), default=[128, 16, 1024])
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        recipe = half_width(load_recipe(arguments.recipe), arguments)
        with redirect_stdout(sys.stderr):
            study = Study(recipe, load_dataset(recipe.data), arguments)
            for name, combinations, seed in plan(arguments):
                key = study.key(name, combinations, seed)
                if any(key.items() <= line.items() for line in lines(arguments.out)):
                    continue
                measured = study.measure(name, combinations, seed, quantiser_of(name, combinations))
                with arguments.out.open("a") as file:
                    file.write(json.dumps(asdict(measured)) + "\n")
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
