"""Colours as the eye tells them apart: CIELAB of sRGB pictures, its distances and its chroma.

From sRGB to XYZ after IEC 61966-2-1, from there to L*a*b* after CIE 15 (1976), under the white D65. A distance is
CIE76, the Euclidean one, in units of which about 2.3 are just noticed (Mahy et al. 1994); black and white are 100
apart.

Shapes: B pictures, three channels, H x W pixels.
"""

import torch
from torch import Tensor

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""Rows are X, Y and Z of linear red, green and blue. White is the sum of a row, so that greys have no chroma."""
_CUBE, _SLOPE = (6 / 29) ** 3, (29 / 6) ** 2 / 3
"""Below the first the cube root is replaced by a line of this slope."""


def to_lab(rgb_B3HW: Tensor, levels: int) -> Tensor:
    """L*, a* and b*, `[B, 3, H, W]` float64, of sRGB pictures in levels 0..levels-1; what lies outside is clipped."""
    encoded = rgb_B3HW.double().clamp(0, levels - 1) / (levels - 1)
    linear = torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(_TO_XYZ, dtype=torch.float64, device=rgb_B3HW.device)
    xyz = torch.einsum("xc,bchw->bxhw", matrix / matrix.sum(1, keepdim=True), linear)
    x, y, z = torch.where(xyz > _CUBE, xyz.clamp(min=_CUBE) ** (1 / 3), xyz * _SLOPE + 4 / 29).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def colour_error(one_B3HW: Tensor, other_B3HW: Tensor) -> Tensor:
    """Mean distance of the pixels of two sets of pictures in CIELAB, `[B]`."""
    return (one_B3HW - other_B3HW).square().sum(1).sqrt().flatten(1).mean(1)


def chroma(lab_B3HW: Tensor) -> Tensor:
    """Mean distance of the pixels of pictures in CIELAB from grey, `[B]`: 0 of a grey picture."""
    return lab_B3HW[:, 1:].square().sum(1).sqrt().flatten(1).mean(1)
