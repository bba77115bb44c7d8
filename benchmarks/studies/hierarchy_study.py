"""Hierarchy study: a hierarchy of code grids, and attention in the prior, against flat grids at equal processor time.

    python benchmarks/studies/hierarchy_study.py natural32 --data FOLDER --stage1-seconds 120 --prior-seconds 60

Networks are the recipe's at half their widths with a plain decoder, the quantiser is the recipe's; the prior is a small
PixelCNN a level without labels. Of every setting a few steps are timed first, and it then takes as many as fit into the
seconds (CPU time), with the recipe's learning rate and schedule over them. Priors with attention are fitted to the same
codes as those without.

All numbers are bits/dim of validation items, spread over the split. Lines of a Markdown table go to stdout.
"""

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from codebook_study import with_steps
from quantiser_trainings import BATCH, CPU, distortion_and_psnr, encoded, fit
from torch import nn

from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from stage2_prior.training import PriorTask
from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.config.schema import PriorConfig, Recipe, TrainingConfig
from twostage.data import ImageDataset, load_dataset
from twostage.errors import TwoStageError
from twostage.grids import named_grids
from twostage.metrics.statistics import evenly
from twostage.noise import seed_step
from twostage.training.task import Task
from twostage_pipelines.bits.rate import learned_rate
from twostage_pipelines.modality.choose import modality_of

SETTINGS: dict[str, tuple[Literal[2, 4], int]] = {
    "flat, 4 pixels a code": (4, 1),
    "flat, 2 pixels a code": (2, 1),
    "hierarchy of two grids": (2, 2),
}
"""Downsampling to the finest grid, and grids."""
ATTENTION = {"": 0, ", attention": 3}
"""What is added to the name, and `prior.attention_every`."""
TIMED = 4
HEAD = """| setting | grids | distortion | learned rate | total | PSNR, dB | parameters | steps | CPU s |
|---|---|---:|---:|---:|---:|---:|---:|---:|"""


def budget_of(training: TrainingConfig, seconds: float, batch_size: int, make: Callable[[], Task]) -> TrainingConfig:
    """As many steps as fit into `seconds` of CPU time, by a few of a task that is thrown away."""
    task = make()
    task.start()
    optimiser = torch.optim.Adam(task.model.parameters(), lr=1e-3)
    indices = np.arange(TIMED * batch_size) % task.items
    begun = 0.0
    for step, rows in enumerate(np.split(indices, TIMED)):
        if step == 1:  # the first also allocates
            begun = time.process_time()
        optimiser.zero_grad()
        result = task.loss(rows)
        result.loss.backward()
        optimiser.step()
        task.after_step(result, optimiser)
    steps = max(1, int(seconds * (TIMED - 1) / (time.process_time() - begun)))
    return replace(with_steps(training, steps), batch_size=batch_size, validate_every=steps, checkpoint_every=steps)


