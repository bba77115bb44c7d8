"""Features of pictures without a download or a label: what the encoder of a finished codebook makes of them.

The layers that halve the sides are looked into, each behind its ReLU. The encoder was trained on the user's own data to
keep what pictures need; early layers know edges and colours, later ones larger patterns.

Beside the distance of two pictures there is one of two sets of them (`FeatureStatistics`): the Fréchet distance of
Gaussians fitted to the features of all places of all pictures. A blurred set has less variance at every layer, however
near its pictures are to their originals, and a noisy one more: this is what absolute errors do not see.

Shapes: B pictures, C x H x W pixels, F features at h x w places, L layers.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.images.codec import ImageCodec
from twostage.distributed import sum_over_ranks
from twostage.metrics.frechet import FeatureGaussian, frechet_distance


class EncoderFeatures:
    """Features `[B, F, h, w]` of every layer of the encoder of `codec` that halves the sides.

    Args:
        codec: on the device where it computes, in eval mode; it is not trained.
    """

    def __init__(self, codec: ImageCodec) -> None:
        self.codec = codec
        # Nothing but encoders halves sides by a convolution.
        self._layers = [layer for layer in codec.modules() if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1)]
        self.widths = tuple(layer.out_channels for layer in self._layers)
        """F of every layer."""

    def __call__(self, scaled_BCHW: Tensor) -> tuple[Tensor, ...]:
        """Of pictures scaled to [-1, 1]."""
        found = list[Tensor]()

        def keep(module: nn.Module, given: object, output: Tensor) -> None:
            found.append(F.relu(output))

        handles = [layer.register_forward_hook(keep) for layer in self._layers]
        try:
            self.codec.features(scaled_BCHW)
        finally:
            for handle in handles:
                handle.remove()
        return tuple(found)


class FeatureStatistics:
    """Sums of the features of pictures that come in batches, and of their products; of each layer so many features."""

    def __init__(self, widths: Sequence[int], device: torch.device) -> None:
        shapes = [((), (width,), (width, width)) for width in widths]
        self._sums = [[torch.zeros(s, dtype=torch.float64, device=device) for s in shape] for shape in shapes]

    def add(self, maps: Sequence[Tensor]) -> None:
        """Take in the features `[B, F, h, w]` of a batch, layer by layer."""
        for (count, sum_F, products_FF), map_BFhw in zip(self._sums, maps, strict=True):
            vectors_NF = map_BFhw.double().permute(0, 2, 3, 1).flatten(0, 2)
            count += len(vectors_NF)
            sum_F += vectors_NF.sum(0)
            products_FF += vectors_NF.T @ vectors_NF

    def gaussians(self) -> list[FeatureGaussian]:
        """Of every layer, over the pictures of all processes, each of which must ask."""
        found = []
        for sums in self._sums:
            count, sum_F, products_FF = (each.cpu().numpy() for each in sum_over_ranks(*sums))
            mean_F = sum_F / count
            covariance_FF = products_FF / count - np.outer(mean_F, mean_F)
            found.append(FeatureGaussian(mean_F=mean_F, covariance_FF=(covariance_FF + covariance_FF.T) / 2))
        return found


def relative_frechet(made: Sequence[FeatureGaussian], real: Sequence[FeatureGaussian]) -> float:
    """Fréchet distance over the variance of the real features, mean over the layers: 0 is the same statistics."""
    shares = [
        frechet_distance(one, other) / max(float(np.trace(other.covariance_FF)), 1e-12)
        for one, other in zip(made, real, strict=True)
    ]
    return float(np.mean(shares))
