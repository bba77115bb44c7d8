"""The likelihoods are mass functions over the integer alphabet, and their parts agree with one another."""

import itertools
import math

import numpy as np
import pytest
import torch

from twostage.errors import UsageError
from twostage.likelihoods import LIKELIHOODS, make_likelihood, mean_image

NAMES = sorted(LIKELIHOODS)


def _make(name: str, *, channels: int, levels: int, features: int = 5):
    torch.manual_seed(1)
    likelihood = make_likelihood(name, features=features, channels=channels, levels=levels)
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter, std=1.0)  # far from uniform, so that a wrong level shows
    return likelihood


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [2, 3, 17])
def test_masses_of_all_images_of_one_pixel_sum_to_one(name: str, levels: int) -> None:
    likelihood = _make(name, channels=2, levels=levels)
    features = torch.randn(1, 5, 1, 1)
    images = torch.tensor(list(itertools.product(range(levels), repeat=2))).reshape(-1, 2, 1, 1)
    log_prob = likelihood.log_prob(features.expand(len(images), -1, -1, -1), images).sum((1, 2, 3))
    assert log_prob.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_is_the_log_of_the_probability_table(name: str) -> None:
    """Every one of the 256 levels, at every pixel and channel, keeps its own mass: nothing is rounded or shifted."""
    likelihood = _make(name, channels=3, levels=256)
    features = torch.randn(2, 5, 16, 16)
    x = torch.stack([torch.randperm(256).reshape(16, 16) for _ in range(6)]).reshape(2, 3, 16, 16)
    table = likelihood.probabilities(features)
    expected = table.gather(-1, x[..., None])[..., 0].log()
    torch.testing.assert_close(likelihood.log_prob(features, x), expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(table.sum(-1), torch.ones(2, 3, 16, 16), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_uint8_images_give_the_same_masses_as_int64(name: str) -> None:
    likelihood = _make(name, channels=1, levels=256)
    features, x = torch.randn(2, 5, 4, 4), torch.randint(0, 256, (2, 1, 4, 4))
    assert torch.equal(likelihood.log_prob(features, x), likelihood.log_prob(features, x.to(torch.uint8)))


def test_hurdle_masses_against_plain_arithmetic() -> None:
    likelihood = _make("hurdle", channels=1, levels=4)
    features = torch.randn(1, 5, 1, 2)
    feature = features[0, :, 0].T.double().detach().numpy()
    zero = 1 / (
        1
        + np.exp(
            -(feature @ likelihood.zero_logit.weight.double().detach().numpy().T + likelihood.zero_logit.bias.item())
        )
    )
    logits = (
        feature @ likelihood.above_logits.weight.double().detach().numpy().T
        + likelihood.above_logits.bias.double().detach().numpy()
    )
    above = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    x = torch.tensor([[[[0, 3]]]])
    expected = [math.log(zero[0, 0]), math.log((1 - zero[1, 0]) * above[1, 2])]
    np.testing.assert_allclose(likelihood.log_prob(features, x).flatten().detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("fill", [0, 3])
def test_hurdle_gradients_are_finite_when_no_pixel_or_every_pixel_is_background(fill: int) -> None:
    likelihood = _make("hurdle", channels=2, levels=4)
    features = torch.randn(2, 5, 3, 3, requires_grad=True)
    likelihood.log_prob(features, torch.full((2, 2, 3, 3), fill)).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative_of_the_log_mass(name: str) -> None:
    likelihood = _make(name, channels=1, levels=5).double()
    x = torch.tensor([[[[0, 4], [2, 1]]]])

    def log_prob(features: torch.Tensor) -> torch.Tensor:
        table = likelihood.probabilities(features).double()
        return table.gather(-1, x[..., None]).log().sum()

    features = torch.randn(1, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(log_prob(features), features)
    (actual,) = torch.autograd.grad(likelihood.log_prob(features, x).sum(), features)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_mean_is_the_expected_level() -> None:
    table = torch.tensor([0.5, 0.0, 0.25, 0.25]).reshape(1, 1, 1, 1, 4)
    assert mean_image(table).item() == pytest.approx(1.25)


def test_unknown_names_and_alphabets_are_refused() -> None:
    with pytest.raises(UsageError, match="categorical, hurdle"):
        make_likelihood("gaussian", features=1, channels=1, levels=256)
    with pytest.raises(UsageError, match="at least 2 levels"):
        make_likelihood("hurdle", features=1, channels=1, levels=1)
