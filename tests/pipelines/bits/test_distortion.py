"""Bits and errors of items against slow plain computations, of images and of recordings."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, VQVAE, AudioVQVAE
from stage1_vqvae.images.vimco import VIMCO
from stage1_vqvae.interface import Stage1Model
from stage2_prior import WaveNet
from twostage.config.schema import EvaluationConfig, Recipe
from twostage.data import Split
from twostage.data.audio import AudioSplit, whole_batch
from twostage.metrics.statistics import swap_partners
from twostage_pipelines.bits.distortion import (
    Batches,
    bound_bits,
    distortion_bits,
    drawn_codes,
    reconstruction_numbers,
    swapped_codes,
)
from twostage_pipelines.bits.rate import learned_rate
from twostage_pipelines.modality.audio_files import AudioFiles
from twostage_pipelines.modality.encoding import encode_split
from twostage_pipelines.modality.image_files import ImageFiles

CPU = torch.device("cpu")
SHAPE: dict[str, tuple[int, int, int]] = {"image_shape": (1, 4, 4)}
SMALL = {"levels": 5, "downsampling": 2, "channels": 8, "head_channels": 4}


def _split(count: int) -> Split:
    images = np.random.default_rng(0).integers(0, 5, (count, 1, 4, 4), dtype=np.uint8)
    return Split(images=images, labels=np.zeros(count, np.int64))


def _batches(split: Split, model: Stage1Model, batch_size: int) -> Batches:
    recipe = Recipe(evaluation=EvaluationConfig(batch_size=batch_size))
    return ImageFiles().batches(split, model, recipe=recipe, device=CPU)


def _recipe(batch_samples: int) -> Recipe:
    return Recipe(evaluation=EvaluationConfig(batch_samples=batch_samples))


def _sounds(split: AudioSplit, model: Stage1Model, batch_samples: int) -> Batches:
    return AudioFiles().batches(split, model, recipe=_recipe(batch_samples), device=CPU)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_no_item_is_dropped_and_the_batch_size_changes_nothing(batch_size: int) -> None:
    torch.manual_seed(0)
    model, split = VQVAE(**SHAPE, **SMALL, embedding_dim=4).eval(), _split(7)
    codes = model.encode(torch.from_numpy(split.images)).numpy()
    own_N, swapped_N = distortion_bits(
        model, _batches(split, model, batch_size), codes, swapped_codes(codes, None), label="distortion"
    )
    partners = swap_partners(7)
    for item in range(7):
        x, one = torch.from_numpy(split.images[[item]]), slice(item, item + 1)
        assert own_N[item] == pytest.approx(-model.log_prob(x, torch.from_numpy(codes[one])).item() / math.log(2))
        other = torch.from_numpy(codes[partners[one]])
        assert swapped_N[item] == pytest.approx(-model.log_prob(x, other).item() / math.log(2))
    error_1N = reconstruction_numbers(
        model, _batches(split, model, batch_size), lambda batch, made: (made - batch.x).flatten(1).abs().sum(1)[None],
        numbers=1, items=7, seed=0, codes=codes,
    )  # fmt: skip
    means = model.decode(torch.from_numpy(codes)).numpy()
    np.testing.assert_allclose(error_1N[0], np.abs(means - split.images).sum((1, 2, 3)), rtol=1e-5)


def test_without_codes_items_are_decoded_from_what_the_model_says_stands_for_them() -> None:
    torch.manual_seed(0)
    model, split = VAE(**SHAPE, **SMALL).eval(), _split(5)
    error_1N = reconstruction_numbers(
        model, _batches(split, model, 2), lambda batch, made: made.flatten(1).sum(1)[None], numbers=1, items=5, seed=0
    )
    expected = model.reconstruct(torch.from_numpy(split.images)).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(error_1N[0], expected, rtol=1e-5)


def test_gaussian_bits_split_into_distortion_and_rate_and_the_tighter_bound_is_no_longer() -> None:
    torch.manual_seed(0)
    model, split = VAE(**SHAPE, **SMALL, beta=7.0).eval(), _split(9)
    bits = bound_bits(model, _batches(split, model, 4), items=9, samples=16, seed=0)
    x = torch.from_numpy(split.images)
    with torch.no_grad():
        kl_N = model.posterior(x).kl_nats().flatten(1).sum(1).numpy() / math.log(2)
    np.testing.assert_allclose(bits.rate, kl_N, rtol=1e-5)
    assert (bits.rate > 0).all()
    elbo_N = -model.bounds(x, samples=16, seed=0).elbo.numpy() / math.log(2)
    np.testing.assert_allclose(bits.distortion + bits.rate, elbo_N, rtol=1e-5)
    assert bits.tighter.mean() < (bits.distortion + bits.rate).mean()
    again = bound_bits(model, _batches(split, model, 9), items=9, samples=16, seed=0)
    np.testing.assert_allclose(bits.tighter, again.tighter, rtol=1e-5)


def test_drawn_codes_are_those_of_every_item_alone() -> None:
    torch.manual_seed(0)
    model, split = VIMCO(**SHAPE, **SMALL, embedding_dim=4, codebook_size=3, codebooks=2).eval(), _split(7)
    codes = drawn_codes(model, _batches(split, model, 3), items=7, seed=4)
    for item in range(7):
        alone = model.sample_codes(torch.from_numpy(split.images[[item]]), seed=4, first_item=item)
        assert (codes[[item]] == alone.numpy()).all()


def test_swapped_codes_of_sequences_are_another_items_at_the_own_length() -> None:
    generator, lengths = np.random.default_rng(0), np.array([3, 6, 1, 4, 6, 2, 5])
    own = np.where(np.arange(6) < lengths[:, None, None], generator.integers(0, 5, (7, 2, 6)), 0)
    swapped = swapped_codes(own, lengths)
    for item, (partner, length) in enumerate(zip(swap_partners(7), lengths, strict=True)):
        theirs = own[partner, :, : lengths[partner]]
        repeated = np.concatenate([theirs] * 6, axis=1)[:, :length]
        assert (swapped[item, :, :length] == repeated).all()
        assert (swapped[item, :, length:] == 0).all()


@pytest.fixture(scope="module")
def sounds() -> AudioSplit:
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


@pytest.fixture(scope="module")
def audio_model(sounds: AudioSplit) -> AudioVQVAE:
    torch.manual_seed(0)
    model = AudioVQVAE(
        mixtures=2, downsampling_layers=4, channels=8, residual_blocks=1, residual_channels=4, head_channels=4,
        embedding_dim=4, codebook_size=6,
    ).eval()  # fmt: skip
    batch = whole_batch(sounds, range(5), multiple=16)
    model.initialise_codebook(torch.from_numpy(batch.samples), torch.from_numpy(batch.mask), seed=0)
    return model


def test_distortion_of_recordings_does_not_depend_on_the_batches(audio_model: AudioVQVAE, sounds: AudioSplit) -> None:
    codes = np.random.default_rng(3).integers(0, 6, (5, 1, 3))
    together, apart = (
        distortion_bits(audio_model, _sounds(sounds, audio_model, most), codes, label="x")[0] for most in (1000, 1)
    )
    assert together == pytest.approx(apart, rel=1e-5)
    assert (together > 0).all()


def test_processes_measure_every_item_once(
    audio_model: AudioVQVAE, sounds: AudioSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two processes leave at zero for each other, added, is to the bit what one process measures."""
    model = audio_model
    codes = np.random.default_rng(3).integers(1, 6, (5, 1, 3))
    prior = WaveNet(codebook_size=6, max_length=4, channels=4, blocks=1, layers_per_block=2).eval()
    lengths = -(-sounds.lengths // model.stride)

    def numbers() -> np.ndarray:
        return reconstruction_numbers(
            model,
            _sounds(sounds, model, 45),
            lambda batch, made: torch.stack([made.abs().sum(1), made.square().sum(1)]),
            numbers=2,
            items=5,
            seed=0,
            codes=codes,
        )

    measures: list[Callable[[], np.ndarray]] = [
        lambda: distortion_bits(model, _sounds(sounds, model, 45), codes, label="x")[0],
        numbers,
        lambda: learned_rate(prior, codes, lengths, device=CPU, batch_size=2).bits,
        lambda: encode_split(AudioFiles(), model, sounds, label="x", recipe=_recipe(45), device=CPU)[0],
    ]
    alone = [measure() for measure in measures]
    monkeypatch.setattr("twostage.distributed.world_size", lambda: 2)
    for module in ("bits.batches", "modality.encoding"):
        monkeypatch.setattr(f"twostage_pipelines.{module}.sum_over_ranks", lambda *tensors: list(tensors))
    shares = []
    for number in range(2):
        monkeypatch.setattr("twostage.distributed.rank", lambda number=number: number)
        shares.append([measure() for measure in measures])
    for first, second, whole in zip(*shares, alone, strict=True):
        assert np.array_equal(first + second, whole)
        assert not (first != 0).all()
        assert not np.array_equal(first, whole)
