"""One WAV, FLAC or OGG file to 16-bit mono samples of a given rate.

Read by content, whatever the name says, with soundfile (libsndfile). What happens on the way, in this order:

- what is truncated, of another kind, or of an absurd size or rate is refused before anything is decoded;
- channels are averaged (a sum would clip where both are loud);
- another rate is resampled with torchaudio's windowed sinc at its defaults (6 zero crossings, roll-off 0.99, Hann);
- samples are rounded to the nearest of 65536 levels, and brought to the limits where they lie beyond them.

All of it in float64, which holds 16-bit samples divided by 32768 exactly: mono 16-bit files of the right rate come out
bit for bit, and rounding errors of other processors move a sample to the next level once in a billion times or less.

Shapes: S samples, C channels.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from twostage.audio.containers import Unreadable, check_whole
from twostage.audio.libraries import load_soundfile, load_torchaudio
from twostage.printable import printable
from twostage.regular import open_regular

FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG")
RATES_HZ = (1000, 384_000)
LONGEST_SECONDS = 1800
LARGEST_SAMPLES = 200_000_000
"""Samples of all channels; decoded that is 1.6 GB."""
# Numbers in the table of filters, one filter per output phase: 44.1 to 16 kHz takes 70 560, 11 127 Hz to 8 kHz 89 M.
_LARGEST_RESAMPLER = 1 << 23
_BLOCK_NUMBERS = 1 << 18
_UNKNOWN = (1 << 63) - 1  # libsndfile's number of samples where a FLAC file states none

MIXED = "with several channels, which are averaged"
RESAMPLED = "of another rate and resampled"
FINER = "with more than 16 bits or compressed with loss, and rounded to 16 bits"
CLIPPED = "clipped at the limits of 16 bits"
_WHOLE_SUBTYPES = ("PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW")  # 16 bits hold every value


@dataclass(frozen=True)
class Decoded:
    """One recording."""

    samples: np.ndarray
    """int16 [S], S at least 1."""
    clipped_samples: int
    """How many lay beyond 16 bits."""
    remarks: tuple[str, ...]
    """What the conversion did, out of `MIXED`, `RESAMPLED`, `FINER` and `CLIPPED`; the last also for files that came
    with neighbouring samples at a limit."""


def decode_recording(path: Path, *, sample_rate_hz: int, minimum_samples: int = 1) -> Decoded:
    """Read the recording in `path`.

    Args:
        path: WAV, FLAC or OGG file.
        sample_rate_hz: rate of the result.
        minimum_samples: what the result must have at least.

    Raises:
        Unreadable: no whole recording of a kind that is read, silent, too short or with samples that are no numbers.
        RunError: soundfile, or torchaudio for another rate, cannot be loaded.
    """
    with _opened(path) as sound:
        _refuse(sound, sample_rate_hz)
        wave_SC = sound.read(dtype="float64", always_2d=True)
        stated, rate_hz, subtype = sound.frames, sound.samplerate, sound.subtype
    _check_whole(len(wave_SC), stated)
    _check_numbers(int(np.count_nonzero(~np.isfinite(wave_SC))))
    return _convert(wave_SC, rate_hz, subtype, sample_rate_hz, minimum_samples)


@dataclass(frozen=True)
class Inspected:
    """What one whole recording is, before anything is made of it."""

    sample_rate_hz: int
    channels: int
    samples: int
    """Per channel."""
    kind: str
    """Container and encoding by libsndfile's names, such as `WAV PCM_16`."""


