"""Plain autoencoder: the networks and the likelihood of the VAE around latents without noise and without a prior.

It minimises -log p(x|z(x)) alone. Nothing says which latents are likely, so there is no p(x) and no bits/dim: what it
has is a distortion and a PSNR, and samples only from latents that are guessed.

Shapes: B items, C x H x W image, L the shape of an item's latents, (Z, h, w) or (N,).
"""

from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor

from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.images.latents import LatentLayout
from stage1_vqvae.images.model import ImageModel
from stage1_vqvae.images.networks import ImageNetworks, ImageNetworkSettings
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.interface import LatentKind
from twostage.storage.from_folder import FromFolder


@dataclass(frozen=True)
class AutoencoderOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: distortion in nats/dim."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z(x)), fp32."""


class Autoencoder(FromFolder, Deterministic, ImageModel):
    """Continuous autoencoder of integer images, the VAE without its noise and its KL term.

    Args:
        latent_channels: Z, latents per grid position; of a convolutional vector, channels of the grid between.
        latent_dim, network, mlp_layers, mlp_width: as in `VAE`.
        auxiliary_weight: see `PixelDecoder`.
        networks: see `ImageNetworks`.

    Raises:
        UsageError: the sizes do not fit one another; later, images are not integers 0..levels-1 of `image_shape`.
    """

    kinds = ("ae",)

    latents: LatentKind = "none"

    def __init__(
        self,
        *,
        auxiliary_weight: float = 0.0,
        latent_channels: int = 8,
        latent_dim: int = 0,
        network: Literal["convolutional", "mlp"] = "convolutional",
        mlp_layers: int = 1,
        mlp_width: int = 512,
        **networks: Unpack[ImageNetworkSettings],
    ) -> None:
        settings = ImageNetworks(**networks)
        super().__init__(settings)
        self.layout = LatentLayout(
            settings=settings,
            latent_channels=latent_channels,
            latent_dim=latent_dim,
            network=network,
            mlp_layers=mlp_layers,
            mlp_width=mlp_width,
            classes=0,
        )
        self.latent_shape = self.layout.latent_shape
        self.encoder = self.layout.encoder(statistics=1)
        self.decoder = PixelDecoder(
            settings, in_channels=self.layout.decoder_channels, auxiliary_weight=auxiliary_weight
        )
        self.layout.lead_into(self.decoder)

    def _latents(self, x_BCHW: Tensor) -> Tensor:
        return self.encoder(self.layout.encoder_input(x_BCHW, None))

    def forward(self, x_BCHW: Tensor) -> AutoencoderOutput:
        """Training loss of a batch of integer images."""
        log_likelihood_nats_B, added_B = self.decoder.training_nats(self._latents(x_BCHW), x_BCHW)
        loss = -(log_likelihood_nats_B + added_B).mean() / self.dims
        return AutoencoderOutput(loss=loss, log_likelihood_nats=log_likelihood_nats_B)

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Integer images `[B, C, H, W]` to latents `[B, *L]`, fp32."""
        return self._latents(x_BCHW).float()

    def decoder_input(self, z_BL: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The latents themselves."""
        return self.layout.decoder_input(z_BL, None)

    def point_latents(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The latents."""
        return self.encode(x_BCHW)
