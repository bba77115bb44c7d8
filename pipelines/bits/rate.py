"""Bits of codes, per item: under uniform and training frequencies, and under a learned prior; of grids and sequences.

The label of a conditional prior is either marginalised, p(z) = sum_y p(y) p(z|y) with the training frequencies of the
labels, or given; then its bits must be paid elsewhere.

Shapes: N items, B items of a batch, G codebooks of K codes, grid or T positions, P of them in a row, Y labels, A
attributes of the condition. What lies behind an item's length costs nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stage2_prior import Prior
from twostage.distributed import own_batches
from twostage.errors import UsageError
from twostage.grids import Grids, split_levels

from .batches import over_batches


def _inside(codes: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
    """Which positions are an item's own, `[N, *grid]`; all of a grid."""
    shape = (len(codes), *codes.shape[2:])
    return np.ones(shape, bool) if lengths is None else np.arange(shape[1]) < lengths[:, None]


def uniform_bits(codes: np.ndarray, codebook_size: int, lengths: np.ndarray | None = None) -> np.ndarray:
    """`[N]` bits of codes `[N, G, *grid]` at log2 K each."""
    positions_N = _inside(codes, lengths).reshape(len(codes), -1).sum(1)
    return positions_N * codes.shape[1] * math.log2(codebook_size)


def unigram_bits(
    codes: np.ndarray,
    train_codes: np.ndarray,
    codebook_size: int,
    lengths: np.ndarray | None = None,
    train_lengths: np.ndarray | None = None,
    *,
    grids: Grids | None = None,
) -> np.ndarray:
    """`[N]` bits of codes `[N, G, *grid]` under add-one-smoothed training frequencies, one table per codebook.

    Of a hierarchy, codes `[N, G, P]` of several `grids`, one per codebook and level.
    """
    if grids is not None and len(grids) > 1:
        pairs = zip(split_levels(codes, grids), split_levels(train_codes, grids), strict=True)
        return np.sum([unigram_bits(own, train, codebook_size) for own, train in pairs], axis=0)
    bits_N = np.zeros(len(codes))
    inside, train_inside = _inside(codes, lengths), _inside(train_codes, train_lengths)
    for group in range(codes.shape[1]):
        counts_K = np.bincount(train_codes[:, group][train_inside], minlength=codebook_size) + 1.0
        bits_K = -np.log2(counts_K / counts_K.sum())
        bits_N += np.where(inside, bits_K[codes[:, group]], 0.0).reshape(len(codes), -1).sum(1)
    return bits_N


def label_frequencies(prior: Prior, train_labels: np.ndarray) -> np.ndarray | None:
    """`[Y]` training frequencies of the labels of a prior with one attribute; None of a prior without labels."""
    if not prior.classes:
        return None
    return np.bincount(train_labels, minlength=prior.classes[0]) / len(train_labels)


@dataclass(frozen=True)
class LearnedRate:
    """What the codes of every item cost under a learned prior."""

    bits: np.ndarray
    """`[N]`, float64: of the codes, ends apart."""
    end_bits: np.ndarray
    """`[N]`, float64: of how many there are; 0 of grids."""
    by_position: np.ndarray | None
    """`[N, *grid]`, float64: all codes of a position given those before it, so that they add up to `bits`, up to the
    rounding of that sum in fp32. None where it was not asked for."""


