"""Synthetic vowels: the same ones for the same seed, in fixed splits, with labels and speakers that can be heard."""

import numpy as np
import pytest

from twostage.data.audio import AudioDataset, AudioSplit, load_synthetic_vowels
from twostage.data.audio.synthetic import PITCHES_HZ


@pytest.fixture(scope="module")
def vowels() -> AudioDataset:
    return load_synthetic_vowels()


def test_sizes_and_splits(vowels: AudioDataset) -> None:
    assert "synthetic" in vowels.name
    assert [len(split) for split in (vowels.train, vowels.validation, vowels.test)] == [480, 60, 60]
    for split in (vowels.train, vowels.validation, vowels.test):
        pairs = np.bincount(split.labels * 3 + split.speakers)
        assert set(pairs.tolist()) == {len(split) // 15}
        for name, label, speaker in zip(split.names, split.labels, split.speakers, strict=True):
            assert name.split("_")[:2] == [vowels.classes[label], vowels.speakers[speaker]]
    names = vowels.train.names + vowels.validation.names + vowels.test.names
    assert len(set(names)) == 600
    seconds = vowels.durations_seconds("train")
    assert 0.25 <= seconds.min() < 0.27 < 0.58 < seconds.max() <= 0.6


def test_the_same_seed_gives_the_same_sounds(vowels: AudioDataset) -> None:
    assert vowels.sha256[:12] == "beebfde3ecd8"
    assert load_synthetic_vowels(seed=1).sha256 != vowels.sha256


def test_nothing_clips_and_nothing_is_silent(vowels: AudioDataset) -> None:
    for samples in vowels.train.recordings():
        assert 0.2 * 32768 < np.abs(samples.astype(int)).max() < 0.75 * 32768
    assert len({samples.tobytes() for samples in vowels.train.recordings()}) == 480


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Loudness in bands of 125 Hz, dB, without the mean: what vowels differ in."""
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8192)) ** 2
    bands = 10 * np.log10(power[:4096].reshape(32, 128).sum(1))
    return bands - bands.mean()


def pitch_hz(samples: np.ndarray) -> float:
    """From the highest peak of the autocorrelation between 80 and 300 Hz."""
    middle = samples[400:-500].astype(float)
    correlation = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    low, high = 8000 // 300, 8000 // 80
    return 8000 / (low + int(correlation[low:high].argmax()))


def test_vowels_can_be_told_apart_whoever_speaks(vowels: AudioDataset) -> None:
    def features(split: AudioSplit) -> np.ndarray:
        return np.stack([spectrum(samples) for samples in split.recordings()])

    centres = np.stack([features(vowels.train)[vowels.train.labels == label].mean(0) for label in range(5)])
    distances = ((features(vowels.test)[:, None] - centres) ** 2).sum(-1)
    assert (distances.argmin(1) == vowels.test.labels).mean() > 0.95


def test_speakers_have_their_pitch(vowels: AudioDataset) -> None:
    for samples, speaker in zip(vowels.test.recordings(), vowels.test.speakers, strict=True):
        expected = PITCHES_HZ[vowels.speakers[speaker]]
        assert abs(pitch_hz(samples) / expected - 1) < 0.13
