"""Bits of codes against slow plain computations, and their agreement with the laws of coding."""

import itertools
import math

import numpy as np
import pytest
import torch

from stage2_prior import HierarchicalPrior, PixelCNN, WaveNet
from twostage.errors import UsageError
from twostage_pipelines.bits.rate import label_frequencies, learned_rate, uniform_bits, unigram_bits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codes() -> tuple[np.ndarray, np.ndarray]:
    """Codes [7, 2, 6] of 5, and their lengths; what lies behind the end is 0."""
    generator = np.random.default_rng(0)
    lengths = np.array([3, 6, 1, 4, 6, 2, 5])
    found = generator.integers(0, 5, (7, 2, 6))
    return np.where(np.arange(6) < lengths[:, None, None], found, 0), lengths


def _prior(**overrides) -> PixelCNN:
    torch.manual_seed(0)
    settings = {"codebook_size": 3, "grid": (2, 2), "classes": (4,), "channels": 4, "layers": 2, "first_kernel": 3}
    prior = PixelCNN(**{**settings, **overrides})
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return prior.eval()


def _all_codes() -> np.ndarray:
    return np.array(list(itertools.product(range(3), repeat=4))).reshape(-1, 1, 2, 2)


def test_learned_rate_marginalises_the_label_with_training_frequencies() -> None:
    prior, codes = _prior(), _all_codes()
    train_labels = np.array([0, 0, 0, 1, 1, 3])  # class 2 never occurs: it must not cost or add anything
    frequencies = label_frequencies(prior, train_labels)
    bits = learned_rate(prior, codes, frequencies=frequencies, device=CPU, batch_size=7).bits
    expected = np.zeros(len(codes))
    with torch.no_grad():
        for label, share in ((0, 1 / 2), (1, 1 / 3), (3, 1 / 6)):
            condition = torch.full((len(codes), 1), label)
            expected += share * prior.log_prob(torch.from_numpy(codes), condition).double().exp().numpy()
    np.testing.assert_allclose(bits, -np.log2(expected), atol=1e-4)
    assert np.exp2(-bits).sum() == pytest.approx(1.0, abs=1e-5)


def test_unconditional_prior_is_scored_as_it_is() -> None:
    prior, codes = _prior(classes=()), _all_codes()
    bits = learned_rate(prior, codes, device=CPU, batch_size=100).bits
    assert label_frequencies(prior, np.zeros(3, np.int64)) is None
    with torch.no_grad():
        expected = -prior.log_prob(torch.from_numpy(codes)).double().numpy() / math.log(2)
    np.testing.assert_allclose(bits, expected, atol=1e-6)


def test_unigram_uses_smoothed_training_frequencies_of_each_codebook() -> None:
    train = np.array([[[0, 0, 1]], [[0, 0, 0]]]).repeat(2, 1)  # [2 items, 2 codebooks, 3 positions]
    train[:, 1] = 2
    codes = np.array([[[0, 1, 2], [2, 2, 0]]])
    first = {0: 6 / 9, 1: 2 / 9, 2: 1 / 9}
    second = {2: 7 / 9, 0: 1 / 9}
    expected = -sum(map(math.log2, (first[0], first[1], first[2], second[2], second[2], second[0])))
    assert unigram_bits(codes, train, 3)[0] == pytest.approx(expected)


def test_unigram_of_a_hierarchy_has_a_table_for_every_level_and_codebook() -> None:
    generator, grids = np.random.default_rng(0), ((1, 2), (2, 4))
    train, codes = generator.integers(0, 3, (6, 2, 10)), generator.integers(0, 3, (5, 2, 10))
    train[:, 0, :2] = 2
    expected = np.zeros(5)
    for group in range(2):
        for level in (slice(0, 2), slice(2, 10)):
            counts = np.ones(3)
            for code in train[:, group, level].flatten():
                counts[code] += 1
            expected -= np.log2(counts[codes[:, group, level]] / counts.sum()).sum(1)
    assert unigram_bits(codes, train, 3, grids=grids) == pytest.approx(expected)
    assert unigram_bits(codes, train, 3) != pytest.approx(expected)
    assert unigram_bits(codes, train, 3, grids=((10,),)) == pytest.approx(unigram_bits(codes, train, 3))


