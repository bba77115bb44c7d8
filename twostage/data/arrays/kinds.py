"""Which arrays are images, and which are labels: by their headers and by their values."""

import numpy as np

from twostage.data.arrays.npy import Header, Unreadable

MOST_CHANNELS = 16
LARGEST_SIDE = 4096
_NOT_WHOLE = {
    "f": "round it to levels, such as (x * 255).round().astype(np.uint8)",
    "b": "store it with astype(np.uint8) and data.levels 2",
    "O": "Python objects are never read, store its numbers alone",
}


def check_images(header: Header) -> None:
    """Raise `Unreadable` unless it is N x H x W or N x C x H x W of whole numbers of at most 16 bits."""
    if not _is_whole(header):
        kind = "O" if header.dtype.hasobject else header.dtype.kind
        advice = _NOT_WHOLE.get(kind, "store its levels as whole numbers")
        raise Unreadable(f"holds {header.dtype} and not whole numbers: {advice}")
    if header.dtype.itemsize > 2:
        raise Unreadable(f"holds {header.dtype}, and levels have at most 16 bits: store it with astype(np.uint16)")
    shape, shown = header.shape, "x".join(map(str, header.shape)) or "no axes"
    if len(shape) not in (3, 4):
        raise Unreadable(f"is of the shape {shown} and not N x H x W or N x C x H x W")
    channels = shape[1] if len(shape) == 4 else 1
    if not 1 <= channels <= MOST_CHANNELS:
        last = 1 <= shape[-1] <= MOST_CHANNELS
        advice = ": move the last axis with np.moveaxis(x, -1, 1)" if last else ""
        raise Unreadable(
            f"is of the shape {shown}, N x C x H x W, with {channels} channels where 1 to {MOST_CHANNELS} are "
            f"read{advice}"
        )
    if not shape[0]:
        raise Unreadable(f"is of the shape {shown}, without an image")
    if not all(2 <= side <= LARGEST_SIDE for side in shape[-2:]):
        raise Unreadable(f"is of the shape {shown}, and images have sides of 2 to {LARGEST_SIDE:,}")


def check_labels(header: Header) -> None:
    """Raise `Unreadable` unless it is one whole number an image."""
    if not _is_whole(header):
        raise Unreadable(f"holds {header.dtype} and not whole numbers: number the classes from 0")
    if len(header.shape) != 1:
        shown = "x".join(map(str, header.shape)) or "no axes"
        raise Unreadable(f"is of the shape {shown} and not N, one label an image")


def _is_whole(header: Header) -> bool:
    return header.dtype.kind in "iu" and not header.dtype.hasobject


def as_images(array: np.ndarray) -> np.ndarray:
    """Levels `[N, C, H, W]` of an array that passed `check_images`, of its own type in the machine's order of bytes.

    Raises:
        Unreadable: a level is below 0.
    """
    if (least := int(array.min())) < 0:
        raise Unreadable(f"has levels below 0, down to {least}: levels begin at 0")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return native[:, None] if native.ndim == 3 else native


def as_labels(array: np.ndarray, count: int) -> np.ndarray:
    """Labels `[N]`, int64, of an array that passed `check_labels`.

    Raises:
        Unreadable: there are not `count`, or one is out of range.
    """
    if len(array) != count:
        raise Unreadable(f"has {len(array):,} labels for {count:,} images")
    least, largest = int(array.min()), int(array.max())
    if least < 0 or largest >= 2**31:
        raise Unreadable(f"has labels from {least} to {largest}, and they are whole numbers from 0 to 2147483647")
    return array.astype(np.int64)
