"""The Gaussian bottleneck of the continuous models: posterior, reparameterisation and bounds."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stage1_vqvae.interface import Score
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
