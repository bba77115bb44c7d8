"""VAE of sound, the continuous twin of `AudioVQVAE` (Kingma and Welling 2014, arXiv 1312.6114).

Encoder, decoder, likelihood and spectral loss are those of the VQ-VAE; the bottleneck is a diagonal Gaussian q(z|x) at
every code position against a standard normal prior. Positions behind the end of an item have q = p there: they cost
nothing, and the decoder does not see them. Training minimises distortion + beta * KL + the spectral loss; `bounds` is
always at beta = 1 and knows no spectral loss. With `classes` it is a conditional VAE: encoder and decoder are given the
label, the bounds too, and the prior over z is the same for all labels.

Training may anneal beta and leave bits free (`stage1_vqvae.gaussian`). Sounds have no position in common, so a channel
is a group, at all real positions of the batch: it is charged `free_bits` nats per position at the least.

Shapes: B items, S samples, Z latent channels, T positions, K importance samples.
"""

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.model import ContinuousAudioModel
from stage1_vqvae.audio.networks import WHOLE_BATCH, AudioEncoder, PartWeights
from stage1_vqvae.audio.settings import AudioNetworks, AudioNetworkSettings
from stage1_vqvae.batch import Asked, Batch, Score
from stage1_vqvae.gaussian import GaussianModel, GaussianPosterior, VAEBounds
from twostage.noise import item_noise
from twostage.storage.from_folder import FromFolder


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


