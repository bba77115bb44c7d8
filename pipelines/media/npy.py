"""Single images as .npy files, for the channels and levels that a PNG file has no room for.

Shapes: C channels, H x W pixels.
"""

import io
from pathlib import Path

import numpy as np

from twostage.config.image_size import in_pixels
from twostage.data.arrays.kinds import as_images, check_images
from twostage.data.arrays.npy import Header, Unreadable, read_array
from twostage.errors import DataError
from twostage.storage.atomic import write_atomic

SUFFIX = ".npy"


def write_npy(path: Path, levels_CHW: np.ndarray) -> None:
    """Write one array, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, levels_CHW, allow_pickle=False)
    write_atomic(path, buffer.getvalue())


def read_npy(path: Path, *, image_shape: tuple[int, int, int], levels: int) -> np.ndarray:
    """The image in an .npy file, integer levels `[C, H, W]`; it may be stored without C where that is 1.

    Raises:
        DataError: the file is missing, or no image of that shape and of levels below `levels`.
    """
    channels, height, width = image_shape

    def check(header: Header) -> None:
        shape = header.shape[-3:] if len(header.shape) > 2 else (1, *header.shape)
        if shape != image_shape or header.shape[:-3] not in ((), (1,)):
            shown = "x".join(map(str, header.shape)) or "no axes"
            raise Unreadable(f"is of the shape {shown}")
        check_images(Header((1, *shape), header.dtype, header.fortran))

    try:
        image_CHW = as_images(read_array(path, check).reshape(1, *image_shape))[0]
        if (most := int(image_CHW.max())) >= levels:
            raise Unreadable(f"has levels up to {most}")
    except Unreadable as error:
        raise DataError(
            f"expected one image of {channels} channels of {in_pixels(height, width)}, levels 0 to {levels - 1}, but "
            f"{path} {error}: give another file"
        ) from error
    return image_CHW
