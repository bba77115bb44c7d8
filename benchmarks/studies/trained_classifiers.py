"""Classifiers of recordings by label and by speaker, trained in seconds: the ruler of speech_classifiers.py.

They are support vector machines (radial kernel) on log-mel spectrograms, trained on the data set's own training
recordings, each once as it is and once with white noise at 10 to 40 dB, and on nothing synthesised. Their settings were
chosen on validation recordings of fsdd; test recordings are only read. What they do not hear, by construction: loudness
(sounds are brought to the same power), silence before and after (cut 35 dB below the loudest frame), duration (a sound
is stretched to 12 frames), phase, and whatever lies 50 dB below the loudest bin.

Shapes: N recordings, S samples, M mels, T frames, F features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from damaged_sounds import with_noise
from named_sounds import NOBODY
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch.nn import functional as F

from twostage.data.audio import AudioDataset
from twostage.data.audio.spectral import LogMelSettings, log_mel
from twostage.errors import UsageError

MELS, FRAMES = 40, 12
WINDOW_SECONDS = 0.032
AUDIBLE_DB, DEPTH_DB = 35.0, 50.0
"""How far below the loudest frame sound begins and ends; how far below the loudest bin anything counts."""
LOWEST_RATE_HZ = 6000
NOISE_DB = (10.0, 40.0)
PENALTY = 10.0
NATS_PER_DB = math.log(10) / 10


def mel_settings(sample_rate_hz: int) -> LogMelSettings:
    """Windows of about 32 ms (256 samples at 8 kHz), a quarter of one between frames."""
    n_fft = 1 << round(math.log2(WINDOW_SECONDS * sample_rate_hz))
    return LogMelSettings(sample_rate_hz=sample_rate_hz, n_fft=n_fft, hop=n_fft // 4, mels=MELS)


def features(samples_S: np.ndarray, settings: LogMelSettings) -> np.ndarray:
    """What the classifiers see of one recording, float32 [F]: 12 frames, and mean and spread of every mel."""
    wave_S = torch.from_numpy(samples_S.astype(np.float32))
    wave_S /= wave_S.square().mean().sqrt().clamp(min=1e-9)
    mel_MT = log_mel(wave_S[None], settings)[0]
    loudness_T = mel_MT.logsumexp(0)
    audible = (loudness_T > loudness_T.max() - AUDIBLE_DB * NATS_PER_DB).nonzero()[:, 0]
    mel_MT = mel_MT[:, audible[0] : audible[-1] + 1]
    mel_MT = (mel_MT - mel_MT.max()).clamp(min=-DEPTH_DB * NATS_PER_DB)
    stretched_MT = F.interpolate(mel_MT[None], size=FRAMES, mode="linear")[0]
    seen_F: np.ndarray = torch.cat([stretched_MT.flatten(), mel_MT.mean(1), mel_MT.std(1, correction=0)]).numpy()
    return seen_F


@dataclass(frozen=True)
class Reading:
    """What was heard; None where the data set has nothing of the kind to tell apart."""

    labels: np.ndarray | None
    """Index of the class of each recording, int64 [N]; NOBODY for what cannot be read."""
    speakers: np.ndarray | None


@dataclass(frozen=True)
class Classifiers:
    """Trained on the training recordings of one data set."""

    settings: LogMelSettings
    label: Pipeline | None
    speaker: Pipeline | None

    def read(self, recordings: Sequence[np.ndarray | None]) -> Reading:
        """What int16 recordings of the data set's rate sound like; None stands for a file that cannot be read."""
        rows = [row for row, samples_S in enumerate(recordings) if samples_S is not None]
        seen = [features(samples_S, self.settings) for samples_S in recordings if samples_S is not None]

        def heard(machine: Pipeline | None) -> np.ndarray | None:
            if machine is None:
                return None
            heard_N = np.full(len(recordings), NOBODY)
            if rows:
                heard_N[rows] = machine.predict(np.stack(seen))
            return heard_N

        return Reading(labels=heard(self.label), speakers=heard(self.speaker))


def train_classifiers(dataset: AudioDataset) -> Classifiers:
    """Train on the training recordings; a few seconds for some thousand of them.

    Raises:
        UsageError: nothing to tell apart, or a rate too low for the spectrograms.
    """
    if dataset.sample_rate_hz < LOWEST_RATE_HZ:
        raise UsageError(
            f"expected recordings of {LOWEST_RATE_HZ} Hz or more, but these have {dataset.sample_rate_hz}: their "
            "spectra are too coarse"
        )
    if not dataset.classes and not dataset.speakers:
        raise UsageError(f"expected labels or speakers, but {dataset.name} has neither: name them with --data-pattern")
    settings, random = mel_settings(dataset.sample_rate_hz), np.random.default_rng(0)
    clean = list(dataset.train.recordings())
    noisy = [with_noise(samples_S, random.uniform(*NOISE_DB), random) for samples_S in clean]
    seen_NF = np.stack([features(samples_S, settings) for samples_S in clean + noisy])

    def machine(names: tuple[str, ...], values_N: np.ndarray) -> Pipeline | None:
        if not names:
            return None
        return make_pipeline(StandardScaler(), SVC(C=PENALTY)).fit(seen_NF, np.tile(values_N, 2))

    label = machine(dataset.classes, dataset.train.labels)
    return Classifiers(settings=settings, label=label, speaker=machine(dataset.speakers, dataset.train.speakers))
