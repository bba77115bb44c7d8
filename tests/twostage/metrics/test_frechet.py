"""Fréchet distance against closed forms, and what must not change it."""

import math

import numpy as np
import pytest

from twostage.errors import UsageError
from twostage.metrics.frechet import FeatureGaussian, fit_gaussian, frechet_distance


def _gaussian(mean: list[float], covariance: np.ndarray) -> FeatureGaussian:
    return FeatureGaussian(mean_F=np.array(mean), covariance_FF=covariance)


def _features(seed: int, items: int = 50, width: int = 5) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(items, width)) @ generator.normal(size=(width, width)) + generator.normal(size=width)


def test_equal_sets_have_no_distance() -> None:
    gaussian = fit_gaussian([_features(0)])
    assert 0 <= frechet_distance(gaussian, gaussian) < 1e-12 * np.trace(gaussian.covariance_FF)


def test_a_shift_costs_its_squared_length() -> None:
    features, shift = _features(1), np.array([3.0, 0.0, -4.0, 0.0, 12.0])
    distance = frechet_distance(fit_gaussian([features]), fit_gaussian([features + shift]))
    assert distance == pytest.approx(169.0, rel=1e-10)


def test_diagonal_covariances_have_a_closed_form() -> None:
    first, second = _gaussian([1.0, 2.0], np.diag([4.0, 9.0])), _gaussian([0.0, 0.0], np.diag([1.0, 25.0]))
    assert frechet_distance(first, second) == pytest.approx(1 + 4 + (2 - 1) ** 2 + (3 - 5) ** 2, rel=1e-12)


def test_two_correlated_features_have_a_closed_form() -> None:
    # In two dimensions tr(M^1/2) = sqrt(tr M + 2 sqrt(det M)) for M = S1 S2, whose eigenvalues are not negative.
    one, two = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.7], [-0.7, 3.0]])
    overlap = math.sqrt(np.trace(one @ two) + 2 * math.sqrt(np.linalg.det(one) * np.linalg.det(two)))
    expected = np.trace(one) + np.trace(two) - 2 * overlap
    assert frechet_distance(_gaussian([0, 0], one), _gaussian([0, 0], two)) == pytest.approx(expected, rel=1e-12)


def test_singular_covariances_are_fine() -> None:
    direction, other = np.array([3.0, 4.0]) / 5, np.array([4.0, -3.0]) / 5
    first = _gaussian([0, 0], 4 * np.outer(direction, direction))
    assert frechet_distance(first, _gaussian([0, 0], 9 * np.outer(direction, direction))) == pytest.approx(1, abs=1e-9)
    assert frechet_distance(first, _gaussian([0, 0], 9 * np.outer(other, other))) == pytest.approx(13, abs=1e-6)
    few = [fit_gaussian([_features(seed, items=4, width=6)]) for seed in (0, 1)]
    assert math.isfinite(frechet_distance(*few))


def test_both_orders_give_the_same_float() -> None:
    for seed in range(8):
        first, second = (fit_gaussian([_features(2 * seed + i, width=9)]) for i in (0, 1))
        assert frechet_distance(first, second) == frechet_distance(second, first) > 0


def test_finite_sets_of_one_distribution_are_apart_the_more_the_fewer_they_are() -> None:
    """The bias that is said beside every distance: above that of the means alone, and halved by twice the items."""
    generator = np.random.default_rng(0)

    def mean_distance(items: int) -> float:
        sets = [[fit_gaussian([generator.normal(size=(items, 8))]) for _ in range(2)] for _ in range(60)]
        return float(np.mean([frechet_distance(*pair) for pair in sets]))

    few, many = mean_distance(200), mean_distance(400)
    assert few > 8 * 2 / 200
    assert few / many == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_statistics_are_numpys_however_the_items_are_cut(batch_size: int) -> None:
    features = _features(3) + 1e6  # a plain sum of squares would lose ten digits here
    gaussian = fit_gaussian(features[start : start + batch_size] for start in range(0, 50, batch_size))
    np.testing.assert_allclose(gaussian.mean_F, features.mean(0), rtol=1e-15)
    np.testing.assert_allclose(gaussian.covariance_FF, np.cov(features.T), rtol=1e-7)
    assert (gaussian.covariance_FF == gaussian.covariance_FF.T).all()


def test_single_precision_features_are_summed_in_double() -> None:
    features = (_features(4, items=2000) * 1e-3 + 10).astype(np.float32)
    gaussian = fit_gaussian(np.array_split(features, 13))
    np.testing.assert_allclose(gaussian.covariance_FF, np.cov(features.T.astype(np.float64)), rtol=1e-9)


def test_what_has_no_distance_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 2 items, but 1 came"):
        fit_gaussian([np.zeros((0, 3)), np.zeros((1, 3))])
    with pytest.raises(UsageError, match="5 and 4"):
        frechet_distance(fit_gaussian([_features(0)]), fit_gaussian([_features(0, width=4)]))
