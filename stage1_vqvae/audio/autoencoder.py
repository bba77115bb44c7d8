"""Plain autoencoder of sound: the networks, likelihood and spectral loss of `AudioVAE`, without noise or prior.

It minimises -log p(x|z(x)) and the spectral loss alone. Nothing says which latents are likely, so there is no p(x) and
there are no bits per sample: what it has is a distortion.

Shapes: B items, S samples, Z latent channels, T positions.
"""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.model import ContinuousAudioModel
from stage1_vqvae.audio.networks import WHOLE_BATCH, AudioEncoder, PartWeights
from stage1_vqvae.audio.settings import AudioNetworks, AudioNetworkSettings
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.interface import LatentKind
from twostage.storage.from_folder import FromFolder


@dataclass(frozen=True)
class AudioAutoencoderOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: distortion in nats/sample and the weighted spectral loss."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z(x)) of the real samples, fp32; in training mode an unbiased estimate of it."""
    spectral_loss: Tensor
    """Scalar, mean over items, not weighted."""


class AudioAutoencoder(FromFolder, Deterministic, ContinuousAudioModel):
    """Continuous autoencoder of 16-bit sound, `AudioVAE` without its noise and its KL term.

    Args:
        latent_channels: Z, latents per position.
        networks: see `AudioNetworks`.

    Raises:
        UsageError: the sizes do not fit; later, samples, masks or speakers do not fit.
    """

    kinds = ("audio-ae",)

    latents: LatentKind = "none"

    def __init__(self, *, latent_channels: int = 8, **networks: Unpack[AudioNetworkSettings]) -> None:
        settings = AudioNetworks(**networks)
        super().__init__(settings)
        self.latent_channels = latent_channels
        self.encoder = AudioEncoder(settings, out_channels=latent_channels)
        self.decoder = AudioDecoder(settings, in_channels=latent_channels)

    def forward(
        self, samples_BS: Tensor, mask_BS: Tensor, speaker_B: Tensor | None = None, part: PartWeights = WHOLE_BATCH
    ) -> AudioAutoencoderOutput:
        """Training loss of a batch of int16 samples, or of a part of one."""
        z_BZT = self.encode_vectors(samples_BS, mask_BS)
        log_likelihood_nats_B, spectral_loss = self.decoder.training_terms(z_BZT, samples_BS, mask_BS, speaker_B)
        nats_per_sample = -log_likelihood_nats_B.sum() / mask_BS.sum()
        return AudioAutoencoderOutput(
            loss=part.samples * nats_per_sample + self.spectral_weight * spectral_loss,
            log_likelihood_nats=log_likelihood_nats_B,
            spectral_loss=spectral_loss,
        )

    @torch.no_grad()
    def encode(self, samples_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """int16 samples `[B, S]` to latents `[B, Z, T]`, fp32; 0 behind an item's positions."""
        return self.encode_vectors(samples_BS, mask_BS).float()

    def point_latents(self, samples_BS: Tensor, mask_BS: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The latents `[B, Z, T]`."""
        return self.encode(samples_BS, mask_BS)
