"""Test-time code search against trying every code, on models small enough to enumerate."""

import itertools

import numpy as np
import pytest
import torch

from stage1_vqvae import VQVAE, HierarchicalVQVAE
from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Codec
from stage2_prior import HierarchicalPrior, PixelCNN, Prior
from twostage_pipelines.bits.code_search import nearest_codes, search_codes
from twostage_pipelines.bits.distortion import Batches, distortion_bits
from twostage_pipelines.bits.rate import label_frequencies, learned_log_prob, learned_rate

CPU = torch.device("cpu")


def _models(*, codebooks: int = 1, classes: tuple[int, ...] = (), layers: int = 0) -> tuple[VQVAE, PixelCNN]:
    torch.manual_seed(1)
    model = VQVAE(
        image_shape=(1, 4, 4),
        levels=3,
        downsampling=2,
        channels=8,
        head_channels=6,
        residual_channels=4,
        embedding_dim=4,
        codebook_size=3,
        codebooks=codebooks,
        autoregressive_layers=layers,
        autoregressive_channels=4,
    ).eval()
    with torch.no_grad():
        model.quantiser.codebook.copy_(3 * torch.randn(codebooks, 3, 4 // codebooks))
        model.encoder.layers[-1].weight.mul_(100)  # codes that vary
        for parameter in model.decoder.likelihood.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
    prior = PixelCNN(codebook_size=3, grid=(2, 2), codebooks=codebooks, classes=classes, channels=4, layers=2).eval()
    with torch.no_grad():
        prior.head.output_weight_GSK.normal_(std=3.0)
        prior.head.output_bias_GK.normal_(std=1.0)
    return model, prior


def _batches(images: np.ndarray, batch_size: int = 64) -> Batches:
    for start in range(0, len(images), batch_size):
        x_BCHW = torch.from_numpy(images[start : start + batch_size])
        places_B = np.arange(start, start + len(x_BCHW))
        yield places_B, Batch(items=torch.from_numpy(places_B), x=x_BCHW)


def _bits(model: Codec, prior: Prior, images: np.ndarray, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    (distortion,) = distortion_bits(model, _batches(images), codes, label="distortion")
    frequencies = label_frequencies(prior, labels)
    rate = learned_rate(prior, codes, frequencies=frequencies, device=CPU, batch_size=64)
    return distortion + rate.bits


@pytest.mark.parametrize(("codebooks", "classes", "layers"), [(1, (), 0), (1, (2,), 0), (2, (), 0), (1, (), 2)])
def test_search_ends_where_no_single_code_can_be_bettered(codebooks: int, classes: tuple[int, ...], layers: int):
    model, prior = _models(codebooks=codebooks, classes=classes, layers=layers)
    labels = np.array([0, 0, 1])
    images = np.random.default_rng(0).integers(0, 3, (6, 1, 4, 4)).astype(np.uint8)
    own = model.encode(torch.from_numpy(images)).numpy()
    found = search_codes(model, prior, _batches(images, 4), items=6, train_labels=labels, candidates=3, sweeps=6)
    before, after = (_bits(model, prior, images, codes, labels) for codes in (own, found))
    assert (after <= before + 1e-6).all()
    assert after.mean() < before.mean() - 0.5
    if classes:  # the sweeps charge p(z|y) of one label, the score marginalises
        return
    for item, group, row, column, code in itertools.product(range(6), range(codebooks), range(2), range(2), range(3)):
        other = found[item : item + 1].copy()
        other[0, group, row, column] = code
        assert _bits(model, prior, images[item : item + 1], other, labels)[0] >= after[item] - 1e-4


def test_the_search_goes_through_all_levels_of_a_hierarchy() -> None:
    torch.manual_seed(1)
    model = HierarchicalVQVAE(
        image_shape=(1, 8, 8), levels=3, downsampling=2, channels=8, head_channels=6, residual_channels=4,
        embedding_dim=4, codebook_size=3,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for quantiser in model.quantisers:
            quantiser.codebook.copy_(3 * torch.randn(1, 3, 4))
        for parameter in model.decoder.likelihood.parameters():
            torch.nn.init.normal_(parameter, std=1.0)
    prior = HierarchicalPrior(codebook_size=3, grids=model.grids, channels=4, layers=2).eval()
    images, labels = np.random.default_rng(0).integers(0, 3, (4, 1, 8, 8)).astype(np.uint8), np.zeros(1, np.int64)
    own = model.encode(torch.from_numpy(images)).numpy()
    found = search_codes(model, prior, _batches(images, 3), items=4, train_labels=labels, candidates=3, sweeps=6)
    before, after = (_bits(model, prior, images, codes, labels) for codes in (own, found))
    assert (after <= before + 1e-6).all()
    changed = (own != found).any((0, 1))
    assert changed[:4].any()
    assert changed[4:].any()
    for item, position, code in itertools.product(range(4), range(20), range(3)):
        other = found[item : item + 1].copy()
        other[0, 0, position] = code
        assert _bits(model, prior, images[item : item + 1], other, labels)[0] >= after[item] - 1e-4


def test_batch_size_changes_nothing() -> None:
    model, prior = _models()
    images = np.random.default_rng(1).integers(0, 3, (5, 1, 4, 4)).astype(np.uint8)
    settings = {"items": 5, "train_labels": np.zeros(1, np.int64), "candidates": 3, "sweeps": 2}
    whole = search_codes(model, prior, _batches(images, 1000), **settings)
    assert np.array_equal(whole, search_codes(model, prior, _batches(images, 1), **settings))


def test_second_sweep_with_few_candidates_never_loses_what_the_first_found() -> None:
    model, prior = _models()
    images = np.random.default_rng(2).integers(0, 3, (16, 1, 4, 4)).astype(np.uint8)
    settings = {"items": 16, "train_labels": np.zeros(1, np.int64), "candidates": 2}
    found = [search_codes(model, prior, _batches(images), sweeps=sweeps, **settings) for sweeps in (1, 3)]
    bits = [_bits(model, prior, images, codes, np.zeros(1, int)) for codes in found]
    assert (bits[1] <= bits[0] + 1e-6).all()


def test_nearest_codes_are_those_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, codebook = torch.randn(2, 6, 3, 4, generator=generator), torch.randn(2, 7, 3, generator=generator)
    nearest = nearest_codes(vectors, codebook, count=4)
    assert nearest.shape == (4, 2, 2, 3, 4)
    for item, group, row, column in itertools.product(range(2), range(2), range(3), range(4)):
        vector = vectors[item, 3 * group : 3 * group + 3, row, column]
        expected = (codebook[group] - vector).pow(2).sum(1).argsort()[:4]
        assert torch.equal(nearest[:, item, group, row, column], expected)


def test_label_terms_add_up_to_the_marginal() -> None:
    _, prior = _models(classes=(2,))
    frequency = label_frequencies(prior, np.array([0, 1, 1, 1]))
    codes = torch.randint(0, 3, (4, 1, 2, 2))
    total, terms = learned_log_prob(prior, codes, frequency)
    by_hand = sum(f * prior.log_prob(codes, torch.full((4, 1), y)).double().exp() for y, f in enumerate([0.25, 0.75]))
    torch.testing.assert_close(total.exp(), by_hand)
    torch.testing.assert_close(terms.logsumexp(0), total)
