"""Log-masses of the mixture and their written-out gradient, against autograd over the plain formula in float64."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twostage.likelihoods import mixture_gradient
from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood
from twostage.training.live_bytes import LiveBytes

FEATURES, MIXTURES = 6, 3


def _likelihood(*, channels: int, levels: int, frame: Any = "learned") -> LogisticMixtureLikelihood:
    """Numbers in every place, of scales narrower and wider than allowed among them."""
    torch.manual_seed(channels)
    likelihood = LogisticMixtureLikelihood(
        features=FEATURES, channels=channels, levels=levels, mixtures=MIXTURES, frame=frame
    )
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.normal_(std=0.4)
        bias_MP = likelihood.project.bias.view(MIXTURES, -1)
        bias_MP[0, 1 + channels :] = -14.0
        bias_MP[1, 1 + channels :] = 9.0
    return likelihood


def _plain(likelihood: LogisticMixtureLikelihood, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """The formula, one array for every step of it; locations and scales of float64 features and parameters."""
    channels, levels, (lowest, highest) = likelihood.channels, likelihood.levels, likelihood.alphabet.log_scales
    features = features_BFHW.movedim(1, -1)
    centre, log_unit, links = [features.new_zeros(())] * channels, features.new_zeros(()), features[..., :0]
    if likelihood.frame is not None:
        raw = F.linear(features, likelihood.frame.project.weight, likelihood.frame.project.bias)
        centre = [raw[..., 0] + 0.5 * raw[..., 1 + channel] for channel in range(channels)]
        log_unit, links = raw[..., 1 + channels], raw[..., 2 + channels :].tanh()
    elif likelihood.given:
        features, centre, log_unit = features[..., :-2], [features[..., -2]], features[..., -1]
    log_unit = log_unit.clamp(lowest, highest)[..., None]
    raw = F.linear(features, likelihood.project.weight, likelihood.project.bias).unflatten(-1, (MIXTURES, -1))
    joint, result = [raw[..., 0]], []
    scaled_BCHW = x_BCHW.double() * (2 / (levels - 1)) - 1
    for c in range(channels):
        first = c * (c - 1) // 2
        shift = sum((links[..., first + j] * (scaled_BCHW[:, j] - centre[j]) for j in range(c)), torch.zeros(()))
        location = (centre[c] + shift)[..., None] + raw[..., 1 + c] * log_unit.exp()
        scale = (raw[..., 1 + channels + c] + log_unit).clamp(lowest, highest).exp()
        upper, lower = ((scaled_BCHW[:, c, ..., None] + edge / (levels - 1) - location) / scale for edge in (1, -1))
        x = x_BCHW[:, c, ..., None]
        log_mass = torch.where(x == levels - 1, 0.0, F.logsigmoid(upper)) + torch.where(
            x == 0, 0.0, F.logsigmoid(-lower)
        )
        inner = (x != 0) & (x != levels - 1)
        log_mass = log_mass + torch.where(inner, torch.log(-torch.expm1(lower - upper)), 0.0)
        joint.append(joint[-1] + log_mass)
        result.append(joint[-1].logsumexp(-1) - joint[-2].logsumexp(-1))
    return torch.stack(result, 1)


CASES = [
    {"channels": 1, "levels": 256},
    {"channels": 3, "levels": 256},
    {"channels": 3, "levels": 2},
    {"channels": 4, "levels": 17},
    {"channels": 1, "levels": 65536, "frame": "given"},
    {"channels": 1, "levels": 65536, "frame": "none"},
]


def _pixels(channels: int, levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, levels with both ends among them, and a gradient that differs from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, FEATURES, 4, 5, generator=generator)
    x = torch.randint(0, levels, (3, channels, 4, 5), generator=generator)
    x[:, :, 0], x[:, :, 1] = 0, levels - 1
    return features, x, torch.randn(3, channels, 4, 5, generator=generator)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("numbers", [1, 7 * MIXTURES, 45 * MIXTURES, 10**6], ids=["1", "7", "two items", "all"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_masses_and_gradients_are_those_of_the_plain_formula_in_float64(
    case: dict[str, Any], numbers: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pixels there are in a block."""
    monkeypatch.setattr(mixture_gradient, "_CPU_NUMBERS", numbers)
    likelihood = _likelihood(**case)
    features, x, gradient = _pixels(case["channels"], case["levels"])
    features = features.contiguous(memory_format=layout).requires_grad_()
    inputs = [features, *likelihood.parameters()]
    log_prob = likelihood.log_prob(features, x)
    found = torch.autograd.grad((log_prob * gradient).sum(), inputs)
    exact = likelihood.double()
    exact_features = features.detach().double().requires_grad_()
    expected_log_prob = _plain(exact, exact_features, x)
    expected = torch.autograd.grad((expected_log_prob * gradient).sum(), [exact_features, *exact.parameters()])
    # A location is rounded to fp32, in the narrowest scale.
    rounding = 1e-7 * math.exp(-likelihood.alphabet.log_scales[0])
    torch.testing.assert_close(log_prob.double(), expected_log_prob, atol=2e-5 + rounding, rtol=2e-6)
    for name, actual, wanted in zip(["features", *dict(exact.named_parameters())], found, expected, strict=True):
        assert actual.dtype == torch.float32
        error = (actual - wanted).abs().max() / wanted.abs().max()
        assert error < 2e-5 + rounding, name


def test_a_gradient_may_be_that_of_a_mean() -> None:
    """It is one number, expanded."""
    likelihood, (features, x, _) = _likelihood(channels=3, levels=256), _pixels(3, 256)
    features.requires_grad_()
    (mean,) = torch.autograd.grad(likelihood.log_prob(features, x).mean(), features)
    (total,) = torch.autograd.grad(likelihood.log_prob(features, x).sum(), features)
    torch.testing.assert_close(mean, total / x.numel())


def test_nothing_of_the_components_is_kept_for_the_gradient() -> None:
    """Ten components of three channels are 70 numbers of a pixel, and autograd would keep hundreds."""
    pixels = 128 * 128
    likelihood = LogisticMixtureLikelihood(features=2, channels=3, levels=256, mixtures=10)
    features, x = torch.randn(1, 2, 128, 128, requires_grad=True), torch.randint(0, 256, (1, 3, 128, 128))
    with LiveBytes() as live:
        log_prob = likelihood.log_prob(features, x)
        assert live.now < 4 * pixels * 50
        log_prob.sum().backward()
        assert live.peak < 4 * pixels * 150 + 2**24
    assert log_prob.shape == (1, 3, 128, 128)
