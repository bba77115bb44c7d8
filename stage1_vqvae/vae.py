"""Continuous VAE / beta-VAE baseline (Kingma and Welling 2014, arXiv 1312.6114; Higgins et al. 2017).

Encoder, decoder and likelihood are those of the VQ-VAE; only the bottleneck differs: a diagonal Gaussian q(z|x) on the
same grid against a standard normal prior. Training minimises distortion + beta * KL; `bounds` is always at beta = 1.

Shapes: B items, C x H x W image, Z latent channels on an h x w grid, S importance samples.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from stage1_vqvae.networks import Encoder, check_images, code_grid, normalise
from stage1_vqvae.pixel_decoder import PixelDecoder
from twostage.errors import UsageError


@dataclass(frozen=True)
class GaussianPosterior:
    """Diagonal Gaussian q(z|x); both fields `[B, Z, h, w]`, fp32."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """z = mean + sigma * eps (reparameterised); eps is drawn from torch's global generator unless given."""
        noise = torch.randn_like(self.mean) if noise is None else noise
        return self.mean + torch.exp(0.5 * self.log_variance) * noise

    def kl_nats(self) -> Tensor:
        """KL(q(z|x) || N(0, I)) per latent in nats, `[B, Z, h, w]`, closed form (Kingma and Welling, appendix B)."""
        return 0.5 * (self.mean**2 + self.log_variance.exp() - 1.0 - self.log_variance)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, `[B]`."""
        squared = (z - self.mean) ** 2 * torch.exp(-self.log_variance)
        return (-0.5 * (squared + self.log_variance + math.log(2 * math.pi))).flatten(1).sum(1)


@dataclass(frozen=True)
class VAEOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: (distortion + beta * KL) in nats/dim."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z) at one posterior sample, fp32."""
    kl_nats: Tensor
    """`[B]`, KL(q(z|x) || p(z)), fp32."""


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


