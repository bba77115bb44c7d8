"""One file of sound to 16-bit mono samples of a given rate.

Read by content, whatever the name says, with soundfile (libsndfile). What happens on the way, in this order:

- what is truncated, of another kind, or of an absurd size or rate is refused before anything is decoded;
- joined files (`cat a.ogg b.ogg`) are read one after the other, where their rates and channels agree;
- channels are averaged (a sum would clip where both are loud);
- what is silent, has samples that are no numbers, or is twice as loud as 16 bits can be is refused;
- another rate is resampled (`twostage.data.audio.resample`);
- samples are rounded to the nearest of 65536 levels, and brought to the limits where they lie beyond them.

All of it in float64, which holds 16-bit samples divided by 32768 exactly: mono 16-bit files of the right rate come out
bit for bit, and rounding errors of other processors move a sample to the next level once in a billion times or less.
Nothing but the length can be refused on account of the new rate: `check-data`, which knows none, refuses what training
refuses. A file is read forwards in blocks, so that a finished recording is all that is held.

Limits: an MP3 file without the header that LAME and ffmpeg write, a FLAC file that states no length and a file of the
sizes that are left by pipes may end early, and nobody can tell. Of MP3 what libsndfile gives is taken: with that header
without the encoder's delay, otherwise with it.

Shapes: S samples, C channels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from twostage.data.audio.containers import KINDS, check_whole
from twostage.data.audio.level import Level
from twostage.data.audio.libraries import load_soundfile
from twostage.data.audio.part import PartOfFile, Unreadable
from twostage.data.audio.resample import resample
from twostage.printable import printable
from twostage.storage.regular_file import open_regular

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "NIST")
RATES_HZ = (1000, 384_000)
LONGEST_SECONDS = 1800
LARGEST_SAMPLES = 200_000_000
"""Samples of all channels."""
_BLOCK_NUMBERS = 1 << 18
_UNKNOWN = (1 << 63) - 1  # libsndfile's number of samples where a FLAC file states none
_NO_FILE = 7  # libsndfile's error, also where the MP3 decoder finds no frame

MIXED = "with several channels, which are averaged"
RESAMPLED = "of another rate and resampled"
FINER = "with more than 16 bits or compressed with loss, and rounded to 16 bits"
JOINED = "joined of several files, which are read one after the other"
CLIPPED = "clipped at the limits of 16 bits"
CANCELLED = "with channels of opposite phase, which cancel when they are averaged"
EMPTIED = "silent at this rate, because all of it lies above half of the rate"
MOST_CANCELLED = 0.1
"""What averaging leaves of the power at most where channels count as `CANCELLED`; unrelated ones keep half."""
_WHOLE_SUBTYPES = ("PCM_16", "PCM_S8", "PCM_U8", "ALAW", "ULAW")  # 16 bits hold every value


@dataclass(frozen=True)
class Source:
    """What one whole recording is in its file."""

    sample_rate_hz: int
    channels: int
    kind: str
    """Container and encoding by libsndfile's names, such as `WAV PCM_16`."""


@dataclass(frozen=True)
class Decoded:
    """One recording."""

    samples: np.ndarray
    """int16 [S], S at least 1."""
    source: Source
    source_samples: int
    """Per channel, at the file's own rate."""
    clipped_samples: int
    """How many lay beyond 16 bits."""
    peak: float
    """Largest absolute value before samples were brought to the limits; 1 is full scale."""
    power_left: float
    """What the average of the channels has of their mean power; 1 for one channel."""
    remarks: tuple[str, ...]
    """What the conversion did, out of `JOINED`, `FINER`, `MIXED`, `CANCELLED`, `RESAMPLED`, `EMPTIED` and `CLIPPED`;
    the last also for files that came with neighbouring samples at a limit."""


def decode_recording(path: Path, *, sample_rate_hz: int | None = None, minimum_samples: int = 1) -> Decoded:
    """Read the recording in `path`.

    Args:
        path: a file of one of the containers in `FORMATS`.
        sample_rate_hz: rate of the result; None: the file's own.
        minimum_samples: what the result must have at least.

    Raises:
        Unreadable: no whole recording of a kind that is read, silent, too loud, too short or with samples that are no
            numbers.
        RunError: soundfile cannot be loaded.
    """
    level, rounded, waves = Level(), _Rounded(), []
    source = None
    open_part = _forwards(load_soundfile().SoundFile)
    with _faults_named(), open_regular(path) as file:
        parts = check_whole(file)
        for part in parts:
            with open_part(PartOfFile(file, part)) as sound:
                source = _source(sound, level.count, source)
                for wave_SC in _blocks(sound):
                    wave_S = level.add(wave_SC)
                    _check_size(level.count, source)
                    if sample_rate_hz in (None, source.sample_rate_hz):
                        rounded.add(wave_S)
                    else:
                        waves.append(wave_S)
    level.refuse()
    assert source is not None  # there is a part
    rate_hz = sample_rate_hz or source.sample_rate_hz
    if waves:
        rounded.add(resample(np.concatenate(waves), source.sample_rate_hz, rate_hz))
    samples_S = rounded.samples()
    if len(samples_S) < minimum_samples:
        raise Unreadable(f"has {len(samples_S)} samples at {rate_hz} Hz, fewer than {minimum_samples}")
    remarks = [JOINED] if len(parts) > 1 else []
    remarks += _remarks(source, samples_S, rate_hz, power_left=level.power_left, clipped=rounded.clipped)
    return Decoded(
        samples=samples_S,
        source=source,
        source_samples=level.count,
        clipped_samples=rounded.clipped,
        peak=rounded.peak,
        power_left=level.power_left,
        remarks=tuple(remarks),
    )


