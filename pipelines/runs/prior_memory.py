"""Whether there is memory for the priors of a command, before anything is trained, stage one included.

The logits over K codes of every position, and the weights of a prior, grow with K; a codebook itself is small however
many codes it has, so that without this a run would train stage one and then end in its prior. What is counted is the
least that a training holds: weights, gradients and Adam's moments, and of the logits three copies, which is what a step
was measured to hold at its peak (a validation: two). Activations of the trunk come on top.

Shapes: G codebooks of K codes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from twostage.config.model_names import model_spec
from twostage.data.interface import Dataset
from twostage.distributed import world_size
from twostage.errors import UsageError
from twostage.grids import positions_of
from twostage.training.memory import available_bytes, readable_bytes, training_bytes

from ..modality.choose import modality_of
from .jobs import Job, record_of
from .loading import parameter_count, shapes_only
from .run import Run

_NUMBER_BYTES = 4


@dataclass(frozen=True)
class LeastMemory:
    """Bytes that the training of a prior holds at the very least."""

    weights: int
    """Weights, gradients, moments and their average."""
    step: int
    """Logits of a step."""
    validation: int
    """Logits of a validation."""

    @property
    def bytes(self) -> int:
        return self.weights + max(self.step, self.validation)


def check_priors_fit(run: Run, jobs: Sequence[Job], dataset: Dataset, device: torch.device) -> None:
    """Check the priors that follow the stage ones among the jobs, and those among them; begun ones have fitted before.

    Raises:
        UsageError: one would not fit into memory.
    """
    there, stages_of = available_bytes(device), modality_of(run.recipe).stages
    for name in dict.fromkeys(job.model for job in jobs if job.stage in ("stage1", "prior")):
        follows = "prior" in stages_of(model_spec(name, run.recipe), run.recipe)
        if there is None or not follows or record_of(run.prior_folder(name)) is not None:
            continue
        needed = least_memory(run, name, dataset)
        if needed.bytes > there:
            raise UsageError(
                f"{name}: its prior takes at least {readable_bytes(needed.bytes)} of memory to train "
                f"({readable_bytes(needed.weights)} of weights with their moments, the rest for logits), but "
                f"{readable_bytes(there)} are there: choose {_remedy(run, needed, there)}"
            )


def least_memory(run: Run, model: str, dataset: Dataset) -> LeastMemory:
    """What the prior of a discrete model holds; nothing of its size is made.

    Raises:
        UsageError: there is no such model or prior of this data.
    """
    recipe, modality = run.recipe, modality_of(run.recipe)
    spec, training = model_spec(model, recipe), recipe.prior_training
    codebook = shapes_only(lambda: modality.build(*modality.stage1(spec, recipe, dataset)))
    prior: Any = shapes_only(lambda: modality.build(*modality.follower("prior", recipe, codebook, dataset)))
    code_bytes = prior.code_shape[0] * prior.codebook_size * _NUMBER_BYTES  # of the logits of a position
    positions, validated = (
        positions_of(modality.files.grids_of(split, codebook)) for split in (dataset.train, dataset.validation)
    )
    part = math.ceil(training.batch_size / (world_size() * training.accumulate))
    # One copy of every level stays for the backward pass; two more are there while one level is worked on.
    return LeastMemory(
        weights=training_bytes(parameter_count(prior), weight_average=training.weight_ema > 0),
        step=part * code_bytes * (sum(positions) + 2 * max(positions)),
        validation=min(recipe.evaluation.batch_size, len(dataset.validation)) * code_bytes * 2 * max(validated),
    )


def _remedy(run: Run, needed: LeastMemory, there: int) -> str:
    """Part of a sentence: the settings to lower."""
    codes = "fewer quantiser.fsq_levels" if run.recipe.quantiser.kind == "fsq" else "a smaller quantiser.codebook_size"
    if needed.weights > there:
        return f"{codes} or a narrower prior"
    if needed.step < needed.validation:
        return f"{codes} or a smaller evaluation.batch_size"
    return f"{codes}, a smaller prior_training.batch_size, or more parts of a batch (prior_training.accumulate)"
