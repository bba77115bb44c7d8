"""What the training loop knows of what it trains: a model, a loss of some items, a number to be lowered."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class StepResult:
    """What a task hands back for one batch, or for a part of one."""

    loss: Tensor
    """Scalar to minimise, a mean."""
    metrics: Mapping[str, Tensor]
    """Scalars for the record, means over the same."""
    output: object = None
    """Handed back to the task's `after_step`; those of a batch's parts are added with `+`."""
    weight: float | None = None
    """How many the loss is the mean over; None: the items of the batch."""


class Task(Protocol):
    """What is trained; the loop knows no more than this.

    Of several processes each calls every method in the same order: `loss` with items of its own, the others alike.
    Noise of an item comes from `twostage.noise.batch_uniform` and `batch_normal`, so that a batch in parts sees the
    same.
    """

    items: int
    """Training items; the batch stream runs over 0..items-1."""
    objective: str
    """Name of the validation number that picks the best model and ends an impatient run; lower is better."""

    @property
    def model(self) -> nn.Module:
        """What the optimiser moves, and what `validate` measures: with a weight average, it holds that meanwhile."""

    def start(self) -> None:
        """Called once before step 0 of a fresh run (k-means init)."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Loss of the training items at `indices`, a step's batch or a part of it; must not change the model."""

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Called after the optimiser's step (codebook update); its numbers join the record."""

    def validate(self) -> Mapping[str, float]:
        """Numbers on validation data, `objective` among them, the same in every process.

        The model is in eval mode, fp32, no gradients.
        """
