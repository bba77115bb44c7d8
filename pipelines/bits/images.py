"""Bits/dim of trained models of images, per item, in fp32: distortions of codes, and bounds.

Discrete models are scored as an exact two-part code, bits(x) = -log2 p(x|z(x)) - log2 p(z(x)); `rate` has the second
part. Latent variable models are scored by the ELBO and by the importance-weighted (VAE) or multi-sample bound (VIMCO,
under the factorised prior that it was trained with), all at beta = 1; a conditional VAE by bounds on log p(x|y) without
the bits of the label. An autoencoder has no bits.

Shapes: N items, C x H x W image, G codebooks of K codes, h x w grid.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.gaussian import VAEBounds
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO, VIMCOBounds
from twostage.distributed import own_batches, sum_over_ranks
from twostage.metrics.statistics import psnr_db, standard_error, swap_partners

from .batches import over_batches


@dataclass(frozen=True)
class ItemBits:
    """One way of scoring one model on every item of a split."""

    total: np.ndarray
    """`[N]` bits/dim, float64."""
    distortion: np.ndarray | None
    """`[N]` bits/dim; None where the bound does not split (IWAE)."""
    rate: np.ndarray | None
    """`[N]` bits/dim; None where the bound does not split."""

    @classmethod
    def two_part(cls, distortion: np.ndarray, rate: np.ndarray) -> "ItemBits":
        return cls(total=distortion + rate, distortion=distortion, rate=rate)

    @property
    def mean(self) -> float:
        return float(self.total.mean())

    @property
    def standard_error(self) -> float | None:
        """Of the mean over items; None for a single item."""
        return standard_error(self.total)


@dataclass(frozen=True)
class Distortion:
    """-log2 p(x|z) of every item and the squared error of the decoded images."""

    bits_per_dim: np.ndarray
    """`[N]`, float64. Of the likelihood `mse`, which has no bits, the halved squared error over log 2."""
    swapped_bits_per_dim: np.ndarray
    """`[N]`, float64: the same with the codes of another item (`swap_partners`). Near `bits_per_dim`, codes do not
    matter. Of a single item its own."""
    psnr_db: float | None
    """10 log10((L-1)^2 / mean squared error over all items), None if there is no error. Of the mean of p(x|z); of a
    sampled image where the decoder is autoregressive."""


def _squared_error(decoded_BCHW: Tensor, x_BCHW: Tensor) -> np.ndarray:
    """Sum over an item's sub-pixels, `[B]`."""
    return (decoded_BCHW - x_BCHW).double().pow(2).flatten(1).sum(1).cpu().numpy()


@torch.no_grad()
def codebook_distortion(
    model: VQVAE, images: np.ndarray, codes: np.ndarray, *, seed: int, device: torch.device, batch_size: int
) -> Distortion:
    """Distortion of a VQ-VAE given the codes `[N, G, h, w]` of the images `[N, C, H, W]`; `seed` of sampled images."""
    partners = swap_partners(len(images))

    def bits_per_dim(x_BCHW: Tensor, codes_BGHW: Tensor) -> np.ndarray:
        return (-model.log_prob(x_BCHW, codes_BGHW).double() / (math.log(2) * model.dims)).cpu().numpy()

    def measure(batch: np.ndarray) -> list[np.ndarray]:
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        codes_BGHW = torch.from_numpy(codes[batch].astype(np.int64)).to(device)
        others_BGHW = torch.from_numpy(codes[partners[batch]].astype(np.int64)).to(device)
        decoded_BCHW = model.decode(codes_BGHW, seed=seed, first_item=int(batch[0]))
        own_B, swapped_B = bits_per_dim(x_BCHW, codes_BGHW), bits_per_dim(x_BCHW, others_BGHW)
        return [own_B, swapped_B, _squared_error(decoded_BCHW, x_BCHW)]

    own_N, swapped_N, squared_N = over_batches("distortion", 3, len(images), batch_size, measure, unit="image")
    return Distortion(
        bits_per_dim=own_N,
        swapped_bits_per_dim=swapped_N,
        psnr_db=psnr_db(float(squared_N.sum()), images.size, model.levels),
    )


