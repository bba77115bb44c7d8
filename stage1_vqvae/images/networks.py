"""Convolutional encoder and decoder of stage one (van den Oord et al. 2017, arXiv 1711.00937, section 4.1).

Encoder: one 4x4 stride-2 convolution per factor of two, a 3x3 convolution, residual blocks (ReLU, 3x3, ReLU, 1x1), and
a 1x1 projection to the bottleneck. The decoder mirrors it with transposed convolutions (or others, `upsampling`). It
ends in features; the likelihood owns the last layer.

As in the paper there are no normalisation layers, unless they are asked for (`normalisation`): then group normalisation
stands in front of every ReLU but those at the full size of the image. Blocks of self-attention at the code grid
(`attention_blocks`) are no part of the paper either.

Shapes: B items, C image channels, H x W pixels, h x w code grid, D bottleneck channels, F features for the likelihood.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Required, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor, nn

from stage1_vqvae.images.grid_attention import GridAttention
from stage1_vqvae.images.upsampling import Upsampling, upsampling_layer
from twostage.errors import UsageError
from twostage.layers.residual import ResidualBlock, group_norm

Normalisation = Literal["none", "group"]

DOWNSAMPLINGS = (2, 4, 8, 16, 32)
"""Factors between the side of an image and that of its code grid."""


def code_grid(image_shape: tuple[int, int, int], downsampling: int) -> tuple[int, int]:
    """(h, w) of the code grid.

    Raises:
        UsageError: downsampling is not one of `DOWNSAMPLINGS`, or does not divide both sides of the image.
    """
    if len(image_shape) != 3:
        raise UsageError(f"image_shape must be (channels, height, width), not {tuple(image_shape)}")
    _, height, width = image_shape
    if downsampling not in DOWNSAMPLINGS:
        raise UsageError(f"downsampling must be one of {', '.join(map(str, DOWNSAMPLINGS))}, not {downsampling}")
    if height % downsampling or width % downsampling:
        fitting = [str(factor) for factor in DOWNSAMPLINGS if height % factor == 0 and width % factor == 0]
        advice = f"choose one of {', '.join(fitting)}" if fitting else "crop or pad the images to an even size"
        raise UsageError(f"downsampling {downsampling} does not divide the {height}x{width} images; {advice}")
    return height // downsampling, width // downsampling


def level_widths(channels: int, downsampling: int) -> list[int]:
    """Widths at the code grid, at twice its side, at four times, and so on, up to half the side of the image.

    `channels` at the grid and half as many at twice and four times its side, as up to a downsampling of 8 they always
    were; from there on a level has half the channels of the one below it, since it has four times the positions.
    """
    halvings = int(math.log2(downsampling))
    return [channels, *(max(1, channels >> max(1, level - 1)) for level in range(1, halvings))]


def hierarchy_grids(finest: tuple[int, int], levels: int) -> tuple[tuple[int, int], ...]:
    """Grid of every level of a hierarchy, coarsest first: each has sides half as long as the next.

    Raises:
        UsageError: fewer than two levels, or a coarsest grid of less than 2x2 positions, or of no whole number of them.
    """
    if levels < 2:
        raise UsageError(f"a hierarchy must have at least 2 levels, not {levels}; one grid is a VQVAE")
    grids = [finest]
    while len(grids) < levels:
        height, width = grids[0]
        if height % 2 or width % 2 or min(height, width) < 4:
            most = f"at most {len(grids)} levels" if len(grids) > 1 else "no hierarchy"
            raise UsageError(
                f"a hierarchy of {levels} levels halves the {finest[0]}x{finest[1]} grid of codes {levels - 1} times, "
                f"but {height}x{width} does not halve to 2x2 or more: choose {most}, or less downsampling"
            )
        grids.insert(0, (height // 2, width // 2))
    return tuple(grids)


class ImageNetworkSettings(TypedDict, total=False):
    """Keyword arguments that every model of images takes; `ImageNetworks` says what they mean and their defaults."""

    image_shape: Required[tuple[int, int, int]]
    levels: int
    likelihood: str
    mixtures: int
    mean_weight: float
    downsampling: int
    upsampling: Upsampling
    channels: int
    residual_blocks: int
    residual_channels: int
    normalisation: Normalisation
    attention_blocks: int
    head_channels: int
    autoregressive_layers: int
    autoregressive_channels: int
    autoregressive_kernel: int


@dataclass(frozen=True, kw_only=True)
class ImageNetworks:
    """The settings of encoder, decoder and likelihood that are common to all models of images, complete."""

    image_shape: tuple[int, int, int]
    """(C, H, W); H and W must be multiples of `downsampling`."""
    levels: int = 256
    """Size L of the alphabet; images hold integers 0..L-1."""
    likelihood: str = "categorical"
    """See `twostage.likelihoods.images.make_likelihood`, as for `mixtures`."""
    mixtures: int = 10
    """Components of a mixture likelihood."""
    mean_weight: float = 0.0
    """Weight of the squared error in training, see `PixelDecoder.training_nats`; 0: none."""
    downsampling: int = 4
    """One of `DOWNSAMPLINGS`; the code grid is (H, W) / downsampling."""
    upsampling: Upsampling = "transposed"
    """How the decoder goes back, see `upsampling_layer`."""
    channels: int = 256
    """Width of encoder and decoder."""
    residual_blocks: int = 2
    """Depth of encoder and decoder."""
    residual_channels: int = 128
    """Width inside a residual block."""
    normalisation: Normalisation = "none"
    """Whether encoder and decoder have group normalisation."""
    attention_blocks: int = 0
    """`GridAttention` behind the residual blocks of encoder and decoder."""
    head_channels: int = 64
    """F, features per pixel handed to the likelihood."""
    autoregressive_layers: int = 0
    """Gated layers over the pixels, see `PixelNetwork`; 0: none, pixels are independent given the latents."""
    autoregressive_channels: int = 32
    """Width of that network."""
    autoregressive_kernel: int = 5
    """Kernel side of its first layer."""

    def __post_init__(self) -> None:
        if self.normalisation not in get_args(Normalisation):
            raise UsageError(
                f"normalisation must be {' or '.join(get_args(Normalisation))}, not {self.normalisation!r}"
            )

    @property
    def dims(self) -> int:
        """Numbers in an image, C H W."""
        return math.prod(self.image_shape)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the code grid; see `code_grid` for what it refuses."""
        return code_grid(self.image_shape, self.downsampling)

    @property
    def normalised(self) -> bool:
        """Whether there is group normalisation."""
        return self.normalisation == "group"

    def activation(self, channels: int) -> list[nn.Module]:
        """A ReLU behind a layer of so many channels, with the normalisation in front of it."""
        return [group_norm(channels), nn.ReLU()] if self.normalised else [nn.ReLU()]

    def at_the_grid(self) -> nn.Sequential:
        """What encoder and decoder have at the code grid: residual blocks, attention, ReLU."""
        size = {"channels": self.channels, "residual_channels": self.residual_channels}
        residual = [ResidualBlock(**size, normalised=self.normalised) for _ in range(self.residual_blocks)]
        attention = [GridAttention(self.channels) for _ in range(self.attention_blocks)]
        return nn.Sequential(*residual, *attention, *self.activation(self.channels))


