"""One image file to integer levels: 8 bits (or 16 of grey), oriented, in grey or RGB, cut or scaled to a size.

Read by content, whatever the name says, by pillow's own readers of `FORMATS` only (AVIF from pillow 11.3 on, where it
was built with libavif, as its wheels are). What happens on the way, in this order:

- files above `LARGEST_BYTES` are refused unread, and pictures above `LARGEST_PIXELS` before anything is decoded;
- metadata of PNG, JPEG and AVIF are put aside (`twostage.data.images.metadata`): they are no reason to refuse a
  photograph;
- more than 8 bits per channel are refused in PNG and TIFF (pillow would keep the upper 8 bits of some and not of
  others); AVIF of 10 or 12 bits becomes 8 in its own decoder. Where 16 bits are asked for, grey PNG and TIFF of 16 bits
  are read with all of their levels (in fp32, which holds them exactly, until they are cut or scaled), nothing else;
- truncated and damaged files are refused, JPEG also where an end marker was put behind what is left of them, as far as
  `twostage.data.images.jpeg_end` can tell;
- animated PNG, WebP, GIF and AVIF and TIFF of several pages are refused: none of their pictures is the picture. The
  JPEG of many phones with a second one behind it (MPO) gives its first;
- the orientation that EXIF or XMP states is applied, and `UNORIENTED` said where EXIF is damaged; colour profiles are
  not applied;
- transparent pixels are laid on white, the paper that most transparent drawings are meant for (black would swallow
  their lines); palettes are looked up; CMYK becomes RGB by pillow's formula; grey is the luma of ITU-R BT.601;
- `fit` brings the image to its size. `resize` scales the largest centred part of the right proportions (for a square:
  as wide as the short side) with Lanczos' filter; `crop` cuts the centre out; `exact` takes no other size.

Scaling down starts from a cheaper reduction (JPEG's own scaled decoding, box averages) to no less than `REDUCING_GAP`
times the wanted size, as pillow's thumbnails do: large photographs are read several times faster, and pixels differ by
about one level of 255.

Shapes: C channels (1 grey, 3 RGB), H x W pixels.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

# Imported by name because importing them registers them: pillow's own search for readers is not made for threads.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from twostage.config.image_size import in_pixels
from twostage.data.images.formats import FORMATS_IN_WORDS, unread_format
from twostage.data.images.headers import LARGEST_PIXELS, refusal
from twostage.data.images.jpeg_end import ends_early
from twostage.data.images.metadata import bare
from twostage.printable import printable
from twostage.storage.regular_file import open_regular

FORMATS = tuple(
    plugin.format
    for plugin in (
        PngImagePlugin.PngImageFile,
        JpegImagePlugin.JpegImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        GifImagePlugin.GifImageFile,
        BmpImagePlugin.BmpImageFile,
        AvifImagePlugin.AvifImageFile,
    )
)
LARGEST_BYTES = 5 * LARGEST_PIXELS
"""Of a file, which is read whole: four unpacked channels of all pixels, and as much metadata as a fifth."""
REDUCING_GAP = 3.0
_INSPECTED_SIDE = 32
_DEEP = "F"  # pillow's floats, of 32 bits
# What a viewer does for every EXIF orientation but 1.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # those that exchange width and height
UNORIENTED = "with damaged EXIF data, and taken as upright"
CMYK = "in CMYK and converted without its colour profile"
PALETTE = "with a palette, whose colours are looked up"
TRANSPARENCY = "transparent and laid on white"

Fit = Literal["exact", "crop", "resize"]


class Unreadable(Exception):
    """The file gives no image; the message is a clause on the file, such as `is empty`."""


class WrongSize(Exception):
    """The image is whole, but its size is not one that `fit` admits."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(f"has {in_pixels(height, width)}")
        self.size = height, width


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep pillow's warnings (damaged metadata) off the terminal; around threads, because filters are global."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_image(path: Path, pixels_CHW: np.ndarray, *, fit: Fit) -> tuple[str, ...]:
    """Read the image in `path` into `pixels_CHW`, whose shape says the channels and the size.

    Args:
        path: a file of one of `FORMATS`.
        pixels_CHW: `[C, H, W]`, uint8 with C 1 or 3, or uint16 with C 1 for all levels of 16 bits; overwritten, and
            left as it is when an error is raised.
        fit: how other sizes are treated.

    Returns:
        What the conversion did to it, out of `UNORIENTED`, `CMYK`, `PALETTE` and `TRANSPARENCY`; mostly
        nothing.

    Raises:
        Unreadable: no whole image of a kind that is read.
        WrongSize: another size (`exact`), or smaller than the cut (`crop`).
    """
    channels, height, width = pixels_CHW.shape
    bits = 8 * pixels_CHW.itemsize
    mode = _DEEP if bits == 16 else "L" if channels == 1 else "RGB"
    with _opened(path, bits) as (picture, data):
        if fit == "resize":
            made, remarks = _scaled(picture, data, width, height, mode)
        else:
            made, remarks = _cut(picture, data, width, height, mode, exact=fit == "exact")
        pixels = np.asarray(made)
    if mode == _DEEP:  # the filter that scales may go beyond what it is given
        pixels = np.rint(pixels.clip(0, 65535))
    pixels_CHW[...] = pixels if channels == 1 else np.moveaxis(pixels, -1, 0)
    return remarks


