"""Classifier-free guidance of a prior by its condition (Ho and Salimans 2022, arXiv 2207.12598).

A prior that was trained with label dropout knows p(code | label) and p(code). Guidance W mixes their logits,

    unconditional + W (conditional - unconditional),

so that every code is drawn from p(code) (p(code | label) / p(code))^W, normalised. 1 is the prior given its label and
costs nothing; 0 is the prior without it; above 1 items say their label more clearly and differ less from one another.

Departures: the paper mixes the scores of a diffusion model with w = W - 1 (eq. 6); here logits are mixed, code by code,
so that the whole item does not follow the product of the two distributions. Whether a sequence ends is not guided.

Shape suffixes: B items, A attributes of the condition, K codes.
"""

import math
from typing import Any

import torch
from torch import Tensor

from stage2_prior.prior import NO_LABEL, Prior
from twostage.errors import UsageError


class Walk:
    """A batch on its way through a prior: with guidance twice the items side by side, the second half without label.

    Args:
        prior: where the logits come from.
        items: B.
        condition_BA: of the items; guidance other than 1 needs one (`check_guidable`).
        guidance: W.
    """

    def __init__(self, prior: Prior, items: int, condition_BA: Tensor | None, *, guidance: float) -> None:
        self._prior, self._items, self._guidance = prior, items, guidance
        if guidance != 1 and condition_BA is not None:
            condition_BA = torch.cat([condition_BA, torch.full_like(condition_BA, NO_LABEL)])
        self._condition = condition_BA
        self._state: Any = prior.initial_state(items if guidance == 1 else 2 * items, condition_BA)

    def step(self, symbol_B: Tensor | None) -> Tensor:
        """Take in the codes of the previous symbol, None before the first; return the logits of the next, [B, K]."""
        if self._guidance == 1:
            logits_BK, self._state = self._prior.step(self._state, symbol_B, self._condition)
            return logits_BK
        twice = None if symbol_B is None else torch.cat([symbol_B, symbol_B])
        both, self._state = self._prior.step(self._state, twice, self._condition)
        given_BK, free_BK = both.chunk(2)
        mixed_BK = free_BK + self._guidance * (given_BK - free_BK)
        return mixed_BK.where(given_BK > -math.inf, given_BK)  # what is ruled out stays so, and is no NaN

    @property
    def end_logit_B(self) -> Tensor:
        """Log-odds of an end before the position of the logits that came last, given the condition."""
        return self._prior.end_logit(self._state)[: self._items]


def check_guidable(prior: Prior, condition_BA: Tensor | None) -> None:
    """Raise UsageError unless there is a condition to strengthen, and a prior that also knows codes without it."""
    if condition_BA is None:
        raise UsageError("Expected a condition for the guidance to strengthen, got none: give one, or guidance 1.")
    if not prior.condition_optional:
        raise UsageError(
            "Expected a prior that was trained with label dropout for guidance, got one that knows codes with a label "
            "only: train it with label dropout, or take guidance 1."
        )
