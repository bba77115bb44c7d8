"""The picture decoder: a second decoder of images, on the codes of a finished codebook, that is trained for the eye.

The decoder of stage one says how likely every picture is, and its mean is blurred where the codes leave anything open.
This one says one picture and no probability: it is trained by the absolute error, by the distance of features, and by a
discriminator that tells what it made from what it was made of (VQGAN, Esser et al. 2021, arXiv 2012.09841; the codebook
stays as it is). So it has no bits, and takes nothing from those of the likelihood decoder.

The discriminator is a part of the model, as `twostage.training.adversarial` has it, so that its weights are kept and
resumed with the others; nothing but training asks it.

Shapes: B items, C x H x W image, h x w finest grid of codes, Z channels of what the decoder of stage one is given.
"""

import torch
from torch import Tensor, nn

from stage1_vqvae.images.discriminator import PatchDiscriminator
from stage1_vqvae.images.networks import Decoder, ImageNetworks, code_grid
from stage1_vqvae.images.upsampling import Upsampling
from twostage.storage.from_folder import FromFolder
from twostage.training.adversarial import Adversarial


class PictureDecoder(FromFolder, Adversarial):
    """Vectors of codes `[B, Z, h, w]` to pictures `[B, C, H, W]` around [-1, 1].

    Args:
        image_shape: (C, H, W).
        levels: size of the alphabet of the images.
        in_channels: Z.
        downsampling: of the finest grid of codes.
        channels, residual_blocks, residual_channels, head_channels, upsampling: of the decoder, see `Decoder`.
        discriminator_channels, discriminator_layers: see `PatchDiscriminator`.

    Raises:
        UsageError: the sizes do not fit one another.
    """

    kinds = ("picture-decoder",)
    stage = "decoder"

    steps_done: Tensor  # scalar int64, optimiser steps so far

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        levels: int,
        in_channels: int,
        downsampling: int,
        channels: int = 128,
        residual_blocks: int = 2,
        residual_channels: int = 64,
        head_channels: int = 64,
        upsampling: Upsampling = "nearest-convolution",
        discriminator_channels: int = 32,
        discriminator_layers: int = 3,
    ) -> None:
        super().__init__()
        networks = ImageNetworks(
            image_shape=image_shape,
            levels=levels,
            channels=channels,
            residual_blocks=residual_blocks,
            residual_channels=residual_channels,
            downsampling=downsampling,
            upsampling=upsampling,
        )
        code_grid(image_shape, downsampling)  # refuses what does not fit
        self.image_shape, self.levels = image_shape, levels
        self.decoder = Decoder(networks, in_channels=in_channels, features=head_channels)
        self.picture = nn.Conv2d(head_channels, image_shape[0], 3, padding=1)
        self.discriminator = PatchDiscriminator(
            image_shape=image_shape, channels=discriminator_channels, layers=discriminator_layers
        )
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def forward(self, z_BZhw: Tensor) -> Tensor:
        """The picture, whose values are not yet bounded."""
        picture_BCHW: Tensor = self.picture(self.decoder(z_BZhw))
        return picture_BCHW

    @torch.no_grad()
    def decode(self, z_BZhw: Tensor) -> Tensor:
        """Pictures in levels, fp32, within them."""
        return (self(z_BZhw).float().clamp(-1, 1) + 1) * ((self.levels - 1) / 2)

    def count_step(self) -> None:
        """Take note of an optimiser step; call once after each."""
        self.steps_done += 1