@dataclass(frozen=True)
class Inspected:
    """What one whole image is, before anything is made of it."""

    width: int
    height: int
    mode: str
    """Pillow's name of its channels: L, RGB, RGBA, P, CMYK ..."""
    remarks: tuple[str, ...]
    """As of `decode_image`."""


def inspect_image(path: Path, *, bits: int = 8) -> Inspected:
    """Decode an image as `decode_image` does with `fit="resize"`, and keep what it is but not its pixels.

    Args:
        path: the file.
        bits: per channel that are wanted, 8 or 16.

    Raises:
        Unreadable: no whole image of a kind that is read.
    """
    with _opened(path, bits) as (picture, data):
        (width, height), mode = picture.size, picture.mode
        _, remarks = _scaled(picture, data, _INSPECTED_SIDE, _INSPECTED_SIDE, _DEEP if bits == 16 else "RGB")
    return Inspected(width=width, height=height, mode=mode, remarks=remarks)


@contextmanager
def _opened(path: Path, bits: int) -> Iterator[tuple[Image.Image, bytes]]:
    """The picture in a file and the bytes that it is decoded from.

    Whatever fails, also while it is being decoded, is `Unreadable`.
    """
    try:
        data = _contents(path)
        stripped = bare(data)
        with Image.open(io.BytesIO(stripped.data), formats=FORMATS) as picture:
            picture.info.update(stripped.info)
            if (refused := refusal(picture, data, bits=bits)) is not None:
                raise Unreadable(refused)
            del data
            yield picture, stripped.data
    except (Unreadable, WrongSize, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise Unreadable(f"is no {FORMATS_IN_WORDS} image, or its beginning is damaged") from error
    except Image.DecompressionBombError as error:  # pillow's own limit comes first where the size is absurd
        raise Unreadable(f"has more than {LARGEST_PIXELS:,} pixels") from error
    except Exception as error:  # on damaged bytes pillow raises a dozen types
        if isinstance(error, OSError) and error.strerror:
            raise Unreadable(f"could not be read ({error.strerror})") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Unreadable(f"is damaged ({printable(reason)})") from error


def _contents(path: Path) -> bytes:
    """The whole file, if it may be an image that is read."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_BYTES:
            raise Unreadable(f"has more than {LARGEST_BYTES:,} bytes")
        data = file.read(size)
    if not data:
        raise Unreadable("is empty")
    if (unread := unread_format(data)) is not None:
        raise Unreadable(f"is of the format {unread}, which is not read: {FORMATS_IN_WORDS} are")
    return data


def _orientation(picture: Image.Image) -> tuple[int, tuple[str, ...]]:
    """The EXIF orientation of a picture that has been decoded: some stand behind the pixels."""
    try:
        return picture.getexif().get(ExifTags.Base.Orientation, 1), ()
    except MemoryError:
        raise
    except Exception:  # on damaged bytes pillow raises as many types as for pixels
        return 1, (UNORIENTED,)


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _plain(picture: Image.Image, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in `mode` (L, RGB, or F for grey of 16 bits) and what the conversion did to it."""
    remarks = []
    if picture.mode == "CMYK":
        remarks.append(CMYK)
    if picture.mode in ("P", "PA"):
        remarks.append(PALETTE)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema() != (255, 255):
            remarks.append(TRANSPARENCY)
        sheet = Image.new("RGB", picture.size, "white")
        sheet.paste(picture, mask=picture.getchannel("A"))
        picture = sheet
    return picture.convert(mode), tuple(remarks)


def _load(picture: Image.Image, data: bytes, draft: tuple[int, int] | None = None) -> None:
    """Decode all of it; `draft` is what it was drafted to."""
    picture.load()
    if ends_early(picture, data, draft):
        raise Unreadable("is damaged (its pixels end early, before an end marker)")


def _cut(
    picture: Image.Image, data: bytes, width: int, height: int, mode: str, *, exact: bool
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture itself or its centre."""
    _load(picture, data)
    orientation, doubts = _orientation(picture)
    across, down = picture.size[::-1] if orientation in _LYING else picture.size
    if across < width or down < height or (exact and (across, down) != (width, height)):
        raise WrongSize(down, across)
    plain, remarks = _plain(picture, mode)
    plain = _turned(plain, orientation)
    left, top = (plain.width - width) // 2, (plain.height - height) // 2
    return plain.crop((left, top, left + width, top + height)), doubts + remarks


def _scaled(
    picture: Image.Image, data: bytes, width: int, height: int, mode: str
) -> tuple[Image.Image, tuple[str, ...]]:
    """The centre of the wanted proportions, scaled; turned upright last, when it is small."""
    side = int(max(width, height) * REDUCING_GAP)
    drafted = picture.draft(None, (side, side))
    _load(picture, data, (side, side))
    # Of a drafted one the last column and row may be whole pixels for a fraction of one.
    extent: tuple[float, float] = picture.size if drafted is None else drafted[1][2:]
    orientation, doubts = _orientation(picture)
    if orientation in _LYING:
        width, height = height, width
    scale = min(extent[0] / width, extent[1] / height)
    # Written so that rounding cannot put an edge outside, which resize refuses.
    left = max(0.0, extent[0] - width * scale) / 2
    top = max(0.0, extent[1] - height * scale) / 2
    box = (left, top, extent[0] - left, extent[1] - top)
    plain, remarks = _plain(picture, mode)
    small = plain.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)
    return _turned(small, orientation), doubts + remarks
