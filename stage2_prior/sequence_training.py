"""Stage-two task for sequences of unequal length: maximum likelihood of codes and length under a `WaveNet`.

Shapes: N items, B items of a batch, G codebooks, T positions, A attributes of the condition.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stage2_prior.wavenet import WaveNet
from twostage.training.task import StepResult


class SequencePriorTask:
    """Fit a prior to sequences; the best model has the lowest validation bits per code, ends paid, given the condition.

    Args:
        model: on the device where it trains.
        train, validation: codes `[N, G, T]`, int64, on the same device; what lies behind an item's length may be
            anything.
        train_lengths, validation_lengths: `[N]` int64, positions of every item.
        train_condition, validation_condition: `[N, A]` int64, or None for an unconditional prior.
        evaluation_batch_size: items per validation pass.
    """

    objective = "bits_per_code"

    def __init__(
        self,
        model: WaveNet,
        *,
        train: Tensor,
        train_lengths: Tensor,
        train_condition: Tensor | None,
        validation: Tensor,
        validation_lengths: Tensor,
        validation_condition: Tensor | None,
        evaluation_batch_size: int,
    ) -> None:
        self.model = model
        self.train, self.train_lengths, self.train_condition = train, train_lengths, train_condition
        self.validation, self.validation_lengths = validation, validation_lengths
        self.validation_condition = validation_condition
        self.evaluation_batch_size = evaluation_batch_size
        self.items = len(train)

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Mean nats per code of the training items at `indices`, their ends included."""
        rows = torch.from_numpy(indices)
        lengths_B = self.train_lengths[rows]
        codes_BGT = self.train[rows, :, : int(lengths_B.max())]
        condition = None if self.train_condition is None else self.train_condition[rows]
        codes = lengths_B.sum() * codes_BGT.shape[1]
        loss = -self.model.log_prob(codes_BGT, condition, lengths_B).sum() / codes
        return StepResult(loss=loss, metrics={"bits_per_code": loss.detach() / math.log(2)}, weight=float(codes))

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bits per code over all validation items, with the ends, and those of the end alone per item."""
        codes_nats, end_nats = 0.0, 0.0
        # Equal lengths side by side: padding is computed like anything else.
        order = torch.argsort(self.validation_lengths, descending=True, stable=True)
        for rows in order.split(self.evaluation_batch_size):
            lengths_B = self.validation_lengths[rows]
            condition = None if self.validation_condition is None else self.validation_condition[rows]
            parts = self.model.log_prob_parts(self.validation[rows, :, : int(lengths_B[0])], condition, lengths_B)
            codes_nats -= parts.codes_B.double().sum().item()
            end_nats -= parts.end_B.double().sum().item()
        codes = int(self.validation_lengths.sum()) * self.validation.shape[1]
        return {
            "bits_per_code": (codes_nats + end_nats) / (math.log(2) * codes),
            "end_bits_per_item": end_nats / (math.log(2) * len(self.validation)),
        }
