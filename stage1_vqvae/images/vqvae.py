"""VQ-VAE (van den Oord et al. 2017, arXiv 1711.00937): encoder, vector quantiser, decoder, discrete likelihood.

The loss is eq. 3 of the paper, -log p(x|z_q(x)) + codebook term + beta * commitment term, with the first term per
dimension and the other two per element, so that the weight of beta does not depend on the image size. Departure: the
codebook is not touched in `forward`; the caller runs `update_codebook` once after the optimiser step, so that a
non-finite loss can stop a step before it reaches the codebook.

Shapes: B items, C x H x W image, G codebooks per position, h x w code grid, D bottleneck channels, F features.
"""

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from einops import rearrange
from torch import Tensor

from stage1_vqvae.batch import Asked
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.images.model import ImageModel
from stage1_vqvae.images.networks import ImageNetworks, ImageNetworkSettings, check_images, normalise
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.interface import LatentKind
from stage1_vqvae.quantiser.choose import QuantiserKind, QuantiserSettings, make_quantiser, split_settings
from stage1_vqvae.quantiser.interface import CodebookUpdate, Quantised
from twostage.grids import Grids, axes_of


@dataclass(frozen=True)
class VQVAEOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: nats/dim plus the quantiser's terms."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z(x)), fp32."""
    quantised: Quantised
    """Codes, vectors and statistics; hand it to `update_codebook`."""


class VQVAESettings(ImageNetworkSettings, QuantiserSettings):
    """Settings of networks and quantiser in one flat space."""


class VQVAE(Deterministic, ImageModel):
    """Discrete autoencoder of integer images.

    Args:
        auxiliary_weight: see `PixelDecoder`.
        quantiser: kind of the bottleneck, see `stage1_vqvae.quantiser.choose`.
        embedding_dim: D.
        settings: of the quantiser, see `QuantiserSettings`, and of the networks, see `ImageNetworks`.

    Raises:
        UsageError: the sizes do not fit one another; later, images are not integers 0..levels-1 of `image_shape`.
    """

    latents: LatentKind = "codes"

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
        self.encoder = networks.encoder(out_channels=embedding_dim)
        self.quantiser = make_quantiser(quantiser, embedding_dim=embedding_dim, **of_quantiser)
        self.codebook_size, self.codebooks = self.quantiser.codebook_size, self.quantiser.codebooks
        self.update_rule = self.quantiser.update_rule
        self.grids: Grids = (networks.grid,)
        self.code_shape = (self.codebooks, *axes_of(self.grids))
        self.decoder = PixelDecoder(networks, in_channels=embedding_dim, auxiliary_weight=auxiliary_weight)

    def encode_vectors(self, x_BCHW: Tensor) -> Tensor:
        """Integer images `[B, C, H, W]` to what the quantiser is given, `[B, D, h, w]`."""
        check_images(x_BCHW, self.image_shape, self.levels)
        return self.encoder(normalise(x_BCHW, self.levels))

    def forward(self, x_BCHW: Tensor) -> VQVAEOutput:
        """Loss and statistics of a batch of integer images; the codebook is left as it is."""
        quantised = self.quantiser(self.encode_vectors(x_BCHW))
        log_likelihood_nats_B, maximised_B = self.decoder.training_nats(quantised.vectors, x_BCHW)
        loss = -maximised_B.mean() / self.dims + self.quantiser.loss(quantised)
        return VQVAEOutput(loss=loss, log_likelihood_nats=log_likelihood_nats_B, quantised=quantised)

    def update_codebook(self, output: VQVAEOutput) -> CodebookUpdate:
        """Move the codebook by the statistics of a training batch; call once after `optimizer.step()`."""
        if output.quantised.statistics is None:
            raise RuntimeError("update_codebook needs the output of a forward pass in training mode, not in eval mode")
        return self.quantiser.update(output.quantised.statistics)

    @torch.no_grad()
    def initialise_codebook(self, x_BCHW: Tensor, *, seed: int, batch_size: int = 128) -> None:
        """Place the codebook on images in random order, where the quantiser has one; call once before training.

        Images are encoded `batch_size` at a time: of all of them only the vectors are kept.
        """
        vectors_BDHW = torch.cat([self.encode_vectors(batch_BCHW) for batch_BCHW in x_BCHW.split(batch_size)])
        self.quantiser.initialise(rearrange(vectors_BDHW, "b d h w -> (b h w) d"), seed=seed)

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Integer images `[B, C, H, W]` to codes `[B, G, h, w]`, int64."""
        return self.quantiser(self.encode_vectors(x_BCHW)).codes

    def decoder_input(self, codes_BGHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Codebook vectors of codes, `[B, D, h, w]`."""
        return self.quantiser.lookup(codes_BGHW)

    def positions_of(self, asked: Asked) -> Tensor:
        """Positions of the code grid, h w, for every item: `[B]` int64."""
        return torch.full_like(asked.items, math.prod(self.code_shape[1:]))

    def point_latents(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The codes."""
        return self.encode(x_BCHW)
