"""Bits/dim of trained models, per item, in fp32.

Discrete models are scored as an exact two-part code, bits(x) = -log2 p(x|z(x)) - log2 p(z(x)), under three priors over
the codes: uniform (log2 K each), unigram (smoothed frequencies of the training codes, one table per codebook) and
learned. A label-conditional prior is scored without the label, p(z) = sum_y p(y) p(z|y) with the training frequencies
of the labels. Latent variable models are scored by the ELBO and by the importance-weighted (VAE) or multi-sample bound
(VIMCO, under the factorised prior that it was trained with), all at beta = 1; a conditional VAE by bounds on log p(x|y)
without the bits of the label. An autoencoder has no bits.

Shapes: N items, C x H x W image, G codebooks of K codes, h x w grid.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.gaussian import VAEBounds
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO, VIMCOBounds
from stage2_prior import PixelCNN
from twostage.distributed import own_batches, sum_over_ranks, world_size
from twostage.metrics.statistics import psnr_db, standard_error, swap_partners
from twostage.progress import Progress


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


def _over_batches(
    label: str, rows: int, items: int, batch_size: int, measure: Callable[[slice], Sequence[np.ndarray]], *, unit: str
) -> np.ndarray:
    """`[rows, N]` float64: what `measure` gives for the items of each batch, `rows` arrays `[B]`.

    Several processes take a batch each in turn; the numbers are the same, to the bit, for any number of them.
    """
    numbers_RN = torch.zeros(rows, items, dtype=torch.float64)
    with Progress(label, total=items, unit=unit) as progress:
        for batch in own_batches(items, batch_size):
            numbers_RN[:, batch] = torch.from_numpy(np.stack(measure(batch)))
            progress.advance_shared(batch.stop - batch.start, world_size())
    return sum_over_ranks(numbers_RN)[0].numpy()


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

    def measure(batch: slice) -> list[np.ndarray]:
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        codes_BGHW = torch.from_numpy(codes[batch].astype(np.int64)).to(device)
        others_BGHW = torch.from_numpy(codes[partners[batch]].astype(np.int64)).to(device)
        decoded_BCHW = model.decode(codes_BGHW, seed=seed, first_item=batch.start)
        own_B, swapped_B = bits_per_dim(x_BCHW, codes_BGHW), bits_per_dim(x_BCHW, others_BGHW)
        return [own_B, swapped_B, _squared_error(decoded_BCHW, x_BCHW)]

    own_N, swapped_N, squared_N = _over_batches("distortion", 3, len(images), batch_size, measure, unit="image")
    return Distortion(
        bits_per_dim=own_N,
        swapped_bits_per_dim=swapped_N,
        psnr_db=psnr_db(float(squared_N.sum()), images.size, model.levels),
    )


def uniform_rate_bits(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """`[N]` bits of codes `[N, G, ...]` at log2 K each."""
    return np.full(len(codes), math.prod(codes.shape[1:]) * math.log2(codebook_size))


def unigram_rate_bits(codes: np.ndarray, train_codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """`[N]` bits of codes `[N, G, ...]` under add-one-smoothed training frequencies, one table per codebook."""
    bits = np.zeros(len(codes))
    for group in range(codes.shape[1]):
        counts_K = np.bincount(train_codes[:, group].ravel(), minlength=codebook_size) + 1.0
        bits_K = -np.log2(counts_K / counts_K.sum())
        bits += bits_K[codes[:, group]].reshape(len(codes), -1).sum(1)
    return bits


def label_frequencies(prior: PixelCNN, train_labels: np.ndarray) -> np.ndarray:
    """`[Y]` training frequencies of the labels of a conditional prior; a single one without labels."""
    if not prior.classes:
        return np.ones(1)
    return np.bincount(train_labels, minlength=prior.classes[0]) / len(train_labels)


@dataclass(frozen=True)
class LearnedRate:
    """What the codes of every item cost under a learned prior, labels marginalised with their training frequencies."""

    bits: np.ndarray
    """`[N]`, float64."""
    by_position: np.ndarray
    """`[N, h, w]`, float64: all codes of a position given those before it, so that they add up to `bits`, up to the
    rounding of that sum in fp32."""


def _log_probs_by_code(prior: PixelCNN, codes_BGHW: Tensor, labels: int) -> Iterator[Tensor]:
    """log p of every code given those before it and a label, `[B, G, h, w]` in nats, for one label after another."""
    conditions: Iterable[Tensor | None] = (None,)
    if prior.classes:
        conditions = (torch.full((len(codes_BGHW), 1), label, device=codes_BGHW.device) for label in range(labels))
    return prior.log_probs_by_code(codes_BGHW, conditions)


@torch.no_grad()
def learned_log_prob(prior: PixelCNN, codes_BGHW: Tensor, frequency_Y: np.ndarray) -> tuple[Tensor, Tensor]:
    """log p(z) in nats, `[B]` float64, labels marginalised; and its terms log p(y) + log p(z|y), `[Y, B]`."""
    per_label = _log_probs_by_code(prior, codes_BGHW, len(frequency_Y))
    return _marginal([log_prob_BGHW.flatten(1).sum(1) for log_prob_BGHW in per_label], frequency_Y)


def _marginal(log_prob_of_Y: Sequence[Tensor], frequency_Y: np.ndarray) -> tuple[Tensor, Tensor]:
    """log p(z) and its terms, as `learned_log_prob` gives them, from log p(z|y) `[B]` of every label."""
    pairs = zip(log_prob_of_Y, frequency_Y, strict=True)
    terms_YB = torch.stack([log_prob_B.double() + math.log(max(frequency, 1e-300)) for log_prob_B, frequency in pairs])
    return terms_YB.logsumexp(0), terms_YB


def _marginal_by_position(log_prob_YBP: Tensor, frequency_Y: np.ndarray) -> Tensor:
    """log p of each position's codes given those before it, `[B, P]`, from those given the label as well.

    Under p(z) = sum_y p(y) p(z|y) position n costs log p(z_<n) - log p(z_<=n), which the running sums of every label's
    own log-probabilities give.
    """
    log_frequency_Y = torch.log(torch.from_numpy(np.maximum(frequency_Y, 1e-300))).to(log_prob_YBP.device)
    log_prob_BP = (log_prob_YBP.cumsum(2) + log_frequency_Y[:, None, None]).logsumexp(0)
    before_BP = torch.cat([torch.zeros_like(log_prob_BP[:, :1]), log_prob_BP[:, :-1]], 1)
    return log_prob_BP - before_BP


@torch.no_grad()
def learned_rate(
    prior: PixelCNN,
    codes: np.ndarray,
    frequency_Y: np.ndarray,
    *,
    device: torch.device,
    batch_size: int,
    label: str = "learned rate",
) -> LearnedRate:
    """Bits of codes `[N, G, h, w]` under the prior, item by item and position by position, in one pass over the labels.

    `label` is that of the progress bar.
    """

    def measure(batch: slice) -> list[np.ndarray]:
        codes_BGHW = torch.from_numpy(codes[batch].astype(np.int64)).to(device)
        totals, positions = [], []
        for log_prob_BGHW in _log_probs_by_code(prior, codes_BGHW, len(frequency_Y)):
            totals.append(log_prob_BGHW.flatten(1).sum(1))
            positions.append(log_prob_BGHW.sum(1).double().flatten(1))
        log_prob_B, _ = _marginal(totals, frequency_Y)
        log_prob_PB = _marginal_by_position(torch.stack(positions), frequency_Y).t()
        return [-nats_B.cpu().numpy() / math.log(2) for nats_B in (log_prob_B, *log_prob_PB)]

    rows = 1 + math.prod(codes.shape[2:])
    bits_RN = _over_batches(label, rows, len(codes), batch_size, measure, unit="item")
    return LearnedRate(bits=bits_RN[0], by_position=bits_RN[1:].T.reshape(len(codes), *codes.shape[2:]))


def learned_rate_bits(
    prior: PixelCNN, codes: np.ndarray, train_labels: np.ndarray, *, device: torch.device, batch_size: int
) -> np.ndarray:
    """`[N]` bits of codes `[N, G, h, w]` under the prior, labels marginalised with their training frequencies."""
    frequency_Y = label_frequencies(prior, train_labels)
    return learned_rate(prior, codes, frequency_Y, device=device, batch_size=batch_size).bits


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

    def measure(batch: slice) -> list[np.ndarray]:
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        draws: dict[str, Any] = {"seed": seed, "first_item": batch.start}
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
    elbo_N, multi_N, distortion_N, rate_N, squared_N = _over_batches(
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

    def measure(batch: slice) -> list[np.ndarray]:
        x_BCHW = torch.from_numpy(images[batch]).to(device)
        return [_squared_error(model.reconstruct(x_BCHW, seed=seed, first_item=batch.start), x_BCHW)]

    (squared_N,) = _over_batches("reconstructions", 1, len(images), batch_size, measure, unit="image")
    return psnr_db(float(squared_N.sum()), images.size, model.levels)
