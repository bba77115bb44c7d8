"""The Gaussian bottleneck of the continuous models: posterior, reparameterisation, bounds, weight of the KL term.

Two settings of training are no part of the bounds: beta grows linearly from zero over the first `kl_warmup_steps` steps
(Bowman et al. 2016, arXiv 1511.06349, who use a sigmoid), and a group of latents whose KL, as a mean over the batch, is
below `free_bits` nats is charged that much and so pulled no further to the prior (Kingma et al. 2016, arXiv 1606.04934,
eq. 15). Every model says what its groups are.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from stage1_vqvae.batch import Score
from stage1_vqvae.interface import LatentKind
from twostage.errors import UsageError
from twostage.noise import batch_normal


@dataclass(frozen=True)
class GaussianPosterior:
    """Diagonal Gaussian q(z|x); both fields `[B, *L]`, fp32."""

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, statistics: Tensor) -> Self:
        """From what an encoder says, `[B, 2 Z, ...]`: means, then logarithms of variances, these softly bounded.

        The bound keeps exp() finite early in training; at |log variance| below 5 it changes less than 4 %.
        """
        mean, log_variance = statistics.float().chunk(2, 1)
        return cls(mean=mean, log_variance=15.0 * torch.tanh(log_variance / 15.0))

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """z = mean + sigma * eps (reparameterised); eps is `twostage.noise.batch_normal` unless given."""
        noise = batch_normal(*self.mean.shape, device=self.mean.device) if noise is None else noise
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl_nats(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) per latent in nats, `[B, *L]`, closed form (Kingma and Welling, appendix B)."""
        return 0.5 * (self.mean**2 + self.log_variance.exp() - 1.0 - self.log_variance)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, `[B]`."""
        squared = (z - self.mean) ** 2 * torch.exp(-self.log_variance)
        return (-0.5 * (squared + self.log_variance + math.log(2 * math.pi))).flatten(1).sum(1)


@dataclass(frozen=True)
class VAEBounds:
    """Bounds on log p(x) in nats, each `[B]`, from the same S posterior samples, at beta = 1."""

    elbo: Tensor
    importance_weighted: Tensor
    """log of the mean importance weight (Burda et al. 2016, arXiv 1509.00519, eq. 8)."""
    log_likelihood: Tensor
    """The ELBO's first term, averaged over the samples; its negative is the distortion."""
    kl: Tensor
    """The ELBO's second term, closed form: the rate."""

    def score(self) -> Score:
        """The same as `Stage1Model` answers it."""
        return Score(distortion=-self.log_likelihood, rate=self.kl, tighter=-self.importance_weighted)


class GaussianModel(nn.Module):
    """What VAEs of all data share: the weight of the KL term, annealed over steps that go with the checkpoint."""

    latents: LatentKind = "gaussian"
    steps_done: Tensor  # scalar, optimiser steps so far; only with kl_warmup_steps

    def weigh_kl(self, *, beta: float, kl_warmup_steps: int, free_bits: float) -> None:
        """Set the weight of the KL term and what training does with it; part of building a model.

        Raises:
            UsageError: beta is not positive, or another is negative.
        """
        if not (beta > 0 and math.isfinite(beta)):
            raise UsageError(f"beta must be a positive number, not {beta}")
        if not (kl_warmup_steps >= 0 and free_bits >= 0 and math.isfinite(free_bits)):
            raise UsageError(f"kl_warmup_steps and free_bits must be at least 0, not {kl_warmup_steps} and {free_bits}")
        self.beta, self.kl_warmup_steps, self.free_bits = beta, kl_warmup_steps, free_bits
        if kl_warmup_steps:
            self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))

    def kl_weight(self) -> float | Tensor:
        """Weight of the KL term in the training loss of the next step: beta, or its share during the warm-up."""
        if not self.kl_warmup_steps:
            return self.beta
        return self.beta * (self.steps_done / self.kl_warmup_steps).clamp(max=1.0)

    def count_step(self) -> None:
        """Take note of an optimiser step, for the warm-up; call once after each."""
        if self.kl_warmup_steps:
            self.steps_done += 1
