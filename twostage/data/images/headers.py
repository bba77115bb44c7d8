"""What the header of an image alone rules out: sizes, depths, channels, several pictures in one file."""

from PIL import Image, TiffImagePlugin

from twostage.data.images.metadata import PNG_SIGNATURE

LARGEST_PIXELS = 64_000_000
"""Width times height; a transparent one took 0.8 GB as PNG or TIFF and 1.3 GB as WebP while it was laid on white."""
_PNG_BIT_DEPTH = 24  # offset, after signature, IHDR's length and name, width and height
_KIND_OF_PAGE, _REDUCED = 254, 1  # TIFF's NewSubfileType and its lowest bit
_GREY_16 = ("I;16", "I;16B", "I;16L")  # unsigned, in either order of bytes
_PHOTOMETRIC, _FROM_WHITE = 262, 0  # TIFF: level 0 is white, which pillow turns round for 8 bits and not for 16
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_ANIMATIONS = ("PNG", "WEBP", "AVIF")  # whose headers state the number of frames


def refusal(picture: Image.Image, data: bytes, *, bits: int) -> str | None:
    """A clause on why the opened, not yet decoded picture of the file `data` is not read; None: it may be.

    Args:
        picture: with nothing but its header read.
        data: the file.
        bits: per channel that are wanted: 8, of any channels, or 16, of grey ones.
    """
    width, height = picture.size
    if width * height > LARGEST_PIXELS:
        return f"has {width}x{height} pixels, more than {LARGEST_PIXELS:,}"
    stated = data[_PNG_BIT_DEPTH] if data.startswith(PNG_SIGNATURE) else 8
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        stated = max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        across, down = (picture.tag_v2.get(tag, 1) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        if across * down > LARGEST_PIXELS:  # a tile is unpacked whole
            return f"has tiles of {across}x{down} pixels, more than {LARGEST_PIXELS:,}"
        if picture.tag_v2.get(_KIND_OF_PAGE, 0) & _REDUCED:
            return "holds a reduced picture in place of the whole one, as raw files of cameras do"
    if (reason := _not_16(picture, stated) if bits == 16 else _not_8(picture, stated)) is not None:
        return reason
    if getattr(picture, "is_animated", False):
        if picture.format == "TIFF":
            return "has more than one page"
        # To count those of a GIF is to read all of them.
        frames = f" ({getattr(picture, 'n_frames', 2)} frames)" if picture.format in _ANIMATIONS else ""
        return f"is animated{frames}"
    return None


def _not_8(picture: Image.Image, stated: int) -> str | None:
    if stated > 8:
        grey = ", unless data.bits is 16" if picture.mode in _GREY_16 else ""
        return f"has {stated} bits per channel and not the 8 bits per channel that are read{grey}"
    return f"has channels of the kind {picture.mode}, which are not read" if picture.mode not in _MODES else None


def _not_16(picture: Image.Image, stated: int) -> str | None:
    """Of PNG and TIFF alone pillow hands over all 16 bits, and only where they are grey and nothing else."""
    if stated != 16:
        return f"has {stated} bits per channel and not the 16 that are asked for"
    if picture.mode not in _GREY_16:
        return "has 16 bits per channel, but is not unsigned grey alone, of which 16 bits are read"
    if "transparency" in picture.info:
        return "has 16 bits per channel and a transparent level, which is not read"
    if isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(_PHOTOMETRIC) == _FROM_WHITE:
        return "has 16 bits per channel that are counted from white, which is not read"
    return None
