"""Layers of sound: a convolutional encoder (van den Oord et al. 2017, arXiv 1711.00937, section 4.3), decoders' parts.

Encoder: one stride-2 convolution of kernel 4 per factor of two (six of them: 64 samples per code), as narrow as the
samples allow and growing towards the codes, then residual blocks at the rate of the codes, where depth is cheap. It is
shown samples on the mu-law curve, on which quiet sounds are as plain as loud ones.

Weights start as in He et al. 2015 (arXiv 1502.01852), biases at zero. With torch's default a signal shrinks several
times in every layer: behind six of them codes would say nothing about a sound for hundreds of steps.

Masks: item i has positions_B[i] codes. After every layer what lies behind them is set to zero, which is also what the
convolutions see beyond the end of the array: an item has the same codes, features and gradients alone and beside longer
ones.

Shapes: B items, S samples, T codes (positions), D bottleneck channels, C channels, N samples of a frame.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.audio.settings import AudioNetworks
from stage1_vqvae.conditions import check_labels
from twostage.data.audio.mulaw import MU
from twostage.errors import UsageError

NARROWEST = 16
"""Least width of a layer; half as wide is hardly faster."""
_DILATIONS = (1, 3, 9)
_LOUDEST = 5.0  # log-magnitude of a frame: exp(5) is a sine of amplitude 1 in a window of 256 samples
_START_LOG_MAGNITUDE = -2.0


def inside(positions_B: Tensor, length: int, *, per_position: int = 1) -> Tensor:
    """Which of `length` steps belong to an item, `[B, 1, length]`, with so many steps per code."""
    return (torch.arange(length, device=positions_B.device) < positions_B[:, None] * per_position)[:, None]


def layer_widths(channels: int, layers: int) -> list[int]:
    """Widths after 1, 2, ... `layers` halvings of the rate, ending in `channels`, halved away from the codes."""
    return [max(min(NARROWEST, channels), channels >> (layers - 1 - layer)) for layer in range(layers)]


class AudioResidualBlock(nn.Module):
    """x + conv1x1(act(conv3(act(x)))) with a dilated convolution of kernel 3; length and width are kept."""

    def __init__(self, *, channels: int, residual_channels: int, dilation: int) -> None:
        super().__init__()
        self.temporal = nn.Conv1d(channels, residual_channels, 3, padding=dilation, dilation=dilation)
        self.pointwise = nn.Conv1d(residual_channels, channels, 1)

    def forward(self, x_BCT: Tensor, inside_B1T: Tensor) -> Tensor:
        return (x_BCT + self.pointwise(F.silu(self.temporal(F.silu(x_BCT))))) * inside_B1T


def residual_blocks_of(settings: AudioNetworks) -> nn.ModuleList:
    """The blocks of one side, each looking three times as far as the one before it, and then anew."""
    widths = {"channels": settings.channels, "residual_channels": settings.residual_channels}
    return nn.ModuleList(
        AudioResidualBlock(**widths, dilation=_DILATIONS[block % len(_DILATIONS)])
        for block in range(settings.residual_blocks)
    )


def start_evenly(*networks: nn.Module) -> None:
    """Draw the weights of all convolutions such that they keep a signal's power; residual blocks add half of theirs."""
    for network in networks:
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv1d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
                if name.endswith("pointwise"):
                    with torch.no_grad():
                        layer.weight.mul_(0.5)


def _companded(wave: Tensor) -> Tensor:
    """[-1, 1] to [-1, 1] on the continuous mu-law curve."""
    return wave.sign() * torch.log1p(MU * wave.abs()) / math.log1p(MU)


