"""Means over items: their errors, and which items stand in for one another."""

import math

import numpy as np
import pytest

from twostage.metrics.statistics import mean_and_error, ratio_error, swap_partners


def test_the_error_is_that_of_the_mean_or_of_the_ratio() -> None:
    values = np.array([1.5, 2.5, 3.5, 6.5])
    mean, error = mean_and_error(values)
    assert mean == 3.5
    assert error == pytest.approx(np.std(values, ddof=1) / 2)
    sizes = np.array([1, 2, 3, 6])
    assert mean_and_error(values, sizes) == (14 / 12, ratio_error(values, sizes))
    assert mean_and_error(values[:1]) == (1.5, None)
    # Of items of one size both are the same thing.
    per_unit, of_ratio = mean_and_error(values, np.full(4, 10))
    assert per_unit == pytest.approx(0.35)
    assert of_ratio is not None
    assert error is not None
    assert math.isclose(of_ratio, error / 10)


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


@pytest.mark.parametrize("count", [2, 3, 50, 1000])
def test_every_item_is_swapped_with_another_one_and_none_twice(count: int) -> None:
    partners = swap_partners(count)
    assert sorted(partners) == list(range(count))
    assert (partners != np.arange(count)).all()
    assert np.array_equal(partners, swap_partners(count))
    if count == 1000:  # files in the order of their names: neighbours are alike and may not be partners
        assert (np.abs(partners - np.arange(count)) < 10).mean() < 0.05
