"""Masses add up to one at every parameter, and no draw favours the last symbol for what rounding has left."""

import pytest
import torch
from torch import Tensor

from twostage.likelihoods.audio import AudioLikelihood
from twostage.likelihoods.images import BernoulliLikelihood, CategoricalLikelihood, HurdleLikelihood, draw_levels
from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood

ROWS = 32
"""Sets of parameters tried at once."""


def _mixture(
    *, levels: int, spread: float, log_scales: tuple[float, float], seed: int, improbable: bool = False
) -> LogisticMixtureLikelihood:
    """A mixture whose features choose one of `ROWS` sets of parameters: centres at 0, a unit of 1, any links.

    Where `improbable` every level of the first channel is thousands of nats away from every component.
    """
    generator = torch.Generator().manual_seed(seed)
    likelihood = LogisticMixtureLikelihood(features=ROWS, channels=3, levels=levels, mixtures=4)
    raw = torch.empty(ROWS, 4, likelihood.parameters_per_mixture)
    raw[..., 0].uniform_(-20, 20, generator=generator)
    raw[..., 1:4].uniform_(-spread, spread, generator=generator)
    raw[..., 4:7].uniform_(*log_scales, generator=generator)
    frame = torch.zeros(ROWS, 8)
    frame[:, 5:].uniform_(-3, 3, generator=generator)
    if improbable:
        raw[..., 1].uniform_(5, 30, generator=generator)
        raw[..., 4] = -7.0
    with torch.no_grad():
        likelihood.project.weight.copy_(raw.flatten(1).T)
        likelihood.project.bias.zero_()
        likelihood.frame.project.weight.copy_(frame.T)
        likelihood.frame.project.bias.zero_()
    return likelihood


