"""What the trainings of a command will take on this machine, before the first of them begins.

A few steps of every kind of training are taken on a model that is thrown away (`twostage.training.rehearsal`): of stage
one on real items, of a prior or decoder on random codes of the right shape. Two codebooks that differ in how they are
updated, or two VAEs that differ in beta, cost the same, and one of them is rehearsed. Left out are the k-means start
of a codebook, about a second for 512 codes, the saving of checkpoints, and what `torch.compile` takes and gains.

Shapes: N items, G codebooks, T the axes of the codes of an item.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from twostage.config.model_names import model_spec
from twostage.distributed import world_size
from twostage.errors import RunError, UsageError
from twostage.grids import axes_of
from twostage.metrics.statistics import evenly
from twostage.noise import seed_step
from twostage.progress import silent
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile
from twostage.training.live_bytes import resident_bytes
from twostage.training.memory import available_bytes, readable_bytes
from twostage.training.rehearsal import FEWEST_STEPS, Rehearsal, Spent, Stand, count, rehearse, spent
from twostage.training.task import Task

from ..modality.choose import modality_of
from ..modality.encoding import encode_split, positions_of
from ..modality.interface import SPLITS
from .jobs import Job
from .loading import parameter_count
from .run import Run

_ENCODED = 32
"""Items that are encoded to see what codes cost."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What one training will take."""

    parameters: int
    time: Spent
    """Of its steps and validations, and of the codes that are extracted before it."""
    bytes: int
    """Most memory of the device at a time; on the CPU with what the process holds anyway."""
    item: Spent
    """Of one validation item."""


@dataclass(frozen=True, kw_only=True)
class _Rehearsed:
    """What a rehearsal has found of all trainings of a kind."""

    parameters: int
    codes: Spent
    """Of extracting those of all splits."""
    costs: Rehearsal


