"""VAE of sound, the continuous twin of `AudioVQVAE` (Kingma and Welling 2014, arXiv 1312.6114).

Encoder, decoder, likelihood and spectral loss are those of the VQ-VAE; the bottleneck is a diagonal Gaussian q(z|x) at
every code position against a standard normal prior. Positions behind the end of an item have q = p there: they cost
nothing, and the decoder does not see them. Training minimises distortion + beta * KL + the spectral loss; `bounds` is
always at beta = 1 and knows no spectral loss.

Shapes: B items, S samples, Z latent channels, T positions, K importance samples.
"""

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.model import AudioModel
from stage1_vqvae.audio.networks import WHOLE_BATCH, AudioEncoder, PartWeights
from stage1_vqvae.audio.settings import AudioNetworks, AudioNetworkSettings
from stage1_vqvae.gaussian import GaussianPosterior, VAEBounds
from stage1_vqvae.interface import Asked, Batch, LatentKind, Score
from twostage.errors import UsageError
from twostage.noise import item_noise


@dataclass(frozen=True)
class AudioVAEOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: (distortion + beta * KL) in nats/sample and the weighted spectral loss."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z) of the real samples at one posterior sample, fp32; in training an unbiased estimate of it."""
    kl_nats: Tensor
    """`[B]`, KL(q(z|x) || p(z)) of the real positions, fp32."""
    spectral_loss: Tensor
    """Scalar, mean over items, not weighted."""