def _every_level(earlier: list[int], channel: int, levels: int) -> Tensor:
    """`[L, 3, 1, 1]`: the earlier channels fixed, one at every level, the rest anything."""
    x_LC = torch.zeros(levels, 3, dtype=torch.int64)
    for place, level in enumerate(earlier[:channel]):
        x_LC[:, place] = level
    x_LC[:, channel] = torch.arange(levels)
    return x_LC[:, :, None, None]


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize(
    ("spread", "log_scales", "improbable"),
    [
        (1.0, (-3.0, 0.0), False),
        (1.0, (-3.0, 0.0), True),
        (1.5, (-7.5, -5.0), False),
        (1.5, (-7.5, 7.5), True),
        (0.0, (5.0, 7.5), False),
    ],
    ids=["usual", "usual after improbable", "narrow", "of all widths after improbable", "wide"],
)
def test_masses_of_every_channel_sum_to_one_whatever_came_before(
    levels: int, spread: float, log_scales: tuple[float, float], improbable: bool
) -> None:
    likelihood = _mixture(levels=levels, spread=spread, log_scales=log_scales, improbable=improbable, seed=levels)
    for row in range(ROWS):
        feature = torch.eye(ROWS)[row][None, :, None, None]
        for earlier in ([0, 0], [levels - 1, 0], [0, levels - 1], [levels // 2, levels // 3]):
            for channel in range(3):
                x_LCHW = _every_level(earlier, channel, levels)
                with torch.no_grad():
                    log_prob_L = likelihood.log_prob(feature.expand(levels, -1, -1, -1), x_LCHW)[:, channel, 0, 0]
                    table_L = likelihood.probabilities(feature, x_LCHW[:1])[0, channel, 0, 0]
                assert log_prob_L.dtype == table_L.dtype == torch.float32
                assert log_prob_L.double().exp().sum().item() == pytest.approx(1.0, abs=1e-6)
                assert table_L.double().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("levels", [2, 256])
def test_gradients_stay_finite_after_improbable_channels(levels: int) -> None:
    likelihood = _mixture(levels=levels, spread=1.0, log_scales=(-7.5, 0.0), improbable=True, seed=1)
    features = torch.eye(ROWS)[:, :, None, None].requires_grad_()
    log_prob = likelihood.log_prob(features, _every_level([0, levels - 1], 2, levels)[:1].expand(ROWS, -1, -1, -1))
    assert log_prob.isfinite().all()
    assert log_prob.min() < -10_000
    log_prob.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in likelihood.parameters() if parameter.grad is not None)


LAST = 1.0 - 2.0**-53
"""The largest number that a draw can start from."""


def _peaked(name: str, levels: int) -> CategoricalLikelihood | HurdleLikelihood | LogisticMixtureLikelihood:
    """Random masses in 1000 rows of features of which the upper half of the levels has less than 1e-20."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1000, levels, generator=generator)
    rows[:, levels // 2 :] = -60.0
    with torch.no_grad():
        if name == "categorical":
            likelihood = CategoricalLikelihood(features=1000, channels=1, levels=levels)
            likelihood.logits.weight.copy_(rows.T)
            likelihood.logits.bias.zero_()
        elif name == "hurdle":
            likelihood = HurdleLikelihood(features=1000, channels=1, levels=levels)
            likelihood.zero_logit.weight.copy_(rows[:, :1].T)
            likelihood.zero_logit.bias.zero_()
            likelihood.above_logits.weight.copy_(rows[:, 1:].T)
            likelihood.above_logits.bias.zero_()
        else:
            likelihood = LogisticMixtureLikelihood(features=1000, channels=1, levels=levels, mixtures=5)
            likelihood.frame.project.weight.zero_()
            likelihood.frame.project.bias.zero_()
            raw = torch.empty(1000, 5, 3)
            raw[..., 0].normal_(generator=generator)
            raw[..., 1].uniform_(-0.9, -0.2, generator=generator)
            raw[..., 2] = -6.5  # 0.2 away from the middle of the alphabet are 130 scales
            likelihood.project.weight.copy_(raw.flatten(1).T)
            likelihood.project.bias.zero_()
    return likelihood


@pytest.mark.parametrize("name", ["categorical", "hurdle", "logistic-mixture"])
def test_the_last_level_is_not_drawn_for_what_rounding_has_left(name: str) -> None:
    """Of a thousand sums of fp32 masses some are below one: a number beyond them belongs to a level that has mass."""
    likelihood = _peaked(name, 256)
    uniform = torch.full((1000, 1, 1, 1), LAST, dtype=torch.float64)
    for temperature in (1.0, 0.7):
        drawn = draw_levels(likelihood, torch.eye(1000)[:, :, None, None], uniform, temperature=temperature)
        assert drawn.max() < 128


def test_the_last_level_of_a_sound_is_not_drawn_for_what_rounding_has_left() -> None:
    likelihood = AudioLikelihood("mu-law", features=1000)
    likelihood.pixels = _peaked("categorical", 256)
    drawn = likelihood.draw(torch.eye(1000)[None], torch.full((1, 1000), LAST, dtype=torch.float64))
    assert likelihood.levels_of(drawn).max() < 128


@torch.no_grad()
def test_the_second_level_of_a_bernoulli_is_drawn_however_rare() -> None:
    """Its 2e-9 is added to a mass that fp32 rounds up to one, where numbers below one never came to it."""
    likelihood = BernoulliLikelihood(features=1, channels=1, levels=2)
    likelihood.logit.weight.zero_()
    likelihood.logit.bias.fill_(-20.0)
    uniform = torch.tensor([LAST, 1 - 1e-9, 1 - 4e-9, 0.0], dtype=torch.float64)[:, None, None, None]
    assert draw_levels(likelihood, torch.zeros(4, 1, 1, 1), uniform).flatten().tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("total", [0.9, 1.0, 1.1])
def test_draws_have_the_shares_of_masses_whose_sum_is_not_one(total: float, monkeypatch: pytest.MonkeyPatch) -> None:
    likelihood = CategoricalLikelihood(features=1, channels=1, levels=4)
    mass_L = torch.tensor([0.1, 0.4, 0.2, 0.3])
    monkeypatch.setattr(
        likelihood, "probabilities", lambda features, _: (total * mass_L).expand(len(features), 1, 1, 1, 4)
    )
    uniform = (torch.arange(1000, dtype=torch.float64)[:, None, None, None] + 0.5) / 1000
    drawn = draw_levels(likelihood, torch.zeros(1000, 1, 1, 1), uniform)
    assert torch.bincount(drawn.flatten()).tolist() == [100, 400, 200, 300]


@pytest.mark.parametrize("numbers", [1, 5000], ids=["sixteen parts", "bisection"])
def test_draws_of_a_mixture_have_the_shares_of_weights_whose_sum_is_not_one(
    numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    likelihood = _peaked("logistic-mixture", 256)
    features = torch.eye(1000)[:1, :, None, None].expand(numbers, -1, 1, 1)
    uniform = torch.full((numbers, 1, 1, 1), 0.9, dtype=torch.float64)
    expected = likelihood.draw(features, uniform)
    softmax = Tensor.softmax
    monkeypatch.setattr(Tensor, "softmax", lambda values, dim: 0.8 * softmax(values, dim))
    assert torch.equal(likelihood.draw(features, uniform), expected)
