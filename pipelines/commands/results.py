"""Flags of the verbs that say what a run has come to: evaluate, report, disentangle."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Suppress, arg

from twostage.config.check import check_recipe
from twostage.config.schema import EvaluationConfig, Recipe

from .arguments import (
    AS_STORED,
    SOURCE,
    DataPlace,
    Device,
    DryRun,
    RunArgument,
    Timeout,
    check_named,
    check_seed,
    require,
)


@dataclass(frozen=True, kw_only=True)
class Disentangle:
    """Score how well single latents stand for single factors: MIG, SAP, DCI, beta-VAE and FactorVAE scores.

    For runs on data with known factors (`twostage recipes shapes`). Prints a table, writes disentanglement.json and a
    picture of each model's latents moved one at a time.
    """

    run: RunArgument
    model: Annotated[
        str, arg(metavar="NAME", help="Only this model (default: all with continuous latents)", help_behavior_hint="")
    ] = ""
    samples: int = 15_000
    """Codes of MIG, SAP and DCI; the points of the other two scores are in proportion. The default asks each encoder
    for 191 400 codes."""
    seed: int = 0
    """Of the factors that are drawn and of the forests."""
    device: Device = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Disentangle":
        """The command, checked."""
        check_named(self.model)
        require("--samples", self.samples, self.samples >= FEWEST_SAMPLES, f"at least {FEWEST_SAMPLES}")
        check_seed(self.seed)
        return self


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure bits/dim of all models of a run; prints the table and writes evaluation.json."""

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    evaluation: EvaluationConfig
    seed: int
    """Seed of the latents that the VAE's bounds draw."""
    split: Literal["test", "validation"] = "test"
    """Test data give the final number; choose settings by validation data."""
    per_item: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Also write the bits of every item to this .csv file, the least probable first, with an anomaly score; beside it
    pictures of the least and the most probable items."""
    data: DataPlace = AS_STORED
    device: Device = "auto"
    timeout_seconds: Timeout = 600.0
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(self.data.of(self.stored), seed=self.seed, evaluation=self.evaluation)

    def resolved(self) -> "Evaluate":
        """The command, checked."""
        check_recipe(self.recipe, source=SOURCE)
        named = self.per_item is None or (self.per_item.suffix == ".csv" and not self.per_item.is_dir())
        require("--per-item", self.per_item, named, "a file name that ends in .csv")
        return self


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html: results, pictures and diagnosis of a run in one self-contained file."""

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe."""
    seed: int = 0
    """Seed of the samples shown."""
    data: DataPlace = AS_STORED
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe, with the data where they are."""
        return self.data.of(self.stored)

    def resolved(self) -> "Report":
        """The command, checked."""
        check_recipe(self.recipe, source=SOURCE)
        check_seed(self.seed)
        return self


FEWEST_SAMPLES = 1000
"""Below it a forest of DCI sees a value of a factor a few times only, and the scores are noise."""