def test_learned_rate_of_a_hierarchy_is_that_of_its_codes_in_a_row() -> None:
    torch.manual_seed(0)
    prior = HierarchicalPrior(
        codebook_size=2, grids=((1, 1), (2, 2)), codebooks=2, classes=(3,), channels=4, layers=2, first_kernel=3
    )
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    codes = np.array(list(itertools.product(range(2), repeat=10))).reshape(-1, 2, 5)
    frequencies = np.array([0.5, 0.2, 0.3])
    arguments = {"frequencies": frequencies, "by_position": True, "device": CPU}
    rate = learned_rate(prior.eval(), codes, **arguments, batch_size=100)
    expected = np.zeros(len(codes))
    with torch.no_grad():
        for label, share in enumerate(frequencies):
            condition = torch.full((len(codes), 1), label)
            expected += share * prior.log_prob(torch.from_numpy(codes), condition).double().exp().numpy()
    np.testing.assert_allclose(rate.bits, -np.log2(expected), atol=1e-4)
    assert np.exp2(-rate.bits).sum() == pytest.approx(1.0, abs=1e-5)
    assert rate.by_position is not None
    assert rate.by_position.shape == (1024, 5)
    np.testing.assert_allclose(rate.by_position.sum(1), rate.bits, atol=1e-4)
    # What a position costs is p of its codes and all before it over p of all before it: sums over what follows.
    before = expected.reshape(2, 2, 2, 2, 2, 2, 2, 2, 2, 2)  # codebook 0 of the 5 positions, then codebook 1
    first = before.sum(axis=(1, 2, 3, 4, 6, 7, 8, 9))
    np.testing.assert_allclose(rate.by_position[:, 0], -np.log2(first[codes[:, 0, 0], codes[:, 1, 0]]), atol=1e-4)


def test_uniform_is_log2_k_a_code() -> None:
    assert uniform_bits(np.zeros((5, 2, 3, 3), np.int64), 8).tolist() == [54.0] * 5


def test_unigram_bits_of_sequences_end_where_they_do(codes: tuple[np.ndarray, np.ndarray]) -> None:
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
    assert unigram_bits(own, train, 5, lengths, train_lengths) == pytest.approx(expected)


def test_bits_of_sequences_are_those_of_every_item_alone(codes: tuple[np.ndarray, np.ndarray]) -> None:
    own, lengths = codes
    torch.manual_seed(0)
    prior = WaveNet(codebook_size=5, codebooks=2, max_length=8, classes=(3,), channels=6, blocks=1, layers_per_block=2)
    prior.eval()
    condition = (np.arange(7) % 3)[:, None]
    rate = learned_rate(prior, own, lengths, condition=condition, by_position=True, device=CPU, batch_size=3)
    for item, length in enumerate(lengths):
        alone = torch.from_numpy(own[item : item + 1, :, :length])
        with torch.no_grad():
            parts = prior.log_prob_parts(alone, torch.from_numpy(condition[item : item + 1]))
        assert rate.bits[item] == pytest.approx(-float(parts.codes) / math.log(2), abs=1e-5)
        assert rate.end_bits[item] == pytest.approx(-float(parts.end) / math.log(2), abs=1e-5)
        assert rate.by_position[item].sum() == pytest.approx(rate.bits[item], abs=1e-5)
        assert not rate.by_position[item, length:].any()
    assert uniform_bits(own, 5, lengths) == pytest.approx(lengths * 2 * math.log2(5))


def test_labels_of_sequences_are_not_marginalised(codes: tuple[np.ndarray, np.ndarray]) -> None:
    own, lengths = codes
    prior = WaveNet(codebook_size=5, codebooks=2, max_length=8, classes=(3,), channels=4, blocks=1, layers_per_block=1)
    with pytest.raises(UsageError, match="Expected the condition"):
        learned_rate(prior, own, lengths, frequencies=np.full(3, 1 / 3), device=CPU, batch_size=3)
