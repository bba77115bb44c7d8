"""Encoders and decoders of images against one another, at equal steps and at equal processor time.

    python benchmarks/studies/decoder_study.py images --data FOLDER --size 64 --steps 600 \\
        --variants upsampling=transposed upsampling=nearest-convolution

A variant is a list of settings of `[stage1]` with commas between, beside which the recipe's stand; all have the same
batches, schedule and k-means start. A step of every variant is timed first, in turns, so that a busy machine disturbs
all alike: the column `step` is its CPU time over that of the first one. With `--equal-time` a variant takes as many
steps as cost what those of the first do.

All numbers are of validation images: distortion without the codes' own bits, PSNR, and the power of reconstructions at
the frequencies of the code grid over that of the originals, in dB (`twostage.metrics.grid_energy`), which should not
be above 1. Lines of a Markdown table go to stdout.
"""

import argparse
import math
import platform
import sys
import time
import tomllib
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
from codebook_study import with_steps

from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.config.schema import Recipe
from twostage.data import load_dataset
from twostage.data.batches import batch_indices
from twostage.data.images.dataset import ImageDataset
from twostage.errors import TwoStageError, UsageError
from twostage.metrics.statistics import evenly
from twostage.noise import step_seed
from twostage.training.optimiser import learning_rate_at, make_optimiser
from twostage_pipelines.modality.image_quality import ImageQuality
from twostage_pipelines.modality.images import build_stage1, stage1_architecture

BATCH = 25
"""Validation images at a time."""
TIMED = 6
HEAD = """| settings | seed | parameters | step | steps | CPU s | distortion bits/dim | PSNR dB | grid dB | used |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"""


class Training:
    """One training of a variant, a step at a time."""

    def __init__(self, recipe: Recipe, dataset: ImageDataset) -> None:
        self.recipe, self.budget = recipe, recipe.codebook_training
        torch.manual_seed(recipe.seed)
        spec = model_spec(MAIN_MODEL, recipe)
        model = build_stage1(spec.kind, stage1_architecture(spec, recipe, dataset))
        assert isinstance(model, ImageCodec)
        self.model = model
        self.validation = torch.from_numpy(dataset.validation.images)
        self.task = CodebookTask(
            model,
            train=TrainingImages(torch.from_numpy(dataset.train.images), horizontal_flips=recipe.data.horizontal_flips),
            validation=self.validation,
            kmeans=recipe.quantiser.starts_from_data,
            evaluation_batch_size=BATCH,
            seed=recipe.seed,
        )
        self.optimiser = make_optimiser(model, self.budget)
        self.items = len(dataset.train)

    def step(self, step: int) -> float:
        """Take a step; its CPU seconds."""
        started = time.process_time()
        torch.manual_seed(step_seed(self.recipe.seed, step))
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(self.budget, step)
        batch = self.budget.batch_size
        result = self.task.loss(batch_indices(seed=self.recipe.seed, step=step, batch_size=batch, items=self.items))
        self.optimiser.zero_grad()
        result.loss.backward()
        if self.budget.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.budget.clip_norm)
        self.optimiser.step()
        self.task.after_step(result, self.optimiser)
        return time.process_time() - started

    @torch.no_grad()
    def scores(self) -> list[str]:
        """Cells of the table: bits/dim, PSNR, grid, codes in use."""
        model = self.model.eval()
        shape, x = model.image_shape, self.validation
        quality = ImageQuality(shape, model.levels, self.recipe.stage1.downsampling)
        nats, used, numbers = 0.0, set[int](), []
        for x_BCHW in x.split(BATCH):
            codes = model.encode(x_BCHW)
            used.update(codes.unique().tolist())
            nats -= float(model.log_prob(x_BCHW, codes).double().sum())
            numbers.append(quality.of(x_BCHW, model.decode(codes)))
        mean_CHW = x.double().mean(0).numpy()
        found = quality.together(torch.cat(numbers, 1).numpy(), mean_CHW, sampled=False)
        bits, grid = nats / math.log(2) / x.numel(), found["grid_db"]
        return [f"{bits:.4f}", f"{found['psnr_db']:.2f}", "-" if grid is None else f"{grid:+.1f}", str(len(used))]


def relative_times(recipes: list[Recipe], dataset: ImageDataset) -> list[float]:
    """CPU time of a step of every recipe over that of the first: the median of steps in turns."""
    trainings = [Training(recipe, dataset) for recipe in recipes]
    taken = np.array([[training.step(step) for training in trainings] for step in range(TIMED + 1)])
    return [median(row) / median(taken[1:, 0]) for row in taken[1:].T]


def settings_of(variant: str) -> dict[str, Any]:
    """The settings that a variant names.

    Raises:
        UsageError: it is none.
    """
    found = {}
    for setting in filter(None, variant.split(",")):
        key, _, value = setting.partition("=")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
        if not value:
            raise UsageError(f"expected KEY=VALUE of [stage1], got {setting!r}: write such as channels=64")
    return found


def asked() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file, of images")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--size", type=int, help="pixels of a side; the recipe's unless given")
    parser.add_argument("--variants", nargs="+", default=[""])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, help="the recipe's unless given")
    parser.add_argument("--learning-rate", type=float, help="the recipe's unless given")
    parser.add_argument("--equal-time", action="store_true")
    parser.add_argument("--validation-items", type=int, default=100)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    return parser.parse_args()


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The recipe that all variants depart from."""
    recipe = load_recipe(arguments.recipe)
    training = with_steps(recipe.codebook_training, arguments.steps)
    return replace(
        recipe,
        data=replace(
            recipe.data,
            path=arguments.data or recipe.data.path,
            image_size=arguments.size or recipe.data.image_size,
        ),
        codebook_training=replace(
            training,
            batch_size=arguments.batch_size or training.batch_size,
            learning_rate=arguments.learning_rate or training.learning_rate,
        ),
    )


def main() -> None:
    """Print a line for every variant and seed."""
    arguments = asked()
    torch.set_num_threads(1)
    try:
        recipe = recipe_of(arguments)
        dataset = load_dataset(recipe.data)
        items = evenly(len(dataset.validation), min(arguments.validation_items, len(dataset.validation)))
        dataset = replace(dataset, validation=dataset.validation.take(items))
        variants = [replace(recipe, stage1=replace(recipe.stage1, **settings_of(v))) for v in arguments.variants]
        print(
            f"Recipe {recipe.name}, {len(dataset.train)} training and {len(dataset.validation)} validation images of "
            f"{dataset.shape}, batches of {recipe.codebook_training.batch_size}; 1 thread, torch {torch.__version__}, "
            f"Python {platform.python_version()}\n\n{HEAD}",
            flush=True,
        )
        ratios = relative_times(variants, dataset)
        for seed in arguments.seeds:
            for name, variant, ratio in zip(arguments.variants, variants, ratios, strict=True):
                steps = round(arguments.steps / ratio) if arguments.equal_time else arguments.steps
                training = Training(
                    replace(variant, seed=seed, codebook_training=with_steps(variant.codebook_training, steps)), dataset
                )
                training.task.start()
                seconds = sum(training.step(step) for step in range(steps))
                size = sum(parameter.numel() for parameter in training.model.parameters())
                cells = [name or "recipe", str(seed), f"{size / 1e6:.2f} M", f"{ratio:.2f}", str(steps)]
                print("| " + " | ".join([*cells, f"{seconds:.0f}", *training.scores()]) + " |", flush=True)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
