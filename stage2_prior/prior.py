"""What every prior over codes offers: a parallel log-probability and an incremental step.

Sampling, training, evaluation and the range coder know a prior only through this interface, so that grids of images
([B, G, H, W]) and sequences of sound ([B, G, T]) take the same road.

Order of the symbols: raster over the grid, and inside one grid position the G codebooks in order. Symbol n of an item
is code g = n mod G at raster position n div G. Of a hierarchy the grids follow one another, coarsest first, in codes
[B, G, N] (`twostage.grids`).

A prior with an end is one over sequences of 1 to T positions, T the last of its `code_shape`: before every position but
the first it also decides whether the sequence ends there. A grid has no end and no lengths.

Shape suffixes: B items, G codebooks, S = the grid axes, A attributes of the condition, K codes in a codebook.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from twostage.errors import UsageError
from twostage.grids import Grids

NO_LABEL = -1
"""In all attributes of an item's condition: no label, of a prior that can do without."""


@dataclass(frozen=True)
class LogProbParts:
    """Log-probabilities of a batch in nats, by item or by code."""

    codes: Tensor
    """Of the codes, given that the sequence is at least that long: [B], or [B, G, *S] given the codes before each."""
    end: Tensor
    """Of going on after every position but the last, and of ending there: [B], or [B, T] after each position. 0 of
    grids, which have no decisions, [B, 0]."""

    @classmethod
    def of_grid(cls, codes: Tensor) -> "LogProbParts":
        """Of codes without an end, by item or by code."""
        return cls(codes, codes.new_zeros(codes.shape if codes.ndim == 1 else (len(codes), 0)))


class Prior(Protocol):
    """A normalised autoregressive distribution over integer arrays of `code_shape`, or of up to its last axis.

    Every method that takes `lengths_B`, int64 [B], takes it for a prior with an end alone; None: all of the codes. What
    lies behind an item's length may be anything.
    """

    @property
    def codebook_size(self) -> int:
        """K: codes run from 0 to K - 1."""

    @property
    def code_shape(self) -> tuple[int, ...]:
        """(G, *grid) of one item, of a hierarchy (G, N)."""

    @property
    def grids(self) -> Grids:
        """Grid of every level, coarsest first; one of all but a hierarchy."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Number of classes of each attribute of the condition; empty for an unconditional prior."""

    @property
    def condition_optional(self) -> bool:
        """Whether a prior with classes also takes None, which means "no label": it was trained with label dropout.

        Then -1 in all attributes of an item means the same for that item alone.
        """

    @property
    def has_end(self) -> bool:
        """Whether items are sequences with lengths of their own, which the prior knows as well as the codes."""

    def log_prob(
        self, codes_BGS: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> Tensor:
        """Log-probability of each item in nats, its end included, [B]."""

    def log_prob_parts(
        self, codes_BGS: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> LogProbParts:
        """The same in its two parts."""

    def log_probs_by_code(
        self, codes_BGS: Tensor, conditions: Iterable[Tensor | None], lengths_B: Tensor | None = None
    ) -> Iterator[LogProbParts]:
        """The same by code and by decision, under one condition after another; 0 behind an item's length."""

    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> Any:
        """State before the first symbol."""

    def step(self, state: Any, symbol_B: Tensor | None, condition_BA: Tensor | None = None) -> tuple[Tensor, Any]:
        """Take in symbol n - 1 (None at n = 0) and return the logits of symbol n, [B, K], and the next state.

        The state handed in must not be used again: it may have been updated in place. No dropout, no gradient.
        """

    def end_logit(self, state: Any) -> Tensor:
        """Log-odds, [B], that the sequence ends before the position of the logits that `step` returned last.

        Minus infinity before the first position, and before all of a prior without an end.
        """


def check_condition(condition_BA: Tensor | None, *, classes: tuple[int, ...], optional: bool, batch_size: int) -> None:
    """Raise UsageError unless the condition fits: int64 [batch_size, A], each attribute inside its classes.

    With `optional` (the prior's `condition_optional`) None fits as well, and -1 in all attributes of an item. The
    values are looked at only on the CPU; on an accelerator that would stall every training step.
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
    labelled_BA = condition_BA[(condition_BA != NO_LABEL).any(dim=1)] if optional else condition_BA
    for attribute, size in enumerate(classes if len(labelled_BA) else ()):
        low, high = (int(value) for value in labelled_BA[:, attribute].aminmax())
        if low < 0 or high >= size:
            raise UsageError(
                f"Expected classes 0 to {size - 1} for attribute {attribute} of the condition, got "
                f"{low if low < 0 else high}: choose a class this prior was trained on."
            )


def check_codes(codes_BGS: Tensor, *, code_shape: tuple[int, ...], codebook_size: int, ends: bool) -> None:
    """Raise UsageError unless the codes fit a prior: int64 [B, *code_shape], with an end also of fewer positions.

    The values are looked at only on the CPU; on an accelerator that would stall every training step.
    """
    came = tuple(codes_BGS.shape[1:])
    fits = came == code_shape or (ends and came[:-1] == code_shape[:-1] and 1 <= came[-1] <= code_shape[-1])
    if not fits or codes_BGS.dtype != torch.int64:
        last = [f"1 to {code_shape[-1]}"] if ends else [str(code_shape[-1])]
        expected = ", ".join([*map(str, code_shape[:-1]), *last])
        raise UsageError(
            f"Expected codes of shape [B, {expected}] and type int64, got {list(codes_BGS.shape)} and "
            f"{codes_BGS.dtype}: use codes of the codebook this prior was built for."
        )
    if codes_BGS.device.type == "cpu":
        check_code_values(codes_BGS, codebook_size=codebook_size)


def check_code_values(codes: Tensor, *, codebook_size: int, what: str = "codes") -> None:
    """Raise UsageError unless all of `what` are codes of a codebook."""
    if codes.numel() == 0:
        return
    low, high = (int(value) for value in codes.aminmax())
    if low < 0 or high >= codebook_size:
        raise UsageError(
            f"Expected {what} 0 to {codebook_size - 1}, got {low if low < 0 else high}: use codes of the codebook this "
            "prior was built for."
        )


def check_lengths(lengths_B: Tensor | None, codes_BGS: Tensor, *, ends: bool) -> None:
    """Raise UsageError unless the lengths fit the codes; their values are looked at only on the CPU."""
    if lengths_B is None:
        return
    if not ends:
        raise UsageError("Expected no lengths because this prior is one over whole grids, got some: leave them out.")
    if lengths_B.shape != codes_BGS.shape[:1] or lengths_B.dtype != torch.int64:
        raise UsageError(
            f"Expected lengths of shape [{len(codes_BGS)}] and type int64, got {list(lengths_B.shape)} and "
            f"{lengths_B.dtype}: give one length per item."
        )
    if lengths_B.device.type != "cpu" or len(lengths_B) == 0:
        return
    low, high = (int(value) for value in lengths_B.aminmax())
    if low < 1 or high > codes_BGS.shape[-1]:
        raise UsageError(
            f"Expected lengths 1 to {codes_BGS.shape[-1]}, the positions of the codes, got "
            f"{low if low < 1 else high}: give each item's own number of positions."
        )
