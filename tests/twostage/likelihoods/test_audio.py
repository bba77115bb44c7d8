"""Likelihoods of sound are mass functions over 256 or 65536 levels, exact against float64, and draw what they say."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from twostage.data.audio import mulaw
from twostage.errors import UsageError
from twostage.likelihoods.audio import AUDIO_LIKELIHOODS, AudioLikelihood, make_audio_likelihood

ALL_SAMPLES = torch.arange(-32768, 32768).to(torch.int16)


def _mixture(weight: list[float], location: list[float], log_scale: list[float]) -> AudioLikelihood:
    """A mixture that says the same whatever the features are; weights in nats."""
    likelihood = make_audio_likelihood("logistic-mixture", features=1, mixtures=len(weight))
    with torch.no_grad():
        likelihood.pixels.project.weight.zero_()
        likelihood.pixels.project.bias.copy_(torch.tensor([weight, location, log_scale]).T.flatten())
    return likelihood


def _random(name: str, *, features: int = 4, mixtures: int = 3) -> AudioLikelihood:
    torch.manual_seed(2)
    likelihood = make_audio_likelihood(name, features=features, mixtures=mixtures)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.normal_()
        if name == "logistic-mixture":
            likelihood.pixels.project.weight.mul_(0.2)
            likelihood.pixels.project.bias.mul_(0.2).view(mixtures, 3)[:, 2] -= 5.0
    return likelihood


@torch.no_grad()
def _log_masses(likelihood: AudioLikelihood) -> Tensor:
    """Of all 65536 samples, fp32."""
    return likelihood.log_prob(torch.zeros(1, 1, 65536), ALL_SAMPLES[None])[0]


def _exact(likelihood: AudioLikelihood) -> np.ndarray:
    """Log-masses of all 65536 samples in float64, written out from the bins' edges."""
    bias = likelihood.pixels.project.bias.detach().double().numpy().reshape(-1, 3)
    weight = bias[:, 0] - np.logaddexp.reduce(bias[:, 0])
    scale = np.exp(np.clip(bias[:, 2], -7 - math.log(256), 7))
    edges = (2 * np.arange(-1, 65536) - 65534) / 65535  # of level -1 (the lower edge of 0) to 65535
    seen = (edges[:, None] - bias[:, 1]) / scale
    low, high = seen[:-1].copy(), seen[1:].copy()
    low[0], high[-1] = -np.inf, np.inf

    def log_sigmoid(x: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0.0, -x)

    masses = log_sigmoid(high) + log_sigmoid(-low) + np.log(-np.expm1(low - high))
    return np.logaddexp.reduce(weight + masses, axis=1)


