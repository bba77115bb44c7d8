"""Parts of a batch's pixels that are computed one after the other, so that what is made of them stays in a cache."""

from collections.abc import Iterator

from torch import Tensor

Place = tuple[slice, slice, slice]


def blocks(x_BCP: Tensor, *, cpu_pixels: int, accelerator_pixels: int) -> Iterator[Place]:
    """Places in arrays `[B, anything, P]` of about so many pixels: whole items, or parts of one item.

    On an accelerator blocks should be large enough to hide the launches.
    """
    items, _, pixels = x_BCP.shape
    most = max(1, cpu_pixels if x_BCP.device.type == "cpu" else accelerator_pixels)
    height = max(1, most // max(1, pixels))
    for top in range(0, items, height):
        for left in range(0, pixels, most):
            yield slice(top, top + height), slice(None), slice(left, left + most)
