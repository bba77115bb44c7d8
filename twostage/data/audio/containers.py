"""Where in a file its sound lies and whether all of it is there, from the containers alone; nothing is decoded.

libsndfile reads half a WAV, AIFF or OGG file as a short recording and says nothing, passes over damaged pages of OGG,
loses the end of a WAV file behind an ID3 tag, and stops at the end of the first of several files that were joined
(`cat a.ogg b.ogg`, a recorded web radio). Hence, before it is asked:

- ID3 tags (https://id3.org/id3v2.4.0-structure, section 3.1), which players write before anything, are passed over;
- every part of a joined file is found, so that one after the other can be read;
- WAV (RIFF, RIFX, RF64), W64, AIFF and CAF: the samples whose size the header states must be in the file. Sizes that
  programs write into a pipe (`PIPE_SIZES`) state nothing: what follows is taken as it is;
- AU and NIST: the same, from headers of their own;
- OGG (`twostage.data.audio.ogg`) by its pages, MP3 (`twostage.data.audio.mpeg`) by the header that most encoders write;
- FLAC has checksums and the number of samples, and its decoder looks at both.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from twostage.data.audio.mpeg import end_of_mpeg, is_mpeg
from twostage.data.audio.ogg import end_of_ogg
from twostage.data.audio.part import Part, Unreadable

KINDS = "WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64 or NIST"
PIPE_SIZES = (0xFFFF_FFFF, 0x8000_0000, 0x7FFF_FFFF, 0x7FFF_F000, 0x7F00_0000)
"""What stands for the size of samples that is not known yet: ffmpeg, arecord, several, sox (and its AIFF)."""
_MOST_CHUNKS = 1000
_MOST_PARTS = 1000
_FLAC_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")  # with the head of STREAMINFO, always the first block
_SEARCHED = 1 << 20


@dataclass(frozen=True)
class _Chunks:
    """How a container of chunks is laid out."""

    first: int
    """Where the first chunk begins."""
    head: str
    """Name and size in the notation of `struct`."""
    samples: bytes
    """First four letters of the name of the chunk with the samples."""
    step: int = 2
    """Chunks begin at multiples of it."""
    around: bool = False
    """Whether a size counts the chunk's own head."""
    beginnings: tuple[bytes, ...] = ()
    """First letters of another file of the kind."""


_WAVS = (b"RIFF", b"RIFX", b"RF64")
_LAYOUTS = {
    b"RIFF": _Chunks(12, "<4sI", b"data", beginnings=_WAVS),
    b"RF64": _Chunks(12, "<4sI", b"data", beginnings=_WAVS),
    b"RIFX": _Chunks(12, ">4sI", b"data", beginnings=_WAVS),
    b"FORM": _Chunks(12, ">4sI", b"SSND", beginnings=(b"FORM",)),
    b"caff": _Chunks(8, ">4sq", b"data", step=1, beginnings=(b"caff",)),
    b"riff": _Chunks(40, "<16sq", b"data", step=8, around=True, beginnings=(b"riff",)),
}
_FORMS = {b"RIFF": (b"WAVE",), b"RIFX": (b"WAVE",), b"RF64": (b"WAVE",), b"FORM": (b"AIFF", b"AIFC")}


def check_whole(file: BinaryIO) -> tuple[Part, ...]:
    """The parts of a file that hold sound, one file each, in order: nearly always one. Leaves the position anywhere.

    Raises:
        Unreadable: empty, truncated, damaged, or of another kind.
    """
    end = file.seek(0, 2)
    if not end:
        raise Unreadable("is empty")
    parts: list[Part] = []
    position = 0
    while position < end:
        position = _behind_tags(file, position)
        find_end = _kind_of(_read(file, position, 12))
        if find_end is None:
            break  # behind the first part: tags of other kinds, padding
        if len(parts) == _MOST_PARTS:
            raise Unreadable(f"joins more than {_MOST_PARTS} recordings")
        stop = find_end(file, position, end)
        parts.append(Part(position, stop))
        position = stop
    if not parts:
        raise Unreadable(f"is no {KINDS} file, or its beginning is damaged")
    return tuple(parts)


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _behind_tags(file: BinaryIO, position: int) -> int:
    while True:
        head = _read(file, position, 10)
        if len(head) == 10 and head[:3] == b"ID3" and head[3] < 0xFF and max(head[6:]) < 0x80:
            size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
            position += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:3] == b"TAG" and position:  # ID3v1, always the last 128 bytes of a file that was joined to others
            position += 128
        else:
            return position


