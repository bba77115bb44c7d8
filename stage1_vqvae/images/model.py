"""What all models of images share: the likelihood of images given latents, and their side of `Stage1Model`.

Shapes: B items, C x H x W image, A the shape of an item's latents.
"""

import torch
from torch import Tensor, nn

from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.conditions import Conditioned, check_labels
from stage1_vqvae.images.networks import ImageNetworks, check_images
from stage1_vqvae.images.pixel_decoder import PixelDecoder


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
            UsageError: latents do not fit.
        """
        raise NotImplementedError

    def point_latents(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """What stands for an image, `[B, *A]`: its latents, or the mean or the mode of their distribution."""
        raise NotImplementedError

    @torch.no_grad()
    def log_prob(self, x_BCHW: Tensor, latents: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """log p(x|latents) of integer images in nats, `[B]`, fp32: minus the distortion.

        Raises:
            UsageError: images, latents or labels do not fit.
        """
        check_images(x_BCHW, self.image_shape, self.levels)
        check_labels(labels_B, classes=self.classes, count=len(latents))
        return self.decoder.log_prob(self.decoder_input(latents, labels_B), x_BCHW).flatten(1).sum(1)

    @torch.no_grad()
    def decode(self, latents: Tensor, labels_B: Tensor | None = None, *, seed: int = 0, first_item: int = 0) -> Tensor:
        """Latents `[B, *A]`, with labels of a conditional model, to images `[B, C, H, W]` in levels, fp32.

        The mean of p(x|latents); from an autoregressive decoder a sample, that of items `first_item` onwards of `seed`.

        Raises:
            UsageError: latents or labels do not fit.
        """
        check_labels(labels_B, classes=self.classes, count=len(latents))
        return self.decoder.decode(self.decoder_input(latents, labels_B), seed=seed, first_item=first_item)

    @torch.no_grad()
    def reconstruct(
        self, x_BCHW: Tensor, labels_B: Tensor | None = None, *, seed: int = 0, first_item: int = 0
    ) -> Tensor:
        """`decode` of what stands for the images."""
        return self.decode(self.point_latents(x_BCHW, labels_B), labels_B, seed=seed, first_item=first_item)

    def dims_of(self, asked: Asked) -> Tensor:
        """Sub-pixels of every image, `[B]` int64."""
        return torch.full_like(asked.items, self.dims)

    @torch.no_grad()
    def latents_of(self, batch: Batch, *, seed: int = 0) -> Tensor:
        """What stands for the images, `[B, *A]`."""
        return self.point_latents(batch.x, self.labels_of(batch))

    def log_prob_batch(self, batch: Batch, latents: Tensor) -> Tensor:
        """`log_prob` of a batch."""
        return self.log_prob(batch.x, latents, self.labels_of(batch))

    def decode_batch(self, latents: Tensor, asked: Asked, *, seed: int) -> Tensor:
        """`decode` for what was asked."""
        return self.decode(latents, self.labels_of(asked), seed=seed, first_item=asked.first_item)
