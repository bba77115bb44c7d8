"""Bounds on the bits of recordings under a VAE, per item, both at beta = 1."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from stage1_vqvae import SoundVAE
from twostage.audio import AudioSplit, length_batches, whole_batch
from twostage.distributed import own_share, world_size
from twostage.progress import Progress

from .bits import Device, OnDevice, of_all


@dataclass(frozen=True)
class GaussianSoundBits:
    """Bits of every recording, `[N]` float64."""

    distortion: np.ndarray
    rate: np.ndarray
    importance_weighted: np.ndarray


@torch.no_grad()
def gaussian_sound_bits(
    model: SoundVAE, split: AudioSplit, *, samples: int, seed: int, where: Device
) -> GaussianSoundBits:
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
    return GaussianSoundBits(distortion=distortion, rate=rate, importance_weighted=weighted)
