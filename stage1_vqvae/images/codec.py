"""What models of images with codes share, whether on one grid or on several: loss, codebook updates, codes and back.

The loss is eq. 3 of the VQ-VAE paper (van den Oord et al. 2017, arXiv 1711.00937), -log p(x|z_q(x)) + codebook term +
beta * commitment term, with the first term per dimension and the other two per element of a grid and summed over the
grids, so that the weight of beta does not depend on the image size. Departure: the codebooks are not touched in
`forward`; the caller runs `update_codebook` once after the optimiser step, so that a non-finite loss can stop a step
before it reaches them.

Shapes: B items, C x H x W image, G codebooks per position, h x w one grid, T the axes of the codes (`twostage.grids`),
D bottleneck channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from stage1_vqvae.batch import Asked
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.images.model import ImageModel
from stage1_vqvae.images.networks import check_images, normalise
from stage1_vqvae.interface import LatentKind
from stage1_vqvae.quantiser.expected_cost import expected_nats
from stage1_vqvae.quantiser.interface import CodebookUpdate, LevelStatistics, Quantised, Quantiser
from stage1_vqvae.quantiser.kmeans import vectors_wanted
from twostage.errors import UsageError
from twostage.grids import Grids, axes_of, named_grids, positions_of, split_levels


@dataclass(frozen=True)
class VQVAEOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: nats/dim plus the quantisers' terms."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z(x)), fp32."""
    levels: tuple[Quantised, ...]
    """Codes, vectors and statistics of every grid, coarsest first."""
    given: tuple[Tensor, ...]
    """What the quantiser of every grid was given, `[B, D, h, w]`, with gradient."""

    @property
    def quantised(self) -> Quantised:
        """Those of the finest grid, the only one of all but a hierarchy."""
        return self.levels[-1]

    @property
    def statistics(self) -> LevelStatistics:
        """What the batch says about the codebooks.

        Raises:
            RuntimeError: the model was in eval mode, where nothing is counted.
        """
        found = [level.statistics for level in self.levels if level.statistics is not None]
        if len(found) < len(self.levels):
            raise RuntimeError("a codebook is updated by a forward pass in training mode, not in eval mode")
        return LevelStatistics(tuple(found))


def joined_codes(levels: Sequence[Quantised]) -> Tensor:
    """Codes of all levels as one array `[B, G, *T]`."""
    codes = [level.codes for level in levels]
    return codes[0] if len(codes) == 1 else torch.cat([codes_BGhw.flatten(2) for codes_BGhw in codes], 2)


