"""What VQ-VAE and VAE of sound share behind their bottleneck: a network for all samples at once, likelihood, waveform.

The paper's decoder is a WaveNet, which draws one sample after the other; this one is fast, and the codebook learns from
it in minutes. It has one trunk at the rate of the codes and two ends:

- *features* per sample for the likelihood, by upsampling convolutions.
- a *waveform*, which is heard, by an inverse short-time Fourier transform (`SpectralHead`), trained by a spectral loss.

Why two: without seeing earlier samples, p(x|z) knows the envelope of a sound but not its phase, and its mean tends to
silence. The spectral loss does not ask for phase. Bits are the likelihood's and never read the waveform.

In training the likelihood is that of every fourth sample, from a random one on, times four: unbiased, and it was more
than half of a step's time before. In eval mode it is that of all of them.

Shapes: B items, S samples, T codes (positions), D bottleneck channels, C channels, F features, V speaker (label)
channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.audio.networks import (
    SpectralHead,
    Upsampling,
    code_count,
    inside,
    residual_blocks_of,
    start_evenly,
)
from stage1_vqvae.audio.settings import AudioNetworks
from stage1_vqvae.conditions import check_labels, check_speakers
from twostage.data.audio.spectral import multi_resolution_stft_loss, waveform
from twostage.likelihoods.audio import make_audio_likelihood
from twostage.noise import batch_generator

TRAINED_EVERY = 4
"""Samples per sample whose likelihood is computed in training."""


class AudioDecoder(nn.Module):
    """p(x|z, speaker, label) of 16-bit samples, and a waveform.

    Args:
        settings: the model's; what the encoder needs beside the decoder is not read.
        in_channels: D.
        classes: labels that are embedded as speakers are, and added to them; 0: the decoder is given none.
    """

    def __init__(self, settings: AudioNetworks, *, in_channels: int, classes: int = 0) -> None:
        super().__init__()
        channels, features, self.stride = settings.channels, settings.head_channels, settings.stride
        self.first = nn.Conv1d(in_channels, channels, 3, padding=1)
        self.blocks = residual_blocks_of(settings)
        early = 1 << (settings.downsampling_layers // 2)
        self.early = Upsampling(channels, features, factor=early)
        self.late = Upsampling(features, features, factor=self.stride // early)
        start_evenly(self.first, self.blocks, self.early, self.late)
        self.likelihood = make_audio_likelihood(settings.likelihood, features=features, mixtures=settings.mixtures)
        self.spectral = SpectralHead(channels=channels, stride=self.stride)
        self.speakers, self.classes = settings.speakers, classes
        if self.speakers:
            self.voices = nn.Embedding(self.speakers, settings.speaker_channels)
        if classes:
            self.label_embedding = nn.Embedding(classes, settings.speaker_channels)
        if self.speakers or classes:
            self.voice_first = nn.Linear(settings.speaker_channels, channels)
            self.voice_early = nn.Linear(settings.speaker_channels, features)
            self.voice_late = nn.Linear(settings.speaker_channels, features)

    def _trunk(self, z_BDT: Tensor, inside_B1T: Tensor, voice_BV: Tensor | None) -> Tensor:
        """`[B, C, T]`, zero behind an item's codes."""
        x = self.first(z_BDT * inside_B1T)
        if voice_BV is not None:
            x = x + self.voice_first(voice_BV)[:, :, None]
        x = x * inside_B1T
        for block in self.blocks:
            x = block(x, inside_B1T)
        return F.silu(x)

    def _features(
        self, trunk_BCT: Tensor, positions_B: Tensor, voice_BV: Tensor | None, *, first: int = 0, every: int = 1
    ) -> Tensor:
        """`[B, F, S / every]`, those of samples first, first + every, ..."""
        x, positions = trunk_BCT, trunk_BCT.shape[2]
        x = self.early(x)
        if voice_BV is not None:
            x = x + self.voice_early(voice_BV)[:, :, None]
        x = F.silu(x) * inside(positions_B, x.shape[2], per_position=x.shape[2] // positions)
        x = self.late(x, first=first, every=every)
        if voice_BV is not None:
            x = x + self.voice_late(voice_BV)[:, :, None]
        return F.silu(x)

    def _voice(self, speaker_B: Tensor | None, labels_B: Tensor | None, count: int) -> Tensor | None:
        """What is known of an item beside its latents, `[B, V]`: the speaker, the label, or the sum of both."""
        check_speakers(speaker_B, speakers=self.speakers, count=count)
        check_labels(labels_B, classes=self.classes, count=count)
        voice_BV = None if speaker_B is None else self.voices(speaker_B)
        if labels_B is None:
            return voice_BV
        label_BV = self.label_embedding(labels_B)
        return label_BV if voice_BV is None else voice_BV + label_BV

    def _nats(
        self,
        trunk_BCT: Tensor,
        positions_B: Tensor,
        voice_BV: Tensor | None,
        samples_BS: Tensor,
        mask_BS: Tensor,
        *,
        first: int = 0,
        every: int = 1,
    ) -> Tensor:
        """log p of samples first, first + every, ..., those of an item added up, `[B]`."""
        features = self._features(trunk_BCT, positions_B, voice_BV, first=first, every=every)
        log_prob = self.likelihood.log_prob(features, samples_BS[:, first::every])
        return log_prob.masked_fill(~mask_BS[:, first::every], 0.0).sum(1)

    def training_terms(
        self,
        z_BDT: Tensor,
        samples_BS: Tensor,
        mask_BS: Tensor,
        speaker_B: Tensor | None,
        labels_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """log p(x|z, speaker, label) in nats, `[B]`, in training an estimate; and the spectral loss, mean over items.

        Raises:
            UsageError: speakers or labels for a decoder without them, none for one with them, or unknown ones.
        """
        voice_BV = self._voice(speaker_B, labels_B, len(z_BDT))
        positions_B = code_count(mask_BS.sum(1), self.stride)
        inside_B1T = inside(positions_B, z_BDT.shape[2])
        trunk_BCT = self._trunk(z_BDT, inside_B1T, voice_BV)
        every = TRAINED_EVERY if self.training else 1
        first = int(torch.randint(every, (), generator=batch_generator(torch.device("cpu")))) if every > 1 else 0
        nats_B = every * self._nats(trunk_BCT, positions_B, voice_BV, samples_BS, mask_BS, first=first, every=every)
        spectral_B = multi_resolution_stft_loss(self.spectral(trunk_BCT, inside_B1T), waveform(samples_BS), mask_BS)
        return nats_B, spectral_B.mean()

    def log_prob(
        self,
        z_BDT: Tensor,
        samples_BS: Tensor,
        mask_BS: Tensor,
        speaker_B: Tensor | None,
        labels_B: Tensor | None = None,
    ) -> Tensor:
        """log p(x|z, speaker, label) of all real samples in nats, `[B]`, fp32.

        Raises:
            UsageError: as `training_terms`.
        """
        voice_BV = self._voice(speaker_B, labels_B, len(z_BDT))
        positions_B = code_count(mask_BS.sum(1), self.stride)
        trunk_BCT = self._trunk(z_BDT, inside(positions_B, z_BDT.shape[2]), voice_BV)
        return self._nats(trunk_BCT, positions_B, voice_BV, samples_BS, mask_BS)

    def waveform(
        self, z_BDT: Tensor, positions_B: Tensor, speaker_B: Tensor | None, labels_B: Tensor | None = None
    ) -> Tensor:
        """`[B, T * stride]` in [-1, 1], fp32, silent behind the codes of an item.

        Raises:
            UsageError: as `training_terms`.
        """
        voice_BV = self._voice(speaker_B, labels_B, len(z_BDT))
        inside_B1T = inside(positions_B, z_BDT.shape[2])
        wave_BS = self.spectral(self._trunk(z_BDT, inside_B1T, voice_BV), inside_B1T)
        inside_BS = inside(positions_B, wave_BS.shape[1], per_position=self.stride)[:, 0]
        return (wave_BS * inside_BS).clamp(-1.0, 1.0)
