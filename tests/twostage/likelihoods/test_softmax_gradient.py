"""Log-masses of the softmax and their written-out gradient, against autograd over the plain formula in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twostage.likelihoods import softmax_gradient
from twostage.likelihoods.images import CategoricalLikelihood
from twostage.training.live_bytes import LiveBytes

FEATURES, LEVELS = 6, 17


def _plain(features_BFHW: Tensor, weight: Tensor, bias: Tensor, x_BCHW: Tensor) -> Tensor:
    logits = F.linear(features_BFHW.movedim(1, -1), weight, bias).unflatten(-1, (x_BCHW.shape[1], -1)).movedim(-2, 1)
    return logits.log_softmax(-1).gather(-1, x_BCHW[..., None]).squeeze(-1)


def _problem(channels: int, layout: torch.memory_format) -> tuple[CategoricalLikelihood, Tensor, Tensor, Tensor]:
    """Logits of tens, so that some levels have no mass to speak of, and a gradient that differs from place to place."""
    torch.manual_seed(channels)
    likelihood = CategoricalLikelihood(features=FEATURES, channels=channels, levels=LEVELS)
    with torch.no_grad():
        likelihood.logits.weight.normal_(std=10.0)
    features = torch.randn(3, FEATURES, 4, 5).contiguous(memory_format=layout).requires_grad_()
    return likelihood, features, torch.randint(0, LEVELS, (3, channels, 4, 5)), torch.randn(3, channels, 4, 5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("pixels", [1, 7, 45, 1000], ids=["1", "7", "two items", "all"])
@pytest.mark.parametrize("channels", [1, 3])
def test_log_masses_and_gradients_are_those_of_the_plain_formula_in_float64(
    channels: int, pixels: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pixels there are in a block."""
    monkeypatch.setattr(softmax_gradient, "_CPU_LOGITS", pixels * channels * LEVELS)
    likelihood, features, x, gradient = _problem(channels, layout)
    inputs = [features, likelihood.logits.weight, likelihood.logits.bias]
    log_prob = likelihood.log_prob(features, x)
    found = torch.autograd.grad((log_prob * gradient).sum(), inputs)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    expected_log_prob = _plain(*exact, x)
    expected = torch.autograd.grad((expected_log_prob * gradient).sum(), exact)
    torch.testing.assert_close(log_prob.double(), expected_log_prob, atol=3e-5, rtol=1e-6)
    for actual, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(actual.double(), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_products_are_taken_in_the_type_of_autocast() -> None:
    likelihood, features, x, _ = _problem(3, torch.contiguous_format)
    plain = likelihood.log_prob(features, x)
    with torch.autocast("cpu", torch.bfloat16):
        log_prob = likelihood.log_prob(features, x)
        (expected,) = torch.autograd.grad(
            _plain(features, likelihood.logits.weight, likelihood.logits.bias, x).sum(), features
        )
    (found,) = torch.autograd.grad(log_prob.sum(), features)
    assert log_prob.dtype == found.dtype == torch.float32
    assert (log_prob - plain).abs().max() > 1e-2
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


def test_no_logits_of_all_pixels_are_ever_made() -> None:
    pixels, likelihood = 128 * 128, CategoricalLikelihood(features=2, channels=3, levels=256)
    features, x = torch.randn(1, 2, 128, 128, requires_grad=True), torch.randint(0, 256, (1, 3, 128, 128))
    with LiveBytes() as live:
        likelihood.log_prob(features, x).sum().backward()
    assert live.peak < 4 * pixels * 3 * 256 / 4


def test_a_gradient_in_bf16_is_as_exact_from_many_blocks_as_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their parts are summed in fp32: a sum in bf16 would be rounded with every block."""
    torch.manual_seed(0)
    likelihood = CategoricalLikelihood(features=FEATURES, channels=1, levels=LEVELS)
    features, x = torch.randn(64, FEATURES, 4, 10).abs(), torch.zeros(64, 1, 4, 10, dtype=torch.int64)
    own = [likelihood.logits.weight, likelihood.logits.bias]
    monkeypatch.setattr(softmax_gradient, "_CPU_LOGITS", 4 * LEVELS)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(likelihood.log_prob(features, x).sum(), own)
    expected = torch.autograd.grad(_plain(features, *own, x).sum(), own)
    for actual, wanted in zip(found, expected, strict=True):
        assert (actual - wanted).norm() < 0.01 * wanted.norm()
