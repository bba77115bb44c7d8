"""Paired differences: which row is compared with which, with what sign, and how far items carry the difference."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostage.metrics.statistics import mean_and_error

from .rows import PairedDifference, Row


@dataclass(frozen=True)
class Scored:
    """A row, and the bits of every item behind it."""

    row: Row
    bits_N: np.ndarray | None
    """Of every item: bits/dim where items are of one size, else bits; None where the model has none (likelihood
    `mse`)."""
    sizes_N: np.ndarray | None = None
    """Samples of every item where sizes differ: a number of the row is then a ratio of sums over items, as for any file
    format. None: a mean over items."""
    bits_by_position: np.ndarray | None = None
    """`[N, *T]`, the parts of the rate of all items by position of their codes, where the prior is learned."""
    distortion_N: np.ndarray | None = None
    """The part of `bits_N` that is distortion; None where bits do not split, as for the next one."""
    rate_N: np.ndarray | None = None
    """The part that latents take; what is left are lengths and labels."""
    partner: "Scored | None" = None
    """The row on the same items that this one is paired with; None: the evaluation's reference."""


def reference_of(scored: Sequence[Scored]) -> Scored | None:
    """The row that others are compared with: the first VQ-VAE with a learned prior, on all items."""
    learned = (s for s in scored if s.row.kind == "vq-vae" and s.row.prior == "learned")
    return next((s for s in learned if s.row.search_items is None), None)


def paired_differences(scored: Sequence[Scored]) -> tuple[PairedDifference, ...]:
    """Every row against its partner: the same items before a search, else the reference.

    Bits given the label are compared with nothing, and bits of other levels, which are lengths of another message, not
    with the reference.
    """
    reference = reference_of(scored)
    differences = []
    for other in scored:
        partner = other.partner or (reference if other.row.search_items is None else None)
        if partner is None or partner is other or other.row.labels == "given":
            continue
        if other.row.alphabet != partner.row.alphabet or other.bits_N is None or partner.bits_N is None:
            continue
        differences.append(difference(other, partner.row.name, partner.bits_N))
    return tuple(differences)


def difference(other: Scored, reference: str, bits_N: np.ndarray) -> PairedDifference:
    """How many bits more a row takes than a reference on the same items.

    Args:
        other: a row that has bits.
        reference: its name.
        bits_N: its bits of every item, in the unit of the row's.
    """
    assert other.bits_N is not None
    bits_per_dim, error = mean_and_error(other.bits_N - bits_N, other.sizes_N)
    return PairedDifference(reference=reference, other=other.row.name, bits_per_dim=bits_per_dim, standard_error=error)
