"""VAE of sound, the continuous twin of `AudioVQVAE` (Kingma and Welling 2014, arXiv 1312.6114).

Encoder, decoder, likelihood and spectral loss are those of the VQ-VAE; the bottleneck is a diagonal Gaussian q(z|x) at
every code position against a standard normal prior. Positions behind the end of an item have q = p there: they cost
nothing, and the decoder does not see them. Training minimises distortion + beta * KL + the spectral loss; `bounds` is
always at beta = 1 and knows no spectral loss.

Shapes: B items, S samples, Z latent channels, T positions, K importance samples.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.networks import WHOLE_BATCH, AudioEncoder, PartWeights, check_audio, code_count
from stage1_vqvae.gaussian import GaussianPosterior, VAEBounds
from twostage.data.audio.spectral import waveform
from twostage.errors import UsageError
from twostage.likelihoods.audio import AudioLikelihood
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


class AudioVAE(nn.Module):
    """Gaussian autoencoder of 16-bit sound.

    Args:
        beta: weight of the KL term in the training loss, above zero.
        latent_channels: Z, Gaussian latents per position.
        Others: as in `AudioVQVAE`.

    Raises:
        UsageError: beta is not positive or the sizes do not fit; later, samples, masks or speakers do not fit.
    """

    def __init__(
        self,
        *,
        likelihood: str = "logistic-mixture",
        mixtures: int = 10,
        speakers: int = 0,
        speaker_channels: int = 32,
        downsampling_layers: int = 6,
        channels: int = 128,
        residual_blocks: int = 2,
        residual_channels: int = 128,
        head_channels: int = 32,
        spectral_weight: float = 1.0,
        latent_channels: int = 8,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        if not (beta > 0 and math.isfinite(beta)):
            raise UsageError(f"beta must be a positive number, not {beta}")
        self.stride = 1 << downsampling_layers
        self.speakers, self.latent_channels = speakers, latent_channels
        self.spectral_weight, self.beta = spectral_weight, beta
        self.encoder = AudioEncoder(
            channels=channels,
            residual_blocks=residual_blocks,
            residual_channels=residual_channels,
            downsampling_layers=downsampling_layers,
            out_channels=2 * latent_channels,
        )
        self.decoder = AudioDecoder(
            in_channels=latent_channels,
            channels=channels,
            residual_blocks=residual_blocks,
            residual_channels=residual_channels,
            downsampling_layers=downsampling_layers,
            features=head_channels,
            likelihood=likelihood,
            mixtures=mixtures,
            speakers=speakers,
            speaker_channels=speaker_channels,
        )

    @property
    def likelihood(self) -> AudioLikelihood:
        """p(x|features) of a sample."""
        return self.decoder.likelihood

    def code_lengths(self, lengths_B: Tensor) -> Tensor:
        """Positions of recordings of so many samples, int64 `[B]`."""
        return code_count(lengths_B, self.stride)

    def posterior(self, samples_BS: Tensor, mask_BS: Tensor) -> GaussianPosterior:
        """q(z|x), fields `[B, Z, T]`; the prior, hence without a KL, behind the end of an item."""
        check_audio(samples_BS, mask_BS, self.stride)
        wave_BS = waveform(samples_BS).masked_fill(~mask_BS, 0.0)
        statistics = self.encoder(wave_BS, self.code_lengths(mask_BS.sum(1))).float()
        mean, log_variance = statistics.chunk(2, 1)
        # A soft bound keeps exp() finite early in training; at |log variance| below 5 it changes less than 4 %.
        return GaussianPosterior(mean=mean, log_variance=15.0 * torch.tanh(log_variance / 15.0))

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
        positions_B = self.code_lengths(mask_BS.sum(1))
        kl_B = posterior.kl_nats().flatten(1).sum(1)
        noise_BKZT = posterior.mean.new_zeros(len(kl_B), samples, *posterior.mean.shape[1:])
        for row, (item, length) in enumerate(zip(items_B.tolist(), positions_B.tolist(), strict=True)):
            noise_BKZT[row, :, :, :length] = item_noise(seed, item, 1, (samples, self.latent_channels, length))[0]
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
        if z_BZT.ndim != 3 or z_BZT.shape[1] != self.latent_channels:
            raise UsageError(
                f"expected latents [batch, {self.latent_channels}, positions], got shape {tuple(z_BZT.shape)}: use "
                "this model's own"
            )
        return self.decoder.waveform(z_BZT, lengths_B, speaker_B)

    @torch.no_grad()
    def reconstruct(self, samples_BS: Tensor, mask_BS: Tensor, speaker_B: Tensor | None = None) -> Tensor:
        """`decode` with z at its posterior mean."""
        mean_BZT = self.posterior(samples_BS, mask_BS).mean
        return self.decode(mean_BZT, self.code_lengths(mask_BS.sum(1)), speaker_B)