MIXTURES = {
    "start": ([0.0] * 10, list(np.linspace(-0.1, 0.1, 10)), [-4.0] * 10),
    "wide": ([0.0], [0.0], [0.0]),
    "wider than the alphabet": ([0.0, 0.5], [0.3, -0.2], [3.0, 6.9]),
    "one level": ([0.0], [0.25], [-12.5]),
    "narrower than allowed": ([0.0], [-1e-3], [-40.0]),
    "narrow, between two levels": ([0.0], [0.0], [-11.0]),
    "narrow and loud": ([0.0], [0.93], [-11.0]),
    "off centre": ([0.3, 0.0, -0.4], [0.7, -0.9, 0.01], [-3.0, -8.0, -5.5]),
    "at the lowest level": ([0.0], [-1.0], [-9.0]),
    "beyond the highest level": ([0.0, 0.0], [1.2, 3.0], [-4.0, -2.0]),
    "far apart": ([0.0, -12.0], [-0.5, 0.5], [-10.0, -2.0]),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_masses_of_all_samples_sum_to_one(name: str) -> None:
    assert _log_masses(_mixture(*MIXTURES[name])).double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_masses_sum_to_one_for_many_mixtures() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        count = int(rng.integers(1, 5))
        weight, location, log_scale = rng.normal(size=count), rng.uniform(-1.3, 1.3, count), rng.uniform(-13, 2, count)
        likelihood = _mixture(list(weight), list(location), list(log_scale))
        assert _log_masses(likelihood).double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", MIXTURES)
def test_log_masses_against_float64(name: str) -> None:
    """A level s scales away has a log-mass of about -s, which fp32 holds to 6e-8 s; a few roundings lead there."""
    likelihood = _mixture(*MIXTURES[name])
    exact = _exact(likelihood)
    error = np.abs(_log_masses(likelihood).double().numpy() - exact)
    assert (error <= 2e-6 + 5e-7 * np.abs(exact)).all()


def test_an_edge_of_a_loud_sample_is_not_rounded() -> None:
    """Rounded to fp32 the edges near 1 are 6e-8 off, which in scales of 4e-6 is 1.5 % of a mass."""
    likelihood = _mixture([0.0], [0.97], [-12.5])
    exact = _exact(likelihood)
    near = exact > -40
    assert 5 < near.sum() < 20
    assert np.abs(_log_masses(likelihood).double().numpy() - exact)[near].max() < 2e-5


@pytest.mark.parametrize("name", AUDIO_LIKELIHOODS)
def test_probabilities_are_those_of_log_prob(name: str) -> None:
    likelihood = _random(name)
    features_BFS = torch.randn(2, 4, 3)
    table_BSL = likelihood.probabilities(features_BFS)
    assert table_BSL.shape == (2, 3, likelihood.levels)
    torch.testing.assert_close(table_BSL.double().sum(-1), torch.ones(2, 3, dtype=torch.float64), atol=1e-6, rtol=0)
    samples_L = likelihood.samples_of(torch.arange(likelihood.levels))
    for item, place in ((0, 0), (1, 2)):
        feature = features_BFS[item : item + 1, :, place : place + 1].expand(-1, -1, likelihood.levels)
        log_prob_L = likelihood.log_prob(feature, samples_L[None])[0]
        seen = log_prob_L > -80  # below, fp32 has no room for the mass
        assert seen.float().mean() > 0.02
        torch.testing.assert_close(table_BSL[item, place].log()[seen], log_prob_L[seen], atol=1e-4, rtol=1e-5)


def test_mu_law_masses_of_all_levels_sum_to_one() -> None:
    likelihood = _random("mu-law")
    samples = likelihood.samples_of(torch.arange(256))
    log_prob = likelihood.log_prob(torch.randn(1, 4, 1).expand(-1, -1, 256), samples[None])
    assert log_prob.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_every_sample_of_16_bits_comes_back_as_itself() -> None:
    likelihood = make_audio_likelihood("logistic-mixture", features=1)
    levels = likelihood.levels_of(ALL_SAMPLES)
    assert torch.equal(levels, torch.arange(65536))
    assert torch.equal(likelihood.samples_of(levels), ALL_SAMPLES)
    assert likelihood.samples_of(levels).dtype == torch.int16


def test_mu_law_levels_are_those_of_the_tables() -> None:
    likelihood = make_audio_likelihood("mu-law", features=1)
    levels = torch.arange(256)
    assert torch.equal(likelihood.levels_of(likelihood.samples_of(levels)), levels)
    np.testing.assert_array_equal(likelihood.levels_of(ALL_SAMPLES).numpy(), mulaw.to_levels(ALL_SAMPLES.numpy()))
    assert (likelihood.levels_of(ALL_SAMPLES).dtype, likelihood.samples_of(levels).dtype) == (torch.int64, torch.int16)


def test_tables_are_no_weights() -> None:
    """They follow the module to its device and stay out of checkpoints."""
    assert set(make_audio_likelihood("mu-law", features=1).state_dict()) == {
        "pixels.logits.weight",
        "pixels.logits.bias",
    }


@pytest.mark.parametrize("name", AUDIO_LIKELIHOODS)
def test_every_sample_has_the_mass_of_its_own_level(name: str) -> None:
    """Batch, sample and features stay together."""
    likelihood = _random(name)
    features_BFS = torch.randn(2, 4, 5)
    samples_BS = torch.randint(-400, 400, (2, 5), dtype=torch.int16)
    log_prob_BS = likelihood.log_prob(features_BFS, samples_BS)
    assert (log_prob_BS.shape, log_prob_BS.dtype) == ((2, 5), torch.float32)
    for item in range(2):
        for place in range(5):
            feature, sample = features_BFS[item, :, place].reshape(1, 4, 1), samples_BS[item, place].reshape(1, 1)
            torch.testing.assert_close(log_prob_BS[item, place], likelihood.log_prob(feature, sample)[0, 0])


@pytest.mark.parametrize("count", [300, 5000])
@pytest.mark.parametrize("name", AUDIO_LIKELIHOODS)
def test_draws_are_the_first_levels_whose_distribution_function_exceeds_the_numbers(name: str, count: int) -> None:
    """Few numbers are searched in sixteen parts, many by bisection; both against a plain cumulative sum."""
    likelihood = _random(name)
    feature = torch.randn(1, 4, 1)
    uniform = torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    uniform[:2, 0] = torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64)
    drawn = likelihood.draw(feature.expand(count, -1, -1), uniform)
    assert (drawn.shape, drawn.dtype) == ((count, 1), torch.int16)
    assert torch.equal(drawn, likelihood.draw(feature.expand(count, -1, -1), uniform))
    cumulative = likelihood.probabilities(feature)[0, 0].double().cumsum(0)
    level = likelihood.levels_of(drawn[:, 0])
    below = torch.where(level > 0, cumulative[(level - 1).clamp(min=0)], 0.0)
    # fp32 masses: the sum of 65536 of them is good to 1e-6.
    inside = (below <= uniform[:, 0] + 1e-6) & (uniform[:, 0] < cumulative[level] + 1e-6)
    inside[1] = level[1] > 0.5 * likelihood.levels  # nothing but rounding is above the highest of all numbers
    assert inside.all()
    assert drawn.unique().numel() > 20


