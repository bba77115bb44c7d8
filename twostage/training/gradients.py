"""Loss and gradient of one step's batch, whoever computes which part of it, and the check that they are finite.

The batch of (seed, step) is cut into one part for each process, and that into `accumulate` parts worked through one
after the other. A part's loss is a mean; its weight says over how much (items, unless the task counts something else).
The gradient of the whole batch is the weighted mean of the parts' gradients: up to the rounding of sums it is that of
the batch in one piece. Gradients, loss, numbers for the record and signals received cross in one message.

Why not DistributedDataParallel: nothing may reach optimiser or codebook before all processes know the summed gradient
to be finite, so there is little to gain from sending while the backward pass runs; and the model stays a plain module.

In one part and one process this is a plain forward and backward pass: no copy, no weight, no message.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twostage.config.schema import TrainingConfig
from twostage.data.batches import batch_indices
from twostage.distributed import own_part, rank, sum_over_ranks, world_size
from twostage.errors import UsageError
from twostage.noise import BatchNoise, seed_step, step_seed
from twostage.training.finite import NotFinite, all_finite, blame
from twostage.training.interrupts import SIGNALS
from twostage.training.task import StepResult, Task


@dataclass(frozen=True)
class BatchGradient:
    """What a step's whole batch gave; the gradients themselves are in the model, clipped."""

    result: StepResult
    """Loss and metrics of the whole batch on every rank; output: the sum over this process's parts."""
    loss: float
    gradient_norm: float
    """Before clipping."""
    signal: int | None
    """A signal that some process had received before the gradients were added up."""


def check_parts(budget: TrainingConfig) -> None:
    """Raise UsageError if a step's batch has not an item for every part."""
    parts = world_size() * budget.accumulate
    if budget.batch_size < parts:
        raise UsageError(
            f"expected a batch of at least {parts} items, one for each of {world_size()} processes times "
            f"{budget.accumulate} parts, but batch_size is {budget.batch_size}: use fewer, or larger batches"
        )


def batch_noise(budget: TrainingConfig, seed: int, step: int, *, items: int) -> BatchNoise | nullcontext[None]:
    """The noise of a step's batch out of `items`, to be in force from its first forward pass until its codebook update.

    None where the batch is worked through in one part.
    """
    if world_size() * budget.accumulate == 1:
        return nullcontext()
    batch = batch_indices(seed=seed, step=step, batch_size=budget.batch_size, items=items)
    return BatchNoise(step_seed(seed, step), items=batch)


def batch_gradient(
    task: Task,
    noise: BatchNoise | None,
    *,
    budget: TrainingConfig,
    seed: int,
    step: int,
    device: torch.device,
    received: Callable[[], int | None],
) -> BatchGradient:
    """Forward and backward pass of the batch of (seed, step); leaves its gradient, clipped, in the model.

    Args:
        task: what is trained.
        noise: from `batch_noise`, in force.
        budget, seed, step, device: of the training.
        received: the signal that this process has received, if any.

    Raises:
        NotFinite: weights, loss, gradient or what `after_step` is handed are not, in whichever process; raised in all.
    """
    batch = batch_indices(seed=seed, step=step, batch_size=budget.batch_size, items=task.items)
    task.model.zero_grad(set_to_none=True)

    def forward() -> Iterator[tuple[StepResult, int]]:
        first, own = own_part(batch)
        for number, items in enumerate(np.array_split(own, budget.accumulate)):
            seed_step(seed, step, rank() * budget.accumulate + number)
            if noise is not None:
                noise.begin_part(first, len(items))
            with torch.autocast(device.type, torch.bfloat16, enabled=budget.precision == "bf16"):
                result = task.loss(items)
            yield result, len(items)
            first += len(items)

    results = [_backward(result, items=items, weighted=noise is not None) for result, items in forward()]
    parameters = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
    sound = all_finite([result.output for result in results], results[0].loss.device)
    if noise is None:
        total, gradients, signal = results[0], [p.grad for p in parameters], received()
    else:
        total, gradients, signal, sound = _add_up(results, parameters, received(), sound)
    norm = nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    loss, gradient_norm = total.loss.item(), norm.item()
    if not (math.isfinite(loss) and math.isfinite(gradient_norm) and bool(sound)):
        what, where = blame(task.model, results, batch, lambda: list(forward()))
        numbers = f"loss {loss}, gradient norm {gradient_norm}"
        raise NotFinite(f"{what} is not finite at step {step} ({numbers}{where}) and went no further")
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    nn.utils.clip_grads_with_norm_(parameters, budget.clip_norm or math.inf, norm)
    return BatchGradient(result=total, loss=loss, gradient_norm=gradient_norm, signal=signal)


def _backward(result: StepResult, *, items: int, weighted: bool) -> StepResult:
    """Add a part's gradient to the model's; the result without its graph, and with its weight."""
    weight = float(items) if result.weight is None else result.weight
    (result.loss * weight if weighted else result.loss).backward()
    return replace(result, loss=result.loss.detach(), weight=weight)


def _add_up(
    results: Sequence[StepResult], parameters: Sequence[nn.Parameter], received: int | None, sound: Tensor
) -> tuple[StepResult, list[Tensor | None], int | None, Tensor]:
    """Weighted means over all parts of all processes, a signal to any, whether all outputs are finite (`sound`).

    Of several processes each keeps its gradients.
    """
    names, device = list(results[0].metrics), results[0].loss.device
    weights = torch.tensor([result.weight for result in results], device=device)
    table = torch.stack([_row(result, names) for result in results])  # parts x (loss, metrics)
    # Which parameters have a gradient at all is the same everywhere, unless a task chooses by what it sees.
    present = torch.tensor([parameter.grad is not None for parameter in parameters], device=device).float()
    signals = torch.tensor([float(received == number) for number in SIGNALS], device=device)
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    sums, total, present, signals, faults, *gradients = sum_over_ranks(
        (weights[:, None] * table).sum(0), weights.sum(), present, signals, (~sound).float(), *own
    )
    means, outputs = sums / total, [result.output for result in results]
    result = StepResult(
        loss=means[0],
        metrics=dict(zip(names, means[1:], strict=True)),
        output=None if outputs[0] is None else reduce(add, outputs),
    )
    there = zip(gradients, present.tolist(), strict=True)
    signal = next((number for number, count in zip(SIGNALS, signals.tolist(), strict=True) if count), None)
    return result, [gradient.div_(total) if count else None for gradient, count in there], signal, faults == 0


def _row(result: StepResult, names: Sequence[str]) -> Tensor:
    numbers: list[Any] = [result.loss, *(result.metrics[name] for name in names)]
    return torch.stack([torch.as_tensor(number, device=result.loss.device).detach().float() for number in numbers])
