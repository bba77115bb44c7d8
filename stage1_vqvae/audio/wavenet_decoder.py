"""Autoregressive decoder of sound: a WaveNet over samples, given codes and speaker (van den Oord et al. 2017, arXiv
1711.00937, section 4.3; van den Oord et al. 2016, WaveNet, arXiv 1609.03499).

p(x_t | x_<t, codes, speaker) comes from a stack of dilated causal layers (`twostage.layers.dilated`) over the earlier
samples. Codes and speaker go through a few convolutions at the rate of the codes (`CodeCondition`), which reach `REACH`
codes to both sides, and enter every gate as four vectors per code, each held for a quarter of it: on a CPU, projecting
a condition for every layer anew at every sample would take a third of the time of the whole stack.

Departures from the papers, and why:
- A sample enters as an embedding of its mu-law level, plus its value on both scales: levels that training rarely sees
  are then not without meaning, and 16 bits are told apart within a wide level.
- The `NEAREST` samples also reach the layer behind the stack, scaled to one loudness. Of these short-term details, the
  stack would need long to learn what a small layer sees at once.
- The mixture of logistics counts from a linear prediction, the coefficients of which the network says anew at every
  sample, in units of how much the nearest samples differ. Linear prediction is most of what lossless codecs do, and 16
  bits are too fine for a network to say a location directly: what an optimiser's step moves is more than the scale of
  quiet sound. After a minute of training, this saves a whole bit per sample.
- With `coarse_bits`, the likelihood also knows recordings that use every 2^K-th level alone, as 8 bits stored in 16 do
  (`twostage.likelihoods.coarse_audio`): whether all samples so far did is known at every sample.

`sample` walks the same network one sample at a time (`twostage.layers.dilated_step`), for many items side by side.

Shapes: B items, S samples, T codes, D bottleneck channels, F condition channels, X = 4 T vectors of the condition,
C channels, H features of the stack, N nearest samples, L features for the likelihood.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.audio.networks import AudioResidualBlock, Upsampling, check_audio, inside
from stage1_vqvae.conditions import check_speakers
from twostage.data.audio import mulaw
from twostage.errors import RunError, UsageError
from twostage.layers.dilated import DilatedStack
from twostage.layers.dilated_step import DilatedStackState
from twostage.likelihoods.audio import make_audio_likelihood
from twostage.likelihoods.coarse_audio import CoarseAudioLikelihood
from twostage.noise import uniform_noise_of
from twostage.storage.from_folder import FromFolder

REACH = 3
"""Codes to both sides of a sample's own that its condition depends on."""
VECTORS_PER_CODE = 4
NEAREST = 16
"""N."""
_LOUDNESS = 16.0
"""Sound is quiet: times this, speech has numbers of the order of one."""
_STEP = _LOUDNESS / 32768.0
"""From one sample value to the next."""


