"""Stage-one tasks for the training loop: the VQ-VAE with its codebook update, and the Gaussian baseline.

Shapes: N items, B items of a batch, C x H x W image, G codebooks, K codes per codebook, T the axes of the
codes.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.conditions import check_labels
from stage1_vqvae.images.codec import ImageCodec, joined_codes
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vae import VAE
from stage1_vqvae.priced import Priced
from stage1_vqvae.quantiser.codebook_step import codebook_step
from stage1_vqvae.quantiser.interface import LevelStatistics
from stage1_vqvae.quantiser.kmeans import vectors_wanted
from twostage.distributed import own_batches, sum_over_ranks
from twostage.errors import UsageError
from twostage.grids import named_grids, positions_of
from twostage.metrics.codebook_usage import CollapseWatch, codebook_usage
from twostage.progress import say
from twostage.training.task import StepResult


def distortion_metrics(nats_per_dim: Tensor | float, *, discrete: bool) -> dict[str, Any]:
    """The distortion under its right name: bits/dim of a mass function, or the halved squared error that MSE means."""
    if discrete:
        return {"distortion_bits_per_dim": nats_per_dim / math.log(2)}
    return {"half_squared_error": nats_per_dim}


class CodebookTask:
    """Train a VQ-VAE, of one grid or of several.

    The best model has the lowest validation distortion + uniform rate in bits/dim.

    With the likelihood `mse`, which has no bits, it is the lowest squared error. The total is what eq. 3 minimises: the
    paper's KL term is the constant N log K. The unigram rate is recorded beside it but picks nothing: it prefers an
    early, little used codebook, whose codes a learned prior does not find cheaper.

    Args:
        model: on the device where it trains.
        train: training images on the same device.
        validation: integer images `[N, C, H, W]` on the same device.
        kmeans: initialise the codebook by k-means before step 0.
        evaluation_batch_size: items per validation pass.
        seed: of the k-means start.
        priced: what the codes cost under a finished prior, whose expected value is then a part of the loss, and whose
            rate stands in the place of the uniform one; None: as the paper has it.

    Raises:
        UsageError: codes have a price, but the likelihood has no bits to add it to.
    """

    def __init__(
        self,
        model: ImageCodec,
        *,
        train: TrainingImages,
        validation: Tensor,
        kmeans: bool,
        evaluation_batch_size: int,
        seed: int,
        priced: Priced | None = None,
    ) -> None:
        if priced is not None and not model.likelihood_is_discrete:
            raise UsageError(
                "The price of codes adds to the nats of a likelihood, and mse has none; choose another one."
            )
        self.priced = priced
        self.objective = "bits_per_dim" if model.likelihood_is_discrete else "half_squared_error"
        self.model, self.train, self.validation = model, train, validation
        self.kmeans, self.evaluation_batch_size, self.seed = kmeans, evaluation_batch_size, seed
        self.watch = CollapseWatch()
        self.items = len(train)

    def start(self) -> None:
        """k-means on as many training images as give every level the vectors that it wants, if there are so many."""
        if not self.kmeans:
            return
        positions = min(positions_of(self.model.grids))
        count = math.ceil(vectors_wanted(self.model.codebook_size) / positions)
        order = np.random.default_rng(self.seed).permutation(self.items)[:count]
        images_BCHW = self.train.images[torch.from_numpy(order)]
        self.model.initialise_codebook(images_BCHW, seed=self.seed, batch_size=self.evaluation_batch_size)

    def loss(self, indices: np.ndarray) -> StepResult:
        """Loss of eq. 3 on the training items at `indices`, and what their codes are expected to cost in nats/dim."""
        output = self.model(self.train.batch(indices))
        nats_per_dim = -output.log_likelihood_nats.detach().mean() / self.model.dims
        metrics = {
            **distortion_metrics(nats_per_dim, discrete=self.model.likelihood_is_discrete),
            "commitment_loss": sum(level.commitment_loss.detach() for level in output.levels),
            "codebook_loss": sum(level.codebook_loss.detach() for level in output.levels),
        }
        loss = output.loss
        if self.priced is not None:
            prices = self.priced.of_all(joined_codes(output.levels), torch.from_numpy(indices))
            rate = self.model.expected_nats(output, prices).mean() / self.model.dims
            loss, metrics["expected_rate_bits_per_dim"] = loss + rate, rate.detach() / math.log(2)
        return StepResult(loss=loss, metrics=metrics, output=output.statistics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Update the codebooks from the batch's statistics; forget Adam's moments of revived codes."""
        assert isinstance(result.output, LevelStatistics)
        numbers = dict[str, float]()
        levels = zip(self._suffixes(), self.model.quantisers, result.output.levels, strict=True)
        for suffix, quantiser, statistics in levels:
            found = codebook_step(quantiser, statistics, optimiser)
            numbers |= {f"{name}{suffix}": number for name, number in found.items()}
        return numbers

    def _suffixes(self) -> list[str]:
        """What the names of numbers of a level end in: `_8x8`; nothing where there is one."""
        grids = self.model.grids
        return [""] if len(grids) == 1 else [f"_{named_grids((grid,))}" for grid in grids]

    def validate(self) -> Mapping[str, float]:
        """Distortion, total, unigram entropy and codebook usage over all validation items; with a price also the rate.

        Of a hierarchy also the usage of every level. Says once if a codebook has collapsed.
        """
        items, device = len(self.validation), self.validation.device
        nats_N, prices_N = torch.zeros(2, items, dtype=torch.float64, device=device)
        codes_NGT = torch.zeros(items, *self.model.code_shape, dtype=torch.int64, device=device)
        for rows in own_batches(items, self.evaluation_batch_size):
            codes_NGT[rows] = self.model.encode(self.validation[rows])
            nats_N[rows] = -self.model.log_prob(self.validation[rows], codes_NGT[rows]).double()
            if self.priced is not None:
                prices_N[rows] = self.priced.of_items(codes_NGT[rows], torch.arange(items)[rows]).double()
        (nats_N, prices_N), (codes_NGT,) = sum_over_ranks(nats_N, prices_N), sum_over_ranks(codes_NGT)
        codes = codes_NGT.cpu().numpy()
        usage = codebook_usage(codes, codebook_size=self.model.codebook_size, grids=self.model.grids)
        warning = self.watch.look(usage)
        if warning is not None:
            say(warning)
        discrete = self.model.likelihood_is_discrete
        numbers = distortion_metrics(nats_N.sum().item() / (self.model.dims * items), discrete=discrete)
        if discrete:
            rate_bits = math.prod(self.model.code_shape) * math.log2(self.model.codebook_size)
            if self.priced is not None:
                rate_bits = prices_N.mean().item() / math.log(2)
                numbers["rate_bits_per_dim"] = rate_bits / self.model.dims
            numbers["bits_per_dim"] = numbers["distortion_bits_per_dim"] + rate_bits / self.model.dims
        by_level = dict[str, float]()
        if len(usage.levels) > 1:
            for suffix, level in zip(self._suffixes(), usage.levels, strict=True):
                by_level |= {f"perplexity{suffix}": level.perplexity, f"used{suffix}": level.used}
        return {
            **numbers,
            "unigram_rate_bits_per_dim": usage.entropy_bits_per_item / self.model.dims,
            "perplexity": usage.perplexity,
            "used": usage.used,
            **by_level,
        }


