"""Progress of a batch through its codes, for priors made of an embedding, a causal trunk and a `CodeHead`.

The trunk runs once per position, on the sum of the embeddings of the previous position's codes; the head runs once per
code, and the decision on an end, where there is one, once per position. The codes are ordered n = s G + g for position
s and codebook g.

Shape suffixes: B items, G codebooks, K codes, C channels, S features, A attributes.
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from stage2_prior.heads import CodeHead, CodeHeadState
from twostage.errors import UsageError


class TrunkState(Protocol):
    """One walk of a causal stack (`GatedStackState`, `DilatedStackState`)."""

    def advance(self, x_BC: Tensor | None) -> Tensor:
        """Take in the input of the previous position, None before the first; return the features of this one [B, S]."""


class CodeState:
    """Position, trunk, head and the embedding of the codes so far of the current position; updated in place.

    Args:
        trunk: before its first position.
        head, embedding_GKC: of the prior; copied, so that the state belongs to the weights of this moment.
        positions: how many there are at most.
        batch_size: items B walked side by side.
        condition_BA: the condition that went into the trunk.
        end: from features to the log-odds of an end, copied too; None of grids.
    """

    @torch.no_grad()
    def __init__(
        self,
        trunk: TrunkState,
        *,
        head: CodeHead,
        embedding_GKC: Tensor,
        positions: int,
        batch_size: int,
        condition_BA: Tensor | None,
        end: nn.Linear | None = None,
    ) -> None:
        self._trunk = trunk
        self._head = CodeHeadState(head)
        self._embedding_GKC = embedding_GKC.clone()
        self._codebooks = len(embedding_GKC)
        self._symbols = self._codebooks * positions
        self._symbol = 0
        self._batch_size = batch_size
        self._condition_BA = condition_BA
        self._end = None if end is None else (end.bias.clone(), end.weight.T.clone())
        self._x_BC: Tensor | None = None
        self._features_BS: Tensor | None = None  # of the current position

    @property
    @torch.no_grad()
    def end_logit_B(self) -> Tensor:
        """Log-odds that the sequence ends before the position of the logits that came last; minus infinity before 0."""
        if self._features_BS is None:
            raise ValueError("expected a step before the question for an end")
        if self._end is None or self._symbol <= self._codebooks:
            return self._features_BS.new_full((self._batch_size,), -math.inf)
        bias, weight_S1 = self._end
        return torch.addmm(bias, self._features_BS, weight_S1)[:, 0]

    @torch.no_grad()
    def advance(self, symbol_B: Tensor | None, condition_BA: Tensor | None) -> Tensor:
        """Take in code n - 1 (int64 [B], None at n = 0); return the logits of code n, [B, K].

        Raises:
            UsageError: the symbol or the condition does not fit the state, or all positions are complete.
        """
        check_step(self._symbol, self._symbols, symbol_B, batch_size=self._batch_size)
        check_same_condition(condition_BA, self._condition_BA)
        codebook = self._symbol % self._codebooks
        self._symbol += 1
        if symbol_B is not None:
            previous = codebook - 1 if codebook else self._codebooks - 1
            embedded_BC = self._embedding_GKC[previous].index_select(0, symbol_B)
            self._x_BC = embedded_BC if previous == 0 or self._x_BC is None else self._x_BC + embedded_BC
            if codebook:
                return self._head.following(codebook, symbol_B)
        self._features_BS = self._trunk.advance(self._x_BC)
        return self._head.first(self._features_BS)


def check_same_condition(condition_BA: Tensor | None, own_BA: Tensor | None) -> None:
    """Raise UsageError unless a condition, where one is given, is the one that a state was made with."""
    if condition_BA is None or condition_BA is own_BA:
        return
    if own_BA is None or not torch.equal(condition_BA, own_BA):
        raise UsageError(
            "Expected the condition that the state was made with, got another one: make a new state for it."
        )


def check_step(step: int, steps: int, symbol_B: Tensor | None, *, batch_size: int) -> None:
    """Raise UsageError unless a step of at most `steps` may follow `step` others and take in that symbol."""
    if step == steps:
        raise UsageError(f"Expected at most {steps} steps per state, got one more: make a new state.")
    if (symbol_B is None) != (step == 0):
        came = "none" if symbol_B is None else "one"
        raise UsageError(
            f"Expected no symbol at the first step and one at every other, got {came} at step {step}: hand in the "
            "symbol drawn last."
        )
    if symbol_B is not None and (symbol_B.shape != (batch_size,) or symbol_B.dtype != torch.int64):
        raise UsageError(
            f"Expected a symbol of shape [{batch_size}] and type int64, got {list(symbol_B.shape)} and "
            f"{symbol_B.dtype}: hand in one code per item."
        )
