"""What every prior over codes offers: a parallel log-probability and an incremental step.

Sampling, evaluation and a later entropy coder know a prior only through this interface, so that images ([B, G, H, W])
and audio ([B, G, T]) take the same road.

Order of the symbols: raster over the grid, and inside one grid position the G codebooks in order. Symbol n of an item
is code g = n mod G at raster position n div G.

Shape suffixes: B items, G codebooks, S = the grid axes, A attributes of the condition, K codes in a codebook.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from twostage.errors import UsageError


class Prior(Protocol):
    """A normalised autoregressive distribution over integer arrays of `code_shape`."""

    @property
    def codebook_size(self) -> int:
        """K: codes run from 0 to K - 1."""

    @property
    def code_shape(self) -> tuple[int, ...]:
        """(G, *grid) of one item."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Number of classes of each attribute of the condition; empty for an unconditional prior."""

    @property
    def condition_optional(self) -> bool:
        """Whether a prior with classes also takes None, which means "no label": it was trained with label dropout."""

    def log_prob(self, codes_BGS: Tensor, condition_BA: Tensor | None = None) -> Tensor:
        """Log-probability of each item in nats, [B]."""

    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> Any:
        """State before the first symbol."""

    def step(self, state: Any, symbol_B: Tensor | None, condition_BA: Tensor | None = None) -> tuple[Tensor, Any]:
        """Take in symbol n - 1 (None at n = 0) and return the logits of symbol n, [B, K], and the next state.

        The state handed in must not be used again: it may have been updated in place. No dropout, no gradient.
        """


def check_condition(condition_BA: Tensor | None, *, classes: tuple[int, ...], optional: bool, batch_size: int) -> None:
    """Raise UsageError unless the condition fits: int64 [batch_size, A], each attribute inside its classes.

    With `optional` (the prior's `condition_optional`) None fits as well. The values are looked at only on the CPU; on
    an accelerator that would stall every training step.
    """
    if condition_BA is None:
        if classes and not optional:
            raise UsageError(
                f"Expected a condition of shape [{batch_size}, {len(classes)}] because this prior is conditional on "
                f"{len(classes)} attribute(s), got none: pass one class per attribute and item, or train the prior "
                "with label dropout."
            )
        return
    if not classes:
        raise UsageError("Expected no condition because this prior is unconditional, got one: leave it out.")
    if tuple(condition_BA.shape) != (batch_size, len(classes)) or condition_BA.dtype != torch.int64:
        raise UsageError(
            f"Expected a condition of shape [{batch_size}, {len(classes)}] and type int64, got "
            f"{list(condition_BA.shape)} and {condition_BA.dtype}: pass one class per attribute and item."
        )
    if condition_BA.device.type != "cpu" or batch_size == 0:
        return
    for attribute, size in enumerate(classes):
        low, high = (int(value) for value in condition_BA[:, attribute].aminmax())
        if low < 0 or high >= size:
            raise UsageError(
                f"Expected classes 0 to {size - 1} for attribute {attribute} of the condition, got "
                f"{low if low < 0 else high}: choose a class this prior was trained on."
            )