class GaussianTask:
    """Train a VAE, beta-VAE or conditional VAE; the best model has the lowest validation loss at its own whole beta.

    Args:
        train_labels, validation_labels: int64 `[N]` on the same device, exactly where the model has classes.
        Others: as in `CodebookTask`.

    Raises:
        UsageError: the labels do not fit the model.
    """

    def __init__(
        self,
        model: VAE,
        *,
        train: TrainingImages,
        validation: Tensor,
        evaluation_batch_size: int,
        train_labels: Tensor | None = None,
        validation_labels: Tensor | None = None,
    ) -> None:
        self.objective = "loss_bits_per_dim" if model.likelihood_is_discrete else "loss_per_dim"
        self.model, self.train, self.validation = model, train, validation
        self.evaluation_batch_size = evaluation_batch_size
        self.items = len(train)
        check_labels(train_labels, classes=model.classes, count=len(train))
        check_labels(validation_labels, classes=model.classes, count=len(validation))
        self.train_labels, self.validation_labels = train_labels, validation_labels

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Distortion + beta * KL on the training items at `indices`."""
        labels_N = self.train_labels
        labels_B = None if labels_N is None else labels_N[torch.from_numpy(indices).to(labels_N.device)]
        output = self.model(self.train.batch(indices), labels_B)
        nats_per_dim = -output.log_likelihood_nats.detach().mean() / self.model.dims
        metrics = {
            **distortion_metrics(nats_per_dim, discrete=self.model.likelihood_is_discrete),
            "rate_bits_per_dim": output.kl_nats.detach().mean() / (math.log(2) * self.model.dims),
        }
        if self.model.kl_warmup_steps:
            metrics["kl_weight"] = self.model.kl_weight()
        return StepResult(loss=output.loss, metrics=metrics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Count the step, for the warm-up of beta."""
        self.model.count_step()
        return {}

    def validate(self) -> Mapping[str, float]:
        """Loss at the training beta and at beta = 1, from one posterior sample per item, always the same."""
        items, discrete = len(self.validation), self.model.likelihood_is_discrete
        nats_2N = torch.zeros(2, items, dtype=torch.float64, device=self.validation.device)
        for rows in own_batches(items, self.evaluation_batch_size):
            labels_B = None if self.validation_labels is None else self.validation_labels[rows]
            bounds = self.model.bounds(self.validation[rows], labels_B, samples=1, seed=0, first_item=rows.start)
            nats_2N[:, rows] = torch.stack([-bounds.log_likelihood, bounds.kl]).double()
        (nats_2N,) = sum_over_ranks(nats_2N)
        distortion, rate = (nats_2N.sum(1) / (self.model.dims * items)).tolist()
        numbers = distortion_metrics(distortion, discrete=discrete)
        if discrete:
            numbers["loss_bits_per_dim"] = (distortion + self.model.beta * rate) / math.log(2)
            numbers["bits_per_dim"] = (distortion + rate) / math.log(2)
        else:
            numbers["loss_per_dim"] = distortion + self.model.beta * rate
        return {**numbers, "rate_bits_per_dim": rate / math.log(2)}
