"""VQ-VAE of sound (van den Oord et al. 2017, arXiv 1711.00937, section 4.3): codes at a fraction of the sampling rate.

The loss is eq. 3 of the paper, with -log p(x|z_q(x)) in nats per sample, plus the spectral loss of a waveform that the
same decoder says beside the likelihood's parameters (`stage1_vqvae.audio.decoder`).

Padding changes nothing: the quantiser is given real positions only, so that its statistics count nothing else.

As in `VQVAE`, `forward` leaves the codebook alone; `update_codebook` follows the optimiser step.

Shapes: B items, S samples, T codes (positions), G codebooks, D bottleneck channels, M real positions.
"""

from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.networks import WHOLE_BATCH, AudioEncoder, PartWeights, check_audio, code_count, inside
from stage1_vqvae.quantiser.choose import QuantiserKind, QuantiserSettings, make_quantiser
from stage1_vqvae.quantiser.interface import CodebookUpdate, Quantised
from twostage.data.audio.spectral import waveform
from twostage.errors import UsageError
from twostage.likelihoods.audio import AudioLikelihood


@dataclass(frozen=True)
class AudioOutput:
    """One pass over a batch."""

    loss: Tensor
    """Scalar to minimise: nats/sample, the weighted spectral loss and the quantiser's terms."""
    log_likelihood_nats: Tensor
    """`[B]`, log p(x|z(x)) of the real samples, fp32; in training mode an unbiased estimate of it."""
    spectral_loss: Tensor
    """Scalar, mean over items, not weighted."""
    quantised: Quantised
    """Of the M real positions: vectors `[M, D]`, codes `[M, G]`; hand it to `update_codebook`."""


