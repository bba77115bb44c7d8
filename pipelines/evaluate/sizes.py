"""Whether two sides of a comparison are of one size and cost, and what the comparison says where they are not.

Equal steps or equal seconds do not make equal models: a prior comes on top of a codebook, and a decoder on top of both.
So every row counts all that it needs, and a difference between rows names both sides where they are not alike.
"""

from typing import Protocol

ALIKE = 1.1
"""Up to this ratio two numbers of parameters, or two times, count as the same."""

ONE_TRAINING = "± is over items, of one training each: how far another seed would move a difference is no part of it"

COST = (
    "parameters, steps and seconds: of all that a row needs, codebook, prior and decoder together; seconds are those "
    "of the machine that trained, beside whatever else it did"
)


class Sized(Protocol):
    """A row of any table."""

    @property
    def parameters(self) -> int:
        """Of everything that the row needs."""

    @property
    def train_seconds(self) -> float:
        """Of all trainings behind the row."""


def apart(first: float, second: float) -> bool:
    """Whether one number is more than a tenth above the other."""
    low, high = sorted((first, second))
    return high > ALIKE * low


def size_remark(own: Sized, reference: Sized) -> str:
    """How the size and the time of a row differ from the reference's; empty where they are within a tenth.

    Such as `780,000 parameters against 1,810,000, 2,011 s of training against 2,811`.
    """
    parts = []
    if apart(own.parameters, reference.parameters):
        parts.append(f"{own.parameters:,} parameters against {reference.parameters:,}")
    if apart(own.train_seconds, reference.train_seconds):
        digits = 0 if min(own.train_seconds, reference.train_seconds) >= 10 else 1
        times = (f"{seconds:,.{digits}f}" for seconds in (own.train_seconds, reference.train_seconds))
        parts.append("{} s of training against {}".format(*times))
    return ", ".join(parts)
