"""Stage-two task for the training loop: maximum likelihood of codes under an autoregressive prior.

Shapes: N items, B items of a batch, G codebooks, grid of positions, A attributes of the condition.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stage2_prior.pixelcnn import PixelCNN
from twostage.distributed import own_batches, sum_over_ranks
from twostage.training.task import StepResult


class PriorTask:
    """Fit a prior to codes; the best model has the lowest validation bits per code, given the condition.

    Args:
        model: on the device where it trains.
        train, validation: codes `[N, G, *grid]`, int64, on the same device.
        train_condition, validation_condition: `[N, A]` int64, or None for an unconditional prior.
        evaluation_batch_size: items per validation pass.
    """

    objective = "bits_per_code"

    def __init__(
        self,
        model: PixelCNN,
        *,
        train: Tensor,
        train_condition: Tensor | None,
        validation: Tensor,
        validation_condition: Tensor | None,
        evaluation_batch_size: int,
    ) -> None:
        self.model = model
        self.train, self.train_condition = train, train_condition
        self.validation, self.validation_condition = validation, validation_condition
        self.evaluation_batch_size = evaluation_batch_size
        self.items = len(train)
        self.codes_per_item = math.prod(train.shape[1:])

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Mean nats per code of the training items at `indices`."""
        rows = torch.from_numpy(indices)
        condition = None if self.train_condition is None else self.train_condition[rows]
        loss = -self.model.log_prob(self.train[rows], condition).mean() / self.codes_per_item
        return StepResult(loss=loss, metrics={"bits_per_code": loss.detach() / math.log(2)})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bits per code over all validation items, given the condition."""
        nats_N = torch.zeros(len(self.validation), dtype=torch.float64, device=self.validation.device)
        for rows in own_batches(len(self.validation), self.evaluation_batch_size):
            condition = None if self.validation_condition is None else self.validation_condition[rows]
            nats_N[rows] = -self.model.log_prob(self.validation[rows], condition).double()
        (nats_N,) = sum_over_ranks(nats_N)
        return {"bits_per_code": nats_N.mean().item() / (math.log(2) * self.codes_per_item)}