class _Rounded:
    """Waveforms as 16-bit samples, block by block."""

    def __init__(self) -> None:
        self.clipped, self.peak = 0, 0.0
        self._blocks: list[np.ndarray] = []

    def add(self, wave_S: np.ndarray) -> None:
        self.peak = max(self.peak, float(np.abs(wave_S).max()))
        with np.errstate(over="ignore"):  # floats go to 1e308
            steps_S = np.rint(wave_S * 32768.0)
        block_S = np.clip(steps_S, -32768, 32767).astype(np.int16)
        self.clipped += int(np.count_nonzero(steps_S != block_S))
        self._blocks.append(block_S)

    def samples(self) -> np.ndarray:
        """int16 [S]."""
        return self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)


@contextmanager
def _faults_named() -> Iterator[None]:
    """Whatever fails while a file is read is `Unreadable`."""
    soundfile = load_soundfile()
    try:
        yield
    except OSError as error:
        raise Unreadable(f"could not be read ({error.strerror})") from error
    except soundfile.SoundFileError as error:
        reason = (getattr(error, "error_string", None) or str(error)).strip().rstrip(".")
        if getattr(error, "code", None) == _NO_FILE:
            reason = "no frame of it can be decoded"
        raise Unreadable(f"is damaged ({printable(reason)})") from error


@lru_cache(maxsize=1)
def _forwards(base: Any) -> Any:
    """The class SoundFile for files that are read from beginning to end.

    soundfile seeks after every block that it reads, which GSM 6.10, G.721, G.723, DWVW and NMS ADPCM cannot, and behind
    which MP3 is decoded to slightly other numbers: it is told that none can seek.
    """

    class Forwards(base):
        def seekable(self) -> bool:
            return False

    return Forwards


def _source(sound: Any, before: int, first: Source | None) -> Source:
    """What the header says, unless it rules the file out.

    Args:
        before: samples of the parts before this one.
        first: what the first part is.
    """
    if sound.format not in FORMATS:
        raise Unreadable(f"is {sound.format} inside and no {KINDS} file")
    source = Source(sound.samplerate, sound.channels, f"{sound.format} {sound.subtype}")
    rate_hz = source.sample_rate_hz
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise Unreadable(f"has a rate of {rate_hz} Hz, which is not within {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
    if first is not None and source != first:
        one, other = (f"{each.kind}, {each.channels} channels at {each.sample_rate_hz} Hz" for each in (first, source))
        raise Unreadable(f"joins recordings of different kinds ({one}; {other})")
    _check_size(before + (0 if sound.frames == _UNKNOWN else sound.frames), source)
    return source


def _check_size(samples: int, source: Source) -> None:
    if samples > LONGEST_SECONDS * source.sample_rate_hz:
        raise Unreadable(f"states more than {LONGEST_SECONDS} seconds of sound")
    if samples * source.channels > LARGEST_SAMPLES:
        raise Unreadable(f"states {samples} samples in {source.channels} channels, {LARGEST_SAMPLES:,} are read")


def _blocks(sound: Any) -> Iterator[np.ndarray]:
    """The whole sound, float64 `[S, C]` at a time."""
    most, stated, count = max(1, _BLOCK_NUMBERS // sound.channels), sound.frames, 0
    while count < stated:
        wave_SC = sound.read(min(most, stated - count), dtype="float64", always_2d=True)
        if not len(wave_SC):
            break
        count += len(wave_SC)
        yield wave_SC
    if count < stated != _UNKNOWN:
        raise Unreadable(f"is truncated or damaged ({count} of {stated} samples)")


def _remarks(source: Source, samples_S: np.ndarray, rate_hz: int, *, power_left: float, clipped: int) -> list[str]:
    limit_S = (samples_S == 32767).astype(np.int8) - (samples_S == -32768)
    resampled = rate_hz != source.sample_rate_hz
    found = {
        FINER: source.kind.split()[1] not in _WHOLE_SUBTYPES,
        MIXED: source.channels > 1,
        CANCELLED: power_left <= MOST_CANCELLED,
        RESAMPLED: resampled,
        EMPTIED: resampled and len(samples_S) > 1 and samples_S.min() == samples_S.max(),
        CLIPPED: clipped > 0 or (limit_S[1:] * limit_S[:-1] > 0).any(),
    }
    return [remark for remark, is_so in found.items() if is_so]
