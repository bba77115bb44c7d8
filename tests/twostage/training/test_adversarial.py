"""Generator and discriminator under one loss: each has its own gradient and no other, and losses are balanced."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twostage.config.schema import TrainingConfig
from twostage.training.adversarial import (
    BETAS,
    DISCRIMINATOR_SHARE,
    Adversarial,
    balanced_gradient,
    descend,
    feature_distance,
    generator_loss,
    hinge_loss,
)
from twostage.training.optimiser import make_optimiser


class Pair(Adversarial):
    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(3, 5), nn.Linear(5, 2)


def _norm(values: Tensor) -> Tensor:
    return values.flatten(1).norm(dim=1)


def test_each_part_has_the_gradient_of_its_own_loss() -> None:
    torch.manual_seed(0)
    pair, z_B3, x_B5 = Pair(), torch.randn(4, 3), torch.randn(4, 5)
    made_B5 = pair.generator(z_B3)
    seen_B5 = made_B5.detach().requires_grad_()
    verdicts = pair.discriminator(x_B5), pair.discriminator(seen_B5)
    error_B = (seen_B5 - x_B5).abs().mean(1)
    gradient = balanced_gradient(seen_B5, error_B, [(0.7, generator_loss(verdicts[1]))])
    judging = hinge_loss(*verdicts).mean()
    loss = descend(made_B5, gradient, value=error_B.mean(), discriminator=judging)
    assert loss.item() == pytest.approx(error_B.mean().item())
    loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in pair.named_parameters() if parameter.grad is not None}

    # Slowly: the weight of every item, and both losses one after the other, each with the other part held still.
    pair.zero_grad()
    own_B5 = pair.generator(z_B3)
    base, verdict = (own_B5 - x_B5).abs().mean(1), -pair.discriminator(own_B5).mean(1)
    norms = [_norm(torch.autograd.grad(each.sum(), own_B5, retain_graph=True)[0]) for each in (base, verdict)]
    whole = (base + 0.7 * norms[0] / norms[1] * verdict).mean()
    of_generator = torch.autograd.grad(whole, tuple(pair.generator.parameters()))
    still_B5 = pair.generator(z_B3).detach()
    alone = F.relu(1 - pair.discriminator(x_B5)).mean() + F.relu(1 + pair.discriminator(still_B5)).mean()
    of_discriminator = torch.autograd.grad(DISCRIMINATOR_SHARE * alone, tuple(pair.discriminator.parameters()))
    for name, expected in zip(dict(pair.named_parameters()), [*of_generator, *of_discriminator], strict=True):
        torch.testing.assert_close(found[name], expected)


def test_a_loss_pulls_at_every_item_as_its_weight_says() -> None:
    torch.manual_seed(1)
    output = torch.randn(3, 2, 4, requires_grad=True)
    base_B, other_B = output.abs().flatten(1).mean(1), 1000 * output[:, 0].square().sum(1)
    alone = balanced_gradient(output, base_B, [])
    both = balanced_gradient(output, base_B, [(0.25, other_B)])
    torch.testing.assert_close(_norm(both - alone), 0.25 * _norm(alone))


def test_an_exact_item_stays_where_it_is() -> None:
    output = torch.zeros(2, 4, requires_grad=True)
    gradient = balanced_gradient(output, output.square().sum(1), [(1.0, output.sum(1) * torch.tensor([0.0, 1.0]))])
    assert gradient.tolist() == [[0.0] * 4] * 2


def test_hinge_of_no_verdict_and_of_a_right_one() -> None:
    nothing, sure = torch.zeros(2, 1, 3, 3), torch.full((2, 1, 3, 3), 5.0)
    assert hinge_loss(nothing, nothing).tolist() == [2.0, 2.0]
    assert hinge_loss(sure, -sure).tolist() == [0.0, 0.0]
    assert generator_loss(sure).tolist() == [-5.0, -5.0]


def test_feature_distances_are_relative_to_the_real_ones() -> None:
    real = [torch.ones(2, 3, 4), 10 * torch.ones(2, 5)]
    made = [1.5 * each for each in real]
    torch.testing.assert_close(feature_distance(real, made), torch.full((2,), 0.5))


def test_a_pair_has_less_momentum_than_other_models() -> None:
    budget = TrainingConfig()
    assert make_optimiser(Pair(), budget).param_groups[0]["betas"] == BETAS
    assert math.isclose(make_optimiser(nn.Linear(2, 2), budget).param_groups[0]["betas"][0], 0.9)
