"""The logistic mixture over alphabets of up to 65536 levels and pixels of up to 16 channels: exact, and small."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_expit, logsumexp
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from twostage.errors import UsageError
from twostage.likelihoods.images import draw_levels, make_likelihood
from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood

LEVELS = 65536


def _mixture(*, channels: int, levels: int = LEVELS, log_unit: float = -1.0) -> LogisticMixtureLikelihood:
    """Two features, three components, random numbers in every place, units of about exp(log_unit)."""
    generator = torch.Generator().manual_seed(channels)
    likelihood = make_likelihood("logistic-mixture", features=2, channels=channels, levels=levels, mixtures=3)
    assert isinstance(likelihood, LogisticMixtureLikelihood)
    assert likelihood.frame is not None
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.normal_(std=0.5, generator=generator)
        likelihood.frame.project.bias[1 + channels] = log_unit
    return likelihood


def _every_level(channel: int, channels: int) -> Tensor:
    """`[L, C, 1, 1]`: the channels before that one at fixed levels, itself at every level."""
    x_LC = torch.tensor([40_000, 3, 65_535])[:channels].repeat(LEVELS, 1)
    x_LC[:, channel] = torch.arange(LEVELS)
    return x_LC[:, :, None, None]


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("log_unit", [-20.0, -10.0, -4.0, 0.0, 20.0])
@torch.no_grad()
def test_masses_of_all_65536_levels_sum_to_one(channel: int, log_unit: float) -> None:
    likelihood = _mixture(channels=3, log_unit=log_unit)
    features = torch.tensor([0.3, -0.8])[None, :, None, None].expand(LEVELS, -1, 1, 1)
    log_prob = likelihood.log_prob(features, _every_level(channel, 3))[:, channel]
    assert log_prob.isfinite().all()
    assert log_prob.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@torch.no_grad()
def test_masses_of_65536_levels_are_those_of_float64() -> None:
    """The mass of every level to 1e-5 of itself where the logistic is a hundred bins wide."""
    likelihood = _mixture(channels=1, log_unit=-5.7)
    features = torch.tensor([0.3, -0.8])[None, :, None, None].expand(LEVELS, -1, 1, 1)
    actual = likelihood.log_prob(features, _every_level(0, 1)).flatten().double().numpy()
    parts = likelihood._components(features[:1])
    weight, location, log_scale = (
        part.flatten().double().numpy() for part in (parts.log_weight_BMP, parts.location_BCMP, parts.log_scale_BCMP)
    )
    edges = (2 * np.arange(-1, LEVELS)[:, None] + 2 - LEVELS) / (LEVELS - 1)
    seen = (edges - location) / np.exp(log_scale)
    low, high = seen[:-1].copy(), seen[1:].copy()
    low[0], high[-1] = -np.inf, np.inf
    expected = logsumexp(weight + log_expit(high) + log_expit(-low) + np.log(-np.expm1(low - high)), axis=1)
    near = expected > -30
    assert near.sum() > 1000
    np.testing.assert_allclose(actual[near], expected[near], atol=1e-5)


@pytest.mark.parametrize("log_unit", [-9.0, -4.0, 0.0])
@torch.no_grad()
def test_mean_of_65536_levels_is_their_slow_sum(log_unit: float) -> None:
    likelihood = _mixture(channels=1, log_unit=log_unit)
    features = torch.tensor([0.3, -0.8])[None, :, None, None]
    log_prob = likelihood.log_prob(features.expand(LEVELS, -1, 1, 1), _every_level(0, 1)).flatten().double()
    expected = (log_prob.exp() * torch.arange(LEVELS)).sum().item()
    assert likelihood.mean(features).item() == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("channels", [4, 16])
@torch.no_grad()
def test_masses_of_all_images_of_sixteen_channels_sum_to_one(channels: int) -> None:
    """65536 images of one pixel: sixteen channels of two levels, or four of sixteen."""
    levels = round(LEVELS ** (1 / channels))
    likelihood = _mixture(channels=channels, levels=levels)
    images = torch.tensor(list(itertools.product(range(levels), repeat=channels)))[:, :, None, None]
    features = torch.tensor([0.3, -0.8])[None, :, None, None].expand(len(images), -1, 1, 1)
    mass = likelihood.log_prob(features, images).sum((1, 2, 3)).double().exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert mass.max() < 0.5


@torch.no_grad()
def test_draws_of_sixteen_channels_have_their_means() -> None:
    likelihood = _mixture(channels=16, log_unit=-7.0)
    count, generator = 20_000, torch.Generator().manual_seed(0)
    features = torch.tensor([0.3, -0.8])[None, :, None, None]
    noise = torch.rand(count, 16, 1, 1, dtype=torch.float64, generator=generator)
    drawn = draw_levels(likelihood, features.expand(count, -1, -1, -1), noise).double().flatten(1)
    assert drawn.min() > 0
    assert drawn.max() < LEVELS - 1
    assert ((drawn.mean(0) - likelihood.mean(features).flatten()).abs() < 5 * drawn.std(0) / math.sqrt(count)).all()


@torch.no_grad()
def test_draws_of_four_channels_have_the_frequencies_of_the_masses() -> None:
    likelihood, count = _mixture(channels=4, levels=3), 40_000
    noise = torch.rand(count, 4, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = torch.tensor([0.3, -0.8])[None, :, None, None]
    drawn = draw_levels(likelihood, features.expand(count, -1, -1, -1), noise).flatten(1)
    images = torch.tensor(list(itertools.product(range(3), repeat=4)))[:, :, None, None]
    mass = likelihood.log_prob(features.expand(81, -1, -1, -1), images).sum((1, 2, 3)).double().exp()
    frequency = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81) / count
    assert ((frequency - mass).abs() < 5 * (mass / count).sqrt() + 1e-4).all()


class _LargestTensor(TorchDispatchMode):
    """Within, the most numbers that a tensor of any operation has had."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            self.largest = max(self.largest, tensor.numel()) if isinstance(tensor, Tensor) else self.largest
        return result


def test_nothing_but_the_table_of_masses_has_an_axis_of_levels() -> None:
    likelihood = _mixture(channels=3)
    features = torch.randn(2, 2, 4, 4, requires_grad=True)
    x, noise = torch.randint(0, LEVELS, (2, 3, 4, 4)), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    with _LargestTensor() as seen:
        likelihood.log_prob(features, x).sum().backward()
        likelihood.mean(features)
        draw_levels(likelihood, features, noise)
    assert 0 < seen.largest < LEVELS // 16
    with _LargestTensor() as seen:
        likelihood.probabilities(features[:1, :, :1, :1], x[:1, :, :1, :1])
    assert seen.largest >= LEVELS


@pytest.mark.parametrize("frame", ["given", "none"])
def test_several_channels_without_links_are_refused(frame: Any) -> None:
    with pytest.raises(UsageError, match=f"3 channels needs a learned frame, not one that is {frame}"):
        LogisticMixtureLikelihood(features=5, channels=3, levels=256, mixtures=2, frame=frame)
