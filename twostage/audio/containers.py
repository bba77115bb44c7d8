"""Whether a WAV, FLAC or OGG file is all there, from its container alone; nothing is decoded.

libsndfile reads half a WAV or OGG file as a short recording and says nothing, and passes over damaged pages of OGG.
Hence, before it is asked:

- WAV (RIFF, RIFX, RF64): the size in the header of the `data` chunk must be in the file. A size of 2^32 - 1, which
  programs write into a pipe, states nothing and is taken as it is;
- OGG (RFC 3533): every page must be whole and have the right checksum, and the last one must say that it is the last;
- FLAC has checksums and the number of samples, and its decoder looks at both.
"""

import struct
import zlib
from typing import BinaryIO

_NO_SIZE = 0xFFFFFFFF
_MOST_CHUNKS = 1000
_OGG_HEADER = struct.Struct("<4sBBqIIIB")  # magic, version, flags, granule, serial, sequence, checksum, segments
_OGG_LAST = 4
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Unreadable(Exception):
    """The file gives no recording; the message is a clause on the file, such as `is empty`."""


def check_whole(file: BinaryIO) -> None:
    """Look through the container of a file that is open at its beginning; leaves the position anywhere.

    Raises:
        Unreadable: empty, truncated, damaged, or of another kind.
    """
    start = file.read(12)
    if not start:
        raise Unreadable("is empty")
    if start[:4] in (b"RIFF", b"RIFX", b"RF64") and start[8:] == b"WAVE":
        _check_wav(file, order=">" if start[:4] == b"RIFX" else "<")
    elif start[:4] == b"OggS":
        file.seek(0)
        _check_ogg(file)
    elif start[:4] != b"fLaC":
        raise Unreadable("is no WAV, FLAC or OGG file, or its beginning is damaged")


def _check_wav(file: BinaryIO, *, order: str) -> None:
    end = file.seek(0, 2)
    position, long_size = 12, None
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            break
        name, size = struct.unpack(f"{order}4sI", header)
        position += 8
        if name == b"ds64":  # RF64: the sizes that 32 bits do not hold
            sizes = file.read(16)
            long_size = int.from_bytes(sizes[8:], "little") if len(sizes) == 16 else None
        if name == b"data":
            stated = long_size if size == _NO_SIZE else size
            if stated is not None and stated > end - position:
                raise Unreadable(f"is truncated ({end - position} of {stated} bytes of samples)")
            return
        position += size + size % 2
    raise Unreadable("is truncated or damaged (a WAV file without samples)")


def _check_ogg(file: BinaryIO) -> None:
    flags = 0
    while header := file.read(_OGG_HEADER.size):
        table = b""
        if len(header) == _OGG_HEADER.size:
            magic, _, flags, _, _, _, checksum, segments = _OGG_HEADER.unpack(header)
            if magic != b"OggS":
                raise Unreadable("is damaged (something other than a page of OGG in it)")
            table = file.read(segments)
        body = file.read(sum(table))
        if len(header) < _OGG_HEADER.size or len(table) < segments or len(body) < sum(table):
            raise Unreadable("is truncated (it ends within a page)")
        if _ogg_checksum(header[:22] + bytes(4) + header[26:] + table + body) != checksum:
            raise Unreadable("is damaged (a page of OGG has a wrong checksum)")
    if not flags & _OGG_LAST:
        raise Unreadable("is truncated (it ends before its last page)")


def _ogg_checksum(page: bytes) -> int:
    """OGG's CRC-32: zlib's polynomial, but highest bit first, from 0 and without inversion at the end."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), _NO_SIZE) ^ _NO_SIZE
    return int(f"{mirrored:032b}"[::-1], 2)
