"""Stage-one tasks of sound for the training loop: random segments to learn from, whole recordings to be judged by.

The loop hands out places of an epoch, which has one segment per begun segment length of every recording
(`twostage.data.audio.segments`). Where in its recording a segment begins is drawn with the step's batch
(`twostage.noise`), from (seed, step): a resumed run reads what an uninterrupted one would have, and so do several
processes together.

Shapes: B items, S samples, G codebooks, T codes, M codes of all items.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.audio.networks import PartWeights
from stage1_vqvae.audio.vae import AudioVAE
from stage1_vqvae.audio.vqvae import AudioVQVAE
from stage1_vqvae.quantiser.codebook_step import codebook_step
from stage1_vqvae.quantiser.kmeans import vectors_wanted
from twostage.data.audio import AudioSplit, RecordingBatch, length_batches, whole_batch
from twostage.data.audio.segments import segment_count, segment_lengths, segments_at
from twostage.data.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.errors import UsageError
from twostage.metrics.codebook_usage import CollapseWatch, codebook_usage
from twostage.noise import batch_integers, whole_batch_of
from twostage.progress import say
from twostage.training.task import StepResult


@dataclass(frozen=True)
class Sounds:
    """A batch of recordings on a model's device."""

    samples: Tensor
    """int16 `[B, S]`."""
    mask: Tensor
    """bool `[B, S]`."""
    speaker: Tensor | None
    """int64 `[B]`; None for a model without speakers."""
    items: Tensor
    """Index in the split, int64 `[B]`, on the CPU."""


