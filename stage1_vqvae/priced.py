"""Codes with a price: what stage one knows of a finished prior while it is trained to lower the rate along with the
distortion.

The prior is frozen. Its prices of all K codes at every place, given the codes before, come from one pass over the codes
that were chosen; the loss of stage one gets their expected value (`stage1_vqvae.quantiser.expected_cost`) at its true
weight, as a part of the same message. What a changed code does to the prices of those behind it has no part in the
gradient. Afterwards the prior is fitted to the new codes.

Shapes: N items, B items of a batch, A attributes of the condition, G codebooks of K codes, T the axes of the codes.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class CodePrices(Protocol):
    """What codes cost under a distribution that is not trained: nats, without gradient.

    Lengths, int64 `[B]`, are those of sequences: what lies behind them has no price and may be anything.
    """

    def of_all(self, codes_BGT: Tensor, condition_BA: Tensor | None, lengths_B: Tensor | None = None) -> Tensor:
        """`[B, G, *T, K]`, the price of every code at every place given the codes before it."""

    def of_items(self, codes_BGT: Tensor, condition_BA: Tensor | None, lengths_B: Tensor | None = None) -> Tensor:
        """`[B]`, the price of an item's codes, and of their number where that is not given."""


@dataclass(frozen=True)
class Priced:
    """Prices, and what they depend on beside the codes."""

    prices: CodePrices
    train_condition: Tensor | None
    """`[N, A]` int64 of the training items, on the device of the model; None of an unconditional prior."""
    validation_condition: Tensor | None
    """The same of the validation items."""

    def of_all(self, codes_BGT: Tensor, rows_B: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Prices of all codes of the training items `rows_B`, `[B, G, *T, K]`."""
        return self.prices.of_all(codes_BGT, _of(self.train_condition, rows_B), lengths_B)

    def of_items(self, codes_BGT: Tensor, rows_B: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Prices of the codes of the validation items `rows_B`, `[B]`."""
        return self.prices.of_items(codes_BGT, _of(self.validation_condition, rows_B), lengths_B)


def _of(condition_NA: Tensor | None, rows_B: Tensor) -> Tensor | None:
    return None if condition_NA is None else condition_NA[rows_B.to(condition_NA.device)]
