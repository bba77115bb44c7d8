"""How far reconstructions of recordings are from them to the ear: the log-mel fields of a row."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stage1_vqvae import AudioVAE, AudioVQVAE, WaveNetDecoder
from twostage.data.audio import AudioSplit
from twostage.data.audio.spectral import LogMelSettings, log_mel_settings
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly

from ..bits.audio import Device, convolutional_log_mel, sampled_log_mel, wrong_log_mel
from ..runs.run import Run


@dataclass(frozen=True, kw_only=True)
class LogMel:
    """What the log-mel distances of one evaluation share."""

    run: Run
    data: AudioSplit
    sample_rate_hz: int
    where: Device

    @property
    def settings(self) -> LogMelSettings:
        return log_mel_settings(self.sample_rate_hz)

    @property
    def settings_line(self) -> str:
        """The settings, in words."""
        mel = self.settings
        return f"natural logarithm of power, {mel.mels} mels, {mel.n_fft}-sample windows every {mel.hop}"

    @cached_property
    def wrong(self) -> np.ndarray:
        """Distance of another recording, `[N]`; of a single recording 0, its own."""
        return wrong_log_mel(self.data, settings=self.settings)

    @property
    def wrong_l1(self) -> float | None:
        """Mean of `wrong`; None where there is no other recording."""
        return float(self.wrong.mean()) if len(self.wrong) > 1 else None

    def own(self, model: AudioVQVAE | AudioVAE, codes_NGT: np.ndarray | None) -> dict[str, Any]:
        """Fields of a row: over all recordings, by the model's own decoder; a VAE has no codes."""
        distance = convolutional_log_mel(model, self.data, codes_NGT, settings=self.settings, where=self.where)
        return self._fields(distance, np.arange(len(distance)))

    def sampled(self, model: AudioVQVAE, decoder: WaveNetDecoder, codes_NGT: np.ndarray) -> dict[str, Any]:
        """The same of a WaveNet decoder, over as many recordings as the recipe has it sample."""
        rows = evenly(len(self.data), self.run.recipe.evaluation.sampled_items)
        if not len(rows):
            return {"log_mel_items": 0}
        distance = sampled_log_mel(
            model,
            decoder,
            self.data,
            codes_NGT,
            rows,
            settings=self.settings,
            where=self.where,
            seed=self.run.recipe.seed,
        )
        return self._fields(distance, rows)

    def _fields(self, distance: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        mean = distance.mean()
        return {
            "log_mel_l1": float(mean),
            "log_mel_ratio": ratio(mean, self.wrong[rows].mean()),
            "log_mel_items": len(rows),
        }
