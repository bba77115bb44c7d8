"""A codebook of sound with its second decoder, as one codec: the codes of the one, the samples of the other.

Shapes: B items, S samples, G codebooks, T codes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from stage1_vqvae.audio.model import Recordings
from stage1_vqvae.audio.vqvae import AudioVQVAE
from stage1_vqvae.audio.wavenet_decoder import WaveNetDecoder
from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.interface import LatentKind
from twostage.data.audio.spectral import waveform
from twostage.likelihoods.audio import AudioLikelihood


class WithDecoder(Deterministic, Recordings):
    """A `Codec` whose p(x|codes) is that of a WaveNet decoder, trained on the codes of `codec`.

    Args:
        codec, decoder: on one device, in eval mode.
        progress: called after each sample that `decode_batch` draws with (samples so far, S).
    """

    latents: LatentKind = "codes"
    autoregressive: bool = True

    def __init__(
        self, codec: AudioVQVAE, decoder: WaveNetDecoder, *, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.codec, self.decoder, self.progress = codec, decoder, progress
        self.stride, self.speakers = decoder.stride, decoder.speakers
        self.codebook_size, self.codebooks, self.update_rule = codec.codebook_size, codec.codebooks, codec.update_rule

    @property
    def likelihood(self) -> AudioLikelihood:
        """p(x|features) of a sample."""
        return self.decoder.likelihood

    @property
    def levels(self) -> int:
        """Size of the alphabet of a sample."""
        return self.likelihood.levels

    @property
    def code_vectors(self) -> Tensor:
        """Those of the codebook."""
        return self.codec.code_vectors

    def latents_of(self, batch: Batch, *, seed: int = 0) -> Tensor:
        """Codes `[B, G, T]` of the codebook."""
        return self.codec.latents_of(batch, seed=seed)

    @torch.no_grad()
    def log_prob_batch(self, batch: Batch, codes_BGT: Tensor) -> Tensor:
        """log p(x|codes) of the WaveNet decoder in nats, `[B]` fp32; codes may reach further than the longest item."""
        samples_BS, mask_BS = self.sounds_of(batch)
        vectors_BDT = self.codec.condition_vectors(codes_BGT[..., : samples_BS.shape[1] // self.stride])
        return self.decoder.log_prob(samples_BS, mask_BS, vectors_BDT, self.speakers_of(batch))

    def decode_batch(self, codes_BGT: Tensor, asked: Asked, *, seed: int) -> Tensor:
        """Waveforms `[B, S]` in -1..1 that the WaveNet decoder draws, silent behind the end, S the longest."""
        positions = int(self.positions_of(asked).max())
        samples_BS = self.decoder.sample(
            self.codec.condition_vectors(codes_BGT[..., :positions]),
            self.dims_of(asked),
            self.speakers_of(asked),
            seed=seed,
            items=asked.items.tolist(),
            progress=self.progress,
        )
        return waveform(samples_BS)
