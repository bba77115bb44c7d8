"""Bits of recordings: every figure against a plain loop over recordings."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from stage1_vqvae import AudioVQVAE
from stage2_prior import WaveNet
from twostage.data.audio import AudioSplit, whole_batch
from twostage.data.audio.spectral import log_mel_settings
from twostage.metrics.statistics import ratio_error
from twostage_pipelines.bits.audio import (
    Device,
    audio_distortion,
    convolutional_log_mel,
    prior_bits,
    repeated,
    swapped_codes,
    unigram_bits,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codes() -> tuple[np.ndarray, np.ndarray]:
    """Codes [7, 2, 6] of 5, and their lengths; what lies behind the end is 0."""
    generator = np.random.default_rng(0)
    lengths = np.array([3, 6, 1, 4, 6, 2, 5])
    found = generator.integers(0, 5, (7, 2, 6))
    return np.where(np.arange(6) < lengths[:, None, None], found, 0), lengths


def test_unigram_bits_are_those_of_smoothed_training_frequencies(codes: tuple[np.ndarray, np.ndarray]) -> None:
    own, lengths = codes
    train, train_lengths = own[:4], lengths[:4]
    expected = np.zeros(len(own))
    for group in range(2):
        counts = np.ones(5)
        for item, length in enumerate(train_lengths):
            for position in range(length):
                counts[train[item, group, position]] += 1
        for item, length in enumerate(lengths):
            expected[item] -= sum(np.log2(counts[own[item, group, t]] / counts.sum()) for t in range(length))
    assert unigram_bits(own, lengths, train, train_lengths, 5) == pytest.approx(expected)


def test_prior_bits_are_those_of_every_item_alone(codes: tuple[np.ndarray, np.ndarray]) -> None:
    own, lengths = codes
    torch.manual_seed(0)
    prior = WaveNet(codebook_size=5, codebooks=2, max_length=8, classes=(3,), channels=6, blocks=1, layers_per_block=2)
    prior.eval()
    condition = (np.arange(7) % 3)[:, None]
    codes_bits, end_bits = prior_bits(prior, own, lengths, condition, device=CPU, batch_size=3)
    for item, length in enumerate(lengths):
        alone = torch.from_numpy(own[item : item + 1, :, :length])
        with torch.no_grad():
            parts = prior.log_prob_parts(alone, torch.from_numpy(condition[item : item + 1]))
        assert codes_bits[item] == pytest.approx(-float(parts.codes_B) / math.log(2), abs=1e-5)
        assert end_bits[item] == pytest.approx(-float(parts.end_B) / math.log(2), abs=1e-5)


def test_swapped_codes_are_another_items_at_the_own_length(codes: tuple[np.ndarray, np.ndarray]) -> None:
    own, lengths = codes
    swapped = swapped_codes(own, lengths)
    for item, length in enumerate(lengths):
        assert (swapped[item, :, length:] == 0).all()
        partners = [
            other
            for other in range(7)
            if np.array_equal(swapped[item, :, :length], repeated(own[other, :, : lengths[other]], int(length)))
        ]
        assert any(other != item for other in partners)
    assert repeated(np.array([[1, 2, 3]]), 7).tolist() == [[1, 2, 3, 1, 2, 3, 1]]


def test_the_error_of_bits_per_sample_is_that_of_a_ratio() -> None:
    generator = np.random.default_rng(1)
    samples = generator.integers(100, 1000, 400)
    bits = samples * 3.0 + generator.normal(0, 50, 400)
    resampled = []
    for _ in range(2000):
        rows = generator.integers(0, 400, 400)
        resampled.append(bits[rows].sum() / samples[rows].sum())
    assert ratio_error(bits, samples) == pytest.approx(np.std(resampled), rel=0.1)
    # Longer recordings cost more bits; that alone is no uncertainty about bits per sample.
    assert ratio_error(samples * 3.0, samples) == pytest.approx(0.0, abs=1e-12)
    assert ratio_error(bits[:1], samples[:1]) is None


@pytest.fixture(scope="module")
def model(split: AudioSplit) -> AudioVQVAE:
    torch.manual_seed(0)
    model = AudioVQVAE(
        mixtures=2, downsampling_layers=4, channels=8, residual_blocks=1, residual_channels=4, head_channels=4,
        embedding_dim=4, codebook_size=6,
    ).eval()  # fmt: skip
    batch = whole_batch(split, range(5), multiple=16)
    model.initialise_codebook(torch.from_numpy(batch.samples), torch.from_numpy(batch.mask), seed=0)
    return model


@pytest.fixture(scope="module")
def split() -> AudioSplit:
    """Recordings of 5, 40, 16, 33 samples and of one."""
    generator = np.random.default_rng(2)
    lengths = np.array([5, 40, 16, 33, 1])
    return AudioSplit(
        samples=generator.integers(-2000, 2000, lengths.sum()).astype(np.int16),
        offsets=np.array([0, *lengths.cumsum()]),
        labels=np.zeros(5, np.int64),
        speakers=np.zeros(5, np.int64),
        names=tuple("abcde"),
    )


def test_distortion_does_not_depend_on_the_batches(model: AudioVQVAE, split: AudioSplit) -> None:
    codes = np.random.default_rng(3).integers(0, 6, (5, 1, 3))
    together, apart = (
        audio_distortion(model, None, split, codes, where=Device(CPU, most), label="distortion") for most in (1000, 1)
    )
    assert together == pytest.approx(apart, rel=1e-5)
    assert (together > 0).all()


def test_processes_measure_every_recording_once(
    model: AudioVQVAE, split: AudioSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two processes leave at zero for each other, added, is to the bit what one process measures."""
    codes = np.random.default_rng(3).integers(1, 6, (5, 1, 3))
    where, settings = Device(CPU, 45), log_mel_settings(8000)
    prior = WaveNet(codebook_size=6, max_length=4, channels=4, blocks=1, layers_per_block=2).eval()
    lengths, nothing = -(-split.lengths // model.stride), np.zeros((5, 0), np.int64)
    measures: list[Callable[[], np.ndarray]] = [
        lambda: audio_distortion(model, None, split, codes, where=where, label="x"),
        lambda: convolutional_log_mel(model, split, codes, settings=settings, where=where),
        lambda: prior_bits(prior, codes, lengths, nothing, device=CPU, batch_size=2)[0],
    ]
    alone = [measure() for measure in measures]
    monkeypatch.setattr("twostage.distributed.world_size", lambda: 2)
    monkeypatch.setattr("twostage_pipelines.bits.audio.sum_over_ranks", lambda *tensors: list(tensors))
    shares = []
    for number in range(2):
        monkeypatch.setattr("twostage.distributed.rank", lambda number=number: number)
        shares.append([measure() for measure in measures])
    for first, second, whole in zip(*shares, alone, strict=True):
        assert np.array_equal(first + second, whole)
        assert not (first != 0).all()
        assert not np.array_equal(first, whole)
