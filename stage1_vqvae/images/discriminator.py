"""A discriminator of pictures by their patches (PatchGAN, Isola et al. 2017, arXiv 1611.07004, appendix 6.1.2).

Convolutions with stride 2 and twice the channels each, then two without a stride, the last of which says of every place
whether the patch around it is real. Departure: group normalisation (Wu and He 2018, arXiv 1803.08494) in the place of
batch normalisation, so that what is said of a picture does not depend on those beside it, as gradients of a batch in
parts and resumed trainings demand.

Shapes: B pictures, C x H x W pixels.
"""

import math

from torch import Tensor, nn

from twostage.errors import UsageError
from twostage.training.adversarial import Judged

_SMALLEST = 4
"""Side that is still halved."""
_WIDEST = 8
"""Most channels, in those of the first layer."""


class PatchDiscriminator(nn.Module):
    """Verdicts on the patches of pictures `[B, C, H, W]`, fp32 in [-1, 1].

    Args:
        image_shape: (C, H, W).
        channels: of the first layer.
        layers: convolutions with stride 2; fewer where pictures are too small for so many.

    Raises:
        UsageError: a picture is too small for any.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], channels: int, layers: int) -> None:
        super().__init__()
        width_in, height, width = image_shape
        halvings = min(layers, int(math.log2(min(height, width) / _SMALLEST)) + 1 if min(height, width) >= 4 else 0)
        if halvings < 1:
            raise UsageError(
                f"the discriminator expects images of at least {_SMALLEST}x{_SMALLEST} pixels and a layer or more, got "
                f"{height}x{width} and {layers}: train without one, picture_decoder.adversarial_weight 0"
            )
        blocks = list[nn.Module]()
        for layer in range(halvings):
            width_out = channels * min(2**layer, _WIDEST)
            blocks.append(_block(width_in, width_out, kernel=4, stride=2, normalised=layer > 0))
            width_in = width_out
        blocks.append(_block(width_in, width_in, kernel=3, stride=1, normalised=True))
        self.blocks = nn.ModuleList(blocks)
        self.verdict = nn.Conv2d(width_in, 1, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Judged:
        """Verdicts `[B, 1, h, w]`, and the features behind them."""
        maps = list[Tensor]()
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
            maps.append(x_BCHW)
        return Judged(self.verdict(x_BCHW), tuple(maps))


def _block(width_in: int, width_out: int, *, kernel: int, stride: int, normalised: bool) -> nn.Sequential:
    """The first layer is not normalised: what it sees of brightness and contrast would be lost."""
    layers: list[nn.Module] = [nn.Conv2d(width_in, width_out, kernel, stride, padding=1)]
    if normalised:
        # Groups of 16 channels, as there (table 3), or more where that does not divide.
        layers.append(nn.GroupNorm(math.gcd(width_out, max(1, width_out // 16)), width_out))
    return nn.Sequential(*layers, nn.LeakyReLU(0.2))
