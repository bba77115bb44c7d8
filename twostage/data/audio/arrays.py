"""Recordings that a program holds as arrays: to 16-bit samples of a given rate, as `twostage.data.audio.decode` makes
them.

Shapes: S samples.
"""

import numpy as np

from twostage.data.audio.decode import RATES_HZ
from twostage.data.audio.resample import resample
from twostage.errors import UsageError
from twostage.progress import say


def samples_of_array(recording: object, rate_hz: int, sample_rate_hz: int) -> np.ndarray:
    """A waveform as int16 samples of a rate: the samples that a WAV file of these very values would be read as.

    Args:
        recording: `[S]`, anything that numpy takes for an array: int16, or floats from -1 to 1.
        rate_hz: its samples per second.
        sample_rate_hz: those of the result, `[ceil(S * sample_rate_hz / rate_hz)]`.

    Samples that resampling carries beyond 16 bits are brought to the limits; how many is said on stderr.

    Raises:
        UsageError: the array has another shape or type, no samples, or values that are out of range or no numbers; or
            there is no such rate.
    """
    samples_S = np.asarray(recording)
    floats = samples_S.dtype.kind == "f"
    if samples_S.ndim != 1 or not len(samples_S):
        raise UsageError(
            f"expected a mono recording [samples], but an array of the shape {samples_S.shape} came: average channels, "
            "and give several recordings as a list"
        )
    if not floats and samples_S.dtype != np.int16:
        raise UsageError(f"expected samples as int16, or as floats from -1 to 1, but {samples_S.dtype} came: convert")
    if floats:
        _check_range(samples_S)
    _check_rate(rate_hz)
    if rate_hz == sample_rate_hz and not floats:
        return samples_S
    wave_S = samples_S.astype(np.float64) / (1 if floats else 32768)
    if rate_hz != sample_rate_hz:
        wave_S = resample(wave_S, int(rate_hz), sample_rate_hz)
    levels_S = np.rint(wave_S * 32768.0)
    # +1 itself is one level too high, and no fault of the recording.
    clipped = int(np.count_nonzero(np.abs(wave_S) > 1.0))
    if clipped:
        say(f"{clipped} of {len(levels_S)} samples lay beyond 16 bits after resampling and are clipped")
    return np.clip(levels_S, -32768, 32767).astype(np.int16)


def _check_range(wave_S: np.ndarray) -> None:
    wrong = int(np.count_nonzero(~np.isfinite(wave_S)))
    if wrong:
        raise UsageError(f"expected a waveform, but {wrong} of {len(wave_S)} samples that came are NaN or infinite")
    peak = float(np.abs(wave_S).max())
    if peak > 1:
        raise UsageError(
            f"expected floats from -1 to 1, but samples up to {peak:.6g} in size came: divide by 32768 what is scaled "
            "to 16 bits, anything else by its peak"
        )


def _check_rate(rate_hz: int) -> None:
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1] or rate_hz != int(rate_hz):
        raise UsageError(f"expected a whole rate within {RATES_HZ[0]} to {RATES_HZ[1]} Hz, but {rate_hz} came")
