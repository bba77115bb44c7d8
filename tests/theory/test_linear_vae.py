"""A linear VAE has a closed-form optimum: probabilistic PCA (Tipping and Bishop 1999; Lucas et al. 2019, 1911.02469).

With decoder variance 1, which is what the likelihood `mse` means, the best linear decoder spans the eigenvectors of the
data's covariance whose eigenvalues exceed beta, and at beta = 1 the ELBO of the best linear encoder is the exact
log-likelihood. The optimum is found in float64 from the covariance alone, by a loss written down here, and put into a
`VAE` whose networks are linear: what is tested are its objective and its bounds.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stage1_vqvae.images.vae import VAE

SEEDS, BETAS = tuple(range(10)), (0.5, 1.0, 2.0, 4.0)
SIDE, LATENTS, ITEMS = 6, 6, 1000
DIMS = SIDE * SIDE


@cache
def _images(seed: int) -> Tensor:
    """`[N, 1, 6, 6]` levels of 256 whose covariance, scaled to [-1, 1], has a few eigenvalues on both sides of 1."""
    rng = np.random.default_rng(seed)
    while True:
        scales_Z = np.exp(rng.uniform(math.log(0.3), math.log(6.0), LATENTS))
        axes_DZ = np.linalg.qr(rng.standard_normal((DIMS, LATENTS)))[0]
        scaled_ND = rng.standard_normal((ITEMS, LATENTS)) * np.sqrt(scales_Z) @ axes_DZ.T
        scaled_ND += 0.1 * rng.standard_normal((ITEMS, DIMS))
        levels_ND = np.clip(np.round((scaled_ND + 1.0) * 127.5), 0, 255).astype(np.uint8)
        images = torch.from_numpy(levels_ND).reshape(-1, 1, SIDE, SIDE)
        eigenvalues_D = torch.linalg.eigvalsh(_moments(images)[1])
        # Near the threshold a unit takes for ever to decide.
        if all((eigenvalues_D / beta).log().abs().min() > 0.1 for beta in BETAS):
            return images


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean `[D]` and covariance `[D, D]` of images scaled to [-1, 1], float64."""
    scaled_ND = images.flatten(1).double() * (2.0 / 255) - 1.0
    return scaled_ND.mean(0), torch.cov(scaled_ND.T, correction=0)


@dataclass(frozen=True)
class Linear:
    """z = encoder (x - mean) with variances exp(log_variance); x = mean + decoder z with unit variance."""

    encoder_ZD: Tensor
    decoder_DZ: Tensor
    log_variance_Z: Tensor


