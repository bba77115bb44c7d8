"""Stack of gated dilated causal convolutions over time (van den Oord et al. 2016, "WaveNet", arXiv 1609.03499).

Each layer applies equation 2, `tanh(W_f * x + V_f h) * sigmoid(W_g * x + V_g h)`, with a causal convolution whose taps
lie d positions apart; a 1x1 after the gate gives the residual and the skip, and the sum of the skips is the feature map
(section 2.3 and figure 4). The dilations of a block are 1, 2, 4, ..., so the field of view doubles with every layer. A
condition of the whole item (section 2.5) enters every gate as a bias; one that is known position by position, such as
upsampled codes, enters every gate through a 1x1 of that layer, and without delay, since it is known beforehand.

Departures from the paper, and why:
- The input is delayed by one position, once, before the first layer, so that the feature at t is a function of earlier
  inputs only. The paper's causal convolution before the layers is left out: an embedding in front does its work.
- The 1x1s have no bias: those of the skips would add up to one, which the layer after the features has anyway.
- The last layer has no residual, which nothing would read.

Convolutions are matrix products of the taps, side by side: on a CPU these are two to three times faster than dilated
convolutions, and a tap that lies before the start of the items costs no padding of the dilation's length.

`twostage.dilated_step` walks the same stack one position at a time.

Shape suffixes: B items, T positions, C channels, D = 2 C gate inputs, L layers, F condition channels, S skip channels,
k taps, P = k C.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostage.errors import UsageError


class DilatedLayer(nn.Module):
    """One gated residual layer; its taps at t, t - d, ..., t - (k - 1) d are weights [D, P], the oldest tap first."""

    def __init__(
        self,
        channels: int,
        skip_channels: int,
        *,
        kernel: int,
        dilation: int,
        condition_channels: int,
        last: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.offsets = [dilation * tap for tap in reversed(range(kernel))]
        self.last = last
        self.splits = [0 if last else channels, skip_channels]
        self.taps = nn.Linear(kernel * channels, 2 * channels)
        self.output = nn.Linear(channels, sum(self.splits), bias=False)
        linears = [self.taps, self.output]
        if condition_channels:
            self.condition = nn.Linear(condition_channels, 2 * channels, bias=False)
            linears.append(self.condition)
        self.dropout = nn.Dropout(dropout)
        for linear in linears:
            # Variance-preserving: torch's default has a third of it, which the gates shrink further layer by layer.
            nn.init.kaiming_normal_(linear.weight, nonlinearity="linear")

    def forward(self, x_BTC: Tensor, bias_B1D: Tensor | None, condition_BTF: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the next layer's input [B, T, C] (the last layer: its own) and this layer's skip [B, T, S]."""
        gate_in_BTD = self.taps(torch.cat([delayed(x_BTC, offset) for offset in self.offsets], dim=2))
        if bias_B1D is not None:
            gate_in_BTD = gate_in_BTD + bias_B1D
        if condition_BTF is not None:
            gate_in_BTD = gate_in_BTD + self.condition(condition_BTF)
        value, opening = gate_in_BTD.chunk(2, dim=2)
        gate_BTC = self.dropout(torch.tanh(value) * torch.sigmoid(opening))
        residual, skip = self.output(gate_BTC).split(self.splits, dim=2)
        return x_BTC if self.last else x_BTC + residual, skip


class DilatedStack(nn.Module):
    """Blocks of gated dilated layers over an embedded sequence; the sum of the skips is the feature map.

    The feature at t is a function of the inputs at t - 1 .. t - `receptive_field` only. It sees the condition at t, and
    before it what the taps of the later layers reach: with one block that is every other position.

    Args:
        channels: width C of the residual path, and of the input.
        skip_channels: width S of the features.
        blocks: repetitions of the dilations 1, 2, 4, ..., 2^(layers_per_block - 1).
        layers_per_block: layers in one repetition.
        kernel: taps per layer, 2 or 3.
        condition_channels: width F of the condition by position; 0 for none.
        dropout: probability of dropping a gated output (before it enters the residual and the skip) in training mode.

    Raises:
        UsageError: no layers, or another kernel.
    """

    def __init__(
        self,
        *,
        channels: int,
        skip_channels: int,
        blocks: int,
        layers_per_block: int,
        kernel: int = 2,
        condition_channels: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(blocks, layers_per_block) < 1:
            raise UsageError(
                f"Expected at least 1 block of at least 1 dilated layer, got {blocks} of {layers_per_block}: add one."
            )
        if kernel not in (2, 3):
            raise UsageError(f"Expected a kernel of 2 or 3 taps for dilated layers, got {kernel}: use one of those.")
        self.channels = channels
        self.condition_channels = condition_channels
        dilations = [2**index for index in range(layers_per_block)] * blocks
        self.receptive_field = 1 + (kernel - 1) * sum(dilations)
        self.layers = nn.ModuleList(
            DilatedLayer(
                channels,
                skip_channels,
                kernel=kernel,
                dilation=dilation,
                condition_channels=condition_channels,
                last=index == len(dilations) - 1,
                dropout=dropout,
            )
            for index, dilation in enumerate(dilations)
        )

    def forward(self, x_BCT: Tensor, bias_BLD: Tensor | None = None, condition_BFT: Tensor | None = None) -> Tensor:
        """Map inputs [B, C, T] to features [B, S, T].

        Args:
            x_BCT: the inputs; the feature at a position sees those of earlier positions.
            bias_BLD: optional biases of every layer's gates, D = 2 C.
            condition_BFT: the condition by position, exactly where the stack was built for one.

        Raises:
            ValueError: the condition does not fit.
        """
        self.check_condition(condition_BFT)
        if condition_BFT is not None and condition_BFT.shape[2] != x_BCT.shape[2]:
            raise ValueError(f"expected a condition of {x_BCT.shape[2]} positions, got {condition_BFT.shape[2]}")
        condition_BTF = None if condition_BFT is None else condition_BFT.transpose(1, 2)
        x_BTC = delayed(x_BCT.transpose(1, 2), 1)
        features_BTS: Tensor | None = None
        for index, layer in enumerate(self.layers):
            bias_B1D = None if bias_BLD is None else bias_BLD[:, index, None]
            x_BTC, skip_BTS = layer(x_BTC, bias_B1D, condition_BTF)
            features_BTS = skip_BTS if features_BTS is None else features_BTS + skip_BTS
        assert features_BTS is not None  # at least one layer
        return features_BTS.transpose(1, 2)

    def check_condition(self, condition_BFT: Tensor | None) -> None:
        """Raise ValueError unless there is a condition of the width the stack was built for, or none for width 0."""
        width = 0 if condition_BFT is None else condition_BFT.shape[1]
        if width != self.condition_channels:
            raise ValueError(f"expected a condition of {self.condition_channels} channels, got {width}")


def delayed(x_BTC: Tensor, offset: int) -> Tensor:
    """The sequence `offset` positions later: zeros [B, offset, C], then the inputs, cut to T positions."""
    offset = min(offset, x_BTC.shape[1])
    return F.pad(x_BTC[:, : x_BTC.shape[1] - offset], (0, 0, offset, 0))
