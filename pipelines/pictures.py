"""Pictures: image arrays as PNG files and grids, and matplotlib figures as PNG bytes.

Shapes: N items, C channels (1 grey, 3 colour), H x W pixels.
"""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image

from twostage.atomic import write_atomic
from twostage.errors import DataError

_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


def to_bytes(levels_NCHW: np.ndarray, levels: int) -> np.ndarray:
    """Levels 0..L-1, integer or mean, to uint8 0..255, rounded to nearest."""
    return np.rint(np.clip(levels_NCHW.astype(np.float64) * (255.0 / (levels - 1)), 0, 255)).astype(np.uint8)


def png(pixels_CHW: np.ndarray, *, scale: int = 1) -> bytes:
    """A uint8 picture as PNG; `scale` repeats pixels."""
    pixels_HWC = np.moveaxis(pixels_CHW, 0, -1).repeat(scale, 0).repeat(scale, 1)
    picture = Image.fromarray(pixels_HWC[..., 0] if pixels_HWC.shape[-1] == 1 else pixels_HWC)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def grid(pixels_NCHW: np.ndarray, *, columns: int, border: int = 1, background: int = 96) -> np.ndarray:
    """Tile uint8 pictures row by row into one `[C, H', W']`."""
    count, channels, height, width = pixels_NCHW.shape
    rows = math.ceil(count / columns)
    sheet = np.full(
        (channels, rows * (height + border) + border, columns * (width + border) + border), background, np.uint8
    )
    for index, picture_CHW in enumerate(pixels_NCHW):
        top = border + (index // columns) * (height + border)
        left = border + (index % columns) * (width + border)
        sheet[:, top : top + height, left : left + width] = picture_CHW
    return sheet


def display_scale(side: int, *, target: int = 56) -> int:
    """Whole factor by which a picture of that side is enlarged for the eye."""
    return max(1, round(target / side))


def write_png(path: Path, pixels_CHW: np.ndarray, *, scale: int = 1) -> None:
    """Write one PNG file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, png(pixels_CHW, scale=scale))


def read_image(path: Path, *, image_shape: tuple[int, int, int], levels: int) -> np.ndarray:
    """An image file as integer levels `[C, H, W]`, uint8.

    A file holds 256 levels; a smaller alphabet takes the nearest level, so a PNG written from that alphabet reads back
    exactly.

    Raises:
        DataError: the file is missing, not an image, or of another size.
    """
    channels, height, width = image_shape
    try:
        with Image.open(path) as picture:
            if picture.mode not in _EIGHT_BIT_MODES:
                raise DataError(f"{path} is an image of mode {picture.mode}; give one with 8 bits per channel")
            picture.load()
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; give an image file of {width}x{height} pixels") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}); give a PNG, JPEG or WebP file") from error
    if pixels.shape[:2] != (height, width):
        raise DataError(
            f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, but the model works on {width}x{height}; resize it"
        )
    pixels_CHW = pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)
    return np.rint(pixels_CHW.astype(np.float64) * ((levels - 1) / 255.0)).astype(np.uint8)
