"""What tasks of sound read: random segments to learn from, whole recordings to be judged by, on the device of a model.

The loop hands out places of an epoch, which has one segment per begun segment length of every recording
(`twostage.data.audio.segments`). Where in its recording a segment begins is drawn with the step's batch
(`twostage.noise`), from (seed, step): a resumed run reads what an uninterrupted one would have, and so do several
processes together.

Shapes: B items, S samples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.audio.model import AudioModel
from stage1_vqvae.audio.networks import PartWeights
from twostage.data.audio import AudioSplit, RecordingBatch, length_batches, whole_batch
from twostage.data.audio.segments import segment_count, segment_lengths, segments_at
from twostage.data.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.errors import UsageError
from twostage.noise import batch_integers, whole_batch_of


@dataclass(frozen=True)
class Sounds:
    """A batch of recordings on a model's device."""

    samples: Tensor
    """int16 `[B, S]`."""
    mask: Tensor
    """bool `[B, S]`."""
    speaker: Tensor | None
    """int64 `[B]`; None for a model without speakers."""
    labels: Tensor | None
    """int64 `[B]`; None for a model without classes."""
    items: Tensor
    """Index in the split, int64 `[B]`, on the CPU."""


class AudioDataSettings(TypedDict):
    """Keyword arguments of `AudioData`, which every task takes."""

    train: AudioSplit
    validation: AudioSplit
    sample_rate_hz: int
    segment_samples: int
    batch_samples: int


class AudioData:
    """What a task reads: segments of one split, recordings of another, on the device of a model.

    Args:
        model: on the device where it trains; what it is not conditioned on is left out.
        train: recordings of which segments are read.
        validation: recordings that are read whole.
        sample_rate_hz: of both; the log-mel distance depends on it.
        segment_samples: of a training segment, a multiple of the model's stride.
        batch_samples: most samples of a validation batch, padding included.

    Raises:
        UsageError: segments that are no multiple of the stride.
    """

    def __init__(
        self,
        model: AudioModel,
        *,
        train: AudioSplit,
        validation: AudioSplit,
        sample_rate_hz: int,
        segment_samples: int,
        batch_samples: int,
    ) -> None:
        stride = model.stride
        if segment_samples < stride or segment_samples % stride:
            raise UsageError(
                f"segment_samples must be a multiple of the {stride} samples per code, not {segment_samples}: "
                f"choose {max(1, round(segment_samples / stride)) * stride}"
            )
        self.train, self.validation, self.stride = train, validation, stride
        self.segment_samples, self.batch_samples = segment_samples, batch_samples
        self.speakers, self.classes, self.device = model.speakers, model.classes, next(model.parameters()).device
        self.settings = log_mel_settings(sample_rate_hz)
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

    def log_mel_distance(self, sounds: Sounds, wave_BS: Tensor) -> float:
        """Of the items of a batch to waveforms, added up."""
        distance_B = log_mel_distance(waveform(sounds.samples), wave_BS, sounds.mask, self.settings)
        return distance_B.double().sum().item()

    def _sounds(self, batch: RecordingBatch) -> Sounds:
        return Sounds(
            samples=torch.from_numpy(batch.samples).to(self.device),
            mask=torch.from_numpy(batch.mask).to(self.device),
            speaker=torch.from_numpy(batch.speakers).to(self.device) if self.speakers else None,
            labels=torch.from_numpy(batch.labels).to(self.device) if self.classes else None,
            items=torch.from_numpy(batch.items),
        )