class Study:
    """What all settings share."""

    def __init__(self, recipe: Recipe, dataset: ImageDataset, arguments: argparse.Namespace) -> None:
        self.recipe, self.arguments = recipe, arguments
        validation = dataset.validation.take(evenly(len(dataset.validation), arguments.validation_items))
        self.dataset = replace(dataset, validation=validation)
        self.train_NCHW, self.x_NCHW = torch.from_numpy(dataset.train.images), torch.from_numpy(validation.images)

    def trained(
        self,
        training: TrainingConfig,
        seconds: float,
        build: Callable[[], Any],
        task: Callable[[Any], Task],
        label: str,
    ) -> tuple[Any, int, float]:
        """A model trained for about so many seconds, its steps, and the CPU seconds it took, validation included."""

        def built() -> nn.Module:
            seed_step(self.arguments.seed, 0)
            return build()

        budget = budget_of(training, seconds, self.arguments.batch_size, lambda: task(built()))
        model, begun = built(), time.process_time()
        fit(model, task(model), budget, self.arguments.seed, label)
        return model, budget.steps, time.process_time() - begun

    def measure(self, name: str) -> None:
        """Train a setting and its priors; a line for each prior."""
        factor, grids = SETTINGS[name]
        recipe = replace(self.recipe, stage1=replace(self.recipe.stage1, downsampling=factor, hierarchy=grids))
        modality, seed = modality_of(recipe), self.arguments.seed
        kind, architecture = modality.stage1(model_spec(MAIN_MODEL, recipe), recipe, self.dataset)

        def codebook_task(model: ImageCodec) -> Task:
            return CodebookTask(
                model,
                train=TrainingImages(self.train_NCHW, horizontal_flips=recipe.data.horizontal_flips),
                validation=self.x_NCHW,
                kmeans=recipe.quantiser.starts_from_data,
                evaluation_batch_size=BATCH,
                seed=seed,
            )

        model, steps, seconds = self.trained(
            recipe.codebook_training,
            self.arguments.stage1_seconds,
            lambda: modality.build(kind, architecture),
            codebook_task,
            name,
        )
        codes = encoded(model, self.x_NCHW)
        distortion, psnr = distortion_and_psnr(model, self.x_NCHW, codes)
        train = encoded(model, self.train_NCHW[: self.arguments.prior_items])
        for said, every in ATTENTION.items():
            with_attention = replace(recipe, prior=replace(recipe.prior, attention_every=every))
            prior_kind, prior_architecture = modality.follower("prior", with_attention, model, self.dataset)
            prior_architecture["classes"] = ()
            prior, prior_steps, prior_seconds = self.trained(
                recipe.prior_training,
                self.arguments.prior_seconds,
                lambda kind=prior_kind, arguments=prior_architecture: modality.build(kind, arguments),
                lambda prior: PriorTask(
                    prior,
                    train=train,
                    train_condition=None,
                    validation=codes,
                    validation_condition=None,
                    evaluation_batch_size=BATCH,
                ),
                f"{name}{said}, prior",
            )
            bits = learned_rate(prior, codes.numpy(), device=CPU, batch_size=BATCH).bits.mean() / model.dims
            weights = sum(each.numel() for part in (model, prior) for each in part.parameters())
            line = (
                f"{name}{said}", named_grids(model.grids), f"{distortion:.4f}", f"{bits:.4f}",
                f"{distortion + bits:.4f}", f"{psnr[-1]:.2f}", str(weights), f"{steps}, {prior_steps}",
                f"{seconds:.0f}, {prior_seconds:.0f}",
            )  # fmt: skip
            print(f"| {' | '.join(line)} |", file=self.arguments.table, flush=True)


def main() -> None:
    """Train and measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file, of images")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--stage1-seconds", type=float, default=120)
    parser.add_argument("--prior-seconds", type=float, default=60)
    parser.add_argument("--batch-size", type=int, default=16, help="of both")
    parser.add_argument("--validation-items", type=int, default=800)
    parser.add_argument("--prior-items", type=int, default=20000, help="training images whose codes the priors see")
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.table = sys.stdout
    torch.set_num_threads(1)
    try:
        recipe = load_recipe(arguments.recipe)
        networks = recipe.stage1
        half = replace(
            networks,
            channels=networks.channels // 2,
            residual_channels=networks.residual_channels // 2,
            autoregressive_layers=0,
        )
        recipe = replace(
            recipe,
            threads=1,
            data=replace(recipe.data, path=arguments.data or recipe.data.path),
            stage1=half,
            quantiser=replace(recipe.quantiser, auxiliary_weight=0.0),
            prior=PriorConfig(layers=6, channels=32, conditional=False),
        )
        with redirect_stdout(sys.stderr):
            study = Study(recipe, load_dataset(recipe.data), arguments)
            titles = (
                "setting",
                "grids",
                "distortion",
                "learned rate",
                "total",
                "PSNR, dB",
                "parameters",
                "steps",
                "CPU s",
            )
            print(f"| {' | '.join(titles)} |\n|---|---|---:|---:|---:|---:|---:|---:|---:|", file=arguments.table)
            for name in arguments.settings:
                study.measure(name)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
