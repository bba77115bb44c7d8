"""Spectral distances: torchaudio's spectrogram, padding that changes nothing, gradients that lead downhill."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from twostage.data.audio.spectral import (
    LogMelSettings,
    log_mel,
    log_mel_distance,
    log_mel_settings,
    multi_resolution_stft_loss,
    waveform,
)

SETTINGS = LogMelSettings()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask_of(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def test_waveform_is_exact() -> None:
    levels = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    wave = waveform(levels)
    assert (wave.min().item(), wave.max().item()) == (-1.0, 32767 / 32768)
    assert torch.equal((wave * 32768).round().to(torch.int32), levels.to(torch.int32))


def test_log_mel_is_torchaudios() -> None:
    from torchaudio.transforms import MelSpectrogram

    theirs = MelSpectrogram(8000, n_fft=256, hop_length=64, n_mels=64, center=True, pad_mode="constant")
    wave_BS = noise(2, 1000)
    expected_BMT = theirs(wave_BS).clamp(min=1e-5).log()
    got_BMT = log_mel(wave_BS, SETTINGS)
    assert got_BMT.shape == (2, 64, 1 + 1000 // 64)
    torch.testing.assert_close(got_BMT, expected_BMT)
    assert log_mel(torch.zeros(1, 500), SETTINGS).unique().tolist() == [pytest.approx(math.log(1e-5))]


def test_the_distance_is_that_of_the_spectrograms() -> None:
    first, second = noise(1, 700), noise(1, 700, seed=1)
    whole = torch.ones(1, 700, dtype=torch.bool)
    expected = (log_mel(first, SETTINGS) - log_mel(second, SETTINGS)).abs().mean()
    assert log_mel_distance(first, second, whole, SETTINGS).item() == pytest.approx(expected.item())
    assert log_mel_distance(first, first, whole, SETTINGS).item() == 0.0
    # Ten times the power is ln 10 everywhere.
    louder = log_mel_distance(first, first * math.sqrt(10), whole, SETTINGS).item()
    assert louder == pytest.approx(math.log(10), rel=1e-4)


@pytest.mark.parametrize("measure", ["log-mel", "stft"])
@pytest.mark.parametrize("lengths", [[700, 64, 1], [129, 63, 500]])
def test_padding_changes_nothing_whatever_it_holds(measure: str, lengths: list[int]) -> None:
    def measured(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
        if measure == "log-mel":
            return log_mel_distance(first, second, mask, SETTINGS)
        return multi_resolution_stft_loss(first, second, mask)

    first, second = noise(3, 1024), noise(3, 1024, seed=1)
    first[2, 900:] = math.nan
    batch = measured(first, second, mask_of(lengths, 1024))
    for row, length in enumerate(lengths):
        part = slice(row, row + 1), slice(length)
        alone = measured(first[part], second[part], mask_of([length], length))
        torch.testing.assert_close(batch[row : row + 1], alone, rtol=1e-5, atol=1e-6)


def test_the_loss_is_spectral_convergence_plus_log_magnitude_distance() -> None:
    """One resolution, written out frame by frame."""
    estimate, target = noise(1, 300), noise(1, 300, seed=1)
    window = np.hanning(129)[:-1]
    magnitudes = []
    for wave in (estimate, target):
        padded = np.pad(wave[0].double().numpy(), 64)
        frames = [np.fft.rfft(padded[32 * t : 32 * t + 128] * window) for t in range(1 + 300 // 32)]
        magnitudes.append(np.maximum(np.abs(frames), math.sqrt(1e-7)))
    ours, theirs = magnitudes
    convergence = np.linalg.norm(theirs - ours) / np.linalg.norm(theirs)
    expected = convergence + np.abs(np.log(ours) - np.log(theirs)).mean()
    loss = multi_resolution_stft_loss(estimate, target, torch.ones(1, 300, dtype=torch.bool), resolutions=((128, 32),))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_no_gradient_reaches_padding() -> None:
    estimate = noise(2, 600).requires_grad_()
    mask = mask_of([300, 600], 600)
    multi_resolution_stft_loss(estimate, noise(2, 600, seed=1), mask).sum().backward()
    assert estimate.grad is not None
    assert not estimate.grad[~mask].any()
    assert estimate.grad[mask].ne(0).float().mean() > 0.99


@pytest.mark.parametrize("target", [torch.zeros(1, 512), noise(1, 512)], ids=["silence", "noise"])
def test_the_loss_is_zero_for_equals_and_its_gradient_finite(target: Tensor) -> None:
    estimate = target.clone().requires_grad_()
    loss = multi_resolution_stft_loss(estimate, target, torch.ones(1, 512, dtype=torch.bool))
    loss.sum().backward()
    assert loss.item() == 0.0
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()


def test_the_loss_hears_pitch_and_loudness_but_not_phase() -> None:
    time = torch.arange(2048) / 8000
    target, shifted, higher = (torch.sin(2 * math.pi * f * time + p)[None] for f, p in ((440, 0), (440, 1), (660, 0)))
    whole = torch.ones(1, 2048, dtype=torch.bool)
    near, far = (multi_resolution_stft_loss(other, target, whole).item() for other in (shifted, higher))
    assert near < 0.3 * far
    for gain, sign in ((0.5, -1), (1.5, 1)):
        factor = torch.tensor(gain, requires_grad=True)
        multi_resolution_stft_loss(factor * shifted, target, whole).sum().backward()
        assert factor.grad is not None
        assert factor.grad.sign().item() == sign


def test_autocast_changes_nothing() -> None:
    first, second = noise(1, 600), noise(1, 600, seed=1)
    whole = torch.ones(1, 600, dtype=torch.bool)
    plain = multi_resolution_stft_loss(first, second, whole), log_mel_distance(first, second, whole, SETTINGS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = multi_resolution_stft_loss(first, second, whole), log_mel_distance(first, second, whole, SETTINGS)
    assert [value.item() for value in plain] == [value.item() for value in cast]


def test_more_mels_than_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than 200 mels"):
        log_mel(noise(1, 600), LogMelSettings(mels=200))


@pytest.mark.parametrize("rate_hz", [1000, 1449, 2000, 2828, 4000, 5656, 5657, 8000, 16000, 192_000])
def test_every_rate_that_a_recipe_admits_has_a_spectrogram(rate_hz: int) -> None:
    settings = log_mel_settings(rate_hz)
    assert log_mel(noise(1, 600), settings).shape[1] == settings.mels
    assert settings.mels == 64 or rate_hz < 5700
