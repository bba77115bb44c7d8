"""Stage-two task for the training loop: maximum likelihood of codes, and of ends, under an autoregressive prior.

Shapes: N items, B items of a batch, G codebooks, grid of positions, T positions of a sequence, A attributes of the
condition.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stage2_prior.hierarchical import HierarchicalPrior
from stage2_prior.pixelcnn import PixelCNN
from stage2_prior.wavenet import WaveNet
from twostage.distributed import own_batches, sum_over_ranks
from twostage.grids import named_grids, positions_of, split_levels
from twostage.training.task import StepResult


class PriorTask:
    """Fit a prior to codes; the best model has the lowest validation bits per code, ends paid, given the condition.

    Args:
        model: on the device where it trains.
        train, validation: codes `[N, G, *grid]`, int64, on the same device; what lies behind an item's length may be
            anything.
        train_condition, validation_condition: `[N, A]` int64, or None for an unconditional prior.
        evaluation_batch_size: items per validation pass.
        train_lengths, validation_lengths: `[N]` int64, positions of every item, of a prior with an end alone.
    """

    objective = "bits_per_code"

    def __init__(
        self,
        model: PixelCNN | HierarchicalPrior | WaveNet,
        *,
        train: Tensor,
        train_condition: Tensor | None,
        validation: Tensor,
        validation_condition: Tensor | None,
        evaluation_batch_size: int,
        train_lengths: Tensor | None = None,
        validation_lengths: Tensor | None = None,
    ) -> None:
        self.model = model
        self.train, self.train_condition, self.train_lengths = train, train_condition, train_lengths
        self.validation, self.validation_condition = validation, validation_condition
        self.validation_lengths = validation_lengths
        self.evaluation_batch_size = evaluation_batch_size
        self.items = len(train)

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Mean nats per code of the training items at `indices`, their ends included."""
        rows = torch.from_numpy(indices)
        codes, condition_BA, lengths_B = _batch(rows, self.train, self.train_condition, self.train_lengths)
        log_prob_B, weight = self.model.log_prob(codes, condition_BA, lengths_B), None
        if lengths_B is None:
            loss = -log_prob_B.mean() / codes[0].numel()
        else:
            number = lengths_B.sum() * codes.shape[1]
            loss, weight = -log_prob_B.sum() / number, float(number)
        return StepResult(loss=loss, metrics={"bits_per_code": loss.detach() / math.log(2)}, weight=weight)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bits per code over all validation items, with the ends, and of sequences those of the end alone per item.

        Of a hierarchy also those of every level.
        """
        if len(self.model.grids) > 1:
            return self._validate_levels()
        lengths_N, items = self.validation_lengths, len(self.validation)
        order_N = torch.arange(items, device=self.validation.device)
        if lengths_N is not None:  # equal lengths side by side: padding is computed like anything else
            order_N = torch.argsort(lengths_N, descending=True, stable=True)
        nats_N, end_nats_N = torch.zeros(2, items, dtype=torch.float64, device=self.validation.device)
        for batch in own_batches(items, self.evaluation_batch_size):
            rows = order_N[batch]
            parts = self.model.log_prob_parts(*_batch(rows, self.validation, self.validation_condition, lengths_N))
            end_nats_N[rows] = -parts.end.double()
            nats_N[rows] = -parts.codes.double() + end_nats_N[rows]
        nats_N, end_nats_N = sum_over_ranks(nats_N, end_nats_N)
        positions = math.prod(self.validation.shape[2:]) if lengths_N is None else int(lengths_N.sum()) / items
        codes = positions * self.validation.shape[1]
        found = {"bits_per_code": nats_N.mean().item() / (math.log(2) * codes)}
        if self.model.has_end:
            found["end_bits_per_item"] = end_nats_N.mean().item() / math.log(2)
        return found

    def _validate_levels(self) -> Mapping[str, float]:
        """Bits per code of all levels, and `bits_per_code_HxW` of each."""
        grids, items = self.model.grids, len(self.validation)
        nats_LN = torch.zeros(len(grids), items, dtype=torch.float64, device=self.validation.device)
        order_N = torch.arange(items, device=self.validation.device)
        for batch in own_batches(items, self.evaluation_batch_size):
            rows = order_N[batch]
            codes, condition_BA, _ = _batch(rows, self.validation, self.validation_condition, None)
            (parts,) = self.model.log_probs_by_code(codes, [condition_BA])
            for level, log_prob in enumerate(split_levels(parts.codes, grids)):
                nats_LN[level, rows] = -log_prob.double().flatten(1).sum(1)
        (nats_LN,) = sum_over_ranks(nats_LN)
        bits_L = (nats_LN.mean(1) / math.log(2)).tolist()
        codes_L = [positions * self.validation.shape[1] for positions in positions_of(grids)]
        by_level = zip(grids, bits_L, codes_L, strict=True)
        return {
            self.objective: sum(bits_L) / sum(codes_L),
            **{f"{self.objective}_{named_grids((grid,))}": bits / codes for grid, bits, codes in by_level},
        }


def _batch(
    rows: Tensor, codes: Tensor, condition: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Codes, condition and lengths of some items; sequences are cut behind the longest."""
    condition_BA, codes = None if condition is None else condition[rows], codes[rows]
    if lengths is None:
        return codes, condition_BA, None
    lengths_B = lengths[rows]
    return codes[:, :, : int(lengths_B.max())], condition_BA, lengths_B
