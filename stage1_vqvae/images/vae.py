"""Continuous VAE / beta-VAE baseline (Kingma and Welling 2014, arXiv 1312.6114; Higgins et al. 2017).

Encoder, decoder and likelihood are those of the VQ-VAE; only the bottleneck differs: a diagonal Gaussian q(z|x) on the
same grid, or over a vector (`stage1_vqvae.images.latents`), against a standard normal prior. Training minimises
distortion + beta * KL; `bounds` is always at beta = 1. With `classes` it is a conditional VAE (Sohn et al. 2015):
everything is given the label, the bounds too, and the prior over z is the same for all labels.

Training may anneal beta and leave bits free (`stage1_vqvae.gaussian`); every latent is a group of its own.

Shapes: B items, C x H x W image, L the shape of an item's latents, (Z, h, w) or (N,), S importance samples, Y classes.
"""

import math
from dataclasses import dataclass
from typing import Literal, Unpack

import torch
from torch import Tensor

from stage1_vqvae.batch import Asked, Batch, Score
from stage1_vqvae.gaussian import GaussianModel, GaussianPosterior, VAEBounds
from stage1_vqvae.images.latents import LatentLayout
from stage1_vqvae.images.model import ImageModel
from stage1_vqvae.images.networks import ImageNetworks, ImageNetworkSettings
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from twostage.noise import item_noise
from twostage.storage.from_folder import FromFolder


@dataclass(frozen=True)
class VAEOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: (distortion + beta * KL) in nats/dim, the KL annealed and with free bits where asked for."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z) at one posterior sample, fp32."""
    kl_nats: Tensor
    """`[B]`, KL(q(z|x) || p(z)), fp32."""


class VAE(FromFolder, GaussianModel, ImageModel):
    """Gaussian autoencoder of integer images, the VQ-VAE's continuous twin.

    Args:
        beta: weight of the KL term in the training loss, above zero.
        latent_channels: Z, Gaussian latents per grid position; of a convolutional vector, channels of the grid between.
        latent_dim: N, length of a vector of latents; 0: a grid.
        network: "convolutional", or "mlp" for a vector of latents without convolutions.
        mlp_layers, mlp_width: hidden layers on each side and their width, read by "mlp" alone.
        classes: Y, number of labels that encoder and decoder are given; 0: none. With labels, all methods need them.
        kl_warmup_steps: steps until the training loss has the whole of beta; 0: from the start.
        free_bits: nats per latent that training does not lower the KL below.
        auxiliary_weight: see `PixelDecoder`.
        networks: see `ImageNetworks`.

    Raises:
        UsageError: beta is not positive or the sizes do not fit one another; later, images or labels do not fit.
    """

    kinds = ("vae", "cvae")

    def __init__(
        self,
        *,
        auxiliary_weight: float = 0.0,
        latent_channels: int = 8,
        latent_dim: int = 0,
        network: Literal["convolutional", "mlp"] = "convolutional",
        mlp_layers: int = 1,
        mlp_width: int = 512,
        classes: int = 0,
        beta: float = 1.0,
        kl_warmup_steps: int = 0,
        free_bits: float = 0.0,
        **networks: Unpack[ImageNetworkSettings],
    ) -> None:
        settings = ImageNetworks(**networks)
        super().__init__(settings)
        self.classes = classes
        self.weigh_kl(beta=beta, kl_warmup_steps=kl_warmup_steps, free_bits=free_bits)
        self.layout = LatentLayout(
            settings=settings,
            latent_channels=latent_channels,
            latent_dim=latent_dim,
            network=network,
            mlp_layers=mlp_layers,
            mlp_width=mlp_width,
            classes=classes,
        )
        self.latent_shape = self.layout.latent_shape
        self.encoder = self.layout.encoder(statistics=2)
        self.decoder = PixelDecoder(
            settings, in_channels=self.layout.decoder_channels, auxiliary_weight=auxiliary_weight
        )
        self.layout.lead_into(self.decoder)

    def posterior(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> GaussianPosterior:
        """q(z|x) for integer images, q(z|x, y) with labels."""
        return GaussianPosterior.of(self.encoder(self.layout.encoder_input(x_BCHW, labels_B)))

    def decoder_input(self, z_BL: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Latents with their labels; see `LatentLayout`."""
        return self.layout.decoder_input(z_BL, labels_B)

    def forward(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> VAEOutput:
        """Training loss of a batch of integer images, one posterior sample each."""
        posterior = self.posterior(x_BCHW, labels_B)
        z_BL = self.decoder_input(posterior.sample(), labels_B)
        log_likelihood_nats_B, added_B = self.decoder.training_nats(z_BL, x_BCHW)
        kl_nats_BL = posterior.kl_nats()
        kl_nats_B = kl_nats_BL.flatten(1).sum(1)
        charged = kl_nats_BL.mean(0).clamp(min=self.free_bits).sum() if self.free_bits else kl_nats_B
        loss = (self.kl_weight() * charged - (log_likelihood_nats_B + added_B)).mean() / self.dims
        return VAEOutput(loss=loss, log_likelihood_nats=log_likelihood_nats_B, kl_nats=kl_nats_B)

    @torch.no_grad()
    def bounds(
        self, x_BCHW: Tensor, labels_B: Tensor | None = None, *, samples: int, seed: int, first_item: int = 0
    ) -> VAEBounds:
        """ELBO and importance-weighted bound at beta = 1 from `samples` posterior draws per item.

        Args:
            x_BCHW: integer images, items `first_item` .. `first_item + B - 1` of a data set.
            labels_B: their labels, int64; the bounds are then on log p(x|y).
            samples: k of the importance-weighted bound.
            seed: item i draws from (seed, i) alone, so that the batch size changes nothing.
            first_item: number of the first image.
        """
        posterior = self.posterior(x_BCHW, labels_B)
        kl_B = posterior.kl_nats().flatten(1).sum(1)
        noise_BSL = item_noise(seed, first_item, len(x_BCHW), (samples, *self.latent_shape)).to(kl_B.device)
        log_likelihoods, log_weights = [], []
        for sample in range(samples):
            z = posterior.sample(noise_BSL[:, sample])
            log_likelihood_B = self.log_prob(x_BCHW, z, labels_B)
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

    def score(self, batch: Batch, *, samples: int, seed: int) -> Score:
        """See `Stage1Model`: `bounds`, given the label where the model is."""
        labels_B, first_item = self.labels_of(batch), batch.first_item
        return self.bounds(batch.x, labels_B, samples=samples, seed=seed, first_item=first_item).score()

    def point_latents(self, x_BCHW: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Posterior means `[B, *L]`."""
        return self.posterior(x_BCHW, labels_B).mean

    def sample_latents(
        self, asked: Asked, *, seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
    ) -> Tensor:
        """Latents `[B, *L]` from N(0, temperature^2); `top_k` and `top_p` are for tables."""
        noise = item_noise(seed, asked.first_item, len(asked.items), self.latent_shape)
        return (temperature * noise).to(next(self.parameters()).device)