class AudioData:
    """What a task reads: segments of one split, recordings of another, on the device of a model.

    Args:
        train, validation: of a data set.
        speakers: of the model; 0: speakers are left out.
        stride: of the model; everything is padded to a multiple of it.
        segment_samples: of a training segment.
        batch_samples: most samples of a validation batch, padding included.
        device: of the model.

    Raises:
        UsageError: segments that are no multiple of the stride.
    """

    def __init__(
        self,
        *,
        train: AudioSplit,
        validation: AudioSplit,
        speakers: int,
        stride: int,
        segment_samples: int,
        batch_samples: int,
        device: torch.device,
    ) -> None:
        if segment_samples < stride or segment_samples % stride:
            raise UsageError(
                f"segment_samples must be a multiple of the {stride} samples per code, not {segment_samples}: "
                f"choose {max(1, round(segment_samples / stride)) * stride}"
            )
        self.train, self.validation, self.speakers, self.stride = train, validation, speakers, stride
        self.segment_samples, self.batch_samples, self.device = segment_samples, batch_samples, device
        self.items = segment_count(train, segment_samples=segment_samples)

    def segments(self, places_B: np.ndarray) -> Sounds:
        """Training segments at places of an epoch; where each begins is drawn."""
        draws_B = batch_integers(1 << 32, len(places_B), device=torch.device("cpu")).numpy()
        return self._sounds(segments_at(self.train, places_B, draws_B, segment_samples=self.segment_samples))

    def part_weights(self, places_B: np.ndarray) -> PartWeights:
        """What the segments at `places_B` are of the step's batch; 1 where they are all of it."""
        part_B, whole_B = (
            segment_lengths(self.train, places, segment_samples=self.segment_samples)
            for places in (places_B, whole_batch_of(places_B))
        )
        return PartWeights(
            samples=float(part_B.mean() / whole_B.mean()),
            positions=float((-(-part_B // self.stride)).mean() / (-(-whole_B // self.stride)).mean()),
        )

    def recordings(self) -> Iterator[Sounds]:
        """All validation recordings, whole, in batches of similar length."""
        for items_B in length_batches(self.validation.lengths, most_samples=self.batch_samples):
            yield self._sounds(whole_batch(self.validation, items_B, multiple=self.stride))

    def _sounds(self, batch: RecordingBatch) -> Sounds:
        return Sounds(
            samples=torch.from_numpy(batch.samples).to(self.device),
            mask=torch.from_numpy(batch.mask).to(self.device),
            speaker=torch.from_numpy(batch.speakers).to(self.device) if self.speakers else None,
            items=torch.from_numpy(batch.items),
        )


class AudioCodebookTask:
    """Train a sound VQ-VAE; the best model has the lowest validation distortion + uniform rate in bits/sample.

    Args:
        model: on the device where it trains.
        train: recordings of which segments are read.
        validation: recordings that are read whole.
        sample_rate_hz: of both; the log-mel distance depends on it.
        segment_samples: of a training segment, a multiple of the model's stride.
        batch_samples: most samples of a validation batch, padding included.
        kmeans: initialise the codebook by k-means before step 0.
        seed: of the k-means start.

    Raises:
        UsageError: the segments do not fit the model.
    """

    objective = "bits_per_sample"

    def __init__(
        self,
        model: AudioVQVAE,
        *,
        train: AudioSplit,
        validation: AudioSplit,
        sample_rate_hz: int,
        segment_samples: int,
        batch_samples: int,
        kmeans: bool,
        seed: int,
    ) -> None:
        self.model, self.kmeans, self.seed = model, kmeans, seed
        self.watch = CollapseWatch()
        self.settings = log_mel_settings(sample_rate_hz)
        self.data = AudioData(
            train=train,
            validation=validation,
            speakers=model.speakers,
            stride=model.stride,
            segment_samples=segment_samples,
            batch_samples=batch_samples,
            device=next(model.parameters()).device,
        )
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
        """Loss on training segments at places `indices` of an epoch."""
        sounds, part = self.data.segments(indices), self.data.part_weights(indices)
        output = self.model(sounds.samples, sounds.mask, sounds.speaker, part)
        nats_per_sample = -output.log_likelihood_nats.detach().sum() / sounds.mask.sum()
        metrics = {
            "distortion_bits_per_sample": part.samples * nats_per_sample / math.log(2),
            "spectral_loss": output.spectral_loss.detach(),
            "commitment_loss": part.positions * output.quantised.commitment_loss.detach(),
            "codebook_loss": part.positions * output.quantised.codebook_loss.detach(),
        }
        return StepResult(loss=output.loss, metrics=metrics, output=output.quantised.statistics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Update the codebook from the batch's statistics; forget Adam's moments of revived codes."""
        return codebook_step(self.model.quantiser, result, optimiser)

    def validate(self) -> Mapping[str, float]:
        """Bits per sample with a uniform prior, codebook usage and log-mel distance over all validation recordings.

        Says once if the codebook has collapsed.
        """
        model, distortion_nats, distance, codes_MG = self.model, 0.0, 0.0, []
        for sounds in self.data.recordings():
            codes_BGT = model.encode(sounds.samples, sounds.mask)
            lengths_B = model.code_lengths(sounds.mask.sum(1))
            distortion_nats -= (
                model.log_prob(sounds.samples, sounds.mask, codes_BGT, sounds.speaker).double().sum().item()
            )
            wave_BS = model.decode(codes_BGT, lengths_B, sounds.speaker)
            distance_B = log_mel_distance(waveform(sounds.samples), wave_BS, sounds.mask, self.settings)
            distance += distance_B.double().sum().item()
            real_BT = torch.arange(codes_BGT.shape[2], device=lengths_B.device) < lengths_B[:, None]
            codes_MG.append(codes_BGT.transpose(1, 2)[real_BT].cpu().numpy())
        usage = codebook_usage(np.concatenate(codes_MG), codebook_size=model.codebook_size)
        warning = self.watch.look(usage)
        if warning is not None:
            say(warning)
        samples = int(self.data.validation.lengths.sum())
        positions = sum(map(len, codes_MG))
        distortion_bits = distortion_nats / (samples * math.log(2))
        uniform_bits = positions * model.codebooks * math.log2(model.codebook_size) / samples
        return {
            "bits_per_sample": distortion_bits + uniform_bits,
            "distortion_bits_per_sample": distortion_bits,
            "unigram_rate_bits_per_sample": usage.entropy_bits_per_item * positions / samples,
            "log_mel_l1": distance / len(self.data.validation),
            "perplexity": usage.perplexity,
            "used": usage.used,
        }


class AudioGaussianTask:
    """Train a sound VAE or beta-VAE; the best model has the lowest validation distortion + beta * KL, at its own beta.

    Args: as in `AudioCodebookTask`.

    Raises:
        UsageError: the segments do not fit the model.
    """

    objective = "loss_bits_per_sample"

    def __init__(
        self,
        model: AudioVAE,
        *,
        train: AudioSplit,
        validation: AudioSplit,
        sample_rate_hz: int,
        segment_samples: int,
        batch_samples: int,
    ) -> None:
        self.model = model
        self.settings = log_mel_settings(sample_rate_hz)
        self.data = AudioData(
            train=train,
            validation=validation,
            speakers=model.speakers,
            stride=model.stride,
            segment_samples=segment_samples,
            batch_samples=batch_samples,
            device=next(model.parameters()).device,
        )
        self.items = self.data.items

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Distortion + beta * KL + spectral loss on training segments at places `indices` of an epoch."""
        sounds, part = self.data.segments(indices), self.data.part_weights(indices)
        output = self.model(sounds.samples, sounds.mask, sounds.speaker, part)
        scale = math.log(2) * sounds.mask.sum() / part.samples
        metrics = {
            "distortion_bits_per_sample": -output.log_likelihood_nats.detach().sum() / scale,
            "rate_bits_per_sample": output.kl_nats.detach().sum() / scale,
            "spectral_loss": output.spectral_loss.detach(),
        }
        return StepResult(loss=output.loss, metrics=metrics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Bits at the training beta and at beta = 1, from one posterior sample per item, always the same; log-mel."""
        model, distortion_nats, rate_nats, distance = self.model, 0.0, 0.0, 0.0
        for sounds in self.data.recordings():
            batch = (sounds.samples, sounds.mask, sounds.speaker)
            bounds = model.bounds(*batch, samples=1, seed=0, items_B=sounds.items)
            distortion_nats -= bounds.log_likelihood.double().sum().item()
            rate_nats += bounds.kl.double().sum().item()
            wave_BS = model.reconstruct(*batch)
            distance_B = log_mel_distance(waveform(sounds.samples), wave_BS, sounds.mask, self.settings)
            distance += distance_B.double().sum().item()
        scale = math.log(2) * int(self.data.validation.lengths.sum())
        distortion_bits, rate_bits = distortion_nats / scale, rate_nats / scale
        return {
            "loss_bits_per_sample": distortion_bits + model.beta * rate_bits,
            "bits_per_sample": distortion_bits + rate_bits,
            "distortion_bits_per_sample": distortion_bits,
            "rate_bits_per_sample": rate_bits,
            "log_mel_l1": distance / len(self.data.validation),
        }
