"""How the decoder doubles the sides of its maps.

A transposed convolution with stride 2 gives each of four pixels a kernel of its own, and where these differ, as they do
from the start, the pattern repeats over the picture (Odena et al. 2016, Distill). The other two start without one:
nearest neighbours before a convolution (the same article), and a convolution to four times the channels, which are laid
side by side (sub-pixel convolution, Shi et al. 2016, arXiv 1609.05158) and start alike (ICNR, Aitken et al. 2017, arXiv
1707.02937).
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twostage.errors import UsageError

Upsampling = Literal["transposed", "nearest-convolution", "subpixel"]


class NearestConvolution(nn.Module):
    """Nearest neighbours to twice the sides, then a 3x3 convolution, as one transposed convolution.

    Two of three neighbouring fine positions are copies of one coarse position, so that sums of the kernel's weights do
    what the convolution would: a 4x4 kernel, 16 products for a coarse position instead of 36, and no enlarged map.
    """

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(width_in, width_out, 3)
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, x_BCHW: Tensor) -> Tensor:
        sums_CF44 = 4 * F.avg_pool2d(self.weight.flip(2, 3).transpose(0, 1), 2, stride=1, padding=1)
        return F.conv_transpose2d(x_BCHW, sums_CF44, self.bias, stride=2, padding=1)


def upsampling_layer(kind: Upsampling, width_in: int, width_out: int) -> nn.Module:
    """`[B, width_in, h, w]` to `[B, width_out, 2 h, 2 w]`.

    Raises:
        UsageError: there is no such kind.
    """
    if kind == "transposed":
        return nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1)
    if kind == "nearest-convolution":
        # Checkpoints count the nearest neighbours as a layer of their own.
        return nn.Sequential(nn.Identity(), NearestConvolution(width_in, width_out))
    if kind != "subpixel":
        raise UsageError(f"upsampling must be {', '.join(get_args(Upsampling)[:2])} or subpixel, not {kind!r}")
    convolution = nn.Conv2d(width_in, 4 * width_out, 3, padding=1)
    with torch.no_grad():
        for parameter in (convolution.weight, convolution.bias):
            assert parameter is not None
            parameter.copy_(parameter[::4].repeat_interleave(4, 0))
    return nn.Sequential(convolution, nn.PixelShuffle(2))
