"""Recordings as pictures: log-mel spectrograms of one size and one grey scale.

The time of a picture is the same for all recordings of a data set: from 0 to the length that 95 % of the training
recordings do not exceed. A shorter recording ends in silence, a longer one is cut there. The frames of that time are
averaged into 64 columns, in nats, or repeated where there are fewer. Rows are mel bands, low ones below. White is the
loudest that a band is in training recordings, black 70 dB below it, in 256 levels of equal steps.

Shapes: N recordings, S samples, M mels, T columns.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from twostage.config.schema import Recipe
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.data.audio.spectral import log_mel, log_mel_settings, waveform
from twostage.metrics.statistics import evenly
from twostage.progress import Progress

from ..media.html import audio_element
from .pictures import Curve, Heard, Items

COLUMNS = 64
SHARE = 0.95
"""Of the training recordings that a picture shows to their end."""
DEPTH_NATS = 7.0 * math.log(10.0)
"""70 dB."""
MEASURED = 256
"""Most training recordings, spread over all, that decide what white is."""
WATCHED = 4
"""Recordings that are shown while a model trains."""
WATCHED_SECONDS, DRAWN_SECONDS = 3.0, 0.3
"""Most of each of them; less of a decoder that draws its samples, of which a second takes several."""
PAUSE_SECONDS = 0.25
_PORTION = 1024
"""Recordings between two steps of the progress bar."""


class AudioPictures:
    """Recordings of a data set as `Pictures`."""

    item = "recording"
    level = "grey levels of their pictures"
    dim = "sample"
    rows = 4
    played = 8
    levels = 256
    curves: tuple[Curve, ...] = (
        Curve("stage1", "distortion_bits_per_sample", "Stage one: distortion", "bits/sample"),
        Curve("decoder", "distortion_bits_per_sample", "WaveNet decoder: distortion", "bits/sample"),
        Curve("prior", "bits_per_code", "Prior: code length with ends, given what it is conditioned on", "bits/code"),
    )

    def __init__(self, recipe: Recipe, dataset: AudioDataset) -> None:
        self._dataset = dataset
        self._settings = log_mel_settings(dataset.sample_rate_hz)

    @cached_property
    def samples(self) -> int:
        """S, samples that a picture shows."""
        return int(np.quantile(self._dataset.train.lengths, SHARE, method="higher"))

    @cached_property
    def _white_nats(self) -> float:
        some = self.items(self._dataset.train, evenly(len(self._dataset.train), MEASURED))
        return max(float(self._spectrum(sound_S).max()) for sound_S in some)

    def items(self, split: AudioSplit, rows: Iterable[int] | None = None) -> list[np.ndarray]:
        return [split.recording(int(row)) for row in (range(len(split)) if rows is None else rows)]

    def of(self, items: Items) -> np.ndarray:
        # One by one: side by side their last bits would depend on how many there are, and a copy would be none.
        pictures_NMT = np.zeros((len(items), self._settings.mels, COLUMNS), np.uint8)
        for picture_MT, sound_S in zip(pictures_NMT, items, strict=True):
            share_MT = 1.0 + (self._spectrum(sound_S) - self._white_nats) / DEPTH_NATS
            picture_MT[:] = (255.0 * share_MT.clamp(0.0, 1.0)).round().numpy()[::-1]
        return pictures_NMT[:, None]

    def training(self) -> np.ndarray:
        return self._training

    @cached_property
    def _training(self) -> np.ndarray:
        train, parts = self._dataset.train, []
        with Progress("pictures of training recordings", total=len(train), unit="recording") as progress:
            for start in range(0, len(train), _PORTION):
                parts.append(self.of(self.items(train, range(start, min(start + _PORTION, len(train))))))
                progress.advance(len(parts[-1]))
        return np.concatenate(parts)

    def players(self, items: Items, captions: Sequence[str]) -> str:
        rate = self._dataset.sample_rate_hz
        return "".join(audio_element(sound_S, rate, said) for sound_S, said in zip(items, captions, strict=True))

    def watched(self, split: AudioSplit, *, drawn: bool) -> AudioSplit:
        some = split.take(evenly(len(split), WATCHED))
        most = round((DRAWN_SECONDS if drawn else WATCHED_SECONDS) * self._dataset.sample_rate_hz)
        beginnings = [sound_S[:most] for sound_S in self.items(some)]
        return replace(
            some,
            samples=np.concatenate(beginnings),
            offsets=np.cumsum([0, *map(len, beginnings)], dtype=np.int64),
        )

    def in_a_row(self, items: Items) -> Heard:
        rate_hz = self._dataset.sample_rate_hz
        pause_S = np.zeros(round(PAUSE_SECONDS * rate_hz), np.int16)
        parts = [part for sound_S in items for part in (sound_S, pause_S)]
        return Heard(np.concatenate(parts[:-1]), rate_hz)

    def figure(self, rows: Sequence[Items], titles: Sequence[Sequence[str]]) -> bytes:
        from ..media.spectrograms import sheet  # and with it matplotlib, which nothing else here needs

        return sheet([list(row) for row in rows], settings=self._settings, titles=titles)

    @torch.inference_mode()
    def _spectrum(self, sound_S: np.ndarray) -> Tensor:
        """Log-mel spectrogram in nats, `[M, T]`."""
        wave_1S = torch.zeros(1, self.samples)
        wave_1S[0, : len(sound_S)] = waveform(torch.from_numpy(np.array(sound_S[: self.samples])))
        return F.adaptive_avg_pool1d(log_mel(wave_1S, self._settings), COLUMNS)[0]
