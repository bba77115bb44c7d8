"""Stage-one tasks of sound for the training loop: segments to learn from, whole recordings to be judged by.

Shapes: B items, S samples, G codebooks, T codes or positions, M codes of all items.
"""

import math
from collections.abc import Mapping
from typing import Unpack

import numpy as np
import torch

from stage1_vqvae.audio.autoencoder import AudioAutoencoder
from stage1_vqvae.audio.training_audio import AudioData, AudioDataSettings
from stage1_vqvae.audio.vae import AudioVAE
from stage1_vqvae.audio.vqvae import AudioVQVAE
from stage1_vqvae.priced import Priced
from stage1_vqvae.quantiser.codebook_step import codebook_step
from stage1_vqvae.quantiser.kmeans import vectors_wanted
from twostage.metrics.codebook_usage import CollapseWatch, codebook_usage
from twostage.progress import say
from twostage.training.task import StepResult


class AudioCodebookTask:
    """Train a sound VQ-VAE; the best model has the lowest validation distortion + uniform rate in bits/sample.

    Segments are priced as if they were whole recordings, whose end costs nothing; validation is of whole ones.

    Args:
        kmeans: initialise the codebook by k-means before step 0.
        seed: of the k-means start.
        priced: what the codes cost under a finished prior, whose expected value is then a part of the loss, and whose
            rate, with ends, stands in the place of the uniform one; None: as the paper has it.
        Others: see `AudioData`.
    """

    objective = "bits_per_sample"

    def __init__(
        self,
        model: AudioVQVAE,
        *,
        kmeans: bool,
        seed: int,
        priced: Priced | None = None,
        **settings: Unpack[AudioDataSettings],
    ) -> None:
        self.model, self.kmeans, self.seed, self.priced = model, kmeans, seed, priced
        self.watch, self.data = CollapseWatch(), AudioData(model, **settings)
        self.items = self.data.items

    def start(self) -> None:
        """k-means on as many segments as give the vectors that it wants, if there are so many."""
        if not self.kmeans:
            return
        positions = self.data.segment_samples // self.model.stride
        wanted = math.ceil(vectors_wanted(self.model.codebook_size) / positions)
        order = np.random.default_rng(self.seed).permutation(self.items)[:wanted]
        sounds = self.data.segments(order)
        batch_size = max(1, self.data.batch_samples // self.data.segment_samples)
        self.model.initialise_codebook(sounds.samples, sounds.mask, seed=self.seed, batch_size=batch_size)

    def loss(self, indices: np.ndarray) -> StepResult:
        """Loss on training segments at places `indices` of an epoch, and what their codes are expected to cost."""
        sounds, part = self.data.segments(indices), self.data.part_weights(indices)
        output = self.model(sounds.samples, sounds.mask, sounds.speaker, part)
        nats_per_sample = -output.log_likelihood_nats.detach().sum() / sounds.mask.sum()
        metrics = {
            "distortion_bits_per_sample": part.samples * nats_per_sample / math.log(2),
            "spectral_loss": output.spectral_loss.detach(),
            "commitment_loss": part.positions * output.quantised.commitment_loss.detach(),
            "codebook_loss": part.positions * output.quantised.codebook_loss.detach(),
        }
        loss = output.loss
        if self.priced is not None:
            lengths_B = output.real.sum(1)
            prices = self.priced.of_all(output.codes[:, :, : int(lengths_B.max())], sounds.items, lengths_B)
            rate = part.samples * self.model.expected_nats(output, prices).sum() / sounds.mask.sum()
            loss, metrics["expected_rate_bits_per_sample"] = loss + rate, rate.detach() / math.log(2)
        return StepResult(loss=loss, metrics=metrics, output=output.quantised.statistics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Update the codebook from the batch's statistics; forget Adam's moments of revived codes."""
        return codebook_step(self.model.quantiser, result.output, optimiser)

    def validate(self) -> Mapping[str, float]:
        """Bits per sample, codebook usage and log-mel distance over all validation recordings; with a price the rate.

        Says once if the codebook has collapsed.
        """
        model, distortion_nats, price_nats, distance, codes_MG = self.model, 0.0, 0.0, 0.0, []
        for sounds in self.data.recordings():
            codes_BGT = model.encode(sounds.samples, sounds.mask)
            lengths_B = model.code_lengths(sounds.mask.sum(1))
            distortion_nats -= (
                model.log_prob(sounds.samples, sounds.mask, codes_BGT, sounds.speaker).double().sum().item()
            )
            if self.priced is not None:
                price_nats += self.priced.of_items(codes_BGT, sounds.items, lengths_B).double().sum().item()
            wave_BS = model.decode(codes_BGT, lengths_B, sounds.speaker)
            distance += self.data.log_mel_distance(sounds, wave_BS)
            real_BT = torch.arange(codes_BGT.shape[2], device=lengths_B.device) < lengths_B[:, None]
            codes_MG.append(codes_BGT.transpose(1, 2)[real_BT].cpu().numpy())
        usage = codebook_usage(np.concatenate(codes_MG), codebook_size=model.codebook_size)
        warning = self.watch.look(usage)
        if warning is not None:
            say(warning)
        samples = int(self.data.validation.lengths.sum())
        positions = sum(map(len, codes_MG))
        distortion_bits = distortion_nats / (samples * math.log(2))
        rate_bits = positions * model.codebooks * math.log2(model.codebook_size) / samples
        if self.priced is not None:
            rate_bits = price_nats / (samples * math.log(2))
        return {
            "bits_per_sample": distortion_bits + rate_bits,
            "distortion_bits_per_sample": distortion_bits,
            **({} if self.priced is None else {"rate_bits_per_sample": rate_bits}),
            "unigram_rate_bits_per_sample": usage.entropy_bits_per_item * positions / samples,
            "log_mel_l1": distance / len(self.data.validation),
            "perplexity": usage.perplexity,
            "used": usage.used,
        }


class AudioGaussianTask:
    """Train a sound VAE, beta-VAE or conditional VAE; the best model has the lowest validation distortion + beta * KL.

    That is at its own whole beta.

    Args: see `AudioData`.
    """

    objective = "loss_bits_per_sample"

    def __init__(self, model: AudioVAE, **settings: Unpack[AudioDataSettings]) -> None:
        self.model, self.data = model, AudioData(model, **settings)
        self.items = self.data.items

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Distortion + beta * KL + spectral loss on training segments at places `indices` of an epoch."""
        sounds, part = self.data.segments(indices), self.data.part_weights(indices)
        output = self.model(sounds.samples, sounds.mask, sounds.speaker, part, sounds.labels)
        scale = math.log(2) * sounds.mask.sum() / part.samples
        metrics = {
            "distortion_bits_per_sample": -output.log_likelihood_nats.detach().sum() / scale,
            "rate_bits_per_sample": output.kl_nats.detach().sum() / scale,
            "spectral_loss": output.spectral_loss.detach(),
        }
        if self.model.kl_warmup_steps:
            metrics["kl_weight"] = self.model.kl_weight()
        return StepResult(loss=output.loss, metrics=metrics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Count the step, for the warm-up of beta."""
        self.model.count_step()
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bits at the training beta and at beta = 1, from one posterior sample per item, always the same; log-mel."""
        model, distortion_nats, rate_nats, distance = self.model, 0.0, 0.0, 0.0
        for sounds in self.data.recordings():
            batch = (sounds.samples, sounds.mask, sounds.speaker, sounds.labels)
            bounds = model.bounds(*batch, samples=1, seed=0, items_B=sounds.items)
            distortion_nats -= bounds.log_likelihood.double().sum().item()
            rate_nats += bounds.kl.double().sum().item()
            distance += self.data.log_mel_distance(sounds, model.reconstruct(*batch))
        scale = math.log(2) * int(self.data.validation.lengths.sum())
        distortion_bits, rate_bits = distortion_nats / scale, rate_nats / scale
        return {
            "loss_bits_per_sample": distortion_bits + model.beta * rate_bits,
            "bits_per_sample": distortion_bits + rate_bits,
            "distortion_bits_per_sample": distortion_bits,
            "rate_bits_per_sample": rate_bits,
            "log_mel_l1": distance / len(self.data.validation),
        }


class AudioAutoencoderTask:
    """Train a sound autoencoder; the best model has the lowest validation distortion.

    Args: see `AudioData`.
    """

    objective = "distortion_bits_per_sample"

    def __init__(self, model: AudioAutoencoder, **settings: Unpack[AudioDataSettings]) -> None:
        self.model, self.data = model, AudioData(model, **settings)
        self.items = self.data.items

    def start(self) -> None:
        """Nothing to prepare."""

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def loss(self, indices: np.ndarray) -> StepResult:
        """Distortion + spectral loss on training segments at places `indices` of an epoch."""
        sounds, part = self.data.segments(indices), self.data.part_weights(indices)
        output = self.model(sounds.samples, sounds.mask, sounds.speaker, part)
        nats_per_sample = -output.log_likelihood_nats.detach().sum() / sounds.mask.sum()
        metrics = {
            "distortion_bits_per_sample": part.samples * nats_per_sample / math.log(2),
            "spectral_loss": output.spectral_loss.detach(),
        }
        return StepResult(loss=output.loss, metrics=metrics)

    def validate(self) -> Mapping[str, float]:
        """Distortion over all validation recordings, log-mel distance, root mean square of the latents.

        Nothing holds the last one at one.
        """
        model, distortion_nats, distance, squares, positions = self.model, 0.0, 0.0, 0.0, 0
        for sounds in self.data.recordings():
            z_BZT = model.encode(sounds.samples, sounds.mask)
            lengths_B = model.code_lengths(sounds.mask.sum(1))
            log_prob_B = model.log_prob(sounds.samples, sounds.mask, z_BZT, sounds.speaker)
            distortion_nats -= log_prob_B.double().sum().item()
            distance += self.data.log_mel_distance(sounds, model.decode(z_BZT, lengths_B, sounds.speaker))
            squares += z_BZT.double().pow(2).sum().item()
            positions += int(lengths_B.sum())
        return {
            "distortion_bits_per_sample": distortion_nats / (math.log(2) * int(self.data.validation.lengths.sum())),
            "log_mel_l1": distance / len(self.data.validation),
            "latent_root_mean_square": math.sqrt(squares / (positions * model.latent_channels)),
        }