class ImageCodec(Deterministic, ImageModel):
    """A discrete autoencoder of integer images, once its networks, quantisers and decoder are built.

    A model says what its quantisers are given (`features`, `level_vectors`) and what its decoder is given of their
    vectors (`joined_vectors`).
    """

    latents: LatentKind = "codes"
    grids: Grids
    """Grid of every level, coarsest first; one of all but a hierarchy."""

    @property
    def quantisers(self) -> tuple[Quantiser, ...]:
        """Of every level, coarsest first; all with as many codes and codebooks."""
        raise NotImplementedError

    def features(self, scaled_BCHW: Tensor) -> list[Tensor]:
        """What the encoder says of images scaled to [-1, 1], a map for every level, coarsest first."""
        raise NotImplementedError

    def level_vectors(self, features: Sequence[Tensor], coarser: Sequence[Tensor]) -> Tensor:
        """What the quantiser of the next level is given, `[B, D, h, w]`, after the vectors of the `coarser` levels."""
        raise NotImplementedError

    def joined_vectors(self, vectors: Sequence[Tensor]) -> Tensor:
        """What the decoder is given of the vectors of all levels, on the finest grid."""
        raise NotImplementedError

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.quantisers[0].codebook_size

    @property
    def codebooks(self) -> int:
        """G."""
        return self.quantisers[0].codebooks

    @property
    def update_rule(self) -> str:
        """How the codebooks learn."""
        return self.quantisers[0].update_rule

    @property
    def code_vectors(self) -> Tensor:
        """Vector of every code, `[C, K, W]`, of the codebooks of all grids, coarsest first."""
        return torch.cat([quantiser.code_vectors for quantiser in self.quantisers])

    @property
    def code_shape(self) -> tuple[int, ...]:
        """(G, *T) of an image."""
        return (self.codebooks, *axes_of(self.grids))

    def quantised_levels(self, x_BCHW: Tensor) -> tuple[list[Tensor], list[Quantised]]:
        """What the quantisers are given of integer images, `[B, D, h, w]` of every level, and what they make of it."""
        check_images(x_BCHW, self.image_shape, self.levels)
        features = self.features(normalise(x_BCHW, self.levels))
        given: list[Tensor] = []
        found: list[Quantised] = []
        for quantiser in self.quantisers:
            given.append(self.level_vectors(features, [level.vectors for level in found]))
            found.append(quantiser(given[-1]))
        return given, found

    def forward(self, x_BCHW: Tensor) -> VQVAEOutput:
        """Loss and statistics of a batch of integer images; the codebooks are left as they are."""
        given, levels = self.quantised_levels(x_BCHW)
        z_BDhw = self.joined_vectors([level.vectors for level in levels])
        log_likelihood_nats_B, added_B = self.decoder.training_nats(z_BDhw, x_BCHW)
        loss = -(log_likelihood_nats_B + added_B).mean() / self.dims
        for quantiser, level in zip(self.quantisers, levels, strict=True):
            loss = loss + quantiser.loss(level)
        return VQVAEOutput(
            loss=loss, log_likelihood_nats=log_likelihood_nats_B, levels=tuple(levels), given=tuple(given)
        )

    def expected_nats(self, output: VQVAEOutput, prices_BGTK: Tensor) -> Tensor:
        """What the codes of a batch are expected to cost, `[B]` (`stage1_vqvae.quantiser.expected_cost`).

        Args:
            output: of a forward pass over the batch.
            prices_BGTK: nats of every code at every place of `joined_codes` of its codes.

        Raises:
            UsageError: the quantiser chooses codes by something else than distances.
        """
        items, codes = len(prices_BGTK), self.codebook_size
        total_B, start = prices_BGTK.new_zeros(items), 0
        prices_GBPK = prices_BGTK.reshape(items, self.codebooks, -1, codes).transpose(0, 1)
        positions = positions_of(self.grids)
        for quantiser, level, given, count in zip(self.quantisers, output.levels, output.given, positions, strict=True):
            total_B = total_B + expected_nats(
                quantiser.distances(given),
                level.codes.transpose(0, 1).flatten(1),
                prices_GBPK[:, :, start : start + count].flatten(1, 2),
                torch.arange(items, device=given.device).repeat_interleave(count),
                items=items,
            )
            start += count
        return total_B

    def update_codebook(self, output: VQVAEOutput) -> tuple[CodebookUpdate, ...]:
        """Move the codebooks by the statistics of a training batch; call once after `optimizer.step()`.

        Raises:
            RuntimeError: the output is one of eval mode.
        """
        pairs = zip(self.quantisers, output.statistics.levels, strict=True)
        return tuple(quantiser.update(statistics) for quantiser, statistics in pairs)

    @torch.no_grad()
    def initialise_codebook(self, x_BCHW: Tensor, *, seed: int, batch_size: int = 128) -> None:
        """Place the codebooks on images in random order, where the quantiser has one; call once before training.

        Coarser levels are placed first: what a level is given depends on them. A level sees as many of the images as
        give it the vectors that it pays to encode. They are encoded `batch_size` at a time: only the vectors are kept.
        """
        training = self.training
        self.eval()  # nothing is dropped or counted
        for level, quantiser in enumerate(self.quantisers):
            images = math.ceil(vectors_wanted(quantiser.codebook_size) / positions_of(self.grids)[level])
            given = [self.quantised_levels(batch)[0][level] for batch in x_BCHW[:images].split(batch_size)]
            quantiser.initialise(rearrange(torch.cat(given), "b d h w -> (b h w) d"), seed=seed)
        self.train(training)

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Integer images `[B, C, H, W]` to codes `[B, G, *T]`, int64."""
        return joined_codes(self.quantised_levels(x_BCHW)[1])

    def lookup(self, codes_BGT: Tensor) -> list[Tensor]:
        """Codebook vectors of codes, `[B, D, h, w]` of every level, coarsest first.

        Raises:
            UsageError: codes of other shapes or values.
        """
        several = len(self.grids) > 1
        if several and tuple(codes_BGT.shape[2:]) != axes_of(self.grids):
            raise UsageError(
                f"Expected codes [B, G, {axes_of(self.grids)[0]}] of the grids {named_grids(self.grids)} one behind "
                f"the other, got shape {tuple(codes_BGT.shape)}; pass codes of this model."
            )
        codes = split_levels(codes_BGT, self.grids) if several else [codes_BGT]
        return [quantiser.lookup(level) for quantiser, level in zip(self.quantisers, codes, strict=True)]

    def decoder_input(self, latents: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """What the decoder is given of codes `[B, G, *T]`."""
        return self.joined_vectors(self.lookup(latents))

    def positions_of(self, asked: Asked) -> Tensor:
        """Positions of all code grids together, for every item: `[B]` int64."""
        return torch.full_like(asked.items, sum(positions_of(self.grids)))

    def point_latents(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The codes."""
        return self.encode(x_BCHW)
