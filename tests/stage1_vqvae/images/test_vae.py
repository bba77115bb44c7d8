"""The Gaussian baseline: reparameterisation, closed-form KL, and both bounds against references."""

import math

import pytest
import torch

from stage1_vqvae.gaussian import GaussianPosterior
from stage1_vqvae.images.vae import VAE
from twostage.errors import UsageError


def _model(**overrides) -> VAE:
    torch.manual_seed(0)
    settings = {"image_shape": (1, 4, 4), "levels": 5, "downsampling": 2, "channels": 8, "residual_channels": 4}
    return VAE(**{**settings, "head_channels": 6, "latent_channels": 2, **overrides})


def test_closed_form_kl_agrees_with_monte_carlo() -> None:
    torch.manual_seed(0)
    posterior = GaussianPosterior(mean=torch.randn(1, 2, 1, 1), log_variance=torch.randn(1, 2, 1, 1))
    many = GaussianPosterior(posterior.mean.expand(400_000, 2, 1, 1), posterior.log_variance.expand(400_000, 2, 1, 1))
    z = many.sample()
    log_ratio = many.log_prob(z) - (-0.5 * (z**2 + math.log(2 * math.pi))).flatten(1).sum(1)
    exact = posterior.kl_nats().sum().item()
    error = log_ratio.std().item() / math.sqrt(len(z))
    assert error < 0.01
    assert log_ratio.mean().item() == pytest.approx(exact, abs=5 * error)


def test_kl_is_zero_at_the_prior_and_positive_elsewhere() -> None:
    zero = torch.zeros(1, 1, 1, 1)
    assert GaussianPosterior(zero, zero).kl_nats().item() == 0.0
    assert GaussianPosterior(zero, zero + 1).kl_nats().item() > 0.1
    assert GaussianPosterior(zero, zero - 1).kl_nats().item() > 0.1


def test_reparameterised_gradient_is_that_of_the_expectation() -> None:
    """E[z^2] = mean^2 + sigma^2, so d/dmean = 2 mean and d/dlog_variance = sigma^2."""
    torch.manual_seed(0)
    mean = torch.full((200_000, 1, 1, 1), 0.7, requires_grad=True)
    log_variance = torch.full((200_000, 1, 1, 1), -0.4, requires_grad=True)
    (GaussianPosterior(mean, log_variance).sample() ** 2).sum().backward()
    assert mean.grad is not None
    assert log_variance.grad is not None
    assert mean.grad.mean().item() == pytest.approx(1.4, abs=0.02)
    assert log_variance.grad.mean().item() == pytest.approx(math.exp(-0.4), abs=0.02)


def test_loss_weighs_the_kl_by_beta_and_the_bounds_do_not() -> None:
    x = torch.randint(0, 5, (3, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    outputs, elbos = [], []
    for beta in (1.0, 4.0):
        model = _model(beta=beta)
        torch.manual_seed(1)
        outputs.append(model(x))
        elbos.append(model.bounds(x, samples=2, seed=1).elbo)
    difference = (outputs[1].loss - outputs[0].loss).item()
    assert difference == pytest.approx(3 * outputs[0].kl_nats.mean().item() / 16, rel=1e-5)
    assert torch.equal(elbos[0], elbos[1])


def test_importance_bound_rises_with_samples_towards_the_evidence() -> None:
    """With one latent dimension the evidence is a one-dimensional integral: computed on a grid."""
    model = _model(image_shape=(1, 2, 2), latent_channels=1, levels=3).eval()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(5.0)  # make p(x|z) depend on z, so that the prior-like posterior is a poor one
        x = torch.tensor([[[[0, 2], [1, 2]]]])
        z = torch.linspace(-8, 8, 4001)
        log_joint = model.log_prob(x.expand(4001, -1, -1, -1), z.reshape(-1, 1, 1, 1)).double()
        log_joint += -0.5 * (z.double() ** 2 + math.log(2 * math.pi))
        evidence = torch.logsumexp(log_joint + math.log(16 / 4000), 0).item()
    torch.manual_seed(0)
    many = x.expand(512, -1, -1, -1)
    bounds = [model.bounds(many, samples=k, seed=0).importance_weighted.double() for k in (1, 16, 256)]
    one, sixteen, wide = (bound.mean().item() for bound in bounds)
    errors = [bound.std().item() / math.sqrt(512) for bound in bounds]
    assert one < sixteen - 3 * errors[0]
    assert sixteen < evidence + 4 * errors[1]
    assert wide == pytest.approx(evidence, abs=4 * errors[2] + 1e-3)


def test_elbo_is_log_likelihood_minus_kl_and_below_the_importance_bound() -> None:
    model = _model().eval()
    bounds = model.bounds(torch.randint(0, 5, (64, 1, 4, 4)), samples=32, seed=0)
    torch.testing.assert_close(bounds.elbo, bounds.log_likelihood - bounds.kl)
    assert bounds.importance_weighted.mean() > bounds.elbo.mean()


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_beta_must_be_positive(beta: float) -> None:
    with pytest.raises(UsageError, match="beta must be a positive number"):
        _model(beta=beta)
