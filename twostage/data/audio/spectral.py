"""Spectra: log-mel spectrograms, the distance between two of them, and a spectral training loss.

Waveforms are float32 in [-1, 1): 16-bit samples divided by 32768. The log-mel spectrogram is the natural logarithm of
the power of a Hann-windowed, unnormalised short-time Fourier transform in HTK-mel triangles (torchaudio's defaults),
not less than a floor. The training loss is that of Yamamoto et al. 2020 (Parallel WaveGAN, arXiv 1910.11480, equations
3 to 6): spectral convergence plus log-magnitude L1, averaged over resolutions; windows fill their transforms.

Masks: recordings of unequal length come padded at the end. The transform is centred and padded with silence, padding is
silenced before it, and frame t counts where t*hop is within the recording or right at its end: an item has the same
frames, of the same values, alone and beside longer ones. All of it in fp32, also under autocast.

Shapes: B items, S samples, T frames, Q frequency bins, M mels.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from twostage.data.audio.libraries import load_torchaudio

RESOLUTIONS = ((512, 128), (256, 64), (128, 32))
"""(length of the transform, hop) in samples; at 8 kHz windows of 64, 32 and 16 ms."""
_LEAST_POWER = 1e-7  # as in the paper's code; keeps the square root and the logarithm differentiable


@dataclass(frozen=True)
class LogMelSettings:
    """Everything a log-mel distance depends on; to be stated beside it."""

    sample_rate_hz: int = 8000
    n_fft: int = 256
    """Length of the window and the transform in samples."""
    hop: int = 64
    """Samples between frames."""
    mels: int = 64
    """Triangles from 0 Hz to half the rate."""
    floor: float = 1e-5
    """Least power before the logarithm."""


def log_mel_settings(sample_rate_hz: int) -> LogMelSettings:
    """Settings for a rate: windows of about 32 ms (a power of two of samples) every quarter of one.

    64 mels, or fewer at rates below 5.7 kHz, where the lowest of them would hold no frequency bin.
    """
    n_fft = 2 ** round(math.log2(0.032 * sample_rate_hz))
    return LogMelSettings(sample_rate_hz=sample_rate_hz, n_fft=n_fft, hop=n_fft // 4, mels=min(64, n_fft // 4))


def waveform(samples: Tensor) -> Tensor:
    """16-bit samples of any shape as float32 in [-1, 1)."""
    return samples.float() / 32768.0


def log_mel(wave_BS: Tensor, settings: LogMelSettings) -> Tensor:
    """Log-mel spectrogram in nats, `[B, M, T]` with T = 1 + S//hop, fp32.

    Raises:
        RunError: torchaudio cannot be loaded.
        ValueError: so many mels that one holds no frequency bin.
    """
    with torch.autocast(wave_BS.device.type, enabled=False):
        power_BQT = _power(wave_BS, settings.n_fft, settings.hop)
        mel_BMT = _filters(settings).to(power_BQT.device) @ power_BQT
        return mel_BMT.clamp(min=settings.floor).log()


def log_mel_distance(first_BS: Tensor, second_BS: Tensor, mask_BS: Tensor, settings: LogMelSettings) -> Tensor:
    """Mean absolute difference of the log-mel spectrograms over the frames and mels of each item, in nats, `[B]`.

    Args:
        first_BS: waveforms.
        second_BS: waveforms to compare with them.
        mask_BS: bool, true for samples, which come first; what lies behind is not looked at.
        settings: of the spectrograms.
    """
    first_BMT, second_BMT = (log_mel(wave.masked_fill(~mask_BS, 0.0), settings) for wave in (first_BS, second_BS))
    return _frame_mean((first_BMT - second_BMT).abs(), mask_BS, settings.hop)


def multi_resolution_stft_loss(
    estimate_BS: Tensor,
    target_BS: Tensor,
    mask_BS: Tensor,
    *,
    resolutions: Sequence[tuple[int, int]] = RESOLUTIONS,
) -> Tensor:
    """Spectral convergence plus L1 of log-magnitudes, mean over resolutions, `[B]`, fp32; zero for equal waveforms.

    Args:
        estimate_BS: waveforms that learn.
        target_BS: waveforms to come near.
        mask_BS: bool, true for samples, which come first.
        resolutions: (length of the transform, hop) in samples.
    """
    losses = []
    with torch.autocast(estimate_BS.device.type, enabled=False):
        estimate_BS, target_BS = (wave.float().masked_fill(~mask_BS, 0.0) for wave in (estimate_BS, target_BS))
        for n_fft, hop in resolutions:
            estimate_BQT, target_BQT = (
                _power(wave, n_fft, hop).clamp(min=_LEAST_POWER).sqrt() for wave in (estimate_BS, target_BS)
            )
            frames_B1T = _frames(mask_BS, hop)[:, None]
            error_B = ((target_BQT - estimate_BQT) * frames_B1T).flatten(1).norm(dim=1)
            convergence_B = error_B / (target_BQT * frames_B1T).flatten(1).norm(dim=1)
            difference_BQT = (target_BQT.log() - estimate_BQT.log()).abs()
            losses.append(convergence_B + _frame_mean(difference_BQT, mask_BS, hop))
    return torch.stack(losses).mean(0)


def _power(wave_BS: Tensor, n_fft: int, hop: int) -> Tensor:
    """|STFT|^2, `[B, Q, T]`, fp32."""
    window = torch.hann_window(n_fft, device=wave_BS.device)
    spectrum_BQT = torch.stft(
        wave_BS.float(), n_fft, hop_length=hop, window=window, center=True, pad_mode="constant", return_complex=True
    )
    return spectrum_BQT.real.square() + spectrum_BQT.imag.square()


def _frames(mask_BS: Tensor, hop: int) -> Tensor:
    """Which frames count, bool `[B, T]`."""
    last_B = mask_BS.sum(1) // hop
    return torch.arange(1 + mask_BS.shape[1] // hop, device=mask_BS.device) <= last_B[:, None]


def _frame_mean(values_BQT: Tensor, mask_BS: Tensor, hop: int) -> Tensor:
    """Mean over the bins of the frames that count, `[B]`."""
    frames_BT = _frames(mask_BS, hop)
    return (values_BQT.mean(1) * frames_BT).sum(1) / frames_BT.sum(1)


@lru_cache(maxsize=8)
def _filters(settings: LogMelSettings) -> Tensor:
    """Triangles, `[M, Q]`, fp32."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty triangles, which are an error below
        filters_QM: Tensor = load_torchaudio("functional").melscale_fbanks(
            settings.n_fft // 2 + 1, 0.0, settings.sample_rate_hz / 2, settings.mels, settings.sample_rate_hz
        )
    if not (filters_QM.amax(0) > 0).all():
        raise ValueError(f"expected fewer than {settings.mels} mels for a transform of {settings.n_fft} samples")
    return filters_QM.T.contiguous()
