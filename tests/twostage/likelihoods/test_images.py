"""The likelihoods are mass functions over the integer alphabet, and their parts agree with one another."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import expit

from twostage.errors import UsageError
from twostage.likelihoods.images import LIKELIHOODS, draw_levels, make_likelihood

NAMES = ["categorical", "hurdle", "logistic-mixture"]
"""Any alphabet; `bernoulli` takes two levels alone, `mse` is no mass function."""


def _make(name: str, *, channels: int, levels: int, features: int = 5):
    torch.manual_seed(1)
    likelihood = make_likelihood(name, features=features, channels=channels, levels=levels, mixtures=3)
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter, std=1.0)  # far from uniform, so that a wrong level shows
    return likelihood


def test_every_likelihood_is_tested() -> None:
    assert {*NAMES, "bernoulli", "mse"} == set(LIKELIHOODS)


@pytest.mark.parametrize(("name", "levels"), [*itertools.product(NAMES, [2, 3, 17]), ("bernoulli", 2)])
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
    table = likelihood.probabilities(features, x)
    expected = table.gather(-1, x[..., None])[..., 0].log()
    # Below that fp32 has no room for the mass, while its logarithm is still exact.
    seen = expected > -60
    assert seen.float().mean() > 0.5
    torch.testing.assert_close(likelihood.log_prob(features, x)[seen], expected[seen], atol=2e-4, rtol=1e-4)
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
        table = likelihood.probabilities(features, x).double()
        return table.gather(-1, x[..., None]).log().sum()

    features = torch.randn(1, 5, 2, 2, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(log_prob(features), features)
    (actual,) = torch.autograd.grad(likelihood.log_prob(features, x).sum(), features)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "levels"), [("categorical", 5), ("hurdle", 5), ("bernoulli", 2)])
def test_mean_is_the_expected_level(name: str, levels: int) -> None:
    likelihood = _make(name, channels=2, levels=levels)
    features = torch.randn(3, 5, 2, 2)
    table = likelihood.probabilities(features, torch.zeros(3, 2, 2, 2, dtype=torch.int64))
    expected = sum(level * table[..., level] for level in range(levels))
    torch.testing.assert_close(likelihood.mean(features), expected)


@pytest.mark.parametrize("levels", [17, 256])
def test_mean_of_a_logistic_mixture_is_the_expected_level_wherever_it_is(levels: int) -> None:
    """Centres from beyond one end of the alphabet to beyond the other, in units from a bin to several alphabets."""
    likelihood = _make("logistic-mixture", channels=1, levels=levels, features=2)
    with torch.no_grad():
        likelihood.project.weight.zero_()
        likelihood.project.bias.view(3, 3)[:, 2].clamp_(-0.5)
        likelihood.frame.project.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
        likelihood.frame.project.bias.zero_()
    centres, log_units = torch.meshgrid(torch.linspace(-3, 3, 30), torch.linspace(-2, 2, 30), indexing="ij")
    features = torch.stack([centres, log_units])[None]
    table = likelihood.probabilities(features, torch.zeros(1, 1, 30, 30, dtype=torch.int64)).double()
    expected = (table * torch.arange(levels)).sum(-1)
    assert expected.min() < 0.1 * levels
    assert expected.max() > 0.9 * levels
    torch.testing.assert_close(likelihood.mean(features).double(), expected, atol=1e-3 * levels, rtol=0)


def test_mean_of_later_channels_of_a_logistic_mixture_follows_the_links() -> None:
    """Away from the ends of the alphabet the tails cut off nothing, and the formula is exact."""
    likelihood = _make("logistic-mixture", channels=3, levels=256)
    with torch.no_grad():
        likelihood.project.weight.mul_(0.05)
        likelihood.frame.project.weight.mul_(0.05)
        likelihood.project.bias.view(3, 7)[:, 4:] = -1.5
        likelihood.frame.project.bias[:5] = torch.tensor([0.1, -0.2, 0.3, 0.1, -2.0])
        likelihood.frame.project.bias[5:] = torch.tensor([0.7, -0.4, 1.2])
    features = torch.randn(1, 5, 1, 1)
    noise = torch.rand(20000, 3, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    drawn = draw_levels(likelihood, features.expand(20000, -1, -1, -1), noise).double()
    error = drawn.std(0) / math.sqrt(20000)
    assert ((drawn.mean(0) - likelihood.mean(features)[0]).abs() < 4 * error + 0.05).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_logistic_mixture_against_the_formula_written_out(channels: int) -> None:
    """Plain differences of sigmoids in float64, channel by channel, every link by its place."""
    likelihood = _make("logistic-mixture", channels=channels, levels=256)
    features = torch.randn(1, 5, 1, 1)
    raw = likelihood.project(features[0, :, 0, 0]).detach().double().numpy().reshape(3, 1 + 2 * channels)
    frame = likelihood.frame.project(features[0, :, 0, 0]).detach().double().numpy()
    weight = np.exp(raw[:, 0]) / np.exp(raw[:, 0]).sum()
    centre, unit, link = (
        frame[0] + 0.5 * frame[1 : 1 + channels],
        np.exp(frame[1 + channels]),
        list(np.tanh(frame[2 + channels :])),
    )
    links = {(later, earlier): link.pop(0) for later in range(channels) for earlier in range(later)}
    assert not link
    for x in ([0, 255, 130, 3], [12, 0, 255, 0], [200, 190, 0, 255]):
        scaled, mass = [level / 127.5 - 1 for level in x], weight.copy()
        for c in range(channels):
            location = centre[c] + unit * raw[:, 1 + c] + sum(links[c, j] * (scaled[j] - centre[j]) for j in range(c))
            scale = np.clip(unit * np.exp(raw[:, 1 + channels + c]), np.exp(-7), np.exp(7))
            upper, lower = (expit((scaled[c] + edge - location) / scale) for edge in (1 / 255, -1 / 255))
            mass *= np.where(x[c] == 255, 1.0, upper) - np.where(x[c] == 0, 0.0, lower)
        log_prob = likelihood.log_prob(features, torch.tensor(x[:channels]).reshape(1, channels, 1, 1))
        assert log_prob.sum().item() == pytest.approx(math.log(mass.sum()), abs=2e-4)


def test_logistic_mixture_is_finite_at_every_level_and_scale() -> None:
    """A level a thousand scales away has a tiny mass, not none: neither the loss nor its gradient overflows."""
    likelihood = _make("logistic-mixture", channels=3, levels=256)
    with torch.no_grad():
        likelihood.project.weight.mul_(50)
        likelihood.frame.project.weight.mul_(50)
    features = torch.randn(1, 5, 16, 16, requires_grad=True)
    x = torch.stack([torch.randperm(256).reshape(16, 16) for _ in range(3)])[None]
    log_prob = likelihood.log_prob(features, x)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert (log_prob <= 1e-5).all()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_logistic_mixture_masses_sum_to_one_wherever_the_components_are() -> None:
    """One formula for the edge that two bins share: rounding moves mass to a neighbour and never makes any."""
    torch.manual_seed(0)
    likelihood = _make("logistic-mixture", channels=1, levels=256, features=1)
    with torch.no_grad():
        likelihood.project.weight.zero_()
        likelihood.frame.project.weight.zero_()
    for _ in range(50):
        with torch.no_grad():
            bias = likelihood.project.bias.view(3, 3)
            bias[:, 1].uniform_(-1.5, 1.5)
            bias[:, 2].uniform_(-7.5, 1.0)
        x = torch.arange(256).reshape(256, 1, 1, 1)
        mass = likelihood.log_prob(torch.zeros(256, 1, 1, 1), x).double().exp().sum().item()
        assert mass == pytest.approx(1.0, abs=1e-6)


def test_a_single_component_starts_at_the_middle_of_the_alphabet() -> None:
    likelihood = make_likelihood("logistic-mixture", features=2, channels=3, levels=256, mixtures=1)
    torch.testing.assert_close(likelihood.mean(torch.zeros(1, 2, 1, 1)), torch.full((1, 3, 1, 1), 127.5))


def test_logistic_mixture_stays_in_fp32_under_autocast() -> None:
    likelihood = _make("logistic-mixture", channels=3, levels=256)
    features, x = torch.randn(2, 5, 4, 4), torch.randint(0, 256, (2, 3, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(likelihood.log_prob(features, x), likelihood.log_prob(features, x).float())
        inside = likelihood.log_prob(features, x)
    assert torch.equal(inside, likelihood.log_prob(features, x))


@pytest.mark.parametrize(("name", "levels"), [*((name, 5) for name in NAMES), ("bernoulli", 2)])
def test_draws_have_the_frequencies_of_the_masses(name: str, levels: int) -> None:
    """Two channels jointly: the second is drawn given the first."""
    likelihood = _make(name, channels=2, levels=levels)
    feature, count = torch.randn(1, 5, 1, 1), 40000
    noise = torch.rand(count, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    drawn = draw_levels(likelihood, feature.expand(count, -1, -1, -1), noise)[:, :, 0, 0]
    images = torch.tensor(list(itertools.product(range(levels), repeat=2))).reshape(-1, 2, 1, 1)
    mass = likelihood.log_prob(feature.expand(len(images), -1, -1, -1), images).sum((1, 2, 3)).double().exp()
    frequency = torch.bincount(drawn[:, 0] * levels + drawn[:, 1], minlength=levels**2) / count
    assert ((frequency - mass).abs() < 5 * (mass / count).sqrt() + 1e-4).all()


def test_mse_is_half_the_squared_error_and_no_mass_function() -> None:
    likelihood = _make("mse", channels=2, levels=5)
    features, x = torch.randn(2, 5, 3, 3), torch.randint(0, 5, (2, 2, 3, 3))
    output = likelihood.output(features.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(likelihood.log_prob(features, x), -0.5 * (x / 2 - 1 - output) ** 2)
    torch.testing.assert_close(likelihood.mean(features), (output.clamp(-1, 1) + 1) * 2)
    assert not likelihood.discrete
    with pytest.raises(UsageError, match="no masses"):
        likelihood.probabilities(features, x)


def test_unknown_names_and_alphabets_are_refused() -> None:
    with pytest.raises(UsageError, match="categorical, hurdle"):
        make_likelihood("gaussian", features=1, channels=1, levels=256)
    with pytest.raises(UsageError, match="at least 2 levels"):
        make_likelihood("hurdle", features=1, channels=1, levels=1)
    with pytest.raises(UsageError, match="binarised data, not 256 levels"):
        make_likelihood("bernoulli", features=1, channels=1, levels=256)


@pytest.mark.parametrize("name", ["categorical", "hurdle"])
def test_a_logit_for_every_one_of_65536_levels_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="at most 4096 of them, not 65536: choose logistic-mixture"):
        make_likelihood(name, features=1, channels=1, levels=65536)
    make_likelihood(name, features=1, channels=1, levels=4096)