@torch.no_grad()
def learned_log_prob(prior: Prior, codes: Tensor, frequency_Y: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """log p(z) of grids in nats, `[B]` float64, labels marginalised; and its terms log p(y) + log p(z|y), `[Y, B]`."""
    per_label = prior.log_probs_by_code(codes, _every_label(len(codes), frequency_Y, device=codes.device))
    return _marginal([log_probs.codes.flatten(1).sum(1) for log_probs in per_label], frequency_Y)


def _every_label(items: int, frequency_Y: np.ndarray | None, *, device: torch.device) -> Iterable[Tensor | None]:
    """One condition `[B, 1]` after another; None alone without labels."""
    if frequency_Y is None:
        return (None,)
    return (torch.full((items, 1), label, device=device) for label in range(len(frequency_Y)))


def _marginal(log_prob_of_Y: Sequence[Tensor], frequency_Y: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """log p(z) and its terms, as `learned_log_prob` gives them, from log p(z|y) `[B]` of every label."""
    pairs = zip(log_prob_of_Y, np.ones(1) if frequency_Y is None else frequency_Y, strict=True)
    terms_YB = torch.stack([log_prob_B.double() + math.log(max(frequency, 1e-300)) for log_prob_B, frequency in pairs])
    return terms_YB.logsumexp(0), terms_YB


def _marginal_by_position(log_prob_YBP: Tensor, frequency_Y: np.ndarray | None) -> Tensor:
    """log p of each position's codes given those before it, `[B, P]`, from those given the label as well.

    Under p(z) = sum_y p(y) p(z|y) position n costs log p(z_<n) - log p(z_<=n), which the running sums of every label's
    own log-probabilities give.
    """
    frequency_Y = np.ones(1) if frequency_Y is None else frequency_Y
    log_frequency_Y = torch.log(torch.from_numpy(np.maximum(frequency_Y, 1e-300))).to(log_prob_YBP.device)
    log_prob_BP = (log_prob_YBP.cumsum(2) + log_frequency_Y[:, None, None]).logsumexp(0)
    before_BP = torch.cat([torch.zeros_like(log_prob_BP[:, :1]), log_prob_BP[:, :-1]], 1)
    return log_prob_BP - before_BP


@torch.no_grad()
def learned_rate(
    prior: Prior,
    codes: np.ndarray,
    lengths: np.ndarray | None = None,
    *,
    condition: np.ndarray | None = None,
    frequencies: np.ndarray | None = None,
    by_position: bool = False,
    device: torch.device,
    batch_size: int,
    label: str = "learned rate",
) -> LearnedRate:
    """Bits of codes `[N, G, *grid]` under the prior, in one pass over the labels.

    Args:
        lengths: `[N]` positions of every item, of a prior with an end alone.
        condition: `[N, A]`, given: its bits are no part of the result.
        frequencies: `[Y]`, in place of a condition: the labels are marginalised, of grids alone.
        by_position: whether to tell the positions apart.
        label: of the progress bar.

    Raises:
        UsageError: the labels of sequences are to be marginalised.
    """
    if prior.has_end and frequencies is not None:
        raise UsageError("Expected the condition of sequences, got label frequencies: give it, and pay for it.")

    def measure(batch: np.ndarray) -> list[np.ndarray]:
        lengths_B = None if lengths is None else torch.from_numpy(lengths[batch]).to(device)
        longest = codes.shape[-1] if lengths is None else int(lengths[batch].max())
        codes_B = torch.from_numpy(codes[batch][..., :longest].astype(np.int64)).to(device)
        conditions = _every_label(len(batch), frequencies, device=device)
        if condition is not None:
            conditions = (torch.from_numpy(condition[batch]).to(device),)
        totals, ends_B, positions = [], torch.zeros(len(batch)), []
        for log_probs in prior.log_probs_by_code(codes_B, conditions, lengths_B):
            totals.append(log_probs.codes.flatten(1).sum(1))
            ends_B = log_probs.end.sum(1)
            if by_position:
                positions.append(log_probs.codes.sum(1).double().flatten(1))
        nats = [-_marginal(totals, frequencies)[0], -ends_B.double()]
        if by_position:
            nats += -_marginal_by_position(torch.stack(positions), frequencies).t()
        found = [nats_B.cpu().numpy() / math.log(2) for nats_B in nats]
        return found + [np.zeros(len(batch))] * (rows - len(found))

    grid = codes.shape[2:]
    rows = 2 + (math.prod(grid) if by_position else 0)
    # Equal lengths side by side: padding is computed like anything else.
    order_N = np.arange(len(codes)) if lengths is None else np.argsort(-lengths, kind="stable")
    batches = (order_N[batch] for batch in own_batches(len(codes), batch_size))
    bits_RN = over_batches(label, rows, len(codes), ((batch, measure(batch)) for batch in batches))
    positions_N = bits_RN[2:].T.reshape(len(codes), *grid) if by_position else None
    return LearnedRate(bits=bits_RN[0], end_bits=bits_RN[1], by_position=positions_N)
