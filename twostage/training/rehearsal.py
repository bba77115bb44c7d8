"""What a training will cost on this machine, found out with a few steps of its own on a model that is thrown away.

Memory first: batches of two sizes, counted tensor by tensor (`live_bytes`), say what the whole batch will take, before
anything of its size is made. Then a few steps of the whole batch are timed, and a validation.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from twostage.config.schema import TrainingConfig
from twostage.training.live_bytes import LiveBytes
from twostage.training.loop import Fit
from twostage.training.task import Task

FEWEST_STEPS = 100
"""Of a training that is worth rehearsing: of a shorter one the rehearsal would be a good part."""
_SHARE = 30
"""One step in so many is rehearsed, at most."""
_SECONDS = 0.5
"""Of the processor for steps of the whole batch, after which no other is begun."""
_SLOW_SECONDS = 10.0
"""Of the processor. A step or a validation that would take more is not tried: its time follows from a few items."""
_VALIDATED = 64
"""Items of the validation that is timed."""
_FEW = (2, 4)
"""Items of the batches whose tensors are counted."""


@dataclass(frozen=True)
class Spent:
    """Time of some work."""

    seconds: float
    """On the clock."""
    cpu_seconds: float
    """Of the processor, all threads together."""

    def times(self, number: float) -> "Spent":
        """That of `number` times the work."""
        return Spent(number * self.seconds, number * self.cpu_seconds)

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


def spent(act: Callable[[], object]) -> Spent:
    """Do it, and say how long it took."""
    began, began_cpu = time.perf_counter(), time.process_time()
    act()
    return Spent(time.perf_counter() - began, time.process_time() - began_cpu)


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What a few steps show of a training."""

    step: Spent
    """Of the whole batch."""
    item: Spent
    """Of a validation, for each of its items."""
    bytes: int
    """Most memory that the training takes at a time, beside its data."""


@dataclass(frozen=True, kw_only=True)
class Stand:
    """What a rehearsal works with."""

    model: nn.Module
    """On its device; what is rehearsed changes it."""
    task: Callable[[int, int], Task]
    """Of so many training and validation items, or all where there are fewer."""
    budget: TrainingConfig
    validation_batch: int
    """Items that are validated side by side."""
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What batches of a few items tell of a training."""

    step: Spent
    item: Spent
    """As in a rehearsal; a step as if every item took as long as one of a few, which is more than it does."""
    model_bytes: int
    """The model, with its moving average."""
    trained_bytes: int
    """What optimiser and gradients take beside it."""
    step_bytes: int
    """What a step makes of the whole batch, at the end of its forward pass."""
    validation_bytes: int
    """What a validation makes of a whole batch."""

    @property
    def bytes(self) -> int:
        """Most memory that the training takes at a time, beside its data."""
        return self.model_bytes + self.trained_bytes + max(self.step_bytes, self.validation_bytes)


def count(stand: Stand, *, seed: int) -> Counted:
    """Memory of a training, and a first look at its time; nothing larger than a few items is made."""
    budget, model = stand.budget, stand.model
    few, steps, validations = [min(items, budget.batch_size) for items in _FEW], list[int](), list[int]()
    with LiveBytes() as live:
        fit = _fit(stand, stand.task(budget.batch_size, _FEW[-1]), seed=seed)
        fit.budget = replace(fit.budget, batch_size=few[-1], accumulate=1)
        fit.train_step()
        step, held = spent(fit.train_step), live.now
        for items in few:
            live.start_anew()
            fit.task.loss(np.arange(items))
            steps.append(live.peak - held)
        for items in _FEW:
            task = stand.task(1, items)
            live.start_anew()
            item = _validation(task).times(1 / items)
            validations.append(live.peak - held)
    own = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    return Counted(
        step=step.times(budget.batch_size / few[-1]),
        item=item,
        model_bytes=2 * own if budget.weight_ema else own,
        trained_bytes=held,
        step_bytes=_line(few, steps, ceil(budget.batch_size / budget.accumulate)),
        validation_bytes=_line(_FEW, validations, stand.validation_batch),
    )


def rehearse(stand: Stand, counted: Counted, *, seed: int) -> Rehearsal:
    """Take a few steps of the whole batch and validate some items, unless they are too slow: then as counted."""
    step, item, size = counted.step, counted.item, counted.bytes
    if step.cpu_seconds < _SLOW_SECONDS:
        step, peak = _step(stand, seed=seed)
        if peak:
            validating = counted.trained_bytes + counted.validation_bytes
            size = counted.model_bytes + max(peak, validating)
    wanted = min(stand.validation_batch, _VALIDATED)
    if item.cpu_seconds * wanted < _SLOW_SECONDS:
        item = _validation(stand.task(1, wanted)).times(1 / wanted)
    return Rehearsal(step=step, item=item, bytes=size)


def _step(stand: Stand, *, seed: int) -> tuple[Spent, int]:
    """A step of the whole batch, the one in the middle of several, and the bytes of tensors that are made by then.

    Of a slow step the first must do, and there is nothing to count.
    """
    with LiveBytes() as live:
        fit = _fit(stand, stand.task(stand.budget.batch_size, 1), seed=seed)
        first, found = spent(fit.train_step), list[Spent]()
        if first.cpu_seconds > _SECONDS:
            return first, 0
        fit.train_step()
    while len(found) < max(2, stand.budget.steps // _SHARE) and sum(each.cpu_seconds for each in found) < _SECONDS:
        found.append(spent(fit.train_step))
    return Spent(median(s.seconds for s in found), median(s.cpu_seconds for s in found)), live.peak


def _fit(stand: Stand, task: Task, *, seed: int) -> Fit:
    """A training that is neither continued nor written."""
    stand.model.train()
    return Fit(task, folder=Path(), budget=stand.budget, seed=seed, record={}, device=stand.device)


@torch.no_grad()
def _validation(task: Task) -> Spent:
    task.model.eval()
    return spent(task.validate)


def _line(sizes: tuple[int, ...] | list[int], found: list[int], size: int) -> int:
    """The straight line through two points, at `size`; of a single size what was found."""
    (low, high), (first, last) = sizes, found
    return last if low == high else round(first + (last - first) / (high - low) * (size - low))
