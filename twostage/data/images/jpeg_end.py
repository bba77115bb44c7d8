"""JPEG files that were cut and then closed with an end marker: half an image, and no complaint from libjpeg.

A decoder that meets the end marker too early fills up with zeros, which are a mid grey, and warns where nobody hears
it. So a picture whose last pixel is mid grey is decoded a second time with noise before its end marker: behind a whole
scan that is skipped, within one it is taken for pixels. Nearly all files have another last pixel and cost nothing.

What this does not see: a cut within the last block of 8x8 or 16x16 pixels, one of a progressive file behind its first
scan, which leaves the whole picture blurred, and one in the colours of a file that stores them behind all of the grey.
"""

import io
import re

import numpy as np
from PIL import Image

_MID_GREY = (127, 128)  # the former in CMYK, which is stored inverted
_COMPARED_ROWS = 256
# 16 runs of bytes that are no markers, with the marks of restarts between them: a scan that uses those goes on at its
# own one, and to any other they mean nothing.
_NOISE = b"".join(
    bytes(np.random.default_rng(number).integers(0, 255, 256, dtype=np.uint8)) + bytes((0xFF, 0xD0 + number % 8))
    for number in range(16)
)
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SCAN, _END = 0xDA, 0xD9


def ends_early(picture: Image.Image, data: bytes, draft: tuple[int, int] | None) -> bool:
    """Whether the pixels of a JPEG end before the picture does.

    Args:
        picture: the decoded picture, of any format.
        data: its file.
        draft: the size that it was drafted to before, if it was.
    """
    if picture.format != "JPEG":
        return False
    corner = picture.getpixel((picture.width - 1, picture.height - 1))
    if not all(value in _MID_GREY for value in (corner if isinstance(corner, tuple) else (corner,))):
        return False
    end = _end_marker(data)
    with Image.open(io.BytesIO(data[:end] + _NOISE + data[end:]), formats=("JPEG",)) as padded:
        if draft is not None:
            padded.draft(None, draft)
        for top in range(0, picture.height, _COMPARED_ROWS):
            band = (0, top, picture.width, min(top + _COMPARED_ROWS, picture.height))
            if picture.crop(band).tobytes() != padded.crop(band).tobytes():
                return True
    return False


def _end_marker(data: bytes) -> int:
    """Where the end marker of the first picture in the file stands: thumbnails and whole films may follow it."""
    at, within_scan = 2, False
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = data[found.start() + 1], found.end()
        if marker == _END and within_scan:
            return found.start()
        within_scan |= marker == _SCAN
        if marker not in (_END, 0x01, 0xD8):
            at += int.from_bytes(data[at : at + 2], "big")
    return len(data)
