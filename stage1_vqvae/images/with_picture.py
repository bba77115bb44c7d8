"""A codebook of images with its picture decoder, as one codec: the codes of the one, the pictures of the other.

Shapes: B items, C x H x W image, G codebooks, T the axes of the codes.
"""

import torch
from torch import Tensor

from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.conditions import Conditioned
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.picture_decoder import PictureDecoder
from stage1_vqvae.interface import LatentKind
from twostage.errors import UsageError


class WithPictureDecoder(Deterministic, Conditioned):
    """A `Codec` whose decoder says one picture and no probability, trained on the codes of `codec`.

    Args:
        codec, decoder: on one device, in eval mode.
    """

    latents: LatentKind = "codes"
    autoregressive: bool = False
    likelihood_is_discrete: bool = False

    def __init__(self, codec: ImageCodec, decoder: PictureDecoder) -> None:
        self.codec, self.decoder, self.levels, self.grids = codec, decoder, codec.levels, codec.grids
        self.codebook_size, self.codebooks, self.update_rule = codec.codebook_size, codec.codebooks, codec.update_rule

    @property
    def code_vectors(self) -> Tensor:
        """Those of the codebook."""
        return self.codec.code_vectors

    def dims_of(self, asked: Asked) -> Tensor:
        """Sub-pixels of every image, `[B]` int64."""
        return self.codec.dims_of(asked)

    def positions_of(self, asked: Asked) -> Tensor:
        """Positions of the codes of every item, `[B]` int64."""
        return self.codec.positions_of(asked)

    def latents_of(self, batch: Batch, *, seed: int = 0) -> Tensor:
        """Codes `[B, G, *T]` of the codebook."""
        return self.codec.latents_of(batch, seed=seed)

    def log_prob_batch(self, batch: Batch, codes_BGT: Tensor) -> Tensor:
        """Refused: there is no probability.

        Raises:
            UsageError: always.
        """
        raise UsageError("the picture decoder gives a picture no probability and has no bits: ask the codebook's own")

    @torch.no_grad()
    def decode_batch(self, codes_BGT: Tensor, asked: Asked, *, seed: int) -> Tensor:
        """Pictures `[B, C, H, W]` in levels, fp32; nothing is drawn."""
        return self.decoder.decode(self.codec.decoder_input(codes_BGT))