class Encoder(nn.Module):
    """`[B, C, H, W]` floats in [-1, 1] to `[B, D, h, w]`.

    Args:
        settings: the model's; what the decoder needs beside the encoder is not read.
        in_channels: C.
        out_channels: D.
    """

    def __init__(self, settings: ImageNetworks, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        channels = settings.channels
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise([in_channels, *reversed(level_widths(channels, settings.downsampling))]):
            layers += [nn.Conv2d(width_in, width_out, 4, stride=2, padding=1), *settings.activation(width_out)]
        self.layers = nn.Sequential(
            *layers,
            nn.Conv2d(channels, channels, 3, padding=1),
            settings.at_the_grid(),
            nn.Conv2d(channels, out_channels, 1),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.layers(x_BCHW)


class Decoder(nn.Module):
    """`[B, D, h, w]` to features `[B, F, H, W]`, ReLU applied.

    Args:
        settings: the model's; what the encoder needs beside the decoder is not read.
        in_channels: D.
        features: F.
    """

    def __init__(self, settings: ImageNetworks, *, in_channels: int, features: int) -> None:
        super().__init__()
        channels = settings.channels
        layers: list[nn.Module] = []
        widths = level_widths(channels, settings.downsampling)
        for width_in, width_out in pairwise(widths):
            layers += [upsampling_layer(settings.upsampling, width_in, width_out), *settings.activation(width_out)]
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            settings.at_the_grid(),
            *layers,
            upsampling_layer(settings.upsampling, widths[-1], features),
            nn.ReLU(),
        )

    def forward(self, z_BDHW: Tensor) -> Tensor:
        return self.layers(z_BDHW)


def image_tensor(images_NCHW: np.ndarray) -> Tensor:
    """Levels as a tensor, as they lie in memory; uint16, with which torch hardly computes, as int32."""
    return torch.from_numpy(images_NCHW.astype(np.int32) if images_NCHW.dtype == np.uint16 else images_NCHW)


def check_images(x_BCHW: Tensor, image_shape: tuple[int, int, int], levels: int) -> None:
    """Refuse what would get a wrong likelihood without a word.

    The values are looked at only on the CPU; on an accelerator that would stall every training step.

    Raises:
        UsageError: not integer images `[B, *image_shape]` with values 0..levels-1.
    """
    expected = f"expected integer images [batch, {', '.join(map(str, image_shape))}] with levels 0 to {levels - 1}"
    if x_BCHW.is_floating_point() or x_BCHW.is_complex() or x_BCHW.dtype == torch.bool:
        raise UsageError(f"{expected}, got {x_BCHW.dtype}: pass the levels themselves, not scaled to 0..1")
    if x_BCHW.ndim != 4 or tuple(x_BCHW.shape[1:]) != tuple(image_shape) or not len(x_BCHW):
        raise UsageError(f"{expected}, got shape {tuple(x_BCHW.shape)}")
    if x_BCHW.device.type == "cpu" and not 0 <= int(x_BCHW.min()) <= int(x_BCHW.max()) < levels:
        raise UsageError(f"{expected}, got levels {int(x_BCHW.min())} to {int(x_BCHW.max())}")


def normalise(x_BCHW: Tensor, levels: int) -> Tensor:
    """Integer levels 0..levels-1 to floats in [-1, 1]."""
    return x_BCHW.float() * (2.0 / (levels - 1)) - 1.0
