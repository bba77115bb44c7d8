"""What `data.image_size` says: the side of a square, or height and width. Without pydantic or torch."""

import re

from twostage.errors import UsageError

SMALLEST, LARGEST = 2, 4096
"""Of a side, in pixels."""
_RECTANGLE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)


def sides_of(image_size: int | str) -> tuple[int, int]:
    """(height, width) in pixels of 64 or of "64x96".

    Raises:
        UsageError: it is no size, or a side is out of its range.
    """
    rectangle = _RECTANGLE.fullmatch(image_size) if isinstance(image_size, str) else None
    sides = (int(rectangle[1]), int(rectangle[2])) if rectangle else (image_size, image_size)
    height, width = (side if isinstance(side, int) else 0 for side in sides)
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise UsageError(
            f"data.image_size must be a side or HEIGHTxWIDTH, such as 64 or 64x96, of {SMALLEST} to {LARGEST} pixels, "
            f"but is {image_size!r}"
        )
    return height, width


def plain_size(image_size: int | str) -> int | str:
    """The one way to write a size: 64 for "64x64", "64x96" for "064x96"; what is no size as it came."""
    rectangle = _RECTANGLE.fullmatch(image_size) if isinstance(image_size, str) else None
    if rectangle is None:
        return image_size
    height, width = int(rectangle[1]), int(rectangle[2])
    return height if height == width else f"{height}x{width}"


def in_pixels(height: int, width: int) -> str:
    """`64x64 pixels`, or, where the order matters, `64x96 pixels (height x width)`."""
    return f"{height}x{width} pixels" + ("" if height == width else " (height x width)")
