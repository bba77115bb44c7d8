"""Recordings that a program holds as arrays, as the recordings of a split.

Shapes: S samples.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from twostage.data.audio import AudioSplit
from twostage.data.audio.arrays import samples_of_array
from twostage.errors import UsageError


def arrays_at(recordings: object, rate_hz: int, sample_rate_hz: int) -> list[np.ndarray]:
    """Recordings as int16 `[S]` of a rate.

    Args:
        recordings: one array or tensor `[S]`, or a list of them: int16, or floats from -1 to 1.
        rate_hz: their rate.
        sample_rate_hz: that of the result.

    Raises:
        UsageError: there are none, or one is no mono recording.
    """
    several = list(recordings) if isinstance(recordings, list | tuple) else [recordings]
    if not several:
        raise UsageError("expected recordings, got an empty list")
    arrays = [each.detach().cpu().numpy() if isinstance(each, Tensor) else each for each in several]
    return [samples_of_array(each, rate_hz, sample_rate_hz) for each in arrays]


def split_of(recordings: Sequence[np.ndarray], speakers: Sequence[int] = ()) -> AudioSplit:
    """Recordings, int16 `[S]` each, end to end in one array; named by their number, with labels of 0 that mean nothing.

    Args:
        recordings: at least one.
        speakers: their numbers; all 0 where none are given.
    """
    nothing_N = np.zeros(len(recordings), np.int64)
    return AudioSplit(
        samples=np.concatenate(recordings),
        offsets=np.cumsum([0, *map(len, recordings)], dtype=np.int64),
        labels=nothing_N,
        speakers=np.array(speakers, np.int64) if len(speakers) else nothing_N,
        names=tuple(map(str, range(len(recordings)))),
    )