@pytest.mark.parametrize("count", [100, 5000])
@pytest.mark.parametrize(("location", "sample"), [(1.2, 32767), (-1.2, -32768)])
def test_what_lies_beyond_the_alphabet_is_drawn_at_its_end(location: float, sample: int, count: int) -> None:
    uniform = torch.rand(1, count, dtype=torch.float64)
    drawn = _mixture([0.0], [location], [-6.0]).draw(torch.zeros(1, 1, count), uniform)
    assert drawn.unique().tolist() == [sample]


def test_both_searches_find_the_same_sample() -> None:
    likelihood = _random("logistic-mixture")
    features, uniform = torch.randn(1, 4, 5000), torch.rand(1, 5000, dtype=torch.float64)
    many = likelihood.draw(features, uniform)
    few = torch.cat(
        [likelihood.draw(f, u) for f, u in zip(features.split(500, 2), uniform.split(500, 1), strict=True)], 1
    )
    assert torch.equal(many, few)


def test_a_relative_mixture_counts_from_the_centre_in_units() -> None:
    """Against one that is told the resulting locations and scales."""
    weight, location, log_scale = [0.3, -0.5], [0.4, -0.7], [-0.2, 0.5]
    relative = make_audio_likelihood("logistic-mixture", features=3, mixtures=2, relative=True)
    with torch.no_grad():
        relative.pixels.project.weight.zero_()
        relative.pixels.project.bias.copy_(torch.tensor([weight, location, log_scale]).T.flatten())
    samples = (torch.randn(1, 300) * 3000).to(torch.int16)
    uniform = torch.rand(1, 300, dtype=torch.float64)
    for centre, log_unit in ((0.1, -3.0), (-0.02, -6.5)):
        features = torch.tensor([[9.0, centre, log_unit]])[:, :, None].expand(-1, -1, 300)
        unit = math.exp(log_unit)
        absolute = _mixture(weight, [centre + unit * x for x in location], [log_unit + x for x in log_scale])
        nothing = torch.zeros(1, 1, 300)
        expected = absolute.log_prob(nothing, samples)
        torch.testing.assert_close(relative.log_prob(features, samples), expected, rtol=1e-5, atol=1e-4)
        drawn, expected = relative.draw(features, uniform), absolute.draw(nothing, uniform)
        assert (drawn.int() - expected.int()).abs().max() <= 1
        mass = relative.probabilities(features[:, :, :2]).double().sum(-1)
        torch.testing.assert_close(mass, torch.ones(1, 2, dtype=torch.float64), rtol=0, atol=1e-6)
    with pytest.raises(UsageError, match="only the likelihood logistic-mixture can be relative"):
        make_audio_likelihood("mu-law", features=3, relative=True)


def test_temperature_is_the_exponent_of_mu_law_masses() -> None:
    likelihood = _random("mu-law")
    features, uniform = torch.randn(1, 4, 500), torch.rand(1, 500, dtype=torch.float64)
    for temperature in (0.4, 1.7):
        mass = likelihood.probabilities(features)[0].double() ** (1 / temperature)
        cumulative = mass.cumsum(-1) / mass.sum(-1, keepdim=True)
        expected = (cumulative <= uniform[0, :, None]).sum(-1)
        drawn = likelihood.draw(features, uniform, temperature=temperature)
        assert torch.equal(likelihood.levels_of(drawn[0]), expected)