@cache
def _optima() -> dict[tuple[int, float], Linear]:
    """Of all seeds and betas at once, by Adam on distortion + beta * KL, exact in the latents' noise."""
    cases = [(seed, beta) for seed in SEEDS for beta in BETAS]
    covariance_PDD = torch.stack([_moments(_images(seed))[1] for seed, _ in cases])
    beta_P = torch.tensor([beta for _, beta in cases], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    shapes = ((len(cases), LATENTS, DIMS), (len(cases), DIMS, LATENTS), (len(cases), LATENTS))
    encoder, decoder, log_variance = (
        (0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_() for shape in shapes
    )
    steps, rate = 800, 0.03
    optimiser = torch.optim.Adam([encoder, decoder, log_variance], lr=rate)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        projected = encoder @ covariance_PDD
        means_PZZ = projected @ encoder.mT
        second_PZZ = means_PZZ + torch.diag_embed(log_variance.exp())
        cross_P = (projected.mT * decoder).sum((1, 2))
        distortion_P = 0.5 * ((decoder.mT @ decoder) * second_PZZ).sum((1, 2)) - cross_P
        squares_PZ = means_PZZ.diagonal(dim1=1, dim2=2)
        kl_P = 0.5 * (squares_PZ + log_variance.exp() - 1 - log_variance).sum(1)
        optimiser.zero_grad()
        (distortion_P + beta_P * kl_P).sum().backward()
        optimiser.step()
    found = (encoder.detach(), decoder.detach(), log_variance.detach())
    return {case: Linear(*(tensor[row] for tensor in found)) for row, case in enumerate(cases)}


def _vae(images: Tensor, linear: Linear, beta: float) -> VAE:
    """The linear model as a `VAE`: its own objective and bounds around networks that are matrices."""
    model = VAE(
        image_shape=(1, SIDE, SIDE),
        likelihood="mse",
        network="mlp",
        latent_dim=LATENTS,
        channels=2,
        residual_blocks=0,
        head_channels=1,
        beta=beta,
    )
    encoder, decoder = nn.Linear(DIMS, 2 * LATENTS), nn.Linear(LATENTS, DIMS)
    mean_D = _moments(images)[0]
    with torch.no_grad():
        encoder.weight.copy_(torch.cat([linear.encoder_ZD, torch.zeros_like(linear.encoder_ZD)]))
        bounded_Z = 15.0 * torch.atanh(linear.log_variance_Z / 15.0)
        encoder.bias.copy_(torch.cat([-linear.encoder_ZD @ mean_D, bounded_Z]))
        decoder.weight.copy_(linear.decoder_DZ)
        decoder.bias.copy_(mean_D)
        model.decoder.likelihood.output.weight.fill_(1.0)
        model.decoder.likelihood.output.bias.zero_()
    model.add_module("encoder", encoder)
    model.decoder.add_module("network", nn.Sequential(decoder, nn.Unflatten(1, (1, SIDE, SIDE))))
    return model.eval()


def _constant_nats() -> float:
    """What the likelihood `mse` leaves out of the Gaussian."""
    return -0.5 * DIMS * math.log(2 * math.pi)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_elbo_is_the_log_likelihood_of_probabilistic_pca(seed: int) -> None:
    images = _images(seed)
    eigenvalues_D = torch.linalg.eigvalsh(_moments(images)[1])
    kept = eigenvalues_D > 1.0
    # Along a kept axis the model's variance is the eigenvalue itself, along any other it is 1.
    exponent = kept.sum() + eigenvalues_D[~kept].sum()
    exact = _constant_nats() - 0.5 * (eigenvalues_D[kept].log().sum() + exponent).item()
    bounds = _vae(images, _optima()[seed, 1.0], 1.0).bounds(images, samples=32, seed=0)
    elbo = bounds.elbo.double().mean().item() + _constant_nats()
    assert abs(elbo - exact) / DIMS < 1e-3


@pytest.mark.parametrize("beta", BETAS)
def test_active_units_are_the_eigenvalues_above_beta(beta: float) -> None:
    for seed in SEEDS:
        images = _images(seed)
        eigenvalues_D = torch.linalg.eigvalsh(_moments(images)[1])
        means_NZ = _vae(images, _optima()[seed, beta], beta).posterior(images).mean.detach()
        active = int((means_NZ.var(0) > 0.01).sum())
        assert active == int((eigenvalues_D > beta).sum()), seed


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_training_objective_is_stationary_there_and_nowhere_near(beta: float) -> None:
    """Its slopes in the posterior's variances, averaged over draws, are zero there, but not at a beta a fifth larger.

    (In the weights Adam is not exact to the standard error where the data hardly vary.)
    """
    images, worst = _images(0), {}
    for factor in (1.0, 1.2):
        model = _vae(images, _optima()[0, beta], factor * beta)
        torch.manual_seed(0)
        draws = [torch.autograd.grad(model(images).loss, model.encoder.bias)[0][LATENTS:] for _ in range(40)]
        slopes_SZ = torch.stack(draws)
        error_Z = slopes_SZ.std(0) / math.sqrt(len(slopes_SZ))
        worst[factor] = (slopes_SZ.mean(0).abs() / (error_Z + 1e-6)).max().item()
    assert worst[1.0] < 4.5
    assert worst[1.2] > 15


def test_with_a_poor_encoder_the_importance_bound_rises_to_the_exact_value() -> None:
    images = _images(3)
    mean_D, covariance_DD = _moments(images)
    best = _optima()[3, 1.0]
    # Off by half a posterior standard deviation on average, and a third too wide.
    wrong_ZD = torch.randn(LATENTS, DIMS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread_Z = (wrong_ZD @ covariance_DD * wrong_ZD).sum(1).sqrt()
    shift_ZD = 0.5 * wrong_ZD * ((0.5 * best.log_variance_Z).exp() / spread_Z)[:, None]
    poor = Linear(best.encoder_ZD + shift_ZD, best.decoder_DZ, best.log_variance_Z + 2 * math.log(4 / 3))
    model, some = _vae(images, poor, 1.0), images[:100]
    marginal = torch.distributions.MultivariateNormal(
        mean_D, best.decoder_DZ @ best.decoder_DZ.T + torch.eye(DIMS, dtype=torch.float64)
    )
    exact_B = marginal.log_prob(some.flatten(1).double() * (2.0 / 255) - 1.0) - _constant_nats()
    gaps = []
    for samples in (1, 8, 64, 1024):
        gap_B = model.bounds(some, samples=samples, seed=1).importance_weighted.double() - exact_B
        gaps.append((gap_B.mean().item(), gap_B.std().item() / math.sqrt(len(some))))
    (one, error_1), (eight, error_8), (many, _), (most, error_most) = gaps
    assert one + 3 * error_1 < eight
    assert eight + 2 * error_8 < many
    assert many < 2 * error_most
    assert abs(most) < 2 * error_most
