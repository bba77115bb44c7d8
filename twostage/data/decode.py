"""One image file to integer levels: PNG, JPEG or WebP, 8 bits, oriented, in grey or RGB, cut or scaled to a size.

Read by content, whatever the name says, by pillow's three readers only. What happens on the way, in this order:

- the header's size is refused above `LARGEST_PIXELS` before anything is decoded;
- 16-bit files (pillow would keep the upper 8 bits of some and not of others) and animated ones are refused; an MPO, the
  JPEG of many phones with a second picture behind it, gives its first picture;
- the EXIF orientation is applied; colour profiles are not;
- transparent pixels are laid on white, the paper that most transparent drawings are meant for (black would swallow
  their lines); palettes are looked up; CMYK becomes RGB by pillow's formula; grey is the luma of ITU-R BT.601;
- `fit` brings the image to its size. `resize` scales the largest centred part of the right proportions (for a square:
  as wide as the short side) with Lanczos' filter; `crop` cuts the centre out; `exact` takes no other size.

Scaling down starts from a cheaper reduction (JPEG's own scaled decoding, box averages) to no less than `REDUCING_GAP`
times the wanted size, as pillow's thumbnails do: large photographs are read several times faster, and pixels differ by
about one level of 255.

Shapes: C channels (1 grey, 3 RGB), H x W pixels.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

# Imported by name because importing them registers them: pillow's own search for readers is not made for threads.
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from twostage.printable import printable
from twostage.regular import open_regular

FORMATS = tuple(
    plugin.format
    for plugin in (PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, WebPImagePlugin.WebPImageFile)
)
LARGEST_PIXELS = 64_000_000
"""Width times height; a transparent one takes nine bytes per pixel while it is laid on white, 0.6 GB."""
REDUCING_GAP = 3.0
_INSPECTED_SIDE = 32
_LYING = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24  # offset, after signature, IHDR's length and name, width and height

CMYK = "in CMYK and converted without its colour profile"
PALETTE = "with a palette, whose colours are looked up"
TRANSPARENCY = "transparent and laid on white"

Fit = Literal["exact", "crop", "resize"]


class Unreadable(Exception):
    """The file gives no image; the message is a clause on the file, such as `is empty`."""


class WrongSize(Exception):
    """The image is whole, but its size is not one that `fit` admits."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"has {width}x{height} pixels")
        self.size = width, height


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep pillow's warnings (damaged metadata) off the terminal; around threads, because filters are global."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def decode_image(path: Path, pixels_CHW: np.ndarray, *, fit: Fit) -> tuple[str, ...]:
    """Read the image in `path` into `pixels_CHW`, whose shape says the channels and the size.

    Args:
        path: PNG, JPEG or WebP file.
        pixels_CHW: uint8 `[C, H, W]`, C 1 or 3; overwritten, and left as it is when an error is raised.
        fit: how other sizes are treated.

    Returns:
        What the conversion did to it, out of `CMYK`, `PALETTE` and `TRANSPARENCY`; mostly nothing.

    Raises:
        Unreadable: no whole image of a kind that is read.
        WrongSize: another size (`exact`), or smaller than the cut (`crop`).
    """
    channels, height, width = pixels_CHW.shape
    mode = "L" if channels == 1 else "RGB"
    with _opened(path) as picture:
        if fit == "resize":
            made, remarks = _scaled(picture, width, height, mode)
        else:
            made, remarks = _cut(picture, width, height, mode, exact=fit == "exact")
        pixels = np.asarray(made)
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


def inspect_image(path: Path) -> Inspected:
    """Decode an image as `decode_image` does with `fit="resize"`, and keep what it is but not its pixels.

    Raises:
        Unreadable: no whole image of a kind that is read.
    """
    with _opened(path) as picture:
        (width, height), mode = picture.size, picture.mode
        _, remarks = _scaled(picture, _INSPECTED_SIDE, _INSPECTED_SIDE, "RGB")
    return Inspected(width=width, height=height, mode=mode, remarks=remarks)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture in a file; whatever fails, also while it is being decoded, is `Unreadable`."""
    try:
        with open_regular(path) as file:
            start = file.read(_PNG_BIT_DEPTH + 1)
            if not start:
                raise Unreadable("is empty")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as picture:
                _refuse(picture, start)
                yield picture
    except (Unreadable, WrongSize, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise Unreadable("is no PNG, JPEG or WebP image, or its beginning is damaged") from error
    except Image.DecompressionBombError as error:  # pillow's own limit comes first where the size is absurd
        raise Unreadable(f"has more than {LARGEST_PIXELS:,} pixels") from error
    except Exception as error:  # on damaged bytes pillow raises a dozen types
        if isinstance(error, OSError) and error.strerror:
            raise Unreadable(f"could not be read ({error.strerror})") from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise Unreadable(f"is damaged ({printable(reason)})") from error


def _refuse(picture: Image.Image, start: bytes) -> None:
    """What the header alone rules out."""
    width, height = picture.size
    if width * height > LARGEST_PIXELS:
        raise Unreadable(f"has {width}x{height} pixels, more than {LARGEST_PIXELS:,}")
    if start.startswith(_PNG_SIGNATURE) and start[_PNG_BIT_DEPTH] == 16:
        raise Unreadable("has 16 bits per channel and not the 8 bits per channel that are read")
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise Unreadable(f"is animated ({getattr(picture, 'n_frames', 2)} frames)")


def _plain(picture: Image.Image, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture in `mode` (L or RGB) and what the conversion did to it."""
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


def _cut(
    picture: Image.Image, width: int, height: int, mode: str, *, exact: bool
) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture itself or its centre."""
    ImageOps.exif_transpose(picture, in_place=True)
    if picture.width < width or picture.height < height or (exact and picture.size != (width, height)):
        raise WrongSize(*picture.size)
    plain, remarks = _plain(picture, mode)
    left, top = (plain.width - width) // 2, (plain.height - height) // 2
    return plain.crop((left, top, left + width, top + height)), remarks


def _scaled(picture: Image.Image, width: int, height: int, mode: str) -> tuple[Image.Image, tuple[str, ...]]:
    """The centre of the wanted proportions, scaled; turned upright last, when it is small."""
    extent: tuple[float, float] = picture.size
    side = int(max(width, height) * REDUCING_GAP)
    drafted = picture.draft(None, (side, side))
    if drafted is not None:  # its last column and row may be whole pixels for a fraction of one
        extent = drafted[1][2:]
    picture.load()  # the orientation may stand behind the pixels
    if picture.getexif().get(ExifTags.Base.Orientation) in _LYING:
        width, height = height, width
    scale = min(extent[0] / width, extent[1] / height)
    # Written so that rounding cannot put an edge outside, which resize refuses.
    left = max(0.0, extent[0] - width * scale) / 2
    top = max(0.0, extent[1] - height * scale) / 2
    box = (left, top, extent[0] - left, extent[1] - top)
    plain, remarks = _plain(picture, mode)
    small = plain.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)
    small.info = dict(picture.info)
    ImageOps.exif_transpose(small, in_place=True)
    return small, remarks
