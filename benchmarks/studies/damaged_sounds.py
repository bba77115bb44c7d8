"""Recordings damaged in known ways: what a fair classifier of synthesised sounds has to bear.

Some of the ways keep a log-mel spectrogram and invent the phases, as a decoder does that is trained on spectra, or blur
it first, as one does that is unsure. Phases come from torchaudio's Griffin-Lim (fast variant, Perraudin et al. 2013),
or are random, so that overlapping frames disagree.

Shapes: S samples, M mels, Q frequency bins, T frames.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from twostage.data.audio import mulaw
from twostage.data.audio.libraries import load_torchaudio
from twostage.data.audio.spectral import LogMelSettings, log_mel, waveform


def with_noise(samples_S: np.ndarray, noise_db: float, random: np.random.Generator) -> np.ndarray:
    """int16 recording with white noise so many dB below it."""
    scale = np.sqrt(np.mean(samples_S.astype(np.float64) ** 2)) * 10 ** (-noise_db / 20)
    return to_int16(samples_S + random.normal(scale=scale, size=len(samples_S)))


def to_int16(values_S: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values_S), -32768, 32767).astype(np.int16)


def damages(recordings: Sequence[np.ndarray], settings: LogMelSettings) -> dict[str, list[np.ndarray]]:
    """int16 recordings after each of several known damages, by its name; spectrograms have these settings."""
    random = np.random.default_rng(0)
    silence = np.zeros(settings.sample_rate_hz // 10, dtype=np.int16)
    plain = {
        "mu-law and back": lambda x: mulaw.to_samples(mulaw.to_levels(x)),
        "6 dB louder": lambda x: to_int16(2.0 * x),
        "6 dB quieter": lambda x: to_int16(0.5 * x),
        "noise at 30 dB": lambda x: with_noise(x, 30, random),
        "noise at 20 dB": lambda x: with_noise(x, 20, random),
        "0.1 s of silence before and after": lambda x: np.concatenate([silence, x, silence]),
        "log-mel, Griffin-Lim (32 rounds)": lambda x: resynthesised(x, settings, rounds=32),
        "log-mel, Griffin-Lim (2 rounds)": lambda x: resynthesised(x, settings, rounds=2),
        "log-mel, random phases": lambda x: resynthesised(x, settings, rounds=0),
        "log-mel, mean of 5 frames, Griffin-Lim": lambda x: resynthesised(x, settings, rounds=32, frames=5),
        "log-mel, mean of 5 mels, Griffin-Lim": lambda x: resynthesised(x, settings, rounds=32, mels=5),
    }
    return {name: [damage(samples_S) for samples_S in recordings] for name, damage in plain.items()}


def resynthesised(
    samples_S: np.ndarray, settings: LogMelSettings, *, rounds: int, frames: int = 1, mels: int = 1
) -> np.ndarray:
    """int16 recording of the same log-mel spectrogram with other phases.

    Args:
        samples_S: int16.
        settings: of the spectrogram.
        rounds: of Griffin-Lim; 0: random phases, which no two frames agree on.
        frames: odd; the spectrogram is first averaged over so many of them, and over so many mels.
        mels: as `frames`.
    """
    n_fft, hop, length = settings.n_fft, settings.hop, len(samples_S)
    wave_S = F.pad(waveform(torch.from_numpy(samples_S)), (0, max(0, n_fft - length)))
    mel_1MT = log_mel(wave_S[None], settings)
    mel_1MT = F.avg_pool2d(mel_1MT, (mels, frames), 1, (mels // 2, frames // 2), count_include_pad=False)
    inverse = load_torchaudio("transforms").InverseMelScale
    linear = inverse(n_fft // 2 + 1, settings.mels, settings.sample_rate_hz, driver="gelsd")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        power_QT, window = linear(mel_1MT.exp())[0], torch.hann_window(n_fft)
        if rounds:
            griffin_lim = load_torchaudio("functional").griffinlim
            sound_S = griffin_lim(power_QT, window, n_fft, hop, n_fft, 2.0, rounds, 0.99, len(wave_S), True)
        else:
            spectrum_QT = torch.polar(power_QT.sqrt(), torch.rand_like(power_QT) * 2 * math.pi)
            sound_S = torch.istft(spectrum_QT, n_fft, hop, window=window, length=len(wave_S))
    return to_int16(32768.0 * sound_S[:length].double().numpy())
