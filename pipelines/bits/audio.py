"""Bits of recordings, per item: what was measured, before it becomes rows.

A recording of n samples with T codes costs, in this order: its label and speaker (where a prior or decoder is
conditioned on them), the number of codes, the remainder of n given T, the codes (`rate`), and the samples given all
that. Every part is the length of a code that could be written.

Shapes: N items, B items of a batch, S samples, T positions, G codebooks.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import AudioVAE, AudioVQVAE, WaveNetDecoder
from twostage.data.audio import AudioSplit, RecordingBatch, length_batches, whole_batch
from twostage.distributed import own_share, sum_over_ranks, world_size
from twostage.progress import Progress


@dataclass(frozen=True)
class Device:
    """Where and in which portions a split is scored."""

    device: torch.device
    batch_samples: int


@dataclass(frozen=True)
class OnDevice:
    """A batch as tensors."""

    samples: Tensor
    mask: Tensor
    speaker: Tensor | None

    @classmethod
    def of(cls, batch: RecordingBatch, *, speakers: int, device: torch.device) -> "OnDevice":
        return cls(
            samples=torch.from_numpy(batch.samples).to(device),
            mask=torch.from_numpy(batch.mask).to(device),
            speaker=torch.from_numpy(batch.speakers).to(device) if speakers else None,
        )


def of_all(numbers_N: np.ndarray) -> np.ndarray:
    """Numbers of all items, of which every process has measured its share and left the others at zero."""
    return sum_over_ranks(torch.from_numpy(numbers_N))[0].numpy()


@torch.no_grad()
def audio_distortion(
    model: AudioVQVAE,
    decoder: WaveNetDecoder | None,
    split: AudioSplit,
    codes_NGT: np.ndarray,
    *,
    where: Device,
    label: str,
) -> np.ndarray:
    """Bits `[N]` of the samples given codes and speaker: of the model's own decoder, or of a WaveNet decoder."""
    bits_N = np.zeros(len(split))
    with Progress(label, total=len(split), unit="recording") as progress:
        for items_B in own_share(length_batches(split.lengths, most_samples=where.batch_samples)):
            batch = whole_batch(split, items_B, multiple=model.stride)
            on = OnDevice.of(batch, speakers=model.speakers, device=where.device)
            positions = batch.samples.shape[1] // model.stride
            codes_BGT = torch.from_numpy(codes_NGT[items_B, :, :positions]).to(where.device)
            if decoder is None:
                nats_B = -model.log_prob(on.samples, on.mask, codes_BGT, on.speaker)
            else:
                nats_B = -decoder.log_prob(on.samples, on.mask, model.condition_vectors(codes_BGT), on.speaker)
            bits_N[items_B] = nats_B.double().cpu().numpy() / math.log(2)
            progress.advance_shared(len(items_B), world_size())
    return of_all(bits_N)


@dataclass(frozen=True)
class GaussianAudioBits:
    """Bits of every recording, `[N]` float64."""

    distortion: np.ndarray
    rate: np.ndarray
    importance_weighted: np.ndarray


@torch.no_grad()
def gaussian_audio_bits(
    model: AudioVAE, split: AudioSplit, *, samples: int, seed: int, where: Device
) -> GaussianAudioBits:
    """ELBO, in its two parts, and IWAE bound from the same `samples` posterior draws per recording."""
    distortion, rate, weighted = np.zeros(len(split)), np.zeros(len(split)), np.zeros(len(split))
    with Progress(f"ELBO and IWAE-{samples}", total=len(split), unit="recording") as progress:
        for items_B in own_share(length_batches(split.lengths, most_samples=where.batch_samples)):
            batch = whole_batch(split, items_B, multiple=model.stride)
            on = OnDevice.of(batch, speakers=model.speakers, device=where.device)
            bounds = model.bounds(
                on.samples, on.mask, on.speaker, samples=samples, seed=seed, items_B=torch.from_numpy(items_B)
            )
            distortion[items_B] = -bounds.log_likelihood.double().cpu().numpy() / math.log(2)
            rate[items_B] = bounds.kl.double().cpu().numpy() / math.log(2)
            weighted[items_B] = -bounds.importance_weighted.double().cpu().numpy() / math.log(2)
            progress.advance_shared(len(items_B), world_size())
    distortion, rate, weighted = map(of_all, (distortion, rate, weighted))
    return GaussianAudioBits(distortion=distortion, rate=rate, importance_weighted=weighted)
