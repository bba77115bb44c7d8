"""What FLAC makes of recordings: the lossless codec that bits per sample of 16 bits stand beside.

libFLAC as soundfile brings it, at its strongest level (8). A file begins with 86 bytes of metadata (rate, number of
samples, a checksum, the encoder's name), which on recordings of half a second are a fifth of a bit per sample. Behind
them come the frames, which can be decoded alone (RFC 9639, section 9: each states its rate and its number of samples):
what a model's code lengths are compared with, as they have no metadata either. All recordings end to end in one stream
have the metadata once, but frames that do not begin where recordings begin: on spoken digits it is longer than the
frames of a file each. Labels and speakers are in the files' names and cost nothing.

Shapes: N recordings, S samples.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from twostage.data.audio.libraries import load_soundfile

FLAC_FRAMES = "FLAC, frames of a file each"
"""What models of recordings are compared with."""
_STRONGEST = 1.0  # of soundfile's scale from 0 to 1, libFLAC's level 8
_MARKER = b"fLaC"


@dataclass(frozen=True)
class FlacSize:
    """How long a FLAC file is."""

    file_bits: int
    """Of the whole file."""
    frame_bits: int
    """Of its frames, without the metadata before them."""


@dataclass(frozen=True)
class FlacSizes:
    """FLAC files of recordings `[N]`."""

    file_bits: np.ndarray
    """int64 `[N]`, of whole files."""
    frame_bits: np.ndarray
    """int64 `[N]`, of their frames, without the metadata before them."""


@dataclass(frozen=True)
class Flac:
    """The same recordings as FLAC, 16 bits."""

    bits_per_sample: float
    """A file per recording, metadata included, as they are."""
    joined_bits_per_sample: float
    """All recordings in one stream, which has the metadata once."""
    frames_bits_per_sample: float
    """A file per recording, frames alone: what models are compared with."""


def frames_start(file: bytes) -> int:
    """Where the frames of a FLAC file begin, in bytes: behind the last metadata block (RFC 9639, section 8).

    Every block (STREAMINFO, PADDING, SEEKTABLE, VORBIS_COMMENT and any other) begins with four bytes: the highest bit
    of the first one marks the last block, the last three are the length of what follows.

    Raises:
        ValueError: the bytes do not begin as a FLAC file, or end within its metadata.
    """
    if file[: len(_MARKER)] != _MARKER:
        raise ValueError(f"expected a FLAC file, which begins with {_MARKER!r}, but the bytes begin with {file[:4]!r}")
    place, last = len(_MARKER), False
    while not last:
        head = file[place : place + 4]
        last = len(head) == 4 and head[0] >= 0x80
        place += 4 + int.from_bytes(head[1:])
        if len(head) < 4 or place > len(file):
            raise ValueError(f"expected metadata blocks of a FLAC file, but its {len(file)} bytes end within one")
    return place


def flac_size(samples_S: np.ndarray, sample_rate_hz: int) -> FlacSize:
    """Size of the FLAC file that holds int16 samples `[S]`, with and without its metadata.

    Raises:
        RunError: soundfile cannot be loaded.
        ValueError: no int16 `[S]` with S at least 1.
    """
    if samples_S.dtype != np.int16 or samples_S.ndim != 1 or not len(samples_S):
        raise ValueError(f"expected int16 samples [S], but {samples_S.dtype} {samples_S.shape} came")
    buffer = io.BytesIO()
    load_soundfile().write(
        buffer, samples_S, int(sample_rate_hz), format="FLAC", subtype="PCM_16", compression_level=_STRONGEST
    )
    file = buffer.getvalue()
    return FlacSize(file_bits=8 * len(file), frame_bits=8 * (len(file) - frames_start(file)))


def flac_sizes(recordings: Iterable[np.ndarray], sample_rate_hz: int) -> FlacSizes:
    """`flac_size` of every recording, a file each.

    Raises:
        RunError: soundfile cannot be loaded.
        ValueError: as there.
    """
    sizes = [flac_size(samples_S, sample_rate_hz) for samples_S in recordings]
    return FlacSizes(
        file_bits=np.array([size.file_bits for size in sizes], np.int64),
        frame_bits=np.array([size.frame_bits for size in sizes], np.int64),
    )
