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
from torch import Tensor

from stage1_vqvae.audio.decoder import AudioDecoder
from stage1_vqvae.audio.model import AudioModel
from stage1_vqvae.audio.networks import WHOLE_BATCH, AudioEncoder, PartWeights, inside
from stage1_vqvae.audio.settings import AudioNetworks, AudioNetworkSettings
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.interface import LatentKind
from stage1_vqvae.quantiser.choose import QuantiserKind, QuantiserSettings, make_quantiser, split_settings
from stage1_vqvae.quantiser.expected_cost import expected_nats
from stage1_vqvae.quantiser.interface import CodebookUpdate, Quantised
from twostage.storage.from_folder import FromFolder


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
    given: Tensor
    """What the quantiser was given there, `[M, D]`, with gradient."""
    real: Tensor
    """`[B, T]` bool, which positions these are."""

    @property
    def codes(self) -> Tensor:
        """`[B, G, T]` int64, 0 behind an item's codes."""
        return _placed(self.quantised.codes, self.real)


def _placed(codes_MG: Tensor, real_BT: Tensor) -> Tensor:
    """Codes of the real positions where they belong, `[B, G, T]`, and 0 elsewhere."""
    codes_BTG = codes_MG.new_zeros(*real_BT.shape, codes_MG.shape[1])
    codes_BTG[real_BT] = codes_MG
    return codes_BTG.transpose(1, 2).contiguous()


class AudioVQVAESettings(AudioNetworkSettings, QuantiserSettings):
    """Settings of networks and quantiser in one flat space."""


class AudioVQVAE(FromFolder, Deterministic, AudioModel):
    """Discrete autoencoder of 16-bit sound.

    Args:
        quantiser: kind of the bottleneck, see `stage1_vqvae.quantiser.choose`.
        embedding_dim: D.
        settings: of the quantiser, see `QuantiserSettings`, and of the networks, see `AudioNetworks`.

    Raises:
        UsageError: the sizes do not fit one another; later, samples, masks or speakers do not fit.
    """

    kinds = ("audio-vq-vae",)

    latents: LatentKind = "codes"

    def __init__(
        self,
        *,
        quantiser: QuantiserKind = "vq",
        embedding_dim: int = 64,
        **settings: Unpack[AudioVQVAESettings],
    ) -> None:
        of_quantiser, of_networks = split_settings(settings)
        networks = AudioNetworks(**of_networks)
        super().__init__(networks)
        self.encoder = AudioEncoder(networks, out_channels=embedding_dim)
        self.quantiser = make_quantiser(quantiser, embedding_dim=embedding_dim, **of_quantiser)
        self.codebook_size, self.codebooks = self.quantiser.codebook_size, self.quantiser.codebooks
        self.update_rule = self.quantiser.update_rule
        self.decoder = AudioDecoder(networks, in_channels=embedding_dim)

    @property
    def code_vectors(self) -> Tensor:
        """Vector of every code, `[G, K, W]`."""
        return self.quantiser.code_vectors

    def _quantise(self, vectors_BDT: Tensor, mask_BS: Tensor) -> tuple[Quantised, Tensor, Tensor]:
        """The real positions quantised, what was given there, `[M, D]`, and which they are, `[B, T]`."""
        real_BT = inside(self.code_lengths(mask_BS.sum(1)), vectors_BDT.shape[2])[:, 0]
        given_MD = vectors_BDT.transpose(1, 2)[real_BT]
        return self.quantiser(given_MD, real_BT.nonzero()[:, 0]), given_MD, real_BT

    def forward(
        self, samples_BS: Tensor, mask_BS: Tensor, speaker_B: Tensor | None = None, part: PartWeights = WHOLE_BATCH
    ) -> AudioOutput:
        """Loss and statistics of a batch of int16 samples, or of a part of one; the codebook is left as it is."""
        quantised, given_MD, real_BT = self._quantise(self.encode_vectors(samples_BS, mask_BS), mask_BS)
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
            loss=loss,
            log_likelihood_nats=log_likelihood_nats_B,
            spectral_loss=spectral_loss,
            quantised=quantised,
            given=given_MD,
            real=real_BT,
        )

    def expected_nats(self, output: AudioOutput, prices_BGTK: Tensor) -> Tensor:
        """What the codes of a batch are expected to cost, `[B]` (`stage1_vqvae.quantiser.expected_cost`).

        Args:
            output: of a forward pass over the batch.
            prices_BGTK: nats of every code at every place of `output.codes`; T may end with the longest item.

        Raises:
            UsageError: the quantiser chooses codes by something else than distances.
        """
        real_BT = output.real[:, : prices_BGTK.shape[2]]
        return expected_nats(
            self.quantiser.distances(output.given),
            output.quantised.codes.t(),
            prices_BGTK.transpose(1, 2)[real_BT].transpose(0, 1),
            real_BT.nonzero()[:, 0],
            items=len(real_BT),
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
        quantised, _, real_BT = self._quantise(self.encode_vectors(samples_BS, mask_BS), mask_BS)
        return _placed(quantised.codes, real_BT)

    def condition_vectors(self, codes_BGT: Tensor) -> Tensor:
        """Codebook vectors of codes, `[B, D, T]`: what an autoregressive decoder is conditioned on."""
        return self.quantiser.lookup(codes_BGT)

    def decoder_input(self, codes_BGT: Tensor) -> Tensor:
        """Codebook vectors of codes, `[B, D, T]`."""
        return self.quantiser.lookup(codes_BGT)

    def point_latents(self, samples_BS: Tensor, mask_BS: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """The codes `[B, G, T]`."""
        return self.encode(samples_BS, mask_BS)