def _kind_of(start: bytes) -> Callable[[BinaryIO, int, int], int] | None:
    """What finds the end of a file that begins so."""
    magic = start[:4]
    if magic in _LAYOUTS and (magic not in _FORMS or start[8:] in _FORMS[magic]):
        return _end_of_chunks
    if magic in (b".snd", b"dns."):
        return _end_of_au
    if start.startswith(b"NIST_1A"):
        return _end_of_nist
    if magic == b"OggS":
        return end_of_ogg
    if magic == b"fLaC":
        return _end_of_flac
    return end_of_mpeg if is_mpeg(start) else None


def _end_of_chunks(file: BinaryIO, start: int, end: int) -> int:
    magic = _read(file, start, 4)
    layout = _LAYOUTS[magic]
    head = struct.Struct(layout.head)
    position, long_size, block, found = start + layout.first, None, 1, False
    for _ in range(_MOST_CHUNKS):
        data = _read(file, position, head.size)
        if len(data) < head.size:
            break
        name, size = head.unpack(data)
        if found and name[:4] in layout.beginnings:
            return position
        if layout.around:
            size -= head.size
        position += head.size
        if name == b"ds64":  # RF64: the sizes that 32 bits do not hold
            sizes = _read(file, position, 16)
            long_size = int.from_bytes(sizes[8:], "little") if len(sizes) == 16 else None
        elif name == b"fmt ":
            block = max(1, int.from_bytes(_read(file, position + 12, 2), "big" if magic == b"RIFX" else "little"))
        elif name[:4] == layout.samples:
            if magic == b"RF64" and size == PIPE_SIZES[0] and long_size is not None:
                size = long_size
            elif size < 0 or size in PIPE_SIZES or size == PIPE_SIZES[3] // block * block:
                return end
            _end_of_samples(position, size, end)
            found = True
        position += size + -size % layout.step
        if size < 0 or position > end:
            break
    if not found:
        raise Unreadable("is truncated or damaged (a file without samples)")
    return end


def _end_of_au(file: BinaryIO, start: int, end: int) -> int:
    """Sun's header: where the samples begin, and their size, or all ones."""
    head = _read(file, start, 12)
    if len(head) < 12:
        raise Unreadable("is truncated (it ends within its header)")
    offset, size = struct.unpack(">II" if head[:4] == b".snd" else "<II", head[4:])
    return end if size in PIPE_SIZES else _end_of_samples(start + offset, size, end)


def _end_of_nist(file: BinaryIO, start: int, end: int) -> int:
    """NIST SPHERE's header is text of a stated length, with the number of samples and their size."""
    head = _read(file, start, 1024)
    fields = {name: int(value) for name, value in re.findall(rb"(\w+) -i (\d{1,18})\n", head)}
    length = re.match(rb"NIST_1A\n *(\d{1,9})\n", head)
    if length is None or b"sample_count" not in fields:
        raise Unreadable("is truncated or damaged (a NIST header that does not say how many samples it has)")
    size = fields[b"sample_count"] * fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 1)
    return _end_of_samples(start + int(length[1]), size, end)


def _end_of_samples(first: int, size: int, end: int) -> int:
    if first + size > end:
        raise Unreadable(f"is truncated ({max(0, end - first)} of {size} bytes of samples)")
    return first + size


def _end_of_flac(file: BinaryIO, start: int, end: int) -> int:
    """Where the next one begins: FLAC states no number of bytes, and its decoder stops at the last sample."""
    position, overlap = start + 4, len(_FLAC_STARTS[0]) - 1
    while position < end:
        piece = _read(file, position, min(_SEARCHED, end - position))
        found = [place for place in map(piece.find, _FLAC_STARTS) if place >= 0]
        if found:
            return position + min(found)
        if len(piece) <= overlap:
            break
        position += len(piece) - overlap
    return end
