"""What an autoencoder's latents cost and hide: length against overfitting, and how much hangs on the seed.

    python benchmarks/studies/autoencoder_study.py digits --lengths 1 2 4 8 16 32 64 --seeds 3

An autoencoder is trained for every length of its vector of latents and every seed, all else as in the recipe, and the
model that is best on validation data measured in bits/dim of distortion. Columns of the table, means over seeds: the
distortion of training and of validation images; the gap between them, which grows with the length where training images
are learned by heart; by how much the validation distortion rose again from its best to the last step; and how far the
latents of two seeds agree. For the latter the validation latents of one seed are predicted linearly from those of
another (R2, mean over latents), and position by position without a map (absolute correlation): reconstructions as good
come from latents that share no axis, which is why nothing can be read from a single one.
"""

import argparse
import itertools
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import torch

from stage1_vqvae.images.autoencoder import Autoencoder
from twostage.config.check import check_recipe
from twostage.config.load import load_recipe
from twostage.config.schema import Recipe
from twostage.data import ImageDataset, load_dataset
from twostage.data.images.dataset import Split
from twostage.errors import TwoStageError
from twostage.metrics.statistics import evenly
from twostage.training.record import read_metrics
from twostage_pipelines.evaluate.disentangle import latent_means
from twostage_pipelines.runs.run import Run
from twostage_pipelines.runs.session import prepare
from twostage_pipelines.train.train import all_jobs, train_jobs

CPU = torch.device("cpu")
MEASURED = 2000
"""Most images of each split that a distortion is measured on."""


def recipe_of(recipe: Recipe, *, length: int, seed: int, steps: int) -> Recipe:
    """The recipe with an autoencoder of that length alone."""
    training = recipe.baseline_training
    recipe = replace(
        recipe,
        threads=1,
        seed=seed,
        models=("ae",),
        gaussian=replace(recipe.gaussian, latent_dim=length, network="mlp", free_bits=0.0, kl_warmup_steps=0),
        baseline_training=replace(training, steps=steps, warmup_steps=min(training.warmup_steps, steps), patience=0),
    )
    check_recipe(recipe, source="autoencoder study")
    return recipe


def trained(recipe: Recipe, dataset: ImageDataset, folder: Path) -> tuple[Autoencoder, float]:
    """The best autoencoder of a recipe, and by how much its validation distortion rose after that."""
    run = Run(path=folder, recipe=recipe)
    session = prepare(run, dataset, all_jobs(run, dataset), device="cpu", resume="auto", dry_run=False)
    assert session is not None
    train_jobs(session, all_jobs(session.run, dataset))
    model = run.stage1("ae", CPU).model
    assert isinstance(model, Autoencoder)
    rows = read_metrics(run.stage1_folder("ae") / "metrics.jsonl")
    validated = [
        row["validation_distortion_bits_per_dim"] for row in rows if "validation_distortion_bits_per_dim" in row
    ]
    return model, validated[-1] - min(validated)


def distortion(model: Autoencoder, split: Split) -> float:
    """Mean bits/dim of at most `MEASURED` images, spread over the split."""
    images = torch.from_numpy(split.images[evenly(len(split), MEASURED)])
    nats = [model.log_prob(x_BCHW, model.encode(x_BCHW)).double() for x_BCHW in images.split(256)]
    return float(-torch.cat(nats).mean()) / model.dims / np.log(2)


def agreement(first_NZ: np.ndarray, second_NZ: np.ndarray) -> tuple[float, float]:
    """R2 of a linear map from one seed's latents to another's, and the mean |correlation| of equal positions."""
    inputs_N1 = np.column_stack([first_NZ, np.ones(len(first_NZ))])
    fitted_NZ = inputs_N1 @ np.linalg.lstsq(inputs_N1, second_NZ, rcond=None)[0]
    left_NZ, centred_NZ = second_NZ - fitted_NZ, second_NZ - second_NZ.mean(0)
    explained = 1 - (left_NZ**2).sum(0) / (centred_NZ**2).sum(0)
    other_NZ = first_NZ - first_NZ.mean(0)
    norms_Z = np.sqrt((other_NZ**2).sum(0) * (centred_NZ**2).sum(0))
    return float(explained.mean()), float(np.abs((other_NZ * centred_NZ).sum(0) / norms_Z).mean())


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def line(recipe: Recipe, dataset: ImageDataset, length: int, arguments: argparse.Namespace) -> str:
    """One row of the table: all seeds of a length."""
    train, validation, rises, latents = [], [], [], []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
            own = recipe_of(recipe, length=length, seed=seed, steps=arguments.steps)
            model, rise = trained(own, dataset, Path(folder) / "run")
            rises.append(rise)
            train.append(distortion(model, dataset.train))
            validation.append(distortion(model, dataset.validation))
            latents.append(
                latent_means(model, dataset.validation.images, device=CPU, batch_size=256).astype(np.float64)
            )
    gaps = [held - seen for held, seen in zip(validation, train, strict=True)]
    cells = [str(length), spread(train), spread(validation), spread(gaps), spread(rises)]
    pairs = [agreement(*pair) for pair in itertools.permutations(latents, 2)]
    cells += [f"{mean(values):.2f}" for values in zip(*pairs, strict=True)] if pairs else ["-", "-"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Train, measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--lengths", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    try:
        recipe = load_recipe(arguments.recipe)
        recipe = replace(recipe, data=replace(recipe.data, path=arguments.data or recipe.data.path))
        dataset = load_dataset(recipe.data)
        print(
            f"{dataset.name}, {len(dataset.train)} training and {len(dataset.validation)} validation images, MLP, "
            f"{arguments.steps} steps, {arguments.seeds} seeds; distortion in bits/dim, ± deviation over seeds\n"
        )
        print("| latents | training | validation | gap | rise after the best | R2 between seeds | same axis |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        for length in arguments.lengths:
            print(line(recipe, dataset, length, arguments), flush=True)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