def inspect_recording(path: Path) -> Inspected:
    """Decode a recording at its own rate as `decode_recording` does, block by block: no more than one is in memory.

    Raises:
        Unreadable: as of `decode_recording`, but for what depends on another rate or a least length.
        RunError: soundfile cannot be loaded.
    """
    count = non_finite = 0
    low, high = math.inf, -math.inf
    with _opened(path) as sound:
        _refuse(sound, sound.samplerate)
        block = max(1, _BLOCK_NUMBERS // sound.channels)
        while len(wave_SC := sound.read(block, dtype="float64", always_2d=True)):
            count += len(wave_SC)
            non_finite += int(np.count_nonzero(~np.isfinite(wave_SC)))
            wave_S = wave_SC.mean(axis=1)
            low, high = min(low, float(wave_S.min())), max(high, float(wave_S.max()))
        found = Inspected(sound.samplerate, sound.channels, sound.frames, f"{sound.format} {sound.subtype}")
    _check_whole(count, found.samples)
    _check_numbers(non_finite)
    first, last = _rounded(np.array([low, high]))
    if count > 1 and (low == high or first == last):
        raise Unreadable(f"is silent (every sample is {first})")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The sound in a file whose container is whole; whatever fails, also while it is being read, is `Unreadable`."""
    soundfile = load_soundfile()
    try:
        with open_regular(path) as file:
            check_whole(file)
            file.seek(0)
            with soundfile.SoundFile(file) as sound:
                yield sound
    except OSError as error:
        raise Unreadable(f"could not be read ({error.strerror})") from error
    except soundfile.SoundFileError as error:
        reason = (getattr(error, "error_string", None) or str(error)).strip().rstrip(".")
        raise Unreadable(f"is damaged ({printable(reason)})") from error


def _check_whole(samples: int, stated: int) -> None:
    if samples < stated:
        raise Unreadable(f"is truncated or damaged ({samples} of {stated} samples)")


def _check_numbers(non_finite: int) -> None:
    if non_finite:
        raise Unreadable(f"has {non_finite} samples that are NaN or infinite")


def _refuse(sound: Any, sample_rate_hz: int) -> None:
    """What the header alone rules out."""
    if sound.format not in FORMATS:
        raise Unreadable(f"is {sound.format} inside and no WAV, FLAC or OGG file")
    rate_hz = sound.samplerate
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise Unreadable(f"has a rate of {rate_hz} Hz, which is not within {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
    if sound.frames == 0:
        raise Unreadable("has no samples")
    if sound.frames == _UNKNOWN:
        raise Unreadable("does not state how many samples it has, as if written into a pipe")
    if sound.frames > LONGEST_SECONDS * rate_hz:
        raise Unreadable(f"states more than {LONGEST_SECONDS} seconds of sound")
    if sound.frames * sound.channels > LARGEST_SAMPLES:
        raise Unreadable(f"states {sound.frames} samples in {sound.channels} channels, {LARGEST_SAMPLES:,} are read")
    if not can_resample(rate_hz, sample_rate_hz):
        raise Unreadable(f"has a rate of {rate_hz} Hz, which has no simple ratio to {sample_rate_hz} Hz")


def _convert(wave_SC: np.ndarray, rate_hz: int, subtype: str, sample_rate_hz: int, minimum_samples: int) -> Decoded:
    remarks = [] if subtype in _WHOLE_SUBTYPES else [FINER]
    if wave_SC.shape[1] > 1:
        remarks.append(MIXED)
    wave_S = wave_SC.mean(axis=1)
    silent = wave_S.min() == wave_S.max()  # before resampling, which makes ripples at the ends of a constant
    if rate_hz != sample_rate_hz:
        remarks.append(RESAMPLED)
        wave_S = resampled(wave_S, rate_hz, sample_rate_hz)
    samples_S = _rounded(wave_S)
    clipped = int(np.count_nonzero(np.rint(wave_S * 32768.0) != samples_S))
    if len(samples_S) < minimum_samples:
        raise Unreadable(f"has {len(samples_S)} samples at {sample_rate_hz} Hz, fewer than {minimum_samples}")
    # A single sample is too little to tell silence from sound.
    if len(samples_S) > 1 and (silent or samples_S.min() == samples_S.max()):
        raise Unreadable(f"is silent (every sample is {samples_S[0]})")
    limit_S = (samples_S == 32767).astype(np.int8) - (samples_S == -32768)
    if clipped or (limit_S[1:] * limit_S[:-1] > 0).any():
        remarks.append(CLIPPED)
    return Decoded(samples=samples_S, clipped_samples=clipped, remarks=tuple(remarks))


def _rounded(wave_S: np.ndarray) -> np.ndarray:
    """int16 [S]."""
    return np.clip(np.rint(wave_S * 32768.0), -32768, 32767).astype(np.int16)


def can_resample(rate_hz: int, sample_rate_hz: int) -> bool:
    """Whether two rates have so simple a ratio that the table of filters between them is small."""
    divisor = math.gcd(rate_hz, sample_rate_hz)
    return (rate_hz // divisor) * (sample_rate_hz // divisor) <= _LARGEST_RESAMPLER


def resampled(wave_S: np.ndarray, rate_hz: int, sample_rate_hz: int) -> np.ndarray:
    """float64 `[ceil(S * new / old)]` of a float64 waveform, as files of another rate are resampled.

    Raises:
        RunError: torchaudio cannot be loaded.
    """
    import torch

    with torch.inference_mode():
        wave: np.ndarray = _resampler(rate_hz, sample_rate_hz)(torch.from_numpy(wave_S)).numpy()
    return wave


@lru_cache(maxsize=8)
def _resampler(rate_hz: int, sample_rate_hz: int) -> Any:
    """torchaudio.functional.resample with its table of filters kept: to compute it takes longer than to use it."""
    import torch

    return load_torchaudio("transforms").Resample(rate_hz, sample_rate_hz, dtype=torch.float64)
