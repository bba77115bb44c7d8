"""What all models of images share: the likelihood of images given latents, and their side of `Stage1Model`.

Shapes: B items, C x H x W image, A the shape of an item's latents.
"""

import torch
from torch import Tensor, nn

from stage1_vqvae.conditions import Conditioned
from stage1_vqvae.images.networks import ImageNetworks, check_images
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.interface import Asked, Batch


class ImageModel(Conditioned, nn.Module):
    """A model of integer images `[B, *image_shape]` with levels 0..levels-1, once its `decoder` is built."""

    decoder: PixelDecoder

    def __init__(self, settings: ImageNetworks) -> None:
        super().__init__()
        self.image_shape, self.levels, self.dims = settings.image_shape, settings.levels, settings.dims

    @property
    def autoregressive(self) -> bool:
        """Whether decoding draws an image rather than giving its mean."""
        return self.decoder.autoregressive

    @property
    def likelihood_is_discrete(self) -> bool:
        """Whether p(x|z) is a mass function over the levels."""
        return self.decoder.likelihood.discrete

    def decoder_input(self, latents: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """What the decoder is given of latents `[B, *A]` and, of a conditional model, of labels.

        Raises:
            UsageError: latents or labels do not fit.
        """
        raise NotImplementedError

    def log_likelihood_nats(self, x_BCHW: Tensor, latents: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """log p(x|latents) of integer images, `[B]`, fp32.

        Raises:
            UsageError: images, latents or labels do not fit.
        """
        check_images(x_BCHW, self.image_shape, self.levels)
        return self.decoder.log_prob(self.decoder_input(latents, labels_B), x_BCHW).flatten(1).sum(1)

    def dims_of(self, asked: Asked) -> Tensor:
        """Sub-pixels of every image, `[B]` int64."""
        return torch.full_like(asked.items, self.dims)

    @torch.no_grad()
    def log_prob_batch(self, batch: Batch, latents: Tensor) -> Tensor:
        """log p(x|latents) in nats, `[B]` fp32."""
        return self.log_likelihood_nats(batch.x, latents, self.labels_of(batch))

    @torch.no_grad()
    def decode_batch(self, latents: Tensor, asked: Asked, *, seed: int) -> Tensor:
        """Images `[B, C, H, W]` in levels, fp32: the mean of p(x|latents), or a draw of an autoregressive decoder."""
        given = self.decoder_input(latents, self.labels_of(asked))
        return self.decoder.decode(given, seed=seed, first_item=asked.first_item)