def item_noise(seed: int, first_item: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise `[count, *shape]`, fp32 on the CPU; that of item i is a pure function of (seed, i)."""
    noise = torch.empty(count, *shape)
    for row in range(count):
        word = np.random.SeedSequence([seed, first_item + row]).generate_state(1, np.uint64)[0]
        noise[row].normal_(generator=torch.Generator().manual_seed(int(word >> np.uint64(1))))
    return noise


class VAE(nn.Module):
    """Gaussian autoencoder of integer images, the VQ-VAE's continuous twin.

    Args:
        beta: weight of the KL term in the training loss, above zero.
        latent_channels: Z, Gaussian latents per grid position.
        Others: as in `VQVAE`.

    Raises:
        UsageError: beta is not positive or the sizes do not fit one another.
    """

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        levels: int = 256,
        likelihood: str = "categorical",
        downsampling: int = 4,
        channels: int = 256,
        residual_blocks: int = 2,
        residual_channels: int = 128,
        head_channels: int = 64,
        mixtures: int = 10,
        autoregressive_layers: int = 0,
        autoregressive_channels: int = 32,
        autoregressive_kernel: int = 5,
        auxiliary_weight: float = 0.0,
        latent_channels: int = 8,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        if not (beta > 0 and math.isfinite(beta)):
            raise UsageError(f"beta must be a positive number, not {beta}")
        self.image_shape, self.levels, self.beta = image_shape, levels, beta
        self.dims = image_shape[0] * image_shape[1] * image_shape[2]
        self.latent_shape = (latent_channels, *code_grid(image_shape, downsampling))
        self.encoder = Encoder(
            image_channels=image_shape[0],
            channels=channels,
            residual_blocks=residual_blocks,
            residual_channels=residual_channels,
            downsampling=downsampling,
            out_channels=2 * latent_channels,
        )
        self.decoder = PixelDecoder(
            in_channels=latent_channels,
            image_shape=image_shape,
            levels=levels,
            likelihood=likelihood,
            mixtures=mixtures,
            downsampling=downsampling,
            channels=channels,
            residual_blocks=residual_blocks,
            residual_channels=residual_channels,
            head_channels=head_channels,
            autoregressive_layers=autoregressive_layers,
            autoregressive_channels=autoregressive_channels,
            autoregressive_kernel=autoregressive_kernel,
            auxiliary_weight=auxiliary_weight,
        )
        self.autoregressive, self.likelihood_is_discrete = self.decoder.autoregressive, self.decoder.likelihood.discrete

    def posterior(self, x_BCHW: Tensor) -> GaussianPosterior:
        """q(z|x) for integer images."""
        check_images(x_BCHW, self.image_shape, self.levels)
        mean, log_variance = self.encoder(normalise(x_BCHW, self.levels)).float().chunk(2, 1)
        # A soft bound keeps exp() finite early in training; at |log variance| below 5 it changes less than 4 %.
        return GaussianPosterior(mean=mean, log_variance=15.0 * torch.tanh(log_variance / 15.0))

    def _log_likelihood_nats(self, x_BCHW: Tensor, z_BZHW: Tensor) -> Tensor:
        return self.decoder.log_prob(z_BZHW, x_BCHW).flatten(1).sum(1)

    def forward(self, x_BCHW: Tensor) -> VAEOutput:
        """Training loss of a batch of integer images, one posterior sample each."""
        posterior = self.posterior(x_BCHW)
        log_likelihood_nats_B, maximised_B = self.decoder.training_nats(posterior.sample(), x_BCHW)
        kl_nats_B = posterior.kl_nats().flatten(1).sum(1)
        loss = (self.beta * kl_nats_B - maximised_B).mean() / self.dims
        return VAEOutput(loss=loss, log_likelihood_nats=log_likelihood_nats_B, kl_nats=kl_nats_B)

    @torch.no_grad()
    def bounds(self, x_BCHW: Tensor, *, samples: int, seed: int, first_item: int = 0) -> VAEBounds:
        """ELBO and importance-weighted bound at beta = 1 from `samples` posterior draws per item.

        Args:
            x_BCHW: integer images, items `first_item` .. `first_item + B - 1` of a data set.
            samples: k of the importance-weighted bound.
            seed: item i draws from (seed, i) alone, so that the batch size changes nothing.
            first_item: number of the first image.
        """
        posterior = self.posterior(x_BCHW)
        kl_B = posterior.kl_nats().flatten(1).sum(1)
        noise_BSZHW = item_noise(seed, first_item, len(x_BCHW), (samples, *self.latent_shape)).to(kl_B.device)
        log_likelihoods, log_weights = [], []
        for sample in range(samples):
            z = posterior.sample(noise_BSZHW[:, sample])
            log_likelihood_B = self._log_likelihood_nats(x_BCHW, z)
            log_prior_B = (-0.5 * (z**2 + math.log(2 * math.pi))).flatten(1).sum(1)
            log_likelihoods.append(log_likelihood_B)
            log_weights.append(log_likelihood_B + log_prior_B - posterior.log_prob(z))
        log_likelihood_B = torch.stack(log_likelihoods).mean(0)
        return VAEBounds(
            elbo=log_likelihood_B - kl_B,
            importance_weighted=torch.stack(log_weights).logsumexp(0) - math.log(samples),
            log_likelihood=log_likelihood_B,
            kl=kl_B,
        )

    @torch.no_grad()
    def decode(self, z_BZHW: Tensor, *, seed: int = 0, first_item: int = 0) -> Tensor:
        """Latents to images `[B, C, H, W]` in levels, fp32.

        The mean of p(x|z); from an autoregressive decoder a sample, that of items `first_item` onwards of `seed`.
        """
        return self.decoder.decode(z_BZHW, seed=seed, first_item=first_item)

    @torch.no_grad()
    def reconstruct(self, x_BCHW: Tensor, *, seed: int = 0, first_item: int = 0) -> Tensor:
        """`decode` with z at its posterior mean."""
        return self.decode(self.posterior(x_BCHW).mean, seed=seed, first_item=first_item)