def test_temperature_divides_logits_and_multiplies_scales_of_the_mixture() -> None:
    weight, location, log_scale = [0.3, -0.5], [0.01, -0.07], [-4.0, -5.0]
    uniform, nothing = torch.rand(1, 500, dtype=torch.float64), torch.zeros(1, 1, 500)
    drawn = _mixture(weight, location, log_scale).draw(nothing, uniform, temperature=0.5)
    expected = _mixture([2 * x for x in weight], location, [x - math.log(2) for x in log_scale]).draw(nothing, uniform)
    assert (drawn.int() - expected.int()).abs().max() <= 1
    assert drawn.unique().numel() > 100


@pytest.mark.parametrize("name", AUDIO_LIKELIHOODS)
def test_draws_have_the_frequencies_of_the_masses(name: str) -> None:
    likelihood = _random(name)
    feature, count = torch.randn(1, 4, 1), 20000
    drawn = likelihood.draw(feature.expand(count, -1, -1), torch.rand(count, 1, dtype=torch.float64))
    mass = likelihood.probabilities(feature)[0, 0].double().reshape(64, -1).sum(1)  # in 64 parts of the alphabet
    part = likelihood.levels_of(drawn[:, 0]) * 64 // likelihood.levels
    frequency = torch.bincount(part, minlength=64) / count
    assert ((frequency - mass).abs() < 5 * (mass / count).sqrt() + 1e-4).all()


@pytest.mark.parametrize("size", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("name", AUDIO_LIKELIHOODS)
def test_gradients_are_finite_at_every_sample_whatever_the_parameters(name: str, size: float) -> None:
    likelihood = _random(name)
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.mul_(size)
    features = torch.randn(1, 4, 4096, requires_grad=True)
    samples = ALL_SAMPLES[torch.linspace(0, 65535, 4096).long()][None]
    log_prob = likelihood.log_prob(features, samples)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert (log_prob <= 1e-5).all()
    for gradient in (features.grad, *(parameter.grad for parameter in likelihood.parameters())):
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_gradient_is_that_of_float64() -> None:
    """By central differences of the exact log-masses, for a location and a log-scale."""
    parameters = ([0.2, -0.3], [0.004, -0.02], [-6.0, -4.5])
    likelihood = _mixture(*parameters)
    sample = torch.tensor([[150]], dtype=torch.int16)
    likelihood.log_prob(torch.zeros(1, 1, 1), sample).sum().backward()
    gradient = likelihood.pixels.project.bias.grad.view(2, 3)
    for kind in range(3):
        values = []
        for sign in (1, -1):
            moved = [list(part) for part in parameters]
            moved[kind][1] += sign * 2**-12
            values.append(_exact(_mixture(*moved))[150 + 32768])
            step = moved[kind][1] - parameters[kind][1]
        assert gradient[1, kind].item() == pytest.approx((values[0] - values[1]) / (2 * abs(step)), rel=2e-3, abs=1e-4)


def test_the_mixture_starts_around_silence() -> None:
    """Quiet noise costs less than the 16 bits of a uniform distribution, and every component has a share."""
    torch.manual_seed(0)
    likelihood = make_audio_likelihood("logistic-mixture", features=64)
    samples = (torch.randn(4, 512) * 600).to(torch.int16)
    bits = -likelihood.log_prob(torch.randn(4, 64, 512).relu(), samples) / math.log(2)
    assert bits.mean() < 14
    location = likelihood.pixels.project.bias.detach().view(10, 3)[:, 1]
    assert (location.min().item(), location.max().item()) == pytest.approx((-0.1, 0.1))


@pytest.mark.parametrize("name", AUDIO_LIKELIHOODS)
def test_autocast_changes_nothing(name: str) -> None:
    likelihood = _random(name)
    features, samples = torch.randn(1, 4, 50), torch.randint(-3000, 3000, (1, 50), dtype=torch.int16)
    uniform = torch.rand(1, 50, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = (likelihood.log_prob(features, samples), likelihood.draw(features, uniform))
    assert torch.equal(inside[0], likelihood.log_prob(features, samples))
    assert torch.equal(inside[1], likelihood.draw(features, uniform))


def test_another_name_is_refused() -> None:
    with pytest.raises(UsageError, match="mu-law, logistic-mixture, not 'categorical'"):
        make_audio_likelihood("categorical", features=1)
