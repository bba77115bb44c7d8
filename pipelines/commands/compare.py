"""Flags of the verb that compares models."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from twostage.config.kinds import KINDS, kind_of
from twostage.config.model_names import JOINT_MODEL, MAIN_MODEL, baseline_name, check_model
from twostage.config.schema import Recipe
from twostage.errors import UsageError

from .arguments import Device, DryRun, FlatRecipe, RecipeArgument, Resume, require, resolved_recipe

BETAS = (0.1, 1.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Train the models of a recipe with equal budgets, for one seed or several, and compare them on the test set.

    Unless --models names them: the recipe's, ae, vae, cvae (not of a folder), vimco (of images), VAEs at beta 0.1,
    1 and 3. A baseline takes the steps of all trainings of a discrete model, which --baseline-training.steps may say.

    Prints one table over seeds and writes comparison.json and rate-distortion.png. Every seed has a run folder, seed-N,
    which evaluate, report and generate take as one of `train`. The same command goes on where it stopped.
    """

    source: RecipeArgument
    recipe: FlatRecipe
    betas: Annotated[tuple[str, ...], arg(metavar="FLOAT...", help_behavior_hint="")] = ()
    """VAEs at these weights of the KL term beside the models: --betas 0.1 1 3, or 0.1,1,3."""
    seeds: int = 1
    """Trainings of every model: from the recipe's seed on, one seed after another."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Folder to write (default: runs/compare-RECIPE)", help_behavior_hint="")
    ] = None
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.out or Path("runs") / f"compare-{self.recipe.name}"

    @property
    def seed_numbers(self) -> range:
        """The seeds that are compared."""
        return range(self.recipe.seed, self.recipe.seed + self.seeds)

    @staticmethod
    def defaults(recipe: Recipe) -> Recipe:
        """What the flags of a recipe start from: models and steps of the baselines are told when nobody names them."""
        return replace(recipe, models=(), baseline_training=replace(recipe.baseline_training, steps=0))

    def resolved(self) -> "Compare":
        """The command, checked, with all models named and the steps of the baselines filled in."""
        recipe = self.recipe
        require("--seeds", self.seeds, 1 <= self.seeds <= 1000, "at least 1 and at most 1000")
        last = recipe.seed + self.seeds - 1
        require("--seed", recipe.seed, last < 2**32, f"at most {2**32 - self.seeds} with {self.seeds} seeds")
        budget = recipe.codebook_model_steps
        steps = recipe.baseline_training.steps
        require(
            "--baseline-training.steps",
            steps,
            steps in (0, budget),
            f"the {budget} steps of {budget_of(recipe)} together, or left out",
        )
        recipe = replace(
            recipe, models=self._models(), baseline_training=replace(recipe.baseline_training, steps=budget)
        )
        return replace(self, recipe=resolved_recipe(recipe))

    def _models(self) -> tuple[str, ...]:
        """Names of all models, those asked for or the usual ones, each once.

        Raises:
            UsageError: a beta is no positive number, or a name is unknown.
        """
        betas = [baseline_name(_beta(text)) for text in _separate(self.betas)]
        names = [*_separate(self.recipe.models), *betas]
        if not self.recipe.models:
            from twostage.config.load import load_recipe

            betas = betas or [baseline_name(beta) for beta in BETAS]
            usual = ("ae", "vae", *betas, "cvae", "vimco")
            own = (name for name in load_recipe(self.source).models if name != JOINT_MODEL)
            names = [*own, *filter(self._has, usual)]
        for name in names:
            check_model(name, source="--models")
        if JOINT_MODEL in names:
            raise UsageError(
                f"--models: {JOINT_MODEL} takes its own steps on top of those of {MAIN_MODEL}, but compare gives every "
                "model the same: leave it out; train and evaluate score it beside the others, with all of its steps."
            )
        return tuple(dict.fromkeys(names))

    def _has(self, model: str) -> bool:
        """Whether one of the usual models can be trained on the recipe's data, for all that is known before reading."""
        if model in KINDS[kind_of(self.recipe)].lacks:
            return False
        return model != "cvae" or self.recipe.data.name not in ("images", "recordings")


def budget_of(recipe: Recipe) -> str:
    """What the steps of every model are counted over, in words."""
    return "codebook, WaveNet decoder and prior" if recipe.has_wavenet_decoder else "codebook and prior"


def _separate(texts: Iterable[str]) -> list[str]:
    """Words that are separated by spaces, commas or both."""
    return [word for text in texts for word in text.split(",") if word]


def _beta(text: str) -> float:
    try:
        beta = float(text)
    except ValueError:
        beta = math.nan
    require("--betas", text, 0 < beta < math.inf, "numbers of more than 0")
    return beta
