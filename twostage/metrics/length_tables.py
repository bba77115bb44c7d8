"""What it costs to say how long a recording is, and whose and what, where no prior says it.

All are code lengths under tables of training frequencies, every entry counted once more than it was seen, so that
everything in range has a price. A recording of n samples has T = ceil(n / stride) codes: T is looked up, and which of
the `stride` values n has given T is paid in full, for it tells nothing that a model would know.

Shapes: N items, Y labels, P speakers.
"""

import math
from dataclasses import dataclass

import numpy as np

from twostage.errors import DataError


@dataclass(frozen=True)
class LengthTable:
    """Bits of every number of codes."""

    bits_of_length: np.ndarray
    """float64 [longest]: of the lengths 1, 2, ... longest."""

    @classmethod
    def of(cls, lengths_N: np.ndarray, *, max_length: int) -> "LengthTable":
        """From the training recordings.

        Args:
            lengths_N: codes per recording.
            max_length: the longest that may be said; every length from 1 on has a price.

        Raises:
            DataError: a length outside of 1 to max_length.
        """
        _check_range(lengths_N, 1, max_length, "codes per recording")
        return cls(_smoothed_bits(np.asarray(lengths_N, dtype=np.int64) - 1, max_length))

    def bits(self, lengths_N: np.ndarray) -> np.ndarray:
        """Bits of numbers of codes, float64 `[N]`.

        Raises:
            DataError: a length outside of the table.
        """
        _check_range(lengths_N, 1, len(self.bits_of_length), "codes per recording")
        return self.bits_of_length[np.asarray(lengths_N, dtype=np.int64) - 1]


def remainder_bits(stride: int) -> float:
    """Bits of the number of samples given the number of codes: one of `stride` values."""
    return math.log2(stride)


@dataclass(frozen=True)
class LabelTable:
    """Bits of every pair of a label and a speaker, each where it is paid for."""

    bits_YP: np.ndarray
    """float64 [Y, P], with a single row or column for what is not paid for."""
    classes: int
    speakers: int

    @classmethod
    def of(cls, labels_N: np.ndarray, speakers_N: np.ndarray, *, classes: int, speakers: int) -> "LabelTable":
        """From the training recordings, jointly: who says what need not be independent.

        Args:
            labels_N: 0..classes - 1.
            speakers_N: 0..speakers - 1.
            classes: Y; 0 where labels are not paid for, and not looked at.
            speakers: P, likewise.

        Raises:
            DataError: a label or speaker out of range.
        """
        empty = cls(np.zeros((max(classes, 1), max(speakers, 1))), classes, speakers)
        bits_X = _smoothed_bits(empty.numbers(labels_N, speakers_N), empty.bits_YP.size)
        return cls(bits_X.reshape(empty.bits_YP.shape), classes, speakers)

    def numbers(self, labels_N: np.ndarray, speakers_N: np.ndarray) -> np.ndarray:
        """Label and speaker as one number, label * P + speaker, int64 `[N]`.

        Raises:
            DataError: a label or speaker out of range.
        """
        numbers_N = np.zeros(len(labels_N), np.int64)
        for values_N, size, what in ((labels_N, self.classes, "labels"), (speakers_N, self.speakers, "speakers")):
            if size:
                _check_range(values_N, 0, size - 1, what)
                numbers_N = numbers_N * size + values_N
        return numbers_N

    def bits(self, labels_N: np.ndarray, speakers_N: np.ndarray) -> np.ndarray:
        """Bits of label and speaker together, float64 `[N]`.

        Raises:
            DataError: a label or speaker out of range.
        """
        return self.bits_YP.ravel()[self.numbers(labels_N, speakers_N)]


def _smoothed_bits(values_N: np.ndarray, size: int) -> np.ndarray:
    counts = np.bincount(values_N, minlength=size) + 1.0
    return -np.log2(counts / counts.sum())


def _check_range(values_N: np.ndarray, lowest: int, highest: int, what: str) -> None:
    if len(values_N) and not lowest <= values_N.min() <= values_N.max() <= highest:
        raise DataError(
            f"expected {what} from {lowest} to {highest}, but {values_N.min()} to {values_N.max()} came: "
            "the recordings are not those that the table or the model was made for"
        )