class CodeCondition(nn.Module):
    """Vectors of codes and a speaker to the condition of the stack, four vectors per code.

    What is not inside an item is zero before every convolution, as beyond the ends of the array.
    """

    def __init__(self, *, in_channels: int, channels: int, speakers: int, speaker_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(in_channels, channels, 3, padding=1)
        self.block = AudioResidualBlock(channels=channels, residual_channels=channels, dilation=1)
        self.upsampling = Upsampling(channels, channels, factor=VECTORS_PER_CODE)
        self.speakers = nn.Embedding(speakers, speaker_channels) if speakers else None
        if speakers:
            self.speaker = nn.Linear(speaker_channels, channels)

    def forward(self, vectors_BDT: Tensor, inside_B1T: Tensor, speaker_B: Tensor | None) -> Tensor:
        """`[B, F, X]`; `inside_B1T` says which positions hold codes of the item.

        Raises:
            UsageError: the speakers do not fit.
        """
        speakers = 0 if self.speakers is None else self.speakers.num_embeddings
        check_speakers(speaker_B, speakers=speakers, count=len(vectors_BDT))
        x_BFT = self.first(vectors_BDT * inside_B1T)
        if self.speakers is not None:
            x_BFT = x_BFT + self.speaker(self.speakers(speaker_B))[:, :, None]
        x_BFT = self.block(x_BFT * inside_B1T, inside_B1T)
        return F.silu(self.upsampling(F.silu(x_BFT)))


class WaveNetDecoder(FromFolder, nn.Module):
    """p(x|codes, speaker) over int16 recordings, every sample given all before it.

    Args:
        condition_channels: D, width of the codes' vectors.
        stride: samples per code, a multiple of four.
        likelihood, mixtures: see `twostage.likelihoods.audio.AudioLikelihood`.
        coarse_bits: K above 0: for the mixture alone, recordings may hold multiples of 2^K alone; see
            `twostage.likelihoods.coarse_audio.CoarseAudioLikelihood`.
        speakers: number of speakers; 0: the decoder knows of none.
        speaker_channels: width of a speaker's embedding.
        channels: C, width of the stack; F is twice that.
        blocks, layers_per_block, kernel, dropout: see `DilatedStack`.
        head_channels: H, features of the stack and width of the layer behind it.

    Raises:
        UsageError: the stride, the likelihood, the coarse bits or a size of the stack is none that can be.
    """

    kinds = ("wavenet-decoder",)
    stage = "decoder"

    level_of_sample: Tensor

    def __init__(
        self,
        *,
        condition_channels: int,
        stride: int,
        likelihood: str = "logistic-mixture",
        mixtures: int = 10,
        coarse_bits: int = 0,
        speakers: int = 0,
        speaker_channels: int = 32,
        channels: int = 64,
        blocks: int = 2,
        layers_per_block: int = 9,
        kernel: int = 2,
        head_channels: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if stride < 1 or stride % VECTORS_PER_CODE:
            raise UsageError(f"a WaveNet decoder needs a multiple of {VECTORS_PER_CODE} samples per code, not {stride}")
        self.stride, self.speakers = stride, speakers
        self.condition = CodeCondition(
            in_channels=condition_channels,
            channels=2 * channels,
            speakers=speakers,
            speaker_channels=speaker_channels,
        )
        levels = torch.from_numpy(mulaw.level_table().astype("int64"))
        self.register_buffer("level_of_sample", levels, persistent=False)
        self.embedding = nn.Embedding(mulaw.LEVELS, channels)
        self.values = nn.Linear(2, channels)
        self.stack = DilatedStack(
            channels=channels,
            skip_channels=head_channels,
            blocks=blocks,
            layers_per_block=layers_per_block,
            kernel=kernel,
            condition_channels=2 * channels,
            condition_hold=stride // VECTORS_PER_CODE,
            dropout=dropout,
        )
        self.hidden = nn.Linear(head_channels, head_channels)
        self.shape = nn.Linear(NEAREST + 1, head_channels, bias=False)
        self.coefficients: nn.Linear | None = None
        self.coarse: nn.Linear | None = None
        if coarse_bits and (likelihood == "mu-law" or not 0 < coarse_bits < 16):
            raise UsageError(
                f"coarse bits are 1 to 15 of the likelihood logistic-mixture, not {coarse_bits} of {likelihood}"
            )
        self.step = 2**coarse_bits
        if likelihood == "mu-law":
            self.likelihood = make_audio_likelihood(likelihood, features=head_channels)
        else:
            if coarse_bits:
                self.coarse = nn.Linear(head_channels + 1, 1)
                self.likelihood = CoarseAudioLikelihood(
                    features=head_channels + 3, mixtures=mixtures, coarse_bits=coarse_bits
                )
            else:
                self.likelihood = make_audio_likelihood(
                    likelihood, features=head_channels + 2, mixtures=mixtures, relative=True
                )
            self.coefficients = nn.Linear(head_channels, NEAREST)
            with torch.no_grad():  # starts near "as before", which is the best prediction that needs no training
                self.coefficients.weight.mul_(0.1)
                self.coefficients.bias.copy_(torch.arange(NEAREST) == NEAREST - 1)

    @property
    def receptive_field(self) -> int:
        """Samples before its own that a sample depends on, at most; with coarse bits, it also matters how many samples
        but 0 there were before, and whether all of them were on the grid."""
        return max(self.stack.receptive_field, NEAREST)

    def log_prob(
        self, samples_BS: Tensor, mask_BS: Tensor, vectors_BDT: Tensor, speaker_B: Tensor | None = None
    ) -> Tensor:
        """log p(x|codes, speaker) of the real samples in nats, `[B]`, fp32.

        Args:
            samples_BS: int16, S a multiple of the stride.
            mask_BS: bool, true for samples of the recording, which come first.
            vectors_BDT: vectors of the codes (`AudioVQVAE.condition_vectors`), T = S / stride; what they are behind an
                item's codes does not matter.
            speaker_B: int64; None exactly where the decoder has no speakers.

        Raises:
            UsageError: the arguments do not fit one another or this decoder.
        """
        check_audio(samples_BS, mask_BS, self.stride)
        positions = samples_BS.shape[1] // self.stride
        if vectors_BDT.shape[2] != positions:
            raise UsageError(
                f"expected {positions} codes per item for {samples_BS.shape[1]} samples, got {vectors_BDT.shape[2]}: "
                "pad both to the same length"
            )
        inside_B1T = inside(self._code_lengths(mask_BS.sum(1)), positions)
        condition_BFX = self.condition(vectors_BDT, inside_B1T, speaker_B)
        return self.sample_log_prob(samples_BS, condition_BFX).masked_fill(~mask_BS, 0.0).sum(1)

    def sample_log_prob(self, samples_BS: Tensor, condition_BFX: Tensor) -> Tensor:
        """log p of every sample given those before it, nats, `[B, S]`, fp32; silence is before the first."""
        return self.likelihood.log_prob(self.likelihood_features(samples_BS, condition_BFX), samples_BS)

    def likelihood_features(self, samples_BS: Tensor, condition_BFX: Tensor) -> Tensor:
        """What the likelihood is told of every sample, `[B, L, S]`: a function of the samples before it."""
        features_BHS = self.stack(self._embed(samples_BS).transpose(1, 2), condition_BFX=condition_BFX)
        before_BX = F.pad(self._scaled(samples_BS), (NEAREST, 0))[:, :-1]
        on_grid_BS = None if self.coarse is None else self._on_grid(samples_BS)
        features_BSH, nearest_BSN = features_BHS.transpose(1, 2), before_BX.unfold(1, NEAREST, 1)
        return self._head(features_BSH, nearest_BSN, on_grid_BS).transpose(1, 2)

    @torch.no_grad()
    def sample(
        self,
        vectors_BDT: Tensor,
        lengths_B: Tensor,
        speaker_B: Tensor | None = None,
        *,
        seed: int,
        first_item: int = 0,
        items: Sequence[int] | None = None,
        temperature: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Draw sounds, int16 `[B, S]`, S the longest; 0 behind the end of an item. Eval mode is implied.

        Args:
            vectors_BDT: vectors of the codes; what they are behind an item's codes does not matter.
            lengths_B: samples of each item, int64, 1 to T * stride.
            speaker_B: int64; None exactly where the decoder has no speakers.
            seed, first_item: item i is a function of (seed, first_item + i), apart from rounding.
            items: numbers of items that do not follow one another, in the place of `first_item`.
            temperature: above 0; see `AudioLikelihood.draw`.
            progress: called after each sample with (samples so far, S).

        Raises:
            UsageError: the arguments do not fit one another or this decoder.
            RunError: the first sample's features are not finite.
        """
        self._check_lengths(lengths_B, vectors_BDT)
        if not temperature > 0:
            raise UsageError(f"the temperature must be above 0, but is {temperature}")
        count, longest = len(lengths_B), int(lengths_B.max())
        inside_B1T = inside(self._code_lengths(lengths_B), vectors_BDT.shape[2])
        condition_BFX = self.condition(vectors_BDT, inside_B1T, speaker_B)
        items = range(first_item, first_item + count) if items is None else items
        noise_BS = uniform_noise_of(items, seed=seed, symbols=longest, stream=1)
        noise_SB1 = noise_BS.to(condition_BFX.device).T[:, :, None].contiguous()
        state = DilatedStackState(self.stack, batch_size=count, condition_BFX=condition_BFX)
        before_BX = condition_BFX.new_zeros(count, NEAREST + longest)
        samples_SB = torch.zeros(longest, count, dtype=torch.int16, device=condition_BFX.device)
        embedded_BC: Tensor | None = None
        on_grid_B1 = None if self.coarse is None else before_BX.new_zeros(count, 1)
        for t, noise_B1 in enumerate(noise_SB1):
            features_B1H = state.advance(embedded_BC)[:, None]
            features_BL1 = self._head(features_B1H, before_BX[:, None, t : t + NEAREST], on_grid_B1).transpose(1, 2)
            if t == 0 and not bool(features_BL1.isfinite().all()):
                raise RunError("the WaveNet decoder says NaN or infinity: its training diverged, train it again")
            drawn_B1 = self.likelihood.draw(features_BL1, noise_B1, temperature=temperature)
            samples_SB[t] = drawn_B1[:, 0]
            before_BX[:, NEAREST + t] = self._scaled(drawn_B1)[:, 0]
            embedded_BC = self._embed(drawn_B1)[:, 0]
            if on_grid_B1 is not None:
                on_grid_B1 = self._on_grid_after(on_grid_B1, drawn_B1)
            if progress is not None:
                progress(t + 1, longest)
        real_BS = torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]
        return samples_SB.T.where(real_BS.to(samples_SB.device), 0)

    def _scaled(self, samples: Tensor) -> Tensor:
        return samples.to(self.values.weight.dtype) * _STEP

    def _embed(self, samples_BS: Tensor) -> Tensor:
        """Inputs of the stack, `[B, S, C]`."""
        level_BS = self.level_of_sample[samples_BS.long() + 32768]
        scaled_BS = self._scaled(samples_BS)
        companded_BS = level_BS.to(scaled_BS.dtype) * (2.0 / mulaw.MU) - 1.0
        return self.embedding(level_BS) + self.values(torch.stack([scaled_BS, companded_BS], dim=2))

    def _on_grid(self, samples_BS: Tensor) -> Tensor:
        """Before every sample, how many but 0 there were if all of them were multiples of the step; otherwise -1."""
        before_BS = F.pad(samples_BS.long(), (1, 0))[:, :-1]
        off_BS = (before_BS % self.step != 0).cumsum(1) > 0
        return (before_BS != 0).cumsum(1).masked_fill(off_BS, -1).to(self.values.weight.dtype)

    def _on_grid_after(self, on_grid_B1: Tensor, samples_B1: Tensor) -> Tensor:
        """`_on_grid` of the next sample, from that of this one."""
        off_B1 = (on_grid_B1 < 0) | (samples_B1.long() % self.step != 0)
        return (on_grid_B1 + (samples_B1 != 0)).masked_fill(off_B1, -1.0)

    def _head(self, features_BSH: Tensor, nearest_BSN: Tensor, on_grid_BS: Tensor | None) -> Tensor:
        """`[B, S, L]` from the stack's features and the samples before, the oldest first; full precision throughout."""
        with torch.autocast(features_BSH.device.type, enabled=False):
            loudness_BS1 = nearest_BSN.abs().mean(2, keepdim=True) + _STEP
            shape_BSY = torch.cat([nearest_BSN / loudness_BS1, loudness_BS1.log()], dim=2)
            behind_BSH = self.hidden(F.relu(features_BSH.to(nearest_BSN.dtype)))
            hidden_BSH = F.relu(behind_BSH + self.shape(shape_BSY))
            if self.coefficients is None:
                return hidden_BSH
            centre_BS1 = (self.coefficients(hidden_BSH) * nearest_BSN).sum(2, keepdim=True) / _LOUDNESS
            change_BS1 = nearest_BSN.diff(dim=2).abs().mean(2, keepdim=True) + 2 * _STEP
            parts = [hidden_BSH, centre_BS1, (change_BS1 / _LOUDNESS).log()]
            if self.coarse is not None and on_grid_BS is not None:
                evidence_BS1 = on_grid_BS.clamp(min=0.0).log1p()[:, :, None]
                logit_BS1 = self.coarse(torch.cat([hidden_BSH, evidence_BS1], dim=2))
                parts.insert(1, logit_BS1.masked_fill(on_grid_BS[:, :, None] < 0, -torch.inf))
            return torch.cat(parts, dim=2)

    def _code_lengths(self, lengths_B: Tensor) -> Tensor:
        return -(-lengths_B // self.stride)

    def _check_lengths(self, lengths_B: Tensor, vectors_BDT: Tensor) -> None:
        most = vectors_BDT.shape[2] * self.stride
        expected = f"expected {len(vectors_BDT)} lengths from 1 to {most} samples, int64"
        if lengths_B.dtype != torch.int64 or lengths_B.shape != vectors_BDT.shape[:1] or not len(lengths_B):
            raise UsageError(
                f"{expected}, got {lengths_B.dtype} of shape {tuple(lengths_B.shape)}: one length per item"
            )
        low, high = (int(value) for value in lengths_B.aminmax())
        if low < 1 or high > most:
            raise UsageError(f"{expected}, got {low} to {high}: give codes for all samples")
