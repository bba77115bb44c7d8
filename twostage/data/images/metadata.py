"""PNG, JPEG and AVIF files without what is not pixels: damaged or endless metadata must not cost a whole photograph.

Pillow parses text, colour profiles, EXIF and more while it opens a file, and gives the file up where one of them is
damaged or unpacks to more than a megabyte. None of them changes a pixel here but the orientation. So pillow gets the
file without them, and the blocks that may name an orientation, in the place where its `getexif` looks for them.

What is left out of a PNG: every ancillary chunk but tRNS (transparency) and those of animations. Of a JPEG: comments
and application segments before the first scan, but for JFIF's and Adobe's, which say how colours are stored. Of an
AVIF: EXIF, which libavif would look into; its orientation stands elsewhere. No checksum of these is looked at; those of
everything else are, by pillow.
"""

import io
import re
import struct
import zlib
from dataclasses import dataclass, field

MOST_TEXT_BYTES = 1 << 20
"""Of a text, unpacked or not, that may name the orientation; what follows is not looked at."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
_ANCILLARY = 0x20  # the case of a PNG chunk's first letter
_PIXEL_CHUNKS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
_PROFILE, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
_EXIF_SEGMENT, _XMP_SEGMENT = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
# The type of an item of AVIF, behind the version, flags, number (2 or 4 bytes) and protection of its entry. Of an
# unknown type it is passed over, and every offset in the file stays as it was.
_EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)
_AVIF_HEAD_BYTES = 1 << 16
# Markers that no length follows: TEM, RST0..7, SOI, EOI; and SOS, behind which pixels begin.
_NO_SEGMENT = frozenset((0x01, 0xDA, *range(0xD0, 0xDA)))


@dataclass(frozen=True)
class Bare:
    """A file's pixels and what may turn them."""

    data: bytes
    """The file without its metadata; any other format as it is."""
    info: dict[str, str | bytes] = field(default_factory=dict)
    """What pillow's `Image.info` would hold of blocks with an orientation."""


def bare(data: bytes) -> Bare:
    """Take the metadata out of a PNG, JPEG or AVIF file; never an error, damage is left for the decoder to find."""
    if data.startswith(PNG_SIGNATURE):
        return _bare_png(data)
    if data.startswith(JPEG_START):
        return _bare_jpeg(data)
    if data[4:8] == b"ftyp":
        return Bare(_EXIF_ITEM.sub(rb"\1none", data[:_AVIF_HEAD_BYTES]) + data[_AVIF_HEAD_BYTES:])
    return Bare(data)


def _bare_png(data: bytes) -> Bare:
    view, at = memoryview(data), len(PNG_SIGNATURE)
    kept = io.BytesIO()  # not a list of parts: a hostile file has millions of them
    kept.write(view[:at])
    info: dict[str, str | bytes] = {}
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        name, end = data[at + 4 : at + 8], at + 12 + length
        if name[0] & _ANCILLARY and name.isalpha() and name not in _PIXEL_CHUNKS:
            if name == b"eXIf":
                info["exif"] = _EXIF_SEGMENT + data[at + 8 : end - 4]
            elif name in (b"tEXt", b"zTXt", b"iTXt"):
                info = _text(name, data[at + 8 : end - 4]) | info
        else:
            kept.write(view[at:end])
        at = end
    kept.write(view[at:])
    return Bare(kept.getvalue(), info)


def _text(name: bytes, content: bytes) -> dict[str, str | bytes]:
    """The text of a PNG, where it is one that may hold an orientation."""
    keyword, _, text = content.partition(b"\0")
    if keyword not in (_PROFILE, _XMP):
        return {}
    packed = name == b"zTXt"
    if packed:
        text = text[1:]  # the method of compression: there is but one
    elif name == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]  # behind language and translated keyword
    if packed:
        try:
            text = zlib.decompressobj().decompress(text, MOST_TEXT_BYTES)
        except zlib.error:
            return {"exif": b"damaged"}  # which its reader will find, and say
    text = text[:MOST_TEXT_BYTES]
    return {"xmp": text} if keyword == _XMP else {_PROFILE.decode(): text.decode("latin-1")}


def _bare_jpeg(data: bytes) -> Bare:
    view, at = memoryview(data), 2
    kept = io.BytesIO()
    kept.write(view[:at])
    info: dict[str, str | bytes] = {}
    exif = b""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in _NO_SEGMENT:
        if data[at + 1] == 0xFF:  # filling
            at += 1
            continue
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : end]
        if marker == 0xE1 and content.startswith(_EXIF_SEGMENT):
            exif += content.removeprefix(_EXIF_SEGMENT) if len(exif) < MOST_TEXT_BYTES else b""
        elif marker == 0xE1 and content.startswith(_XMP_SEGMENT):
            info["xmp"] = content.removeprefix(_XMP_SEGMENT)
        # As libjpeg, which takes no note of shorter ones.
        colours = (marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14) or (
            marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12
        )
        if colours or not (marker == 0xFE or 0xE0 <= marker <= 0xEF):
            kept.write(view[at:end])
        at = end
    if exif:
        info["exif"] = _EXIF_SEGMENT + exif
    kept.write(view[at:])
    return Bare(kept.getvalue(), info)
