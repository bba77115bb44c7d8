"""Recordings as files: WAV files out, files of any kind and rate in, and waveforms of decoders to 16 bits.

Shapes: S samples.
"""

import io
from pathlib import Path

import numpy as np

from twostage.data.audio.decode import decode_recording
from twostage.data.audio.libraries import load_soundfile
from twostage.data.audio.part import Unreadable
from twostage.data.audio.remarks import remark_on
from twostage.errors import DataError, RunError
from twostage.printable import printable
from twostage.progress import say
from twostage.storage.atomic import write_atomic


def wav_bytes(samples_S: np.ndarray, sample_rate_hz: int) -> bytes:
    """A mono WAV file of 16-bit samples, in memory.

    Raises:
        RunError: soundfile cannot be loaded.
        ValueError: no int16 `[S]` with S at least 1.
    """
    if samples_S.dtype != np.int16 or samples_S.ndim != 1 or not len(samples_S):
        raise ValueError(f"expected int16 samples [S], but {samples_S.dtype} {samples_S.shape} came")
    buffer = io.BytesIO()
    load_soundfile().write(buffer, samples_S, int(sample_rate_hz), format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def write_wav(path: Path, samples_S: np.ndarray, sample_rate_hz: int) -> None:
    """Write one mono WAV file of 16-bit samples, whole or not at all; missing folders are created.

    Raises:
        RunError: the disk refused, or soundfile cannot be loaded.
    """
    write_atomic(path, wav_bytes(samples_S, sample_rate_hz))


def read_recording(path: Path, sample_rate_hz: int) -> np.ndarray:
    """A file of sound as int16 samples `[S]` of that rate, mono, read as the recordings of a folder are.

    What had to be changed on the way (channels, rate, precision, clipping) is said on stderr.

    Raises:
        DataError: the file is missing, or no whole recording of a kind that is read.
        RunError: soundfile cannot be loaded.
    """
    try:
        decoded = decode_recording(path, sample_rate_hz=sample_rate_hz)
    except Unreadable as error:
        raise DataError(f"expected a recording, but {printable(str(path))} {error}: give another file") from error
    for remark in decoded.remarks:
        say(printable(f"{path} is a recording {remark_on(decoded, remark)}"))
    return decoded.samples


def to_int16(wave: np.ndarray) -> np.ndarray:
    """A waveform in [-1, 1], of any shape, as int16 samples: rounded to the nearest, beyond the limits at the limits.

    How many lay beyond is said on stderr; +1 itself, one level too high, does not count.

    Raises:
        RunError: a sample is NaN or infinite.
    """
    wrong = int(wave.size - np.count_nonzero(np.isfinite(wave)))
    if wrong:
        raise RunError(
            f"expected a waveform, but the decoder made {wrong} samples that are NaN or infinite: its training "
            "diverged, so train it again with a lower learning rate"
        )
    clipped = clipped_samples(wave)
    if clipped:
        say(f"{clipped} of {wave.size} samples lay beyond 16 bits and are clipped")
    return np.clip(np.rint(wave.astype(np.float64) * 32768.0), -32768, 32767).astype(np.int16)


def clipped_samples(wave: np.ndarray) -> int:
    """How many values of a waveform lie beyond [-1, 1]."""
    return int(np.count_nonzero(np.abs(wave) > 1.0))
