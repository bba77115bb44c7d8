"""Whether pictures show the grid of the codes that they were decoded from.

A decoder that lays positions side by side may repeat a pattern with the side of a position, `period` pixels
(checkerboard artefacts: Odena et al. 2016, Distill). In a Fourier transform along rows or along columns such a pattern
has its power at the harmonics, multiples of 1/period cycles per pixel, where natural pictures have no more than beside
them. Beside are the nearest frequencies on both sides.

Without a grid, reconstructions would have at a harmonic what they have beside it, times the ratio of the two in their
originals, which need not be 1 where pictures are framed. Their power there, over this expectation, is the measure, in
dB: 0 is no grid, 3 twice the power. Harmonics are weighed by the reciprocal of the originals' power beside them: most
of a picture's power is in its coarse features, and would hide a grid of single pixels.

A Fourier transform takes the step from the last pixel of a line to the first for an edge, whose power is at all
frequencies: lines are made level first, by subtracting a ramp.

Powers are summed over all pictures, channels, directions and frequencies across: a grid is at the same place in every
picture, so that a few dozen pictures tell.

A pattern that changes its sign from one side of a picture to the other has its power beside the harmonics, and is not
seen; it may read below 0.

Shapes: B pictures, C channels, H x W pixels, K harmonics: 1/period, 2/period and so on to 1/2.
"""

import math

import numpy as np
import torch
from torch import Tensor


def harmonics(image_shape: tuple[int, int, int], period: int) -> int:
    """K; 0 where a picture [C, H, W] has not two whole positions each way, so that nothing lies between harmonics."""
    whole = period > 1 and all(side % period == 0 and side > period for side in image_shape[1:])
    return period // 2 if whole else 0


def grid_power(x_BCHW: Tensor, period: int) -> Tensor:
    """Power at every harmonic, and mean power beside it, `[2, K, B]` float64, in levels squared."""
    return _along_rows(x_BCHW.double(), period) + _along_rows(x_BCHW.double().transpose(-1, -2), period)


def _along_rows(x_BCHW: Tensor, period: int) -> Tensor:
    side = x_BCHW.shape[-1]
    ramp_W = torch.linspace(-0.5, 0.5, side, dtype=x_BCHW.dtype, device=x_BCHW.device)
    level_BCHW = x_BCHW - (x_BCHW[..., -1:] - x_BCHW[..., :1]) * ramp_W
    power_BF = torch.fft.rfft(level_BCHW, norm="ortho").abs().square().mean((1, 2))
    at_K = torch.arange(1, period // 2 + 1, device=x_BCHW.device) * (side // period)
    above_K = torch.minimum(at_K + 1, side - at_K - 1)  # beyond the highest frequency come the same ones again
    return torch.stack([power_BF[:, at_K], (power_BF[:, at_K - 1] + power_BF[:, above_K]) / 2]).transpose(1, 2)


def grid_db(originals_2K: np.ndarray, reconstructions_2K: np.ndarray) -> float | None:
    """The measure, from sums of `grid_power` over all originals and all reconstructions.

    None where one of them has no power at or beside the harmonics, such as flat pictures.
    """
    (there_K, beside_K), (made_K, made_beside_K) = originals_2K, reconstructions_2K
    known_K = beside_K > 0
    power = float((made_K[known_K] / beside_K[known_K]).sum())
    expected = float((made_beside_K * there_K)[known_K] @ beside_K[known_K] ** -2)
    return 10 * math.log10(power / expected) if power > 0 and expected > 0 else None