class AudioVAE(AudioModel):
    """Gaussian autoencoder of 16-bit sound.

    Args:
        beta: weight of the KL term in the training loss, above zero.
        latent_channels: Z, Gaussian latents per position.
        networks: see `AudioNetworks`.

    Raises:
        UsageError: beta is not positive or the sizes do not fit; later, samples, masks or speakers do not fit.
    """

    latents: LatentKind = "gaussian"

    def __init__(
        self,
        *,
        latent_channels: int = 8,
        beta: float = 1.0,
        **networks: Unpack[AudioNetworkSettings],
    ) -> None:
        settings = AudioNetworks(**networks)
        super().__init__(settings)
        if not (beta > 0 and math.isfinite(beta)):
            raise UsageError(f"beta must be a positive number, not {beta}")
        self.latent_channels, self.beta = latent_channels, beta
        self.encoder = AudioEncoder(settings, out_channels=2 * latent_channels)
        self.decoder = AudioDecoder(settings, in_channels=latent_channels)

    def posterior(self, samples_BS: Tensor, mask_BS: Tensor) -> GaussianPosterior:
        """q(z|x), fields `[B, Z, T]`; the prior, hence without a KL, behind the end of an item."""
        return GaussianPosterior.of(self.encode_vectors(samples_BS, mask_BS))

    def forward(
        self, samples_BS: Tensor, mask_BS: Tensor, speaker_B: Tensor | None = None, part: PartWeights = WHOLE_BATCH
    ) -> AudioVAEOutput:
        """Training loss of a batch of int16 samples, or of a part of one; one posterior sample each."""
        posterior = self.posterior(samples_BS, mask_BS)
        log_likelihood_nats_B, spectral_loss = self.decoder.training_terms(
            posterior.sample(), samples_BS, mask_BS, speaker_B
        )
        kl_nats_B = posterior.kl_nats().flatten(1).sum(1)
        nats_per_sample = (self.beta * kl_nats_B - log_likelihood_nats_B).sum() / mask_BS.sum()
        return AudioVAEOutput(
            loss=part.samples * nats_per_sample + self.spectral_weight * spectral_loss,
            log_likelihood_nats=log_likelihood_nats_B,
            kl_nats=kl_nats_B,
            spectral_loss=spectral_loss,
        )

    @torch.no_grad()
    def bounds(
        self,
        samples_BS: Tensor,
        mask_BS: Tensor,
        speaker_B: Tensor | None = None,
        *,
        samples: int,
        seed: int,
        items_B: Tensor,
    ) -> VAEBounds:
        """ELBO and importance-weighted bound at beta = 1, in nats of the whole recording.

        Args:
            samples_BS, mask_BS, speaker_B: a batch; the bounds are on log p(x|speaker, number of positions).
            samples: K of the importance-weighted bound.
            seed: item i draws from (seed, i) alone, so that neither batch nor padding changes anything.
            items_B: numbers of the items, integers.
        """
        posterior = self.posterior(samples_BS, mask_BS)
        kl_B = posterior.kl_nats().flatten(1).sum(1)
        positions_B, width = self.code_lengths(mask_BS.sum(1)), posterior.mean.shape[2]
        noise_BKZT = self._noise(items_B, positions_B, samples=samples, width=width, seed=seed)
        log_likelihoods, log_weights = [], []
        for sample in range(samples):
            z = posterior.sample(noise_BKZT[:, sample])
            log_likelihood_B = self.decoder.log_prob(z, samples_BS, mask_BS, speaker_B)
            # log p(z) - log q(z|x), without the constants, which cancel; zero behind the end of an item
            squared_q = (z - posterior.mean) ** 2 * torch.exp(-posterior.log_variance)
            log_ratio = 0.5 * (squared_q + posterior.log_variance - z**2)
            log_likelihoods.append(log_likelihood_B)
            log_weights.append(log_likelihood_B + log_ratio.flatten(1).sum(1))
        log_likelihood_B = torch.stack(log_likelihoods).mean(0)
        return VAEBounds(
            elbo=log_likelihood_B - kl_B,
            importance_weighted=torch.stack(log_weights).logsumexp(0) - math.log(samples),
            log_likelihood=log_likelihood_B,
            kl=kl_B,
        )

    @torch.no_grad()
    def decode(self, z_BZT: Tensor, lengths_B: Tensor, speaker_B: Tensor | None = None) -> Tensor:
        """Latents to waveforms `[B, T * stride]` in [-1, 1], fp32, silent behind the end of an item.

        Args:
            z_BZT: latents; what they are behind the end does not matter.
            lengths_B: positions per item.
            speaker_B: int64; None exactly where the model has no speakers.

        Raises:
            UsageError: latents of another model.
        """
        return self.decoder.waveform(self.decoder_input(z_BZT), lengths_B, speaker_B)

    def decoder_input(self, z_BZT: Tensor) -> Tensor:
        """The latents themselves."""
        if z_BZT.ndim != 3 or z_BZT.shape[1] != self.latent_channels:
            raise UsageError(
                f"expected latents [batch, {self.latent_channels}, positions], got shape {tuple(z_BZT.shape)}: use "
                "this model's own"
            )
        return z_BZT

    @torch.no_grad()
    def reconstruct(self, samples_BS: Tensor, mask_BS: Tensor, speaker_B: Tensor | None = None) -> Tensor:
        """`decode` with z at its posterior mean."""
        mean_BZT = self.posterior(samples_BS, mask_BS).mean
        return self.decode(mean_BZT, self.code_lengths(mask_BS.sum(1)), speaker_B)

    def _noise(self, items_B: Tensor, positions_B: Tensor, *, samples: int, width: int, seed: int) -> Tensor:
        """Standard normal `[B, K, Z, width]`: of item i a function of (seed, i) and its positions, zero behind them."""
        shape = (len(items_B), samples, self.latent_channels, width)
        noise_BKZT = torch.zeros(shape, device=positions_B.device)
        for row, (item, length) in enumerate(zip(items_B.tolist(), positions_B.tolist(), strict=True)):
            noise_BKZT[row, :, :, :length] = item_noise(seed, item, 1, (samples, self.latent_channels, length))[0]
        return noise_BKZT

    def score(self, batch: Batch, *, samples: int, seed: int) -> Score:
        """See `Stage1Model`: `bounds`."""
        sounds, speaker_B = self.sounds_of(batch), self.speakers_of(batch)
        return self.bounds(*sounds, speaker_B, samples=samples, seed=seed, items_B=batch.items).score()

    @torch.no_grad()
    def latents_of(self, batch: Batch, *, seed: int = 0) -> Tensor:
        """Posterior means `[B, Z, T]`, zero behind an item's positions."""
        return self.posterior(*self.sounds_of(batch)).mean

    def sample_latents(
        self, asked: Asked, *, seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
    ) -> Tensor:
        """Latents `[B, Z, T]` from N(0, temperature^2), zero behind an item's; `top_k` and `top_p` are for tables."""
        positions_B = self.positions_of(asked)
        noise_BKZT = self._noise(asked.items, positions_B, samples=1, width=int(positions_B.max()), seed=seed)
        return temperature * noise_BKZT[:, 0]
