"""How the decoder doubles the sides of its maps.

A transposed convolution with stride 2 gives each of four pixels a kernel of its own, and where these differ, as they do
from the start, the pattern repeats over the picture (Odena et al. 2016, Distill). The other two start without one:
nearest neighbours before a convolution (the same article), and a convolution to four times the channels, which are laid
side by side (sub-pixel convolution, Shi et al. 2016, arXiv 1609.05158) and start alike (ICNR, Aitken et al. 2017, arXiv
1707.02937).
"""

from typing import Literal, get_args

import torch
from torch import nn

from twostage.errors import UsageError

Upsampling = Literal["transposed", "nearest-convolution", "subpixel"]


def upsampling_layer(kind: Upsampling, width_in: int, width_out: int) -> nn.Module:
    """`[B, width_in, h, w]` to `[B, width_out, 2 h, 2 w]`.

    Raises:
        UsageError: there is no such kind.
    """
    if kind == "transposed":
        return nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1)
    if kind == "nearest-convolution":
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width_in, width_out, 3, padding=1))
    if kind != "subpixel":
        raise UsageError(f"upsampling must be {', '.join(get_args(Upsampling)[:2])} or subpixel, not {kind!r}")
    convolution = nn.Conv2d(width_in, 4 * width_out, 3, padding=1)
    with torch.no_grad():
        for parameter in (convolution.weight, convolution.bias):
            assert parameter is not None
            parameter.copy_(parameter[::4].repeat_interleave(4, 0))
    return nn.Sequential(convolution, nn.PixelShuffle(2))
