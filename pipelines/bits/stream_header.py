"""Bytes around entropy-coded codes: what they are, which prior reads them, and whether they are whole.

Magic, version, way of the labels, axes of an item, K, items, batch size, checksum of the content, digest of prior and
tables, shape of an item; the range coder's 32-bit words; CRC-32 of everything before. Little-endian. The range
coder itself takes any bytes: what it reads from damaged ones looks like codes.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

from twostage.errors import RunError

Labels = Literal["none", "marginalised", "paid"]

_MAGIC, _VERSION = b"2SEC", 1
_FIXED = struct.Struct("<4sBBHIIII16s")
_CRC = struct.Struct("<I")
_WAYS: tuple[Labels, ...] = ("none", "marginalised", "paid")
_AGAIN = "encode the codes again"


@dataclass(frozen=True)
class StreamHeader:
    """What a stream says about itself."""

    labels: Labels
    codebook_size: int
    """K."""
    code_shape: tuple[int, ...]
    """(G, *grid) of one item; (G, the most positions) of sequences, (G, all positions) of a hierarchy."""
    items: int
    batch_size: int
    """Items walked side by side."""
    codes_crc: int
    """CRC-32 of all codes as int32, and of what is written beside them."""
    digest: bytes
    """16 bytes that name the prior and the tables of labels."""

    def pack(self) -> bytes:
        """The bytes in front of the words."""
        way, axes = _WAYS.index(self.labels), len(self.code_shape)
        numbers = (self.codebook_size, self.items, self.batch_size, self.codes_crc)
        fixed = _FIXED.pack(_MAGIC, _VERSION, way, axes, *numbers, self.digest)
        return fixed + struct.pack(f"<{axes}I", *self.code_shape)

    @classmethod
    def split(cls, data: bytes) -> tuple["StreamHeader", bytes]:
        """The header of a stream, and its words as bytes.

        Raises:
            RunError: it is damaged or something else.
        """
        body, crc = data[: -_CRC.size], data[-_CRC.size :]
        if len(data) < _FIXED.size + _CRC.size or data[:4] != _MAGIC:
            raise RunError(f"Expected a stream of entropy-coded codes, got {len(data)} other bytes: {_AGAIN}.")
        if data[4] != _VERSION:
            raise RunError(f"Expected version {_VERSION} of entropy-coded codes, got version {data[4]}: {_AGAIN}.")
        if crc != _CRC.pack(zlib.crc32(body)):
            raise RunError(f"Expected entropy-coded codes with their checksum, got damaged or cut bytes: {_AGAIN}.")
        _, _, way, axes, size, items, batch_size, codes_crc, digest = _FIXED.unpack_from(body)
        end = _FIXED.size + 4 * axes
        if way >= len(_WAYS) or end > len(body) or (len(body) - end) % 4 or not 1 <= batch_size <= items:
            raise RunError(f"Expected entropy-coded codes with a sound header, got one that is none: {_AGAIN}.")
        shape = struct.unpack(f"<{axes}I", body[_FIXED.size : end])
        return cls(_WAYS[way], size, shape, items, batch_size, codes_crc, digest), body[end:]


def seal(body: bytes) -> bytes:
    """Header and words, followed by their checksum."""
    return body + _CRC.pack(zlib.crc32(body))


def overhead_bits(data: bytes) -> int:
    """Bits of a stream that are no codes: header and checksum.

    Raises:
        RunError: it is damaged or something else.
    """
    return 8 * (len(data) - len(StreamHeader.split(data)[1]))