class AudioVQVAE(nn.Module):
    """Discrete autoencoder of 16-bit sound.

    Args:
        likelihood, mixtures: see `twostage.likelihoods.audio.AudioLikelihood`.
        speakers: number of speakers the decoder is told apart; 0: it is told none.
        speaker_channels: width of a speaker's embedding.
        downsampling_layers: halvings of the rate; a code stands for 2 to that power samples.
        channels, residual_blocks, residual_channels: width and depth of encoder and decoder at the rate of the codes.
        head_channels: F, features per sample handed to the likelihood.
        spectral_weight: of the spectral loss, beside one nat per sample.
        quantiser: kind of the bottleneck, see `stage1_vqvae.quantiser.choose`.
        embedding_dim: D.
        settings: of the quantiser, see `QuantiserSettings`.

    Raises:
        UsageError: the sizes do not fit one another; later, samples, masks or speakers do not fit.
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
        quantiser: QuantiserKind = "vq",
        embedding_dim: int = 64,
        **settings: Unpack[QuantiserSettings],
    ) -> None:
        super().__init__()
        self.stride = 1 << downsampling_layers
        self.speakers, self.spectral_weight = speakers, spectral_weight
        self.encoder = AudioEncoder(
            channels=channels,
            residual_blocks=residual_blocks,
            residual_channels=residual_channels,
            downsampling_layers=downsampling_layers,
            out_channels=embedding_dim,
        )
        self.quantiser = make_quantiser(quantiser, embedding_dim=embedding_dim, **settings)
        self.codebook_size, self.codebooks = self.quantiser.codebook_size, self.quantiser.codebooks
        self.decoder = AudioDecoder(
            in_channels=embedding_dim,
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
        """Codes of recordings of so many samples, int64 `[B]`."""
        return code_count(lengths_B, self.stride)

    def encode_vectors(self, samples_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """What the quantiser is given at every position, `[B, D, T]`; zero behind an item's codes."""
        check_audio(samples_BS, mask_BS, self.stride)
        wave_BS = waveform(samples_BS).masked_fill(~mask_BS, 0.0)
        return self.encoder(wave_BS, self.code_lengths(mask_BS.sum(1)))

    def _quantise(self, vectors_BDT: Tensor, mask_BS: Tensor) -> tuple[Quantised, Tensor]:
        """The real positions quantised, and which they are, `[B, T]`."""
        real_BT = inside(self.code_lengths(mask_BS.sum(1)), vectors_BDT.shape[2])[:, 0]
        return self.quantiser(vectors_BDT.transpose(1, 2)[real_BT], real_BT.nonzero()[:, 0]), real_BT

    def forward(
        self, samples_BS: Tensor, mask_BS: Tensor, speaker_B: Tensor | None = None, part: PartWeights = WHOLE_BATCH
    ) -> AudioOutput:
        """Loss and statistics of a batch of int16 samples, or of a part of one; the codebook is left as it is."""
        quantised, real_BT = self._quantise(self.encode_vectors(samples_BS, mask_BS), mask_BS)
        vectors_BTD = quantised.vectors.new_zeros(*real_BT.shape, quantised.vectors.shape[1])
        vectors_BTD = vectors_BTD.masked_scatter(real_BT[:, :, None], quantised.vectors)
        log_likelihood_nats_B, spectral_loss = self.decoder.training_terms(
            vectors_BTD.transpose(1, 2), samples_BS, mask_BS, speaker_B
        )
        loss = (
            part.samples * -log_likelihood_nats_B.sum() / mask_BS.sum()
            + self.spectral_weight * spectral_loss
            + part.positions * self.quantiser.loss(quantised)
        )
        return AudioOutput(
            loss=loss, log_likelihood_nats=log_likelihood_nats_B, spectral_loss=spectral_loss, quantised=quantised
        )

    def update_codebook(self, output: AudioOutput) -> CodebookUpdate:
        """Move the codebook by the statistics of a training batch; call once after `optimizer.step()`."""
        if output.quantised.statistics is None:
            raise RuntimeError("update_codebook needs the output of a forward pass in training mode, not in eval mode")
        return self.quantiser.update(output.quantised.statistics)

    @torch.no_grad()
    def initialise_codebook(self, samples_BS: Tensor, mask_BS: Tensor, *, seed: int, batch_size: int = 128) -> None:
        """Place the codebook on sounds in random order, where the quantiser has one; call once before training.

        Sounds are encoded `batch_size` at a time: of all of them only the vectors are kept.
        """
        batches = zip(samples_BS.split(batch_size), mask_BS.split(batch_size), strict=True)
        vectors_BDT = torch.cat([self.encode_vectors(samples, mask) for samples, mask in batches])
        real_BT = inside(self.code_lengths(mask_BS.sum(1)), vectors_BDT.shape[2])[:, 0]
        self.quantiser.initialise(vectors_BDT.transpose(1, 2)[real_BT], seed=seed)

    @torch.no_grad()
    def encode(self, samples_BS: Tensor, mask_BS: Tensor) -> Tensor:
        """int16 samples `[B, S]` to codes `[B, G, T]`, int64; 0 behind an item's codes."""
        quantised, real_BT = self._quantise(self.encode_vectors(samples_BS, mask_BS), mask_BS)
        codes_BTG = torch.zeros(*real_BT.shape, self.codebooks, dtype=torch.int64, device=real_BT.device)
        codes_BTG[real_BT] = quantised.codes
        return codes_BTG.transpose(1, 2).contiguous()

    @torch.no_grad()
    def decode(self, codes_BGT: Tensor, lengths_B: Tensor, speaker_B: Tensor | None = None) -> Tensor:
        """Codes to waveforms `[B, T * stride]` in [-1, 1], fp32, silent behind the end of an item.

        Args:
            codes_BGT: codes; what they are behind the end does not matter, as long as they are codes.
            lengths_B: codes per item.
            speaker_B: int64; None exactly where the model has no speakers.
        """
        return self.decoder.waveform(self.quantiser.lookup(codes_BGT), lengths_B, speaker_B)

    @torch.no_grad()
    def log_prob(
        self, samples_BS: Tensor, mask_BS: Tensor, codes_BGT: Tensor, speaker_B: Tensor | None = None
    ) -> Tensor:
        """log p(x|codes) of the real samples in nats, `[B]`, fp32: minus the distortion of the two-part code."""
        check_audio(samples_BS, mask_BS, self.stride)
        if codes_BGT.shape[-1] * self.stride != samples_BS.shape[1]:
            raise UsageError(
                f"expected {samples_BS.shape[1] // self.stride} codes per item for {samples_BS.shape[1]} samples, got "
                f"codes of shape {tuple(codes_BGT.shape)}: pad both to the same length"
            )
        return self.decoder.log_prob(self.quantiser.lookup(codes_BGT), samples_BS, mask_BS, speaker_B)

    def condition_vectors(self, codes_BGT: Tensor) -> Tensor:
        """Codebook vectors of codes, `[B, D, T]`: what an autoregressive decoder is conditioned on."""
        return self.quantiser.lookup(codes_BGT)
