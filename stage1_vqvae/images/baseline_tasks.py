"""Training tasks of the plain autoencoder and of VIMCO; that of the VAE stands in `stage1_vqvae.images.tasks`.

Shapes: N items, B items of a batch, C x H x W image, G codebooks.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.tasks import distortion_metrics
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vimco import VIMCO
from twostage.distributed import own_batches, sum_over_ranks
from twostage.metrics.codebook_usage import codebook_usage
from twostage.training.task import StepResult


class AutoencoderTask:
    """Train an autoencoder; the best model has the lowest validation distortion.

    Args:
        model: on the device where it trains.
        train: training images on the same device.
        validation: integer images `[N, C, H, W]` on the same device.
        evaluation_batch_size: items per validation pass.
    """

    def __init__(
        self, model: Autoencoder, *, train: TrainingImages, validation: Tensor, evaluation_batch_size: int
    ) -> None:
        self.objective = "distortion_bits_per_dim" if model.likelihood_is_discrete else "half_squared_error"
        self.model, self.train, self.validation = model, train, validation
        self.evaluation_batch_size = evaluation_batch_size
        self.items = len(train)

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Distortion of the training items at `indices`."""
        output = self.model(self.train.batch(indices))
        nats_per_dim = -output.log_likelihood_nats.detach().mean() / self.model.dims
        return StepResult(
            loss=output.loss, metrics=distortion_metrics(nats_per_dim, discrete=self.model.likelihood_is_discrete)
        )

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Distortion over all validation items, and the root mean square of their latents: nothing holds it at one."""
        items, discrete = len(self.validation), self.model.likelihood_is_discrete
        sums_2N = torch.zeros(2, items, dtype=torch.float64, device=self.validation.device)
        for rows in own_batches(items, self.evaluation_batch_size):
            z_BL = self.model.encode(self.validation[rows])
            squares_B = z_BL.double().pow(2).flatten(1).sum(1)
            sums_2N[:, rows] = torch.stack([-self.model.log_prob(self.validation[rows], z_BL).double(), squares_B])
        (sums_2N,) = sum_over_ranks(sums_2N)
        distortion_nats, squares = sums_2N.sum(1).tolist()
        return {
            **distortion_metrics(distortion_nats / (self.model.dims * items), discrete=discrete),
            "latent_root_mean_square": math.sqrt(squares / (items * math.prod(self.model.latent_shape))),
        }


class VIMCOTask:
    """Train VIMCO; the best model has the lowest validation bound with as many samples as in training.

    Args: as in `AutoencoderTask`.
    """

    def __init__(self, model: VIMCO, *, train: TrainingImages, validation: Tensor, evaluation_batch_size: int) -> None:
        self.objective = "bits_per_dim" if model.likelihood_is_discrete else "loss_per_dim"
        self.model, self.train, self.validation = model, train, validation
        self.evaluation_batch_size = evaluation_batch_size
        self.items = len(train)

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Minus the multi-sample bound on the training items at `indices`; it has no two parts."""
        output = self.model(self.train.batch(indices))
        nats_per_dim = -output.log_likelihood_nats.mean() / self.model.dims
        metrics = {
            **distortion_metrics(nats_per_dim, discrete=self.model.likelihood_is_discrete),
            **self._loss_metric(-output.bound_nats.mean() / self.model.dims),
        }
        return StepResult(loss=output.loss, metrics=metrics)

    def _loss_metric(self, nats_per_dim: Tensor | float) -> dict[str, Tensor | float]:
        """The loss under its right name."""
        return {self.objective: nats_per_dim / math.log(2) if self.model.likelihood_is_discrete else nats_per_dim}

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bound, the ELBO's two parts and codebook usage over all validation items, from the same draws every time."""
        items, device = len(self.validation), self.validation.device
        sums_3N = torch.zeros(3, items, dtype=torch.float64, device=device)
        codes_NGHW = torch.zeros(items, *self.model.code_shape, dtype=torch.int64, device=device)
        for rows in own_batches(items, self.evaluation_batch_size):
            x_BCHW, first = self.validation[rows], rows.start
            bounds = self.model.bounds(x_BCHW, samples=self.model.samples, seed=0, first_item=first)
            sums_3N[:, rows] = torch.stack([bounds.multi_sample, bounds.log_likelihood, bounds.kl]).double()
            codes_NGHW[rows] = self.model.sample_codes(x_BCHW, seed=0, first_item=first)
        (sums_3N,), (codes_NGHW,) = sum_over_ranks(sums_3N), sum_over_ranks(codes_NGHW)
        bound, log_likelihood, kl = sums_3N.sum(1).tolist()
        scale = self.model.dims * items
        usage = codebook_usage(codes_NGHW.cpu().numpy(), codebook_size=self.model.codebook_size)
        return {
            **distortion_metrics(-log_likelihood / scale, discrete=self.model.likelihood_is_discrete),
            **{name: float(value) for name, value in self._loss_metric(-bound / scale).items()},
            "rate_bits_per_dim": kl / (scale * math.log(2)),
            "perplexity": usage.perplexity,
            "used": usage.used,
        }
