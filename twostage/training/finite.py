"""What is not finite: which tensor, in which process, with which items, in words that are the same in every process.

A number out of the data and one out of a layer both end as a loss that is not finite, and the first place tells them
apart: it is looked for in a second forward pass, once a step has failed.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from twostage.distributed import of_every_rank, world_size
from twostage.errors import RunError
from twostage.training.task import StepResult

_ITEMS_NAMED = 4
_LOSS = "the loss"
_STATISTICS = "a statistic of the batch"


class NotFinite(RunError):
    """Weights, loss, gradient or statistics are not finite."""


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors in a value, through tuples, lists, mappings and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, item.name) for item in fields(value)])
    elif isinstance(value, tuple | list | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(item)


def all_finite(value: object, device: torch.device) -> Tensor:
    """Whether every tensor in a value is finite: a scalar on `device`, without waiting for it."""
    verdicts = [tensor.isfinite().all() for tensor in tensors_in(value)]
    return torch.stack(verdicts).all() if verdicts else torch.tensor(True, device=device)


def first_not_finite(named: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that is not finite in any process; all of them ask at once, by the same names."""
    names = list(named)
    own = _first((name, named[name]) for name in names)
    verdict, _ = _first_of_ranks(names, own)
    return verdict


def check_savable(tensors: Mapping[str, Mapping[str, Tensor]], *, step: int, folder: Path) -> None:
    """Raise RunError in every process if a tensor that is to be saved is not finite in one of them.

    An infinite moment of Adam moves its weight no more, and no loss will ever tell.
    """
    fault = first_not_finite({f"{file} {key}": value for file in tensors for key, value in tensors[file].items()})
    if fault is not None:
        raise RunError(
            f"the tensor {fault} is not finite after step {step}, which was not saved; any checkpoint in {folder} is "
            "from before: lower the learning rate"
        )


def blame(
    model: nn.Module, results: Sequence[StepResult], batch: np.ndarray, repeat: Callable[[], object]
) -> tuple[str, str]:
    """What is not finite, and with which items in which process; weights are to blame before what they spoil.

    Args:
        model: with this process's gradients.
        results: of this process's parts of the batch.
        batch: the items of all processes.
        repeat: goes through this process's forward passes once more.
    """
    stored = {f"{name} of the model": tensor for name, tensor in model.state_dict().items()}
    gradients = {f"the gradient of {name}": parameter.grad for name, parameter in model.named_parameters()}
    modules = {name or "the whole model": module for name, module in model.named_modules()}
    passed = [f"the {end} of {name}" for name in modules for end in ("input", "output")]
    names = [*stored, *passed, _LOSS, _STATISTICS, *gradients]
    own = _first(stored.items())
    if own is None and not all(math.isfinite(result.loss.item()) for result in results):
        own = _first_passed(modules, repeat) or _LOSS
    if own is None and any(not bool(all_finite(result.output, result.loss.device)) for result in results):
        own = _STATISTICS
    own = own or _first(gradients.items())
    what, guilty = _first_of_ranks(names, own)
    if what is None:
        return "the norm of the gradient", ""
    where = f"; process {guilty} of {world_size()}" if world_size() > 1 else ""
    if what in stored:
        return what, where
    items = np.array_split(batch, world_size())[guilty].tolist()
    more = len(items) - _ITEMS_NAMED
    return what, f"{where}; items {', '.join(map(str, items[:_ITEMS_NAMED]))}{f' and {more} more' if more > 0 else ''}"


def _first(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    return next((name for name, tensor in named if tensor is not None and not bool(tensor.isfinite().all())), None)


def _first_of_ranks(names: Sequence[str], own: str | None) -> tuple[str | None, int]:
    """The first of the names that a process has found, and the first process that has found it."""
    verdicts = of_every_rank(len(names) if own is None else names.index(own))
    first = int(min(verdicts))
    return (None if first == len(names) else names[first]), verdicts.index(first)


def _first_passed(modules: Mapping[str, nn.Module], repeat: Callable[[], object]) -> str | None:
    """Where in the forward pass the first tensor that is not finite goes into a module or comes out of one."""
    found: list[str] = []

    def watch(module: nn.Module, name: str) -> list[torch.utils.hooks.RemovableHandle]:
        def look(end: str, value: object) -> None:
            if not found and any(not bool(tensor.isfinite().all()) for tensor in tensors_in(value)):
                found.append(f"the {end} of {name}")

        return [
            module.register_forward_pre_hook(lambda _, arguments: look("input", arguments)),
            module.register_forward_hook(lambda _, arguments, output: look("output", output)),
        ]

    handles = [handle for name, module in modules.items() for handle in watch(module, name)]
    try:
        with torch.no_grad():
            repeat()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