class AudioEncoder(nn.Module):
    """Waveforms `[B, S]` in [-1, 1] to `[B, D, T]` with T = S / stride; zero behind an item's codes.

    Args:
        settings: the model's.
        out_channels: D.
        classes: labels whose embedding is added at the rate of the codes; 0: the encoder is given none.
    """

    def __init__(self, settings: AudioNetworks, *, out_channels: int, classes: int = 0) -> None:
        super().__init__()
        widths = [1, *layer_widths(settings.channels, settings.downsampling_layers)]
        self.strided = nn.ModuleList(nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.blocks = residual_blocks_of(settings)
        self.project = nn.Conv1d(settings.channels, out_channels, 1)
        start_evenly(self.strided, self.blocks)
        self.classes = classes
        if classes:
            self.label_embedding = nn.Embedding(classes, settings.speaker_channels)
            self.label_first = nn.Linear(settings.speaker_channels, settings.channels)

    def forward(self, wave_BS: Tensor, positions_B: Tensor, labels_B: Tensor | None = None) -> Tensor:
        """Encode; `wave_BS` is silent behind the end of an item.

        Raises:
            UsageError: the labels do not fit.
        """
        check_labels(labels_B, classes=self.classes, count=len(wave_BS))
        x = _companded(wave_BS)[:, None]
        for layer, convolution in enumerate(self.strided, start=1):
            x = F.silu(convolution(x))
            x = x * inside(positions_B, x.shape[2], per_position=1 << (len(self.strided) - layer))
        inside_B1T = inside(positions_B, x.shape[2])
        if labels_B is not None:
            x = (x + self.label_first(self.label_embedding(labels_B))[:, :, None]) * inside_B1T
        for block in self.blocks:
            x = block(x, inside_B1T)
        return self.project(F.silu(x)) * inside_B1T


class Upsampling(nn.Module):
    """`[B, C, T]` to `factor` new steps of every old one, by a convolution of kernel 3.

    The new steps of a position are computed as groups of channels and put side by side ("sub-pixel convolution", Shi et
    al. 2016, arXiv 1609.05158). Transposed convolutions say the same and take three times as long on a CPU.
    """

    def __init__(self, channels_in: int, channels_out: int, *, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convolution = nn.Conv1d(channels_in, factor * channels_out, 3, padding=1)

    def forward(self, x_BCT: Tensor, *, first: int = 0, every: int = 1) -> Tensor:
        """The new steps first, first + every, ... of all; `every` divides the factor."""
        assert self.convolution.bias is not None
        weight, bias = (
            parameter.unflatten(0, (self.factor, -1))[first::every].flatten(0, 1)
            for parameter in (self.convolution.weight, self.convolution.bias)
        )
        steps = F.conv1d(x_BCT, weight, bias, padding=1).unflatten(1, (self.factor // every, -1))
        return steps.permute(0, 2, 3, 1).flatten(2)


class SpectralHead(nn.Module):
    """`[B, C, T]` to waveforms `[B, S]`: one Fourier frame per position, four positions long, added where they overlap.

    Hann windows at a quarter of their length add up to two, apart from both ends of an item, which are softer.
    """

    def __init__(self, *, channels: int, stride: int) -> None:
        super().__init__()
        self.stride, self.frame = stride, 4 * stride
        self.project = nn.Conv1d(channels, 2 * (self.frame // 2 + 1), 1)
        self.register_buffer("window", torch.hann_window(self.frame), persistent=False)
        assert self.project.bias is not None
        with torch.no_grad():
            self.project.bias[: self.frame // 2 + 1] = _START_LOG_MAGNITUDE

    def forward(self, x_BCT: Tensor, inside_B1T: Tensor) -> Tensor:
        with torch.autocast(x_BCT.device.type, enabled=False):
            log_magnitude, phase = self.project(x_BCT.to(self.project.weight.dtype)).chunk(2, 1)
            spectrum = torch.polar(log_magnitude.clamp(max=_LOUDEST).exp() * inside_B1T, phase)
            frames_BNT = torch.fft.irfft(spectrum, n=self.frame, dim=1) * self.get_buffer("window")[:, None]
            steps = frames_BNT.shape[2]
            # A frame is centred on its code: of the sum, what is before the first and behind the last is cut off.
            length = (steps + 3) * self.stride
            added = F.fold(frames_BNT, (1, length), (1, self.frame), stride=(1, self.stride))[:, 0, 0]
            margin = (self.frame - self.stride) // 2
            return added[:, margin : margin + steps * self.stride]


@dataclass(frozen=True)
class PartWeights:
    """Weights of the terms of a loss that are means over other things than items, for a part of a training batch.

    With them the mean of the parts' losses, weighted by items, is the loss of the batch in one piece, though recordings
    are of unequal length.
    """

    samples: float = 1.0
    """Real samples per item of the part, divided by those per item of the batch."""
    positions: float = 1.0
    """The same of real positions."""


WHOLE_BATCH = PartWeights()


def code_count(lengths: Tensor, stride: int) -> Tensor:
    """Codes of recordings of so many samples, int64: as many as begin within them."""
    return -(-lengths.long() // stride)


def check_audio(samples_BS: Tensor, mask_BS: Tensor, stride: int) -> None:
    """Refuse what would be encoded wrongly without a word; values are looked at only on the CPU.

    Raises:
        UsageError: not int16 samples `[B, S]` with S a multiple of the stride, and a mask that is true first.
    """
    expected = f"expected int16 samples [batch, a multiple of {stride}] and a bool mask of that shape"
    fit = samples_BS.ndim == 2 and len(samples_BS) and samples_BS.shape[1] and samples_BS.shape[1] % stride == 0
    if samples_BS.dtype != torch.int16 or mask_BS.dtype != torch.bool or not fit or mask_BS.shape != samples_BS.shape:
        raise UsageError(
            f"{expected}, got {samples_BS.dtype} {tuple(samples_BS.shape)} and {mask_BS.dtype} {tuple(mask_BS.shape)}"
        )
    if mask_BS.device.type == "cpu" and not (mask_BS[:, 0].all() and (mask_BS[:, 1:] <= mask_BS[:, :-1]).all()):
        raise UsageError(f"{expected} that is true for the samples of a recording, which come first")
