"""The grid of codes in pictures: constructed ones read as many dB as they were given, others none."""

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from twostage.metrics.grid_energy import grid_db, grid_power, harmonics

NOISE = torch.from_numpy(np.random.default_rng(0).normal(100, 20, (400, 3, 16, 24)))


def _db(originals: Tensor, made: Tensor, period: int) -> float | None:
    return grid_db(grid_power(originals, period).sum(-1).numpy(), grid_power(made, period).sum(-1).numpy())


def test_power_is_that_of_a_plain_fourier_sum() -> None:
    x = NOISE[:1, :, :8, :12]
    expected = np.zeros((2, 2))

    def power(values: np.ndarray, cycles: int) -> float:
        turns = (cmath.exp(-2j * math.pi * cycles * place / len(values)) for place in range(len(values)))
        return abs(sum(v * t for v, t in zip(values.tolist(), turns, strict=True))) ** 2 / len(values)

    for lines in (x[0].reshape(-1, 12).numpy(), x[0].transpose(1, 2).reshape(-1, 8).numpy()):
        lines = lines - np.outer(lines[:, -1] - lines[:, 0], np.linspace(-0.5, 0.5, lines.shape[1]))
        at = lines.shape[1] // 4
        for k in (1, 2):
            expected[0, k - 1] += np.mean([power(line, k * at) for line in lines])
            beside = [power(line, k * at + step) for line in lines for step in (-1, 1)]
            expected[1, k - 1] += np.mean(beside)
    np.testing.assert_allclose(grid_power(x, 4)[..., 0].numpy(), expected)


@pytest.mark.parametrize("amplitude", [2.0, 20.0])
def test_a_wave_reads_as_the_power_it_adds(amplitude: float) -> None:
    """A wave of one period along rows adds a quarter of its squared amplitude times the side to the noise's 400 at
    one of two harmonics, in one of two directions."""
    wave = amplitude * torch.cos(torch.arange(24) * math.pi / 2)
    expected = 10 * math.log10(1 + amplitude**2 * 24 / 4 / (4 * 20**2))
    assert _db(NOISE, NOISE + wave, 4) == pytest.approx(expected, abs=0.15)
    assert _db(NOISE.transpose(-1, -2), (NOISE + wave).transpose(-1, -2), 4) == pytest.approx(expected, abs=0.15)


def test_an_untouched_picture_has_no_grid_and_a_blurred_one_none_either() -> None:
    assert _db(NOISE, NOISE.clone(), 4) == pytest.approx(0.0, abs=1e-12)
    blurred = (NOISE + NOISE.roll(1, -1) + NOISE.roll(1, -2)) / 3
    assert _db(NOISE, blurred, 4) == pytest.approx(0.0, abs=0.3)


def test_a_pattern_that_the_originals_have_too_is_no_fault() -> None:
    framed = NOISE.clone()
    framed[..., ::4] += 60
    found = _db(NOISE, framed, 4)
    assert found is not None
    assert found > 8
    assert _db(framed, framed * 0.5 + 10, 4) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("period", [2, 4, 8, 16, 32])
def test_every_period_is_seen_beneath_coarse_features(period: int) -> None:
    """A pattern of single pixels, whose power is a hundredth of that of the clouds that it lies on."""
    rng = np.random.default_rng(1)
    clouds = np.cumsum(np.cumsum(rng.normal(0, 1, (30, 1, 64, 96)), 2), 3)
    x = torch.from_numpy(clouds - clouds.mean((2, 3), keepdims=True))
    x = x / x.std() * 50
    pattern = torch.zeros(64, 96)
    pattern[::2] = 10.0
    found = _db(x, x + pattern, period)
    assert found is not None
    assert found > 4


def test_what_has_no_frequencies_between_harmonics_is_not_measured() -> None:
    assert harmonics((3, 32, 48), 4) == 2
    assert harmonics((1, 64, 64), 32) == 16
    assert [harmonics((1, *sides), 4) for sides in ((4, 8), (8, 4), (10, 8))] == [0, 0, 0]
    assert harmonics((1, 8, 8), 1) == 0
    flat = torch.full((2, 1, 8, 8), 3.0)
    assert _db(flat, flat, 4) is None
    assert _db(NOISE[..., :8, :8], flat.expand(-1, 3, -1, -1), 4) is None
