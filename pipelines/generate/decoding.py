"""New images from models that need no prior of their own: a VAE's Gaussian, VIMCO's table, an autoencoder's guess.

Item i of a seed is the same whatever the number of items and the batch. A VQ-VAE draws through its learned prior, see
`run.TwoStageModel`.

Shapes: N items, M images, C x H x W image, Z latents of an item, flattened, G codebooks of K codes, h x w grid.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO
from stage2_prior.sampling import draw
from twostage.errors import RunError, UsageError
from twostage.metrics.frechet import fit_gaussian
from twostage.noise import item_noise, uniform_noise

from ..modality.images import Stage1

DECODE_BATCH = 256
"""Images decoded side by side: the table of 256 masses per sub-pixel is what needs memory."""


def decode_in_batches(
    model: Stage1, latents: Tensor, *, labels_N: Tensor | None = None, batch_size: int, seed: int
) -> Tensor:
    """Images `[N, C, H, W]` in levels of codes or latents, fp32, batch by batch to bound the memory.

    Mean images; from an autoregressive decoder samples, of which number i depends on (seed, i) whatever the batch.
    `labels_N` are what a conditional VAE is given.
    """
    parts = []
    for start in range(0, len(latents), batch_size):
        part = latents[start : start + batch_size]
        if isinstance(model, VAE):
            labels_B = None if labels_N is None else labels_N[start : start + batch_size]
            parts.append(model.decode(part, labels_B, seed=seed, first_item=start))
        else:
            parts.append(model.decode(part, seed=seed, first_item=start))
    return torch.cat(parts)


@torch.no_grad()
def reconstruct(
    model: Stage1,
    images_NCHW: np.ndarray,
    labels_N: np.ndarray,
    *,
    seed: int,
    device: torch.device,
    first_item: int = 0,
) -> np.ndarray:
    """Few images through encoder and decoder, `[N, C, H, W]` in levels: at their codes, or at the mean or mode of q.

    `labels_N` are read by a conditional VAE alone; `seed` and `first_item` as in `VQVAE.decode`.
    """
    x_BCHW, pixels = torch.from_numpy(images_NCHW).to(device), dict[str, Any](seed=seed, first_item=first_item)
    if isinstance(model, VAE):
        given_B = torch.from_numpy(labels_N).to(device) if model.classes else None
        decoded_BCHW = model.reconstruct(x_BCHW, given_B, **pixels)
    elif isinstance(model, VQVAE):
        decoded_BCHW = model.decode(model.encode(x_BCHW), **pixels)
    else:
        decoded_BCHW = model.reconstruct(x_BCHW, **pixels)
    return decoded_BCHW.cpu().numpy()


@torch.no_grad()
def sample_vae(
    model: VAE,
    count: int,
    *,
    labels_N: Tensor | None = None,
    temperature: float = 1.0,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Images `[count, C, H, W]` in levels from z ~ N(0, temperature^2), with labels of a conditional VAE."""
    latents = temperature * item_noise(seed, 0, count, model.latent_shape).to(device)
    labels_N = None if labels_N is None else labels_N.to(device)
    return decode_in_batches(model, latents, labels_N=labels_N, batch_size=DECODE_BATCH, seed=seed)


@torch.no_grad()
def sample_vimco(
    model: VIMCO,
    count: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Images `[count, C, H, W]` in levels of codes from the factorised prior: no code knows of another.

    `temperature`, `top_k` and `top_p` shape the table at every position, as in `stage2_prior.sample`.
    """
    logits_LK = model.prior_logits.float().flatten(0, -2)
    noise_NL = uniform_noise(seed=seed, first_item=0, count=count, symbols=math.prod(model.code_shape)).to(device)
    drawn = [
        draw(logits_K.expand(count, -1), noise_N, temperature=temperature, top_k=top_k, top_p=top_p)
        for logits_K, noise_N in zip(logits_LK, noise_NL.T.contiguous(), strict=True)
    ]
    codes_NGHW = torch.stack(drawn, 1).view(count, *model.code_shape)
    return decode_in_batches(model, codes_NGHW, batch_size=DECODE_BATCH, seed=seed)


@torch.no_grad()
def sample_autoencoder(
    model: Autoencoder, images_MCHW: np.ndarray, count: int, *, seed: int, device: torch.device
) -> Tensor:
    """Images `[count, C, H, W]` in levels from a Gaussian, correlations included, fitted to the latents of images.

    An autoencoder has no distribution over latents; this is the nearest simple one, and what falls between its data.

    Raises:
        UsageError: there are fewer than two images.
    """
    if len(images_MCHW) < 2:
        raise UsageError(f"expected at least 2 images to fit a Gaussian to their latents, but {len(images_MCHW)} came")
    fitted = fit_gaussian(
        model.encode(torch.from_numpy(images_MCHW[start : start + DECODE_BATCH]).to(device)).flatten(1).cpu().numpy()
        for start in range(0, len(images_MCHW), DECODE_BATCH)
    )
    # By eigenvalues: a covariance of fewer images than latents is singular, which Cholesky does not take.
    variance_Z, axes_ZZ = np.linalg.eigh(fitted.covariance_FF)
    scaled_ZZ = axes_ZZ * np.sqrt(np.clip(variance_Z, 0.0, None))
    noise_NZ = item_noise(seed, 0, count, fitted.mean_F.shape).double().numpy()
    latents = torch.from_numpy(fitted.mean_F + noise_NZ @ scaled_ZZ.T).float().view(count, *model.latent_shape)
    return decode_in_batches(model, latents.to(device), batch_size=DECODE_BATCH, seed=seed)


@torch.no_grad()
def latent_means(
    model: VAE | Autoencoder, images_NCHW: np.ndarray, *, device: torch.device, batch_size: int
) -> np.ndarray:
    """Codes `[N, Z]`, fp32, of integer images: posterior means, or the latents of an autoencoder."""
    parts = []
    for start in range(0, len(images_NCHW), batch_size):
        x_BCHW = torch.from_numpy(images_NCHW[start : start + batch_size]).to(device)
        z = model.posterior(x_BCHW).mean if isinstance(model, VAE) else model.encode(x_BCHW)
        parts.append(z.flatten(1).cpu().numpy())
    return np.concatenate(parts)


def to_levels(images_NCHW: np.ndarray, levels: int) -> np.ndarray:
    """Mean images rounded to the nearest level, uint8.

    Raises:
        RunError: a pixel is not finite.
    """
    if not np.isfinite(images_NCHW).all():
        raise RunError("the decoder made pixels that are not finite: its training diverged, train the model again")
    return np.rint(np.clip(images_NCHW, 0, levels - 1)).astype(np.uint8)
