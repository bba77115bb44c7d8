"""VQ-VAE (van den Oord et al. 2017, arXiv 1711.00937): encoder, vector quantiser, decoder, discrete likelihood.

Loss, codebook updates and codes are those of `stage1_vqvae.images.codec`, on one grid.

Shapes: B items, C x H x W image, h x w code grid, D bottleneck channels.
"""

from collections.abc import Sequence
from typing import Unpack

from torch import Tensor

from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.networks import Encoder, ImageNetworks, ImageNetworkSettings
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.quantiser.choose import QuantiserKind, QuantiserSettings, make_quantiser, split_settings
from stage1_vqvae.quantiser.interface import Quantiser
from twostage.grids import Grids
from twostage.storage.from_folder import FromFolder


class VQVAESettings(ImageNetworkSettings, QuantiserSettings):
    """Settings of networks and quantiser in one flat space."""


class VQVAE(FromFolder, ImageCodec):
    """Discrete autoencoder of integer images.

    Args:
        auxiliary_weight: see `PixelDecoder`.
        quantiser: kind of the bottleneck, see `stage1_vqvae.quantiser.choose`.
        embedding_dim: D.
        settings: of the quantiser, see `QuantiserSettings`, and of the networks, see `ImageNetworks`.

    Raises:
        UsageError: the sizes do not fit one another; later, images are not integers 0..levels-1 of `image_shape`.
    """

    kinds = ("vq-vae",)

    def __init__(
        self,
        *,
        quantiser: QuantiserKind = "vq",
        auxiliary_weight: float = 0.0,
        embedding_dim: int = 64,
        **settings: Unpack[VQVAESettings],
    ) -> None:
        of_quantiser, of_networks = split_settings(settings)
        networks = ImageNetworks(**of_networks)
        super().__init__(networks)
        self.encoder = Encoder(networks, in_channels=networks.image_shape[0], out_channels=embedding_dim)
        self.quantiser = make_quantiser(quantiser, embedding_dim=embedding_dim, **of_quantiser)
        self.grids: Grids = (networks.grid,)
        self.decoder = PixelDecoder(networks, in_channels=embedding_dim, auxiliary_weight=auxiliary_weight)

    @property
    def quantisers(self) -> tuple[Quantiser, ...]:
        """The only one."""
        return (self.quantiser,)

    def features(self, scaled_BCHW: Tensor) -> list[Tensor]:
        """What the quantiser is given."""
        return [self.encoder(scaled_BCHW)]

    def level_vectors(self, features: Sequence[Tensor], coarser: Sequence[Tensor]) -> Tensor:
        """What the encoder gave."""
        return features[0]

    def joined_vectors(self, vectors: Sequence[Tensor]) -> Tensor:
        """The vectors of the only grid."""
        return vectors[0]
