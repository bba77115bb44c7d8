"""What all models of sound share: what a batch is to them, the likelihood of samples given latents, and their side of
`Stage1Model`.

Shapes: B items, S samples, T positions, A the shape of an item's latents without T.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.networks import AudioEncoder, check_audio, code_count
from stage1_vqvae.audio.settings import AudioNetworks
from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.conditions import Conditioned
from twostage.data.audio.spectral import waveform
from twostage.errors import UsageError
from twostage.likelihoods.audio import AudioLikelihood


class Recordings(Conditioned):
    """How a model of sound reads what it is asked for: lengths in samples, and in positions of `stride` samples."""

    stride: int
    likelihood_is_discrete: bool = True

    def code_lengths(self, lengths_B: Tensor) -> Tensor:
        """Positions of recordings of so many samples, int64 `[B]`."""
        return code_count(lengths_B, self.stride)

    def dims_of(self, asked: Asked) -> Tensor:
        """Samples of every recording, `[B]` int64.

        Raises:
            UsageError: nothing says how long they are.
        """
        if asked.lengths is None:
            raise UsageError("recordings are of unequal length: say how many samples each of them has")
        return asked.lengths

    def positions_of(self, asked: Asked) -> Tensor:
        """Positions of every recording, `[B]` int64."""
        return self.code_lengths(self.dims_of(asked))

    def sounds_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Samples and mask `[B, S]` of a batch, S a whole number of positions: as many as the longest item has."""
        width = int(self.positions_of(batch).max()) * self.stride
        samples_BS = batch.x[:, :width]
        samples_BS = F.pad(samples_BS, (0, width - samples_BS.shape[1]))
        return samples_BS, torch.arange(width, device=samples_BS.device) < self.dims_of(batch)[:, None]


class AudioModel(Recordings, nn.Module):
    """A model of int16 samples with the convolutional decoder, once `encoder` and `decoder` are built."""

    encoder: AudioEncoder
    decoder: AudioDecoder
    autoregressive: bool = False

    def __init__(self, settings: AudioNetworks) -> None:
        super().__init__()
        self.stride, self.speakers, self.spectral_weight = settings.stride, settings.speakers, settings.spectral_weight

    @property
    def likelihood(self) -> AudioLikelihood:
        """p(x|features) of a sample."""
        return self.decoder.likelihood

    @property
    def levels(self) -> int:
        """Size of the alphabet of a sample."""
        return self.likelihood.levels

    def encode_vectors(self, samples_BS: Tensor, mask_BS: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """What the bottleneck is given at every position, `[B, D, T]`; zero behind an item's codes.

        Raises:
            UsageError: samples, mask or labels do not fit.
        """
        check_audio(samples_BS, mask_BS, self.stride)
        wave_BS = waveform(samples_BS).masked_fill(~mask_BS, 0.0)
        return self.encoder(wave_BS, self.code_lengths(mask_BS.sum(1)), labels_B)

    def point_latents(self, samples_BS: Tensor, mask_BS: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """What stands for a sound, `[B, *A, T]`: its latents, or the mean of their distribution."""
        raise NotImplementedError

    def decoder_input(self, latents: Tensor) -> Tensor:
        """What the decoder is given of latents `[B, *A, T]`, `[B, D, T]`.

        Raises:
            UsageError: latents of another model.
        """
        raise NotImplementedError

    @torch.no_grad()
    def log_prob(
        self,
        samples_BS: Tensor,
        mask_BS: Tensor,
        latents: Tensor,
        speaker_B: Tensor | None = None,
        labels_B: Tensor | None = None,
    ) -> Tensor:
        """log p(x|latents) of the real samples in nats, `[B]`, fp32: minus the distortion.

        Raises:
            UsageError: samples, latents, speakers or labels do not fit the model or one another.
        """
        check_audio(samples_BS, mask_BS, self.stride)
        if latents.shape[-1] * self.stride != samples_BS.shape[1]:
            raise UsageError(
                f"expected {samples_BS.shape[1] // self.stride} codes per item for {samples_BS.shape[1]} samples, got "
                f"codes of shape {tuple(latents.shape)}: pad both to the same length"
            )
        return self.decoder.log_prob(self.decoder_input(latents), samples_BS, mask_BS, speaker_B, labels_B)

    @torch.no_grad()
    def decode(
        self, latents: Tensor, lengths_B: Tensor, speaker_B: Tensor | None = None, labels_B: Tensor | None = None
    ) -> Tensor:
        """Latents to waveforms `[B, T * stride]` in [-1, 1], fp32, silent behind the end of an item.

        Args:
            latents: codes or numbers `[B, *A, T]`; what they are behind the end does not matter, as long as codes are
                codes.
            lengths_B: positions per item.
            speaker_B, labels_B: int64; None exactly where the model has no speakers, no classes.

        Raises:
            UsageError: latents of another model.
        """
        return self.decoder.waveform(self.decoder_input(latents), lengths_B, speaker_B, labels_B)

    @torch.no_grad()
    def reconstruct(
        self,
        samples_BS: Tensor,
        mask_BS: Tensor,
        speaker_B: Tensor | None = None,
        labels_B: Tensor | None = None,
    ) -> Tensor:
        """`decode` of what stands for the sounds."""
        latents = self.point_latents(samples_BS, mask_BS, labels_B)
        return self.decode(latents, self.code_lengths(mask_BS.sum(1)), speaker_B, labels_B)

    @torch.no_grad()
    def latents_of(self, batch: Batch, *, seed: int = 0) -> Tensor:
        """What stands for the sounds, `[B, *A, T]`, zero behind an item's positions."""
        return self.point_latents(*self.sounds_of(batch), self.labels_of(batch))

    def log_prob_batch(self, batch: Batch, latents: Tensor) -> Tensor:
        """log p(x|latents) in nats, `[B]` fp32; latents may reach further than the longest item."""
        samples_BS, mask_BS = self.sounds_of(batch)
        latents = latents[..., : samples_BS.shape[1] // self.stride]
        given = (self.speakers_of(batch), self.labels_of(batch))
        return self.log_prob(samples_BS, mask_BS, latents, *given)

    def decode_batch(self, latents: Tensor, asked: Asked, *, seed: int = 0) -> Tensor:
        """Waveforms `[B, S]` in -1..1, fp32, silent behind the end, S the longest; nothing is drawn."""
        lengths_B, positions_B = self.dims_of(asked), self.positions_of(asked)
        latents = latents[..., : int(positions_B.max())]
        wave_BS = self.decode(latents, positions_B, self.speakers_of(asked), self.labels_of(asked))
        wave_BS = wave_BS[:, : int(lengths_B.max())]
        return wave_BS * (torch.arange(wave_BS.shape[1], device=wave_BS.device) < lengths_B[:, None])


class ContinuousAudioModel(AudioModel):
    """A model whose latents are `latent_channels` numbers per position."""

    latent_channels: int

    def decoder_input(self, z_BZT: Tensor) -> Tensor:
        """The latents themselves.

        Raises:
            UsageError: latents of another model.
        """
        if z_BZT.ndim != 3 or z_BZT.shape[1] != self.latent_channels:
            raise UsageError(
                f"expected latents [batch, {self.latent_channels}, positions], got shape {tuple(z_BZT.shape)}: use "
                "this model's own"
            )
        return z_BZT
