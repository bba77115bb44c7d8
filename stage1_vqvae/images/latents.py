"""Where continuous latents live, for VAE and autoencoder: on a grid or in a vector, plain or beside a label.

A grid has `latent_channels` numbers at each position of the code grid. A vector has `latent_dim` numbers: a linear
layer behind the convolutional encoder reads the whole grid, and one in front of the decoder writes it, so that both
convolutional networks stay those of the VQ-VAE. The network `mlp` has hidden layers over all pixels and no
convolutions; the last one writes a few features per pixel, which are brought to the likelihood's width at every pixel
alike, because H x W x F weights per hidden unit would be nearly the whole model.

A label goes to both sides (Sohn et al. 2015, "Learning structured output representation using deep conditional
generative models"): one-hot, concatenated to vectors, as planes to images and grids.

Shapes: B items, C x H x W image, Z latent channels on an h x w grid, N latents of a vector, S statistics per latent,
Y classes, F features.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.conditions import check_labels
from stage1_vqvae.images.networks import Encoder, ImageNetworks, check_images, normalise
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from twostage.errors import UsageError

MLP_PIXEL_FEATURES = 8
"""Features per pixel out of the last hidden layer of an MLP decoder."""


@dataclass(frozen=True, kw_only=True)
class LatentLayout:
    """Shape of the latents and the kind of network around them; the fields are arguments of `VAE`.

    Raises:
        UsageError: the sizes do not fit one another, or the network is unknown or an MLP over a grid.
    """

    settings: ImageNetworks
    latent_channels: int
    latent_dim: int
    network: Literal["convolutional", "mlp"]
    mlp_layers: int
    mlp_width: int
    classes: int

    def __post_init__(self) -> None:
        if self.network not in ("convolutional", "mlp"):
            raise UsageError(f"the network is 'convolutional' or 'mlp', not {self.network!r}: choose one of them")
        if min(self.latent_channels, self.mlp_layers, self.mlp_width) < 1 or min(self.latent_dim, self.classes) < 0:
            raise UsageError(
                "expected latent_channels, mlp_layers and mlp_width of at least 1, latent_dim and classes of at least "
                f"0, got {self.latent_channels}, {self.mlp_layers}, {self.mlp_width}, {self.latent_dim} and "
                f"{self.classes}: correct these"
            )
        if self.network == "mlp" and not self.latent_dim:
            raise UsageError("network 'mlp' has a vector of latents and no grid: set latent_dim to its length")

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """(Z, h, w): of the latents, or of what lies between a vector and the convolutions."""
        return (self.latent_channels, *self.settings.grid)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(Z, h, w) or (N,)."""
        return (self.latent_dim,) if self.latent_dim else self.grid_shape

    @property
    def decoder_channels(self) -> int:
        """Channels of the grid that the convolutional decoder begins with."""
        return self.latent_channels + (0 if self.latent_dim else self.classes)

    def encoder(self, *, statistics: int) -> nn.Module:
        """Network from `encoder_input` to `[B, S Z, h, w]` or `[B, S N]`."""
        if self.network == "mlp":
            hidden = self._hidden(self.settings.dims + self.classes)
            return nn.Sequential(*hidden, nn.Linear(self.mlp_width, statistics * self.latent_dim))
        convolutions = Encoder(
            self.settings,
            in_channels=self.settings.image_shape[0] + self.classes,
            out_channels=statistics * self.latent_channels,
        )
        if not self.latent_dim:
            return convolutions
        positions = self.grid_shape[1] * self.grid_shape[2]
        last = nn.Linear(statistics * self.latent_channels * positions, statistics * self.latent_dim)
        return nn.Sequential(convolutions, nn.Flatten(), last)

    def lead_into(self, decoder: PixelDecoder) -> None:
        """Give the decoder of a vector its own way to the features; that of a grid has it already."""
        if self.network == "mlp":
            _, height, width = self.settings.image_shape
            shape = (MLP_PIXEL_FEATURES, height, width)
            # No ReLU between these and the next: of few features per pixel it leaves too little to say "surely white".
            pixels = [nn.Linear(self.mlp_width, MLP_PIXEL_FEATURES * height * width), nn.Unflatten(1, shape)]
            widen = [nn.Conv2d(MLP_PIXEL_FEATURES, self.settings.head_channels, 1), nn.ReLU()]
            hidden = self._hidden(self.latent_dim + self.classes)
            decoder.add_module("network", nn.Sequential(*hidden, *pixels, *widen))
        elif self.latent_dim:
            grid_numbers = self.grid_shape[0] * self.grid_shape[1] * self.grid_shape[2]
            first = nn.Linear(self.latent_dim + self.classes, grid_numbers)
            decoder.add_module("network", nn.Sequential(first, nn.Unflatten(1, self.grid_shape), decoder.network))

    def _hidden(self, inputs: int) -> list[nn.Module]:
        widths = pairwise([inputs, *[self.mlp_width] * self.mlp_layers])
        return [layer for pair in widths for layer in (nn.Linear(*pair), nn.ReLU())]

    def encoder_input(self, x_BCHW: Tensor, labels_B: Tensor | None) -> Tensor:
        """Integer images, scaled, flat for an MLP, with their labels.

        Raises:
            UsageError: images or labels do not fit.
        """
        check_images(x_BCHW, self.settings.image_shape, self.settings.levels)
        scaled = normalise(x_BCHW, self.settings.levels)
        return self._with_labels(scaled.flatten(1) if self.network == "mlp" else scaled, labels_B)

    def decoder_input(self, z: Tensor, labels_B: Tensor | None) -> Tensor:
        """Latents with their labels.

        Raises:
            UsageError: latents or labels do not fit.
        """
        if tuple(z.shape[1:]) != self.latent_shape:
            expected = ", ".join(map(str, self.latent_shape))
            raise UsageError(f"expected latents [batch, {expected}], got shape {tuple(z.shape)}: use this model's own")
        return self._with_labels(z, labels_B)

    def _with_labels(self, values: Tensor, labels_B: Tensor | None) -> Tensor:
        """Labels, one-hot, as further numbers of a vector or as planes of a grid."""
        check_labels(labels_B, classes=self.classes, count=len(values))
        if labels_B is None:
            return values
        one_hot_BY = F.one_hot(labels_B, self.classes).to(values.dtype)
        shaped = one_hot_BY.reshape(*one_hot_BY.shape, *[1] * (values.ndim - 2))
        return torch.cat([values, shaped.expand(-1, -1, *values.shape[2:])], 1)