class AudioVAE(FromFolder, GaussianModel, ContinuousAudioModel):
    """Gaussian autoencoder of 16-bit sound.

    Args:
        beta: weight of the KL term in the training loss, above zero.
        latent_channels: Z, Gaussian latents per position.
        classes: number of labels that encoder and decoder are given; 0: none. With labels, all methods need them.
        kl_warmup_steps: steps until the training loss has the whole of beta; 0: from the start.
        free_bits: nats per latent, as a mean over the positions of a batch, that training does not lower the KL below.
        networks: see `AudioNetworks`.

    Raises:
        UsageError: beta is not positive or the sizes do not fit; later, samples, masks, speakers or labels do not fit.
    """

    kinds = ("audio-vae", "audio-cvae")

    def __init__(
        self,
        *,
        latent_channels: int = 8,
        classes: int = 0,
        beta: float = 1.0,
        kl_warmup_steps: int = 0,
        free_bits: float = 0.0,
        **networks: Unpack[AudioNetworkSettings],
    ) -> None:
        settings = AudioNetworks(**networks)
        super().__init__(settings)
        self.latent_channels, self.classes = latent_channels, classes
        self.weigh_kl(beta=beta, kl_warmup_steps=kl_warmup_steps, free_bits=free_bits)
        self.encoder = AudioEncoder(settings, out_channels=2 * latent_channels, classes=classes)
        self.decoder = AudioDecoder(settings, in_channels=latent_channels, classes=classes)

    def posterior(self, samples_BS: Tensor, mask_BS: Tensor, labels_B: Tensor | None = None) -> GaussianPosterior:
        """q(z|x), q(z|x, y) with labels, `[B, Z, T]`; the prior, hence without a KL, behind the end of an item."""
        return GaussianPosterior.of(self.encode_vectors(samples_BS, mask_BS, labels_B))

    def forward(
        self,
        samples_BS: Tensor,
        mask_BS: Tensor,
        speaker_B: Tensor | None = None,
        part: PartWeights = WHOLE_BATCH,
        labels_B: Tensor | None = None,
    ) -> AudioVAEOutput:
        """Training loss of a batch of int16 samples, or of a part of one; one posterior sample each."""
        posterior = self.posterior(samples_BS, mask_BS, labels_B)
        log_likelihood_nats_B, spectral_loss = self.decoder.training_terms(
            posterior.sample(), samples_BS, mask_BS, speaker_B, labels_B
        )
        kl_nats_BZT = posterior.kl_nats()
        kl_nats_B = kl_nats_BZT.flatten(1).sum(1)
        charged_B = self._with_free_bits(kl_nats_BZT, mask_BS) if self.free_bits else kl_nats_B
        nats_per_sample = (self.kl_weight() * charged_B - log_likelihood_nats_B).sum() / mask_BS.sum()
        return AudioVAEOutput(
            loss=part.samples * nats_per_sample + self.spectral_weight * spectral_loss,
            log_likelihood_nats=log_likelihood_nats_B,
            kl_nats=kl_nats_B,
            spectral_loss=spectral_loss,
        )

    def _with_free_bits(self, kl_nats_BZT: Tensor, mask_BS: Tensor) -> Tensor:
        """KL of an item of the batch, on average, `[B]`: every channel at least at `free_bits` a real position."""
        positions = self.code_lengths(mask_BS.sum(1)).sum()
        charged_Z = (kl_nats_BZT.sum((0, 2)) / positions).clamp(min=self.free_bits)
        return (charged_Z.sum() * positions / len(kl_nats_BZT)).expand(len(kl_nats_BZT))

    @torch.no_grad()
    def bounds(
        self,
        samples_BS: Tensor,
        mask_BS: Tensor,
        speaker_B: Tensor | None = None,
        labels_B: Tensor | None = None,
        *,
        samples: int,
        seed: int,
        items_B: Tensor,
    ) -> VAEBounds:
        """ELBO and importance-weighted bound at beta = 1, in nats of the whole recording.

        Args:
            samples_BS, mask_BS, speaker_B, labels_B: a batch; the bounds are on log p(x|speaker, label, number of
                positions).
            samples: K of the importance-weighted bound.
            seed: item i draws from (seed, i) alone, so that neither batch nor padding changes anything.
            items_B: numbers of the items, integers.
        """
        posterior = self.posterior(samples_BS, mask_BS, labels_B)
        kl_B = posterior.kl_nats().flatten(1).sum(1)
        positions_B, width = self.code_lengths(mask_BS.sum(1)), posterior.mean.shape[2]
        noise_BKZT = self._noise(items_B, positions_B, samples=samples, width=width, seed=seed)
        log_likelihoods, log_weights = [], []
        for sample in range(samples):
            z = posterior.sample(noise_BKZT[:, sample])
            log_likelihood_B = self.decoder.log_prob(z, samples_BS, mask_BS, speaker_B, labels_B)
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

    def _noise(self, items_B: Tensor, positions_B: Tensor, *, samples: int, width: int, seed: int) -> Tensor:
        """Standard normal `[B, K, Z, width]`: of item i a function of (seed, i) and its positions, zero behind them."""
        shape = (len(items_B), samples, self.latent_channels, width)
        noise_BKZT = torch.zeros(shape, device=positions_B.device)
        for row, (item, length) in enumerate(zip(items_B.tolist(), positions_B.tolist(), strict=True)):
            noise_BKZT[row, :, :, :length] = item_noise(seed, item, 1, (samples, self.latent_channels, length))[0]
        return noise_BKZT

    def score(self, batch: Batch, *, samples: int, seed: int) -> Score:
        """See `Stage1Model`: `bounds`."""
        given = (*self.sounds_of(batch), self.speakers_of(batch), self.labels_of(batch))
        return self.bounds(*given, samples=samples, seed=seed, items_B=batch.items).score()

    def point_latents(self, samples_BS: Tensor, mask_BS: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Posterior means `[B, Z, T]`, zero behind an item's positions."""
        return self.posterior(samples_BS, mask_BS, labels_B).mean

    def sample_latents(
        self, asked: Asked, *, seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
    ) -> Tensor:
        """Latents `[B, Z, T]` from N(0, temperature^2), zero behind an item's; `top_k` and `top_p` are for tables."""
        positions_B = self.positions_of(asked)
        noise_BKZT = self._noise(asked.items, positions_B, samples=1, width=int(positions_B.max()), seed=seed)
        return temperature * noise_BKZT[:, 0]