class Forecaster:
    """Rehearses the trainings of one command; asked for them in order."""

    def __init__(self, run: Run, dataset: Any, device: torch.device) -> None:
        self.run, self.dataset, self.device = run, dataset, device
        self.modality = modality_of(run.recipe)
        self._codebooks = dict[str, nn.Module]()
        self._priors = dict[str, nn.Module]()
        self._held = 0
        """Bytes that the process holds once all libraries are at work, and nothing large was made yet."""
        self._found = dict[tuple[str, str], _Rehearsed]()

    def of(self, job: Job, stage1: nn.Module | None, *, done: int = 0) -> Forecast | None:
        """The costs of a job; None of one that is too short to be rehearsed, of several processes, or not finite.

        Args:
            job: the training.
            stage1: its model, freshly built, where it trains stage one: it is of no use after this.
            done: steps that it has behind it.

        Raises:
            UsageError: it needs more memory than there is.
        """
        if stage1 is not None:
            self._codebooks[job.model] = stage1
        if world_size() > 1 or job.training.steps < FEWEST_STEPS:
            return None
        spec = model_spec(job.model, self.run.recipe)
        key = (job.stage, job.model if spec.starts_from is not None and job.stage == "stage1" else spec.kind)
        if key not in self._found:
            try:
                with silent():
                    self._found[key] = self._rehearsed(job, stage1)
            except RunError:  # a step that is not finite: the training itself will say it, with its place
                return None
        found, training, steps = self._found[key], job.training, job.training.steps - done
        validations = -(-training.steps // training.validate_every) - done // training.validate_every
        time = found.costs.step.times(steps) + found.costs.item.times(validations * len(self.dataset.validation))
        return Forecast(
            parameters=found.parameters,
            time=time + found.codes if done == 0 else time,
            bytes=found.costs.bytes + self._held,
            item=found.costs.item,
        )

    def _rehearsed(self, job: Job, stage1: nn.Module | None) -> _Rehearsed:
        recipe, codes = self.run.recipe, Spent(0.0, 0.0)
        if stage1 is not None:
            model, side_by_side = stage1.to(self.device), self._side_by_side(stage1)
        else:
            codebook = self._codebook(job)
            kind, arguments = self.modality.follower(job.stage, recipe, codebook, self.dataset)
            seed_step(recipe.seed, 0)
            model = self.modality.build(kind, arguments).to(self.device)
            side_by_side = recipe.evaluation.batch_size if job.stage == "prior" else self._side_by_side(codebook)
            if self._extracts(job):
                codes = self._encoding(codebook)
        stand = Stand(
            model=model,
            task=lambda train, validation: self._task(job, model, train, validation),
            budget=job.training,
            validation_batch=min(side_by_side, len(self.dataset.validation)),
            device=self.device,
        )
        counted = count(stand, seed=recipe.seed)
        self._check_fits(job, counted.bytes)
        if not self._held and self.device.type == "cpu":
            self._held = resident_bytes()
        return _Rehearsed(
            parameters=parameter_count(model),
            codes=codes,
            costs=rehearse(stand, counted, seed=recipe.seed),
        )

    def _check_fits(self, job: Job, needed: int) -> None:
        """Raise UsageError where a training needs more memory than there is."""
        there = available_bytes(self.device)
        if there is not None and needed > there:
            training = job.training
            raise UsageError(
                f"{job.label} needs about {readable_bytes(needed)} of memory for batches of {training.batch_size}"
                f"{f' in {training.accumulate} parts' if training.accumulate > 1 else ''} and validations of "
                f"{self.run.recipe.evaluation.batch_size}, but {readable_bytes(there)} are there: choose a smaller "
                "batch_size, more parts (accumulate), a smaller evaluation.batch_size or smaller networks"
            )

    def _codebook(self, job: Job) -> Any:
        """An untrained one of the command's own, or that of the run."""
        if job.model not in self._codebooks:
            self._codebooks[job.model] = self.run.stage1(job.model, self.device).model
        return self._codebooks[job.model].to(self.device)

    def _extracts(self, job: Job) -> bool:
        """Whether codes are extracted for it: the first that follows them, or one that is trained by a verb alone."""
        _, first, *later = self.modality.stages(model_spec(job.model, self.run.recipe), self.run.recipe)
        return job.stage == first or job.stage not in later

    def _part(self, train: int, validation: int) -> Any:
        """The data set with so many training and validation items, spread over its own."""
        own = self.dataset
        return replace(
            own,
            train=own.train.take(evenly(len(own.train), train)),
            validation=own.validation.take(evenly(len(own.validation), validation)),
        )

    def _task(self, job: Job, model: nn.Module, train: int, validation: int) -> Task:
        part, recipe = self._part(train, validation), self.run.recipe
        if job.stage == "stage1":
            prior = self._prior(model, job) if model_spec(job.model, recipe).starts_from is not None else ()
            return self.modality.stage1_task(model, recipe, part, self.device, *prior)
        codebook = self._codebook(job)
        codes = {name: self._random_codes(codebook, part, name) for name in ("train", "validation")}
        return self.modality.follower_task(model, codebook, codes, recipe, part)

    def _prior(self, codebook: nn.Module, job: Job) -> tuple[nn.Module]:
        """An untrained one over the codes of the codebook, whose prices take as long as those of a trained one."""
        if job.model not in self._priors:
            kind, arguments = self.modality.follower("prior", self.run.recipe, codebook, self.dataset)
            self._priors[job.model] = self.modality.build(kind, arguments).to(self.device)
        return (self._priors[job.model],)

    def _random_codes(self, codebook: Any, dataset: Any, split: str) -> CodeFile:
        """Codes of the shape that those of a split will have."""
        items, files = dataset.split(split), self.modality.files
        grids, sizes = files.grids_of(items, codebook), files.lengths_of(items)
        generator = np.random.default_rng(0)
        return CodeFile(
            codes=generator.integers(0, codebook.codebook_size, (len(items), codebook.codebooks, *axes_of(grids))),
            labels=items.labels,
            header=CodeHeader(
                dataset=dataset.name,
                split=split,
                model="",
                codebook_size=codebook.codebook_size,
                codebooks=codebook.codebooks,
                grids=grids,
                stage1_sha256="",
                classes=len(dataset.classes),
                speakers=len(dataset.speakers),
            ),
            lengths=None if sizes is None else positions_of(codebook, sizes),
            speakers=items.speakers if dataset.speakers else None,
            samples=sizes,
        )

    def _encoding(self, codebook: Any) -> Spent:
        """What the codes of every split take, by those of a few items."""
        recipe, few = self.run.recipe, self._part(_ENCODED, 1).train
        files, device = self.modality.files, self.device
        found = spent(lambda: encode_split(files, codebook, few, label="", recipe=recipe, device=device))
        splits = {name: self.dataset.split(name) for name in SPLITS}
        items = sum(len(splits.get(name, self.dataset.train)) for name in self.modality.code_splits(recipe))
        return found.times(items / len(few))

    def _side_by_side(self, stage1: Any) -> int:
        """Items of a batch of the evaluation."""
        batches = self.modality.files.batches(
            self.dataset.validation, stage1, recipe=self.run.recipe, device=torch.device("cpu")
        )
        return len(next(iter(batches))[0])
