"""Stack of gated dilated causal convolutions over time (van den Oord et al. 2016, "WaveNet", arXiv 1609.03499).

Each layer applies equation 2, `tanh(W_f * x + V_f h) * sigmoid(W_g * x + V_g h)`, with a causal convolution whose taps
lie d positions apart; a 1x1 after the gate gives the residual and the skip, and the sum of the skips is the feature map
(section 2.3 and figure 4). The dilations of a block are 1, 2, 4, ..., so the field of view doubles with every layer. A
condition of the whole item (section 2.5) enters every gate as a bias; one that is known position by position, such as
upsampled codes, enters every gate through a 1x1 of that layer, and without delay, since it is known beforehand. Where
it stays the same for several positions, the 1x1 works once for all of them (`condition_hold`). Blocks of causal
attention (`twostage.layers.attention`) may stand between the layers, on the residual path.

Departures from the paper, and why:
- The input is delayed by one position, once, before the first layer, so that the feature at t is a function of earlier
  inputs only. The paper's causal convolution before the layers is left out: an embedding in front does its work.
- The 1x1s have no bias: those of the skips would add up to one, which the layer after the features has anyway.
- The last layer has no residual, which nothing would read.

Convolutions are sums of matrix products, one per tap: on a CPU these are several times faster than dilated
convolutions. Inside, positions come first and items second, so that a tap's inputs are all inputs but the last few, a
block of memory that is copied in one go; with items first, that copy took as long as the products.

`twostage.layers.dilated_step` walks the same stack one position at a time.

Shape suffixes: B items, T positions, N = T B, C channels, D = 2 C gate inputs, L layers, F condition channels, S skip
channels, H positions with one condition, X = T / H, k taps, P = k C.
"""

from typing import cast

import torch
from torch import Tensor, nn

from twostage.errors import UsageError
from twostage.layers.attention import AttentionBlocks


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

    def forward(self, x_XHBC: Tensor, added_X1BD: Tensor, features_NS: Tensor | None) -> tuple[Tensor, Tensor]:
        """One layer, in the precision of its inputs.

        Args:
            x_XHBC: its inputs, by position and item.
            added_X1BD: what is added to its gates' inputs; of size 1 where X or B make no difference.
            features_NS: sum of the skips of earlier layers, which is added to in place.

        Returns:
            The next layer's inputs (of the last layer: its own) and the sum of the skips.
        """
        x_NC, items = x_XHBC.flatten(0, 2), x_XHBC.shape[2]
        taps = self.taps.weight.to(x_NC.dtype).T.chunk(len(self.offsets))
        gate_in_ND = x_NC @ taps[-1]
        for tap_CD, offset in zip(taps[:-1], self.offsets[:-1], strict=True):
            gate_in_ND = gate_in_ND.addmm_(delayed(x_NC, offset * items), tap_CD)
        value, opening = (gate_in_ND.view(*x_XHBC.shape[:3], -1) + added_X1BD).chunk(2, dim=3)
        gate_NC = self.dropout(torch.tanh(value) * torch.sigmoid(opening)).flatten(0, 2)
        residual_CC, skip_CS = self.output.weight.to(x_NC.dtype).T.split(self.splits, dim=1)
        features_NS = gate_NC @ skip_CS if features_NS is None else features_NS.addmm_(gate_NC, skip_CS)
        return x_XHBC if self.last else torch.addmm(x_NC, gate_NC, residual_CC).view_as(x_XHBC), features_NS

    def added(self, bias_BD: Tensor | None, condition_XBF: Tensor | None, dtype: torch.dtype) -> Tensor:
        """What is added to the gates' inputs, [X, 1, B, D] or of size 1 where there is nothing to tell apart."""
        added = self.taps.bias.to(dtype).view(1, 1, 1, -1)
        if bias_BD is not None:
            added = added + bias_BD.to(dtype)
        if condition_XBF is not None:
            added = added + (condition_XBF @ self.condition.weight.to(dtype).T)[:, None]
        return added


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
        condition_hold: H successive positions, from the first on, that share one vector of it.
        dropout: probability of dropping a gated output (before it enters the residual and the skip) in training mode.
        attention: where blocks of attention stand and their size; None for no block. With one, the feature
            sees all earlier positions.

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
        condition_hold: int = 1,
        dropout: float = 0.0,
        attention: AttentionBlocks | None = None,
    ) -> None:
        super().__init__()
        if min(blocks, layers_per_block) < 1:
            raise UsageError(
                f"Expected at least 1 block of at least 1 dilated layer, got {blocks} of {layers_per_block}: add one."
            )
        if kernel not in (2, 3):
            raise UsageError(f"Expected a kernel of 2 or 3 taps for dilated layers, got {kernel}: use one of those.")
        self.channels = channels
        self.condition_channels, self.condition_hold = condition_channels, condition_hold
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
        self.attention = nn.ModuleDict()
        if attention is not None:
            self.attention = attention.modules(layers=len(dilations), channels=channels, axes=1, dropout=dropout)

    def forward(self, x_BCT: Tensor, bias_BLD: Tensor | None = None, condition_BFX: Tensor | None = None) -> Tensor:
        """Map inputs [B, C, T] to features [B, S, T].

        Args:
            x_BCT: the inputs; the feature at a position sees those of earlier positions.
            bias_BLD: optional biases of every layer's gates, D = 2 C.
            condition_BFX: the condition by position, exactly where the stack was built for one; X = T / H.

        Raises:
            ValueError: the condition does not fit.
        """
        self.check_condition(condition_BFX)
        items, _, positions = x_BCT.shape
        stretches = 1 if condition_BFX is None else condition_BFX.shape[2]
        if condition_BFX is not None and stretches * self.condition_hold != positions:
            raise ValueError(
                f"expected a condition of {positions} positions, got {stretches} of {self.condition_hold} each"
            )
        device = x_BCT.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BCT.dtype
        with torch.autocast(device, enabled=False):  # which casts for no product that adds in place
            x_XHBC = delayed(x_BCT.permute(2, 0, 1).to(dtype), 1).unflatten(0, (stretches, -1))
            condition_XBF = None if condition_BFX is None else condition_BFX.permute(2, 0, 1).to(dtype)
            features_NS: Tensor | None = None
            for index, layer in enumerate(cast(list[DilatedLayer], self.layers)):
                bias_BD = None if bias_BLD is None else bias_BLD[:, index]
                x_XHBC, features_NS = layer(x_XHBC, layer.added(bias_BD, condition_XBF, dtype), features_NS)
                if str(index) in self.attention:
                    seen_BNC = self.attention[str(index)](x_XHBC.flatten(0, 1).transpose(0, 1))
                    x_XHBC = x_XHBC + seen_BNC.transpose(0, 1).view_as(x_XHBC)
        assert features_NS is not None  # at least one layer
        return features_NS.view(positions, items, -1).permute(1, 2, 0)

    def check_condition(self, condition_BFX: Tensor | None) -> None:
        """Raise ValueError unless there is a condition of the width the stack was built for, or none for width 0."""
        width = 0 if condition_BFX is None else condition_BFX.shape[1]
        if width != self.condition_channels:
            raise ValueError(f"expected a condition of {self.condition_channels} channels, got {width}")


def delayed(x: Tensor, rows: int) -> Tensor:
    """The rows of the first axis moved back by `rows`: zeros, then the first rows; those beyond the end are cut off."""
    rows = min(rows, len(x))
    return torch.cat([x.new_zeros(rows, *x.shape[1:]), x[: len(x) - rows]])
