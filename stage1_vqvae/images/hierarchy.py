"""VQ-VAE with a hierarchy of code grids (Razavi et al. 2019, "VQ-VAE-2", arXiv 1906.00446, section 3.1, algorithm 1).

The finest ("bottom") grid is that of a `VQVAE`, and the sides of every coarser one are half as long. The encoder goes
up: one network from the image to the finest grid, one from each grid to the next coarser one. Codes go down: the
coarsest features are quantised; a decoder brings the vectors to the next finer grid, where they stand beside that
grid's features and are projected and quantised together, so that a finer level is told what the coarser ones hold
already; and so on. The image's decoder is given the vectors of all levels, the coarser ones enlarged. Loss, codebook
updates and codes are those of `stage1_vqvae.images.codec`; every level has codebooks of its own, of one size.

Departures, and why:

- The decoder ends in a mass function over levels (bits), where the paper's loss is the squared error.
- With three levels or more the decoder in front of a grid is given the vectors of all coarser grids, as the image's is;
  algorithm 1 has two levels, and the paper does not write down what its three are given.
- Vectors are enlarged by a transposed convolution whose kernel is its stride: each fine position under a coarse one has
  weights of its own.
- Codebooks may learn by any kind of quantiser; the paper's learn by moving averages.

Shapes: B items, C x H x W image, h x w grid of a level, L levels, D bottleneck channels of each, F features of a grid.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.networks import Decoder, Encoder, ImageNetworks, hierarchy_grids
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.images.vqvae import VQVAESettings
from stage1_vqvae.quantiser.choose import QuantiserKind, make_quantiser, split_settings
from stage1_vqvae.quantiser.interface import Quantiser
from twostage.storage.from_folder import FromFolder


class HierarchicalVQVAE(FromFolder, ImageCodec):
    """Discrete autoencoder of integer images on several grids; codes are `[B, G, N]`, see `twostage.grids`.

    Args:
        hierarchy: L, at least 2.
        auxiliary_weight: see `PixelDecoder`.
        quantiser: kind of the bottleneck of every level, see `stage1_vqvae.quantiser.choose`.
        embedding_dim: D.
        settings: of every level's quantiser, see `QuantiserSettings`, and of the networks, see `ImageNetworks`.

    Raises:
        UsageError: the sizes do not fit one another, or the image is too small for so many levels; later, images are
            not integers 0..levels-1 of `image_shape`.
    """

    kinds = ("hierarchical-vq-vae",)

    def __init__(
        self,
        *,
        hierarchy: int = 2,
        quantiser: QuantiserKind = "vq",
        auxiliary_weight: float = 0.0,
        embedding_dim: int = 64,
        **settings: Unpack[VQVAESettings],
    ) -> None:
        of_quantiser, of_networks = split_settings(settings)
        networks = ImageNetworks(**of_networks)
        super().__init__(networks)
        self.grids = hierarchy_grids(networks.grid, hierarchy)
        width, finer = networks.channels, range(1, hierarchy)
        # Attention is at the coarsest grid alone, where it is cheapest and says as much.
        finest = replace(networks, attention_blocks=0)
        steps = [replace(finest if level else networks, downsampling=2) for level in range(hierarchy - 1)]
        self.encoder = nn.ModuleList(
            [
                *(
                    Encoder(step, in_channels=width, out_channels=width if level else embedding_dim)
                    for level, step in enumerate(steps)
                ),
                Encoder(finest, in_channels=networks.image_shape[0], out_channels=width),
            ]
        )
        self.coarser = nn.ModuleList(
            Decoder(step, in_channels=level * embedding_dim, features=width)
            for level, step in zip(finer, steps, strict=True)
        )
        self.project = nn.ModuleList(nn.Conv2d(2 * width, embedding_dim, 1) for _ in finer)
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(level * embedding_dim, level * embedding_dim, 2, stride=2) for level in finer
        )
        self.quantiser = nn.ModuleList(
            cast(nn.Module, make_quantiser(quantiser, embedding_dim=embedding_dim, **of_quantiser))
            for _ in range(hierarchy)
        )
        self.decoder = PixelDecoder(finest, in_channels=hierarchy * embedding_dim, auxiliary_weight=auxiliary_weight)

    @property
    def quantisers(self) -> tuple[Quantiser, ...]:
        """Of every level, coarsest first."""
        return cast(tuple[Quantiser, ...], tuple(self.quantiser))

    def features(self, scaled_BCHW: Tensor) -> list[Tensor]:
        """`[B, F, h, w]` of every level, coarsest first; of that one what its quantiser is given, `[B, D, h, w]`."""
        found = [scaled_BCHW]
        for encoder in reversed(self.encoder):
            found.append(encoder(found[-1] if len(found) == 1 else F.relu(found[-1])))
        return found[:0:-1]

    def level_vectors(self, features: Sequence[Tensor], coarser: Sequence[Tensor]) -> Tensor:
        """The features of a level and what the coarser vectors say, projected."""
        level = len(coarser)
        if not level:
            return features[0]
        said_BFhw = self.coarser[level - 1](self.joined_vectors(coarser))
        return self.project[level - 1](torch.cat([F.relu(features[level]), said_BFhw], 1))

    def joined_vectors(self, vectors: Sequence[Tensor]) -> Tensor:
        """Vectors of the coarsest levels, `[B, n D, h, w]` on the finest grid among theirs."""
        joined = vectors[0]
        for enlarge, vectors_BDhw in zip(self.enlarge, vectors[1:], strict=False):
            joined = torch.cat([enlarge(joined), vectors_BDhw], 1)
        return joined
