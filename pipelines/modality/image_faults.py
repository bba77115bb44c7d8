"""What is wrong with reconstructions of images, in words, read from the measures of a row.

*collapsed*: they explain hardly more of the originals than one mean image does, and whatever else holds follows from
that, but for a grid; *blurred*: their edges are faint; *grey*: their colours hardly differ from one another, which a
tint of all of them does not hide; *grid*: the positions of the codes show.

Limits were chosen by looking at reconstructions of photographs and digits, see docs/log.md.
"""

from collections.abc import Mapping
from typing import Any

from .measures import Fault

COLLAPSED_SHARE = 0.1
"""Least share of the originals' variance to be explained."""
BLURRED_SHARPNESS = 0.25
"""Least energy of gradients, over that of the originals: half as steep."""
GREY_SPREAD = 0.4
"""Least deviation of colours, over that of the originals."""
GRID_DB = 3.0
"""Most power at the harmonics of the grid: twice what is expected."""


def image_faults(row: Mapping[str, Any]) -> tuple[Fault, ...]:
    """The faults that hold, by the fields of a row; what was not measured is no fault."""
    share, sharpness, spread, grid = (
        row.get(name) for name in ("explained_share", "sharpness", "colour_spread", "grid_db")
    )
    found = []
    if share is not None and share < COLLAPSED_SHARE:
        found.append(
            Fault(
                "collapsed",
                f"Reconstructions are collapsed: they explain {max(share, 0.0):.0%} of the variance of the originals, "
                "the mean image none of it; train stage one longer, or try another likelihood",
            )
        )
    else:
        if sharpness is not None and sharpness < BLURRED_SHARPNESS:
            found.append(
                Fault(
                    "blurred",
                    f"Reconstructions are blurred: their gradients have {sharpness:.0%} of the originals' energy; "
                    "train stage one longer, or give an image more codes (less downsampling, a larger codebook)",
                )
            )
        if spread is not None and spread < GREY_SPREAD:
            found.append(
                Fault(
                    "grey",
                    f"Reconstructions are grey: their colours spread {spread:.0%} as far as the originals'; train "
                    "stage one longer, or with more codes",
                )
            )
    if grid is not None and grid > GRID_DB:
        found.append(
            Fault(
                "grid",
                f"Reconstructions show the grid of the codes: {grid:.1f} dB of power at its harmonics, of originals 0; "
                "set stage1.upsampling to nearest-convolution, or train stage one longer",
            )
        )
    return tuple(found)
