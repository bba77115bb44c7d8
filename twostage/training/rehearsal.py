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
"""Time for steps of the whole batch, after which no other is begun."""
_SLOW_SECONDS = 2.0
"""A step or a validation of more is not tried: its time follows from a few items."""
_VALIDATED = 64
"""Items of the validation that is timed."""
_FEW = (2, 4)
"""Items of the batches whose tensors are counted."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Costs of a training, as far as a few steps show them."""

    step_seconds: float
    """Of a step of the whole batch."""
    step_cpu_seconds: float
    """The same in processor time of all threads."""
    item_seconds: float
    """Of one validation item."""


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

    needed_bytes: int
    """Most memory that the whole training takes at a time, beside its data."""
    step_seconds: float
    """Of a step of the whole batch, as slow for every item as a small one."""
    item_seconds: float
    """Of a validation item."""


def count(stand: Stand, *, seed: int) -> Counted:
    """Memory of a training, and a first look at its time; nothing larger than a few items is made."""
    budget, model = stand.budget, stand.model
    few = [min(items, budget.batch_size) for items in _FEW]
    with LiveBytes() as live:
        fit = _fit(stand, stand.task(budget.batch_size, _FEW[-1]), seed=seed)
        steps, seconds = list[int](), 0.0
        for items in (few[0], *few):  # the optimiser's moments are there from the second step on
            fit.budget = replace(fit.budget, batch_size=items, accumulate=1)
            live.start_anew()
            began = time.perf_counter()
            fit.train_step()
            seconds = time.perf_counter() - began
            steps.append(live.peak)
        model.zero_grad(set_to_none=True)
        validations = []
        for items in _FEW:
            task = stand.task(1, items)
            live.start_anew()
            item_seconds = _validation_seconds(task) / items
            validations.append(live.peak)
    whole = ceil(budget.batch_size / budget.accumulate)
    own = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    made = max(_line(few, steps[1:], whole), _line(_FEW, validations, stand.validation_batch))
    return Counted(
        needed_bytes=own + (own if budget.weight_ema else 0) + made,
        step_seconds=seconds / few[-1] * budget.batch_size,
        item_seconds=item_seconds,
    )


def rehearse(stand: Stand, counted: Counted, *, seed: int) -> Rehearsal:
    """Time a few steps of the whole batch and a validation of a few items, unless they are slow as counted."""
    step = cpu = counted.step_seconds
    if step < _SLOW_SECONDS:
        step, cpu = _step_seconds(stand, seed=seed)
    item_seconds, wanted = counted.item_seconds, min(stand.validation_batch, _VALIDATED)
    if item_seconds * wanted < _SLOW_SECONDS:
        item_seconds = _validation_seconds(stand.task(1, wanted)) / wanted
    return Rehearsal(step_seconds=step, step_cpu_seconds=cpu, item_seconds=item_seconds)


def _step_seconds(stand: Stand, *, seed: int) -> tuple[float, float]:
    """Of a step of the whole batch, on the clock and of all threads; that of the middle of several."""
    fit = _fit(stand, stand.task(stand.budget.batch_size, 1), seed=seed)
    fit.train_step()
    seconds, cpu = list[float](), list[float]()
    while len(seconds) < max(2, stand.budget.steps // _SHARE) and sum(seconds) < _SECONDS:
        began, began_cpu = time.perf_counter(), time.process_time()
        fit.train_step()
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return median(seconds), median(cpu)


def _fit(stand: Stand, task: Task, *, seed: int) -> Fit:
    """A training that is neither continued nor written."""
    stand.model.train()
    return Fit(task, folder=Path(), budget=stand.budget, seed=seed, record={}, device=stand.device)


@torch.no_grad()
def _validation_seconds(task: Task) -> float:
    """How long a task validates."""
    task.model.eval()
    began = time.perf_counter()
    task.validate()
    return time.perf_counter() - began


def _line(sizes: tuple[int, ...] | list[int], found: list[int], size: int) -> int:
    """The straight line through two points, at `size`; of a single size what was found."""
    (low, high), (first, last) = sizes, found
    return last if low == high else round(first + (last - first) / (high - low) * (size - low))
