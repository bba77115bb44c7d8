"""Recordings: length, label and speaker cost bits, reconstructions are compared as the ear would, FLAC stands beside.

A recording of n samples with T codes costs, in this order: its label and speaker (where a prior or decoder is
conditioned on them), the number of codes, the remainder of n given T, the codes, and the samples given all that. Every
part is the length of a code that could be written.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Stage1Model
from twostage.config.schema import Recipe
from twostage.data.audio import AudioDataset
from twostage.data.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.likelihoods.audio import SAMPLE_LEVELS
from twostage.metrics.code_labels import CodeMeaning, code_meaning
from twostage.metrics.flac import FLAC_FRAMES, Flac, flac_size, flac_sizes
from twostage.metrics.length_tables import LabelTable, LengthTable, remainder_bits
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly, swap_partners
from twostage.storage.codes import CodeFile

from .audio_networks import most_codes
from .measures import Beside, Fault, Side


class AudioMeasures:
    """Recordings of a split as `Measures`."""

    decoder: str | None = "convolutional"
    numbers = 1

    def __init__(self, recipe: Recipe, dataset: AudioDataset, split: str) -> None:
        self.recipe, self.dataset, self.data = recipe, dataset, dataset.split(split)
        self.mel = log_mel_settings(dataset.sample_rate_hz)
        self.stride = 2**recipe.audio.downsampling_layers

    @property
    def dims(self) -> int:
        return len(self.data.samples)

    @property
    def sizes_N(self) -> np.ndarray:
        return self.data.lengths

    @property
    def seconds(self) -> float:
        return float(self.dims / self.dataset.sample_rate_hz)

    def facts(self) -> dict[str, Any]:
        mel = self.mel
        return {
            "sample_rate_hz": self.dataset.sample_rate_hz,
            "log_mel": f"natural logarithm of power, {mel.mels} mels, {mel.n_fft}-sample windows every {mel.hop}",
            "wrong_log_mel_l1": float(self.wrong_N.mean()) if len(self.data) > 1 else None,
            "flac": self._flac[0],
        }

    def beside(self) -> Beside:
        return Beside(FLAC_FRAMES, SAMPLE_LEVELS, self._flac[1])

    @cached_property
    def _flac(self) -> tuple[Flac, np.ndarray]:
        """What FLAC makes of the recordings, and the bits of the frames of each, `[N]`."""
        rate = self.dataset.sample_rate_hz
        sizes, joined = flac_sizes(self.data.recordings(), rate), flac_size(self.data.samples, rate)
        flac = Flac(
            bits_per_sample=float(sizes.file_bits.sum() / self.dims),
            joined_bits_per_sample=joined.file_bits / self.dims,
            frames_bits_per_sample=float(sizes.frame_bits.sum() / self.dims),
        )
        return flac, sizes.frame_bits

    def conditioned_on(self, *, label: bool, speaker: bool) -> str | None:
        given = ["label"] if label and self.dataset.classes else []
        given += ["speaker"] if speaker and self.dataset.speakers else []
        return " and ".join(given) or "nothing"

    def condition(self, file: CodeFile) -> np.ndarray:
        """The label and the speaker, each where there are several."""
        columns = [file.labels] if self.dataset.classes else []
        columns += [] if file.speakers is None else [file.speakers]
        return np.stack(columns, 1) if columns else np.zeros((len(file.labels), 0), np.int64)

    def side(self, *, label: bool, speaker: bool, ends_N: np.ndarray | None = None) -> Side | None:
        table_N = self._table_bits_N if ends_N is None else ends_N
        classes, speakers = len(self.dataset.classes) * label, len(self.dataset.speakers) * speaker
        train = self.dataset.train
        labels = LabelTable.of(train.labels, train.speakers, classes=classes, speakers=speakers)
        return Side(
            length=table_N + np.full(len(self.data), remainder_bits(self.stride)),
            labels=labels.bits(self.data.labels, self.data.speakers),
        )

    @cached_property
    def _table_bits_N(self) -> np.ndarray:
        """Of the number of codes, by a table of the training recordings."""
        most = most_codes(self.recipe, self.dataset, stride=self.stride)
        table = LengthTable.of(-(-self.dataset.train.lengths // self.stride), max_length=most)
        return table.bits(-(-self.sizes_N // self.stride))

    def decoded_items(self, model: Stage1Model) -> np.ndarray:
        """All of them; as many as the recipe says where every sample is drawn."""
        wanted = self.recipe.evaluation.sampled_items if model.autoregressive else len(self.data)
        return evenly(len(self.data), wanted)

    def compare(self, batch: Batch, decoded: Tensor) -> Tensor:
        """Log-mel distance."""
        longest = decoded.shape[1]  # of drawn recordings without the padding to whole codes
        return log_mel_distance(waveform(batch.x[:, :longest]), decoded, batch.mask[:, :longest], self.mel)[None]

    @cached_property
    def wrong_N(self) -> np.ndarray:
        """Log-mel distance of another recording, repeated or cut to the length; of a single recording 0, its own."""
        distance_N = np.zeros(len(self.data))
        for item, partner in enumerate(swap_partners(len(self.data))):
            own = torch.from_numpy(self.data.recording(item).copy())[None]
            other = torch.from_numpy(np.resize(self.data.recording(int(partner)), own.shape[1]))[None]
            mask = torch.ones_like(own, dtype=torch.bool)
            distance_N[item] = float(log_mel_distance(waveform(own), waveform(other), mask, self.mel))
        return distance_N

    def quality(self, numbers_RM: np.ndarray, items_M: np.ndarray, model: Stage1Model) -> dict[str, Any]:
        if not len(items_M):
            return {"log_mel_items": 0}
        mean = numbers_RM[0].mean()
        return {
            "log_mel_l1": float(mean),
            "log_mel_ratio": ratio(mean, self.wrong_N[items_M].mean()),
            "log_mel_items": len(items_M),
        }

    def faults(self, row: Mapping[str, Any]) -> tuple[Fault, ...]:
        return ()

    def meaning(self, train: CodeFile, codes: CodeFile) -> CodeMeaning | None:
        classes, voices = len(self.dataset.classes), len(self.dataset.speakers)
        if not classes and not voices:
            return None
        assert train.lengths is not None
        assert codes.lengths is not None
        return code_meaning(
            train_codes=train.codes,
            train_lengths=train.lengths,
            train_labels=train.labels,
            train_speakers=self.dataset.train.speakers,
            codes=codes.codes,
            lengths=codes.lengths,
            labels=codes.labels,
            speakers=self.data.speakers,
            codebook_size=codes.header.codebook_size,
            classes=classes,
            voices=voices,
        )
