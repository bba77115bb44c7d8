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
from stage1_vqvae.interface import Asked, Batch
from twostage.data.audio.spectral import waveform
from twostage.errors import UsageError
from twostage.likelihoods.audio import AudioLikelihood


class Recordings:
    """How a model of sound reads what it is asked for: lengths in samples, and in positions of `stride` samples."""

    stride: int
    classes: int = 0
    speakers: int
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

    def speakers_of(self, asked: Asked) -> Tensor | None:
        """The speakers that the decoder is conditioned on."""
        return asked.speakers if self.speakers else None


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

    def encode_vectors(self, samples_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """What the bottleneck is given at every position, `[B, D, T]`; zero behind an item's codes.

        Raises:
            UsageError: samples or mask do not fit.
        """
        check_audio(samples_BS, mask_BS, self.stride)
        wave_BS = waveform(samples_BS).masked_fill(~mask_BS, 0.0)
        return self.encoder(wave_BS, self.code_lengths(mask_BS.sum(1)))

    def decoder_input(self, latents: Tensor) -> Tensor:
        """What the decoder is given of latents `[B, *A, T]`, `[B, D, T]`.

        Raises:
            UsageError: latents of another model.
        """
        raise NotImplementedError

    def log_likelihood_nats(
        self, samples_BS: Tensor, mask_BS: Tensor, latents: Tensor, speaker_B: Tensor | None
    ) -> Tensor:
        """log p(x|latents) of the real samples, `[B]`, fp32.

        Raises:
            UsageError: samples, latents or speakers do not fit the model or one another.
        """
        check_audio(samples_BS, mask_BS, self.stride)
        if latents.shape[-1] * self.stride != samples_BS.shape[1]:
            raise UsageError(
                f"expected {samples_BS.shape[1] // self.stride} codes per item for {samples_BS.shape[1]} samples, got "
                f"codes of shape {tuple(latents.shape)}: pad both to the same length"
            )
        return self.decoder.log_prob(self.decoder_input(latents), samples_BS, mask_BS, speaker_B)

    @torch.no_grad()
    def log_prob_batch(self, batch: Batch, latents: Tensor) -> Tensor:
        """log p(x|latents) in nats, `[B]` fp32; latents may reach further than the longest item."""
        samples_BS, mask_BS = self.sounds_of(batch)
        latents = latents[..., : samples_BS.shape[1] // self.stride]
        return self.log_likelihood_nats(samples_BS, mask_BS, latents, self.speakers_of(batch))

    @torch.no_grad()
    def decode_batch(self, latents: Tensor, asked: Asked, *, seed: int = 0) -> Tensor:
        """Waveforms `[B, S]` in -1..1, fp32, silent behind the end, S the longest; nothing is drawn."""
        lengths_B, positions_B = self.dims_of(asked), self.positions_of(asked)
        latents = latents[..., : int(positions_B.max())]
        wave_BS = self.decoder.waveform(self.decoder_input(latents), positions_B, self.speakers_of(asked))
        wave_BS = wave_BS[:, : int(lengths_B.max())]
        return wave_BS * (torch.arange(wave_BS.shape[1], device=wave_BS.device) < lengths_B[:, None])
