"""Synthetic vowels: 600 short sounds with a known label and a known speaker, made here, available offline.

A sound is a train of pulses (the voice, at the speaker's pitch) through three resonators in parallel (the formants of
the vowel), with soft ends and a little noise: the source-filter model of speech (Fant 1960) at its plainest, not
speech. Formants are those of Peterson and Barney's (1952) men, rounded, o and u spread; per sound formants are moved
by up to 3 %, pitch by up to 4 %, and pitch glides by up to 8 %.

Random numbers come from the raw stream of numpy's Philox, keyed by the seed and the sound's name, so that a sound does
not depend on the others.

Split: of the 40 sounds of every pair of vowel and speaker the first 4 are test, the next 4 validation.
"""

import hashlib

import numpy as np

from twostage.data.audio.dataset import AudioDataset, AudioSplit

SAMPLE_RATE_HZ = 8000
FORMANTS_HZ = {
    "a": (730.0, 1090.0, 2440.0),
    "e": (530.0, 1840.0, 2480.0),
    "i": (270.0, 2290.0, 3010.0),
    "o": (500.0, 850.0, 2410.0),
    "u": (320.0, 1150.0, 2240.0),
}
PITCHES_HZ = {"high": 235.0, "low": 105.0, "middle": 160.0}
PER_PAIR = 40
_SEED = "twostage vowels 1"
_BANDWIDTHS_HZ = (60.0, 90.0, 120.0)
_STRENGTHS = (1.0, 0.6, 0.3)
_RINGING_SAMPLES = 400  # 50 ms: the narrowest resonance has fallen to 1e-4
_NOISE_LEVELS = 24.0
_HELD_OUT = {"test": range(4), "validation": range(4, 8), "train": range(8, PER_PAIR)}


def load_synthetic_vowels(*, seed: int = 0) -> AudioDataset:
    """600 synthetic vowels of 0.25 to 0.6 seconds, 16 bits, 8 kHz: 480 / 60 / 60; the same for the same seed.

    Args:
        seed: of everything that varies; another one gives other sounds under the same names.
    """
    classes, speakers = tuple(FORMANTS_HZ), tuple(PITCHES_HZ)
    splits = {}
    for split, indices in _HELD_OUT.items():
        keys = [(vowel, speaker, index) for vowel in classes for speaker in speakers for index in indices]
        names = tuple(f"{vowel}_{speaker}_{index}" for vowel, speaker, index in keys)
        sounds = [_sound(seed, name, *key[:2]) for name, key in zip(names, keys, strict=True)]
        splits[split] = AudioSplit(
            samples=np.concatenate(sounds),
            offsets=np.cumsum([0, *map(len, sounds)], dtype=np.int64),
            labels=np.array([classes.index(vowel) for vowel, _, _ in keys], dtype=np.int64),
            speakers=np.array([speakers.index(speaker) for _, speaker, _ in keys], dtype=np.int64),
            names=names,
        )
    return AudioDataset(
        name="synthetic-vowels",
        sample_rate_hz=SAMPLE_RATE_HZ,
        classes=classes,
        speakers=speakers,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        split_rule="test: 4 of 40 sounds per vowel and speaker; validation: 4 others",
    )


def _sound(seed: int, name: str, vowel: str, speaker: str) -> np.ndarray:
    """int16 samples of one vowel."""
    key = int.from_bytes(hashlib.sha256(f"{_SEED} {seed} {name}".encode()).digest()[:16], "little")
    stream = np.random.Philox(key=key)

    def uniform(count: int) -> np.ndarray:
        return (stream.random_raw(count) >> np.uint64(11)) * 2.0**-53

    duration, pitch, glide, loudness, *formants = uniform(7)
    length = round((0.25 + 0.35 * duration) * SAMPLE_RATE_HZ)
    pitch_hz = PITCHES_HZ[speaker] * (0.96 + 0.08 * pitch)
    formants_hz = [centre * (0.97 + 0.06 * draw) for centre, draw in zip(FORMANTS_HZ[vowel], formants, strict=True)]
    bend = 0.16 * (glide - 0.5)
    cycles_S = np.cumsum(pitch_hz * (1 + bend * np.linspace(-1, 1, length))) / SAMPLE_RATE_HZ
    voiced_S = _convolved(_pulses(cycles_S), _ringing(formants_hz)) * _envelope(length)
    voiced_S *= (0.25 + 0.45 * loudness) * 32768 / np.abs(voiced_S).max()
    noise_S = _NOISE_LEVELS * (uniform(length) - uniform(length))
    return np.rint(voiced_S + noise_S).astype(np.int16)


def _pulses(cycles_S: np.ndarray) -> np.ndarray:
    """One pulse per whole cycle, shared by the two samples around its time: rounding it would be heard as hoarse."""
    whole_S = np.floor(cycles_S).astype(np.int64)
    at = np.flatnonzero(np.diff(whole_S)) + 1
    early = (cycles_S[at] - whole_S[at]) / (cycles_S[at] - cycles_S[at - 1])
    pulses_S = np.zeros(len(cycles_S))
    pulses_S[at] += 1 - early
    pulses_S[at - 1] += early
    return pulses_S


def _ringing(formants_hz: list[float]) -> np.ndarray:
    """What the resonators answer to one pulse, float64."""
    seconds = np.arange(_RINGING_SAMPLES) / SAMPLE_RATE_HZ
    rings = [
        strength * np.exp(-np.pi * bandwidth * seconds) * np.sin(2 * np.pi * centre * seconds)
        for centre, bandwidth, strength in zip(formants_hz, _BANDWIDTHS_HZ, _STRENGTHS, strict=True)
    ]
    return np.sum(rings, axis=0)


def _convolved(pulses_S: np.ndarray, ringing: np.ndarray) -> np.ndarray:
    """The resonators' answer to all pulses, as long as these; by Fourier transform, several times faster."""
    padded = 1 << (len(pulses_S) + len(ringing)).bit_length()
    spectrum = np.fft.rfft(pulses_S, padded) * np.fft.rfft(ringing, padded)
    return np.fft.irfft(spectrum, padded)[: len(pulses_S)]


def _envelope(length: int) -> np.ndarray:
    """Half cosines: 20 ms up, 60 ms down."""
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    rise = np.clip(seconds / 0.02, 0, 1)
    fall = np.clip((seconds[-1] - seconds) / 0.06, 0, 1)
    return (0.5 - 0.5 * np.cos(np.pi * rise)) * (0.5 - 0.5 * np.cos(np.pi * fall))
