"""Structural similarity: of which pictures there is one, and against a plain sum over windows."""

import numpy as np
import pytest

from twostage.metrics import ssim as module
from twostage.metrics.ssim import ssim, why_no_ssim

RNG = np.random.default_rng(0)
ONE = RNG.integers(0, 17, (2, 3, 13, 15)).astype(np.float64)
OTHER = np.clip(ONE + RNG.normal(0, 4, ONE.shape), 0, 16)


def _by_windows(one_HW: np.ndarray, other_HW: np.ndarray, levels: int) -> float:
    """Eq. 13 of Wang et al. at every place where the whole window lies in the picture."""
    weight = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    window = np.outer(weight, weight) / weight.sum() ** 2
    c1, c2 = (0.01 * (levels - 1)) ** 2, (0.03 * (levels - 1)) ** 2
    found = []
    for y, x in np.ndindex(one_HW.shape[0] - 10, one_HW.shape[1] - 10):
        a, b = (picture[y : y + 11, x : x + 11] for picture in (one_HW, other_HW))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        both = (window * (a - mean_a) * (b - mean_b)).sum()
        above = (2 * mean_a * mean_b + c1) * (2 * both + c2)
        found.append(above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(found))


def test_it_is_the_mean_over_windows_and_channels() -> None:
    pytest.importorskip("skimage", reason="scikit-image, an extra, is not installed")
    expected = [
        np.mean([_by_windows(*pair, 17) for pair in zip(*both, strict=True)]) for both in zip(ONE, OTHER, strict=True)
    ]
    assert ssim(ONE, OTHER, 17).tolist() == pytest.approx(expected, abs=1e-6)
    assert ssim(ONE, ONE, 17).tolist() == pytest.approx([1.0, 1.0])


def test_small_pictures_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_ssim((1, 10, 40)) == "its window has 11x11 pixels, and the images 10x40"
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert why_no_ssim((3, 32, 32)) == "it needs scikit-image, so install 'twostage[ssim]'"
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    assert why_no_ssim((3, 11, 11)) is None
