"""Another sampling rate for a recording: a windowed sinc, the same filter as torchaudio's `resample` at its defaults.

The filter (6 zero crossings, roll-off 0.99, Hann window; https://ccrma.stanford.edu/~jos/resample/) is tabulated once,
at the rate that both rates divide, and scipy's `upfirdn` takes of it the values that every output sample needs.
torchaudio's own function tabulates one filter per output phase instead, which for 44 101 to 8000 Hz, two rates without
a common divisor, would be 353 million numbers (2.8 GB) against 544 thousand here. Its results are met to 1e-14 of full
scale.

Shapes: S samples, F numbers of the filter.
"""

import math
from functools import lru_cache

import numpy as np

_ZERO_CROSSINGS = 6
_ROLL_OFF = 0.99


def resample(wave_S: np.ndarray, rate_hz: int, new_rate_hz: int) -> np.ndarray:
    """float64 `[ceil(S * new / old)]`; the first sample stays where it is in time."""
    from scipy.signal import upfirdn

    divisor = math.gcd(rate_hz, new_rate_hz)
    down, up = rate_hz // divisor, new_rate_hz // divisor
    filter_F, delay = _filter(down, up)
    count = -(-len(wave_S) * up // down)
    resampled: np.ndarray = upfirdn(filter_F, wave_S, up, down)[delay : delay + count]
    return resampled


@lru_cache(maxsize=8)
def _filter(down: int, up: int) -> tuple[np.ndarray, int]:
    """The filter float64 `[F]` at `up` times the old rate, and its delay in output samples.

    F is about 12 times the larger of `up` and `down`: at most 43 MB, for the largest rates and none in common.
    """
    cutoff = min(down, up) * _ROLL_OFF / down  # in half of the old rate
    half = math.ceil(_ZERO_CROSSINGS / cutoff) * up
    time_F = np.clip(np.arange(-half, half + 1) / up * cutoff, -_ZERO_CROSSINGS, _ZERO_CROSSINGS)
    filter_F = np.sinc(time_F) * np.cos(time_F * (math.pi / _ZERO_CROSSINGS / 2)) ** 2 * cutoff
    padding = -half % down  # so that the delay is a whole number of output samples
    return np.concatenate([np.zeros(padding), filter_F]), (half + padding) // down
