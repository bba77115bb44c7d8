"""Damages do what their names say and nothing else."""

import numpy as np
import pytest
import torch
from damaged_sounds import damages, resynthesised, with_noise

from twostage.data.audio import load_synthetic_vowels
from twostage.data.audio.spectral import LogMelSettings, log_mel_distance, waveform

SETTINGS = LogMelSettings()
VOWELS = load_synthetic_vowels()
SOUND = VOWELS.test.recording(0)


def distance(first_S: np.ndarray, second_S: np.ndarray) -> float:
    first_1S, second_1S = (waveform(torch.from_numpy(sound))[None] for sound in (first_S, second_S))
    return float(log_mel_distance(first_1S, second_1S, torch.ones_like(first_1S, dtype=torch.bool), SETTINGS))


def correlation(first_S: np.ndarray, second_S: np.ndarray) -> float:
    return abs(float(np.corrcoef(first_S, second_S)[0, 1]))


def test_a_new_sound_has_the_old_spectrum_and_other_phases() -> None:
    """As near as phases that frames agree on can make it: a synthetic vowel has deep valleys, which they fill."""
    new_S, random_S = (resynthesised(SOUND, SETTINGS, rounds=rounds) for rounds in (32, 0))
    assert new_S.dtype == random_S.dtype == np.int16
    assert len(new_S) == len(random_S) == len(SOUND)
    other = VOWELS.test.recording(30)[: len(SOUND)]
    assert distance(SOUND, new_S) < 0.7 * distance(SOUND, random_S)
    assert distance(SOUND, new_S) < 0.6 * distance(SOUND[: len(other)], other)
    assert correlation(SOUND, new_S) < 0.6


@pytest.mark.parametrize("blur", [{"frames": 25}, {"mels": 5}])
def test_blur_moves_the_spectrum(blur: dict[str, int]) -> None:
    plain, blurred = (resynthesised(SOUND, SETTINGS, rounds=32, **how) for how in ({}, blur))
    assert distance(SOUND, blurred) > 1.2 * distance(SOUND, plain)


def test_the_same_sound_comes_out_twice_and_torch_draws_on_as_before() -> None:
    torch.manual_seed(5)
    first = resynthesised(SOUND, SETTINGS, rounds=0)
    drawn = torch.rand(1)
    np.testing.assert_array_equal(resynthesised(SOUND, SETTINGS, rounds=0), first)
    torch.manual_seed(5)
    assert torch.rand(1) == drawn


def test_a_sound_shorter_than_a_window_keeps_its_length() -> None:
    assert len(resynthesised(SOUND[:50], SETTINGS, rounds=2)) == 50


def test_noise_is_as_loud_as_it_says() -> None:
    noise_S = with_noise(SOUND, 20.0, np.random.default_rng(0)).astype(float) - SOUND
    assert 10 * np.log10(np.mean(SOUND.astype(float) ** 2) / np.mean(noise_S**2)) == pytest.approx(20.0, abs=0.3)


def test_every_recording_is_damaged_in_every_way() -> None:
    sounds = [SOUND, SOUND[:900]]
    found = damages(sounds, SETTINGS)
    assert len(found) == 11
    assert all(len(damaged) == 2 and not np.array_equal(damaged[0], SOUND) for damaged in found.values())
    np.testing.assert_array_equal(found["6 dB louder"][0], np.clip(2 * SOUND.astype(int), -32768, 32767))
    np.testing.assert_array_equal(found["0.1 s of silence before and after"][1][800:1700], sounds[1])
