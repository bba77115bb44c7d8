"""Pictures: image arrays as PNG files and grids, and matplotlib figures as PNG bytes.

Shapes: N items, C channels (1 grey, 3 colour), H x W pixels.
"""

import io
import math
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from twostage.config.image_size import in_pixels
from twostage.config.schema import DataConfig
from twostage.data.images.dataset import level_type
from twostage.data.images.decode import Fit, Unreadable, WrongSize, decode_image, quiet_pillow
from twostage.errors import DataError
from twostage.progress import say
from twostage.storage.atomic import write_atomic

Bits = Literal[8, 16]


def to_bytes(levels_NCHW: np.ndarray, levels: int) -> np.ndarray:
    """Levels 0..L-1, integer or mean, to pictures of uint8 0..255, rounded to nearest.

    Of two channels the first is shown, in grey, and of more than three the first three, as red, green and blue.
    """
    shown = 3 if levels_NCHW.shape[-3] > 2 else 1
    return _scaled(levels_NCHW[..., :shown, :, :], levels, 8)


def to_words(levels_NCHW: np.ndarray, levels: int) -> np.ndarray:
    """Levels 0..L-1, integer or mean, to uint16 0..65535, rounded to nearest: grey of 16 bits."""
    return _scaled(levels_NCHW, levels, 16)


def _scaled(levels_NCHW: np.ndarray, levels: int, bits: Bits) -> np.ndarray:
    top = (1 << bits) - 1
    return np.rint(np.clip(levels_NCHW.astype(np.float64) * (top / (levels - 1)), 0, top)).astype(level_type(top + 1))


def png(pixels_CHW: np.ndarray, *, scale: int = 1) -> bytes:
    """A picture, uint8 or, of one channel, uint16, as PNG; `scale` repeats pixels."""
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


def fit_of(data: DataConfig) -> Fit:
    """How an image file comes to the size of the model's images: as the folder's did, other sets only exactly."""
    return data.fit if data.name == "images" else "exact"


def bits_of(data: DataConfig, levels: int) -> Bits:
    """Bits per channel of the image files of a run: as its folder has them, of other sets as its alphabet needs."""
    return data.bits if data.name == "images" else 16 if levels > 256 else 8


def read_image(
    path: Path, *, image_shape: tuple[int, int, int], levels: int, fit: Fit = "exact", bits: Bits = 8
) -> np.ndarray:
    """An image file as integer levels `[C, H, W]`, uint8 or uint16, read as the images of a folder are.

    A file holds 256 levels, or 65536. A smaller alphabet takes the nearest level, so a PNG written from that alphabet
    reads back exactly; with two levels (binarised data) that is a threshold at half, from 128 on, and no random draw.

    Args:
        path: a file of one of the formats that are read (`twostage.data.images.formats`).
        image_shape: (C, H, W) of the model's images; C = 1 reads grey, C = 3 RGB, of 8 bits.
        levels: size of the model's alphabet.
        fit: whether an image of another size is refused, cropped or scaled (`twostage.data.images.decode`).
        bits: per channel of the file; 16 are read of grey alone.

    Raises:
        DataError: the file is missing, not an image that is read, of a size that does not fit, or images have channels
            that no such file has.
    """
    channels, height, width = image_shape
    if channels not in ((1, 3) if bits == 8 else (1,)):
        raise DataError(
            f"expected an .npy file, as images of {channels} channels of {bits} bits are kept, but {path} is none: "
            "give its levels as an array"
        )
    pixels_CHW = np.empty(image_shape, dtype=level_type(1 << bits))
    try:
        with quiet_pillow():
            remarks = decode_image(path, pixels_CHW, fit=fit)
    except WrongSize as error:
        wanted = f"{'at least ' if fit == 'crop' else ''}{in_pixels(height, width)}"
        raise DataError(f"expected an image of {wanted}, but {path} {error}: resize it") from error
    except Unreadable as error:
        raise DataError(f"expected a whole image, but {path} {error}: give another file") from error
    for remark in remarks:
        say(f"{path}: {remark}")
    scale = (levels - 1) / ((1 << bits) - 1)
    return np.rint(pixels_CHW.astype(np.float64) * scale).astype(level_type(levels))
