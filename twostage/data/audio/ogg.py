"""OGG (RFC 3533): every page must be whole and have the right checksum, and every stream must say where it ends.

Files of OGG may be joined to one: a page that begins a stream, after others that did not, begins the next part. Streams
side by side (several at once) are refused where more than one of them is sound, because one alone would be read.
"""

import struct
import zlib
from typing import BinaryIO

from twostage.data.audio.part import Unreadable

_HEAD = struct.Struct("<4sBBqIIIB")  # magic, version, flags, granule, serial, sequence, checksum, segments
_FIRST, _LAST = 2, 4
_SOUNDS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")
_ONES = 0xFFFF_FFFF
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def end_of_ogg(file: BinaryIO, start: int, end: int) -> int:
    """Where the first of the OGG files from `start` on ends.

    Raises:
        Unreadable: truncated, damaged, or with several sounds side by side.
    """
    position, began, sounds = start, True, 0
    unfinished: set[int] = set()
    while position < end:
        file.seek(position)
        flags, serial, body, size = _page(file)
        if flags & _FIRST and not began:
            break
        began = bool(flags & _FIRST)
        if began:
            unfinished.add(serial)
            sounds += body.startswith(_SOUNDS)
        if flags & _LAST:
            unfinished.discard(serial)
        position += size
    if unfinished:
        raise Unreadable("is truncated (it ends before its last page)")
    if sounds > 1:
        raise Unreadable(f"holds {sounds} recordings side by side, of which one would be read")
    return position


def _page(file: BinaryIO) -> tuple[int, int, bytes, int]:
    """Flags, serial number and body of the page at the position, and how many bytes it has."""
    head = file.read(_HEAD.size)
    table = b""
    serial = flags = checksum = segments = 0
    if len(head) == _HEAD.size:
        magic, _, flags, _, serial, _, checksum, segments = _HEAD.unpack(head)
        if magic != b"OggS":
            raise Unreadable("is damaged (something other than a page of OGG in it)")
        table = file.read(segments)
    body = file.read(sum(table))
    if len(head) < _HEAD.size or len(table) < segments or len(body) < sum(table):
        raise Unreadable("is truncated (it ends within a page)")
    if _checksum(head[:22] + bytes(4) + head[26:] + table + body) != checksum:
        raise Unreadable("is damaged (a page of OGG has a wrong checksum)")
    return flags, serial, body, len(head) + len(table) + len(body)


def _checksum(page: bytes) -> int:
    """OGG's CRC-32: zlib's polynomial, but highest bit first, from 0 and without inversion at the end."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), _ONES) ^ _ONES
    return int(f"{mirrored:032b}"[::-1], 2)