@dataclass(frozen=True)
class BoundBits:
    """Two bounds on every item from the same draws: one that splits, and a tighter one that does not."""

    elbo: ItemBits
    multi_sample: ItemBits
    """Importance-weighted (VAE) or multi-sample (VIMCO): the same estimate, of continuous and of discrete latents."""
    psnr_db: float | None


@torch.no_grad()
def bound_bits(
    model: VAE | VIMCO,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    samples: int,
    seed: int,
    device: torch.device,
    batch_size: int,
) -> BoundBits:
    """Both bounds at beta = 1 from the same `samples` posterior draws per item; PSNR at the posterior mean or mode.

    The rate of the ELBO is the exact KL, of Gaussians as of VIMCO's tables; its distortion is a mean over the draws.

    Of a conditional VAE, which needs the `labels` `[N]`, they are bounds on log p(x|y). `seed` is that of the draws,
    and of the sampled images of an autoregressive decoder.
    """
    scale = math.log(2) * model.dims

    def bits(nats_B: Tensor) -> np.ndarray:
        return (-nats_B.double() / scale).cpu().numpy()

    def measure(batch: np.ndarray) -> list[np.ndarray]:
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        draws: dict[str, Any] = {"seed": seed, "first_item": int(batch[0])}
        bounds: VAEBounds | VIMCOBounds
        if isinstance(model, VAE):
            y_B = None if labels is None else torch.from_numpy(labels[batch]).to(device)
            bounds = model.bounds(x_BCHW, y_B, samples=samples, **draws)
            multi_sample_B, decoded_BCHW = bounds.importance_weighted, model.reconstruct(x_BCHW, y_B, **draws)
        else:
            bounds = model.bounds(x_BCHW, samples=samples, **draws)
            multi_sample_B, decoded_BCHW = bounds.multi_sample, model.reconstruct(x_BCHW, **draws)
        parts = [bits(bounds.elbo), bits(multi_sample_B), bits(bounds.log_likelihood), -bits(bounds.kl)]
        return [*parts, _squared_error(decoded_BCHW, x_BCHW)]

    label = f"bounds of {samples} samples"
    elbo_N, multi_N, distortion_N, rate_N, squared_N = over_batches(
        label, 5, len(images), batch_size, measure, unit="image"
    )
    return BoundBits(
        elbo=ItemBits(total=elbo_N, distortion=distortion_N, rate=rate_N),
        multi_sample=ItemBits(total=multi_N, distortion=None, rate=None),
        psnr_db=psnr_db(float(squared_N.sum()), images.size, model.levels),
    )


def drawn_codes(model: VIMCO, images: np.ndarray, *, seed: int, device: torch.device, batch_size: int) -> np.ndarray:
    """One draw of q(z|x) per image, `[N, G, h, w]`: the first of those behind `bound_bits` under the same seed."""
    codes_NGHW = torch.zeros(len(images), *model.code_shape, dtype=torch.int64)
    for batch in own_batches(len(images), batch_size):
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        codes_NGHW[batch] = model.sample_codes(x_BCHW, seed=seed, first_item=batch.start).cpu()
    return sum_over_ranks(codes_NGHW)[0].numpy()


@torch.no_grad()
def reconstruction_psnr_db(
    model: Autoencoder, images: np.ndarray, *, seed: int, device: torch.device, batch_size: int
) -> float | None:
    """PSNR over all images, None if there is no error; `seed` of the images that an autoregressive decoder samples."""

    def measure(batch: np.ndarray) -> list[np.ndarray]:
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        return [_squared_error(model.reconstruct(x_BCHW, seed=seed, first_item=int(batch[0])), x_BCHW)]

    (squared_N,) = over_batches("reconstructions", 1, len(images), batch_size, measure, unit="image")
    return psnr_db(float(squared_N.sum()), images.size, model.levels)
