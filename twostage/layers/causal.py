"""Two-dimensional causal convolutions and the gated PixelCNN stack built from them.

The stack follows van den Oord et al. 2016 ("Conditional Image Generation with PixelCNN Decoders", arXiv 1606.05328,
section 2.2 and figure 2). A vertical stack sees every row above the current position, a horizontal stack sees the
current row to the left, and the vertical stack feeds the horizontal one; together they see all earlier positions of the
raster order inside the receptive field, without the blind spot of a stack of masked square kernels. Each layer applies
equation 2, `tanh(W_f * x + V_f h) * sigmoid(W_g * x + V_g h)`, with `V h` given as a bias per item and layer. What is
known of every position beforehand (section 2.3's spatial condition) enters the first layer's gates as a map. Blocks of
causal attention (`twostage.layers.attention`) may stand between the layers, on the horizontal map.

Departures from the paper, and why:
- No masks. A kernel of side k (odd) becomes ceil(k/2) x k in the vertical and 1 x ceil(k/2) in the horizontal stack,
  placed by padding and cropping: the same field of view without multiplying by zeros.
- The step by which the vertical stack lies above the current row is taken once, in the first layer (`shifted`), so that
  row h of every vertical map is a function of rows < h. A cached step can then compute a whole row of all vertical maps
  before the first position of that row is known.
- The vertical stack has an identity residual. The paper found no gain from one at the end of training; a gate at least
  halves its input, so without one the far context fades over many fresh layers and early training is slower.
- The first layer has no residual, because its horizontal input holds the current position itself.

`twostage.layers.causal_step` walks the same stack one position at a time.

Shape suffixes: B items, C channels, D = 4 C bias channels (vertical 2 C, then horizontal 2 C), H rows, W columns,
L layers, S skip channels.
"""

import torch
from torch import Tensor, nn

from twostage.errors import UsageError
from twostage.layers.attention import AttentionBlocks


class VerticalConv(nn.Module):
    """Convolution over the rows above: ceil(k/2) x k taps, the lowest on the same row (`shifted`: on the row above).

    Maps x_BCHW to [B, out_channels, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, shifted: bool = False) -> None:
        super().__init__()
        _require_odd(kernel)
        self.shifted = shifted
        self.rows = (kernel + 1) // 2
        padding = (self.rows - 1 + shifted, kernel // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, (self.rows, kernel), padding=padding)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # The padding is symmetric; the outputs that would see later rows are the last ones.
        return self.conv(x_BCHW)[:, :, : x_BCHW.shape[2]]


class HorizontalConv(nn.Module):
    """Convolution over the row to the left: 1 x ceil(k/2) taps, the last on the same column (`shifted`: one before).

    Maps x_BCHW to [B, out_channels, H, W].
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, shifted: bool = False) -> None:
        super().__init__()
        _require_odd(kernel)
        self.shifted = shifted
        self.columns = (kernel + 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (1, self.columns), padding=(0, self.columns - 1 + shifted))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(x_BCHW)[..., : x_BCHW.shape[3]]


class GatedLayer(nn.Module):
    """One layer of figure 2: both gated convolutions, the link from vertical to horizontal, residual and skip.

    `last` leaves out the residual, which nothing would read.
    """

    def __init__(
        self, channels: int, skip_channels: int, *, kernel: int, first: bool, last: bool, dropout: float
    ) -> None:
        super().__init__()
        self.first = first
        self.last = last
        self.splits = [0 if last else channels, skip_channels]
        self.vertical = VerticalConv(channels, 2 * channels, kernel=kernel, shifted=first)
        self.horizontal = HorizontalConv(channels, 2 * channels, kernel=kernel, shifted=first)
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1, bias=False)
        self.output = nn.Conv2d(channels, sum(self.splits), 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        for conv in (self.vertical.conv, self.horizontal.conv, self.output):
            # Variance-preserving: torch's default has a third of it, which the gates shrink further layer by layer.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="linear")
        # Almost nothing, and not noise as large as the row's own share of the gate: the rows above are learned faster.
        nn.init.normal_(self.link.weight, std=0.01 * (2 * channels) ** -0.5)

    def forward(
        self,
        vertical_BCHW: Tensor,
        horizontal_BCHW: Tensor,
        bias_BDHW: Tensor | None,
        inputs: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next vertical map, the next horizontal map and this layer's skip [B, S, H, W].

        `inputs` are the `gate_inputs` of the same maps, where they are known.
        """
        vertical_in, horizontal_in = self.gate_inputs(vertical_BCHW, horizontal_BCHW) if inputs is None else inputs
        if bias_BDHW is not None:
            vertical_bias, horizontal_bias = bias_BDHW.chunk(2, dim=1)
            vertical_in = vertical_in + vertical_bias
            horizontal_in = horizontal_in + horizontal_bias
        horizontal_gate = self.dropout(gate(horizontal_in + self.link(vertical_in)))
        residual, skip = self.output(horizontal_gate).split(self.splits, dim=1)
        if self.last:
            return vertical_BCHW, horizontal_BCHW, skip
        vertical_gate = self.dropout(gate(vertical_in))
        if self.first:
            return vertical_gate, residual, skip
        return vertical_BCHW + vertical_gate, horizontal_BCHW + residual, skip

    def gate_inputs(self, vertical_BCHW: Tensor, horizontal_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the gates of both stacks, [B, 2 C, H, W] each, biases apart."""
        return self.vertical(vertical_BCHW), self.horizontal(horizontal_BCHW)


class GatedStack(nn.Module):
    """Vertical and horizontal gated layers over an embedded grid; the sum of the skips is the feature map.

    The feature at (h, w) is a function of the inputs at earlier raster positions only. With first kernel a, later
    kernel k and L layers it sees r = ceil(a/2) + (L - 1) floor(k/2) positions to its left, and the r rows above over
    floor(a/2) + (L - 1) floor(k/2) columns to either side.

    Args:
        channels: width C of both stacks, and of the input.
        skip_channels: width S of the features.
        layers: number of gated layers, the first (shifted) one included.
        first_kernel, kernel: odd kernel sides of the first and the later layers.
        dropout: probability of dropping a gated output (before it enters the next vertical layer, the residual or the
            skip) in training mode.
        attention: where blocks of attention stand and their size; None for no block. With one, the feature
            sees all earlier positions.
    """

    def __init__(
        self,
        *,
        channels: int,
        skip_channels: int,
        layers: int,
        first_kernel: int,
        kernel: int,
        dropout: float,
        attention: AttentionBlocks | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise UsageError(f"Expected at least 1 gated layer, got {layers}: add one.")
        self.channels = channels
        self.skip_channels = skip_channels
        self.layers = nn.ModuleList(
            GatedLayer(
                channels,
                skip_channels,
                kernel=kernel if index else first_kernel,
                first=index == 0,
                last=index == layers - 1,
                dropout=dropout,
            )
            for index in range(layers)
        )
        self.attention = nn.ModuleDict()
        if attention is not None:
            self.attention = attention.modules(layers=layers, channels=channels, axes=2, dropout=dropout)

    def forward(
        self,
        x_BCHW: Tensor,
        bias_BLD: Tensor | None = None,
        map_BDHW: Tensor | None = None,
        *,
        first_inputs: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Map inputs [B, C, H, W] to features [B, S, H, W].

        Args:
            x_BCHW: the inputs; the feature at a position sees those of earlier positions.
            bias_BLD: optional biases of every layer's gates, D = 4 C.
            map_BDHW: optional biases of the first layer's gates, position by position.
            first_inputs: what `first_inputs` gives for the same inputs, where it is known.
        """
        vertical, horizontal = x_BCHW, x_BCHW
        features_BSHW: Tensor | None = None
        for index, layer in enumerate(self.layers):
            bias_BDHW = None if bias_BLD is None else bias_BLD[:, index, :, None, None]
            if index == 0 and map_BDHW is not None:
                bias_BDHW = map_BDHW if bias_BDHW is None else bias_BDHW + map_BDHW
            inputs = first_inputs if index == 0 else None
            vertical, horizontal, skip = layer(vertical, horizontal, bias_BDHW, inputs)
            features_BSHW = skip if features_BSHW is None else features_BSHW + skip
            if str(index) in self.attention:
                seen_BNC = self.attention[str(index)](horizontal.flatten(2).transpose(1, 2), width=horizontal.shape[3])
                horizontal = horizontal + seen_BNC.transpose(1, 2).view_as(horizontal)
        assert features_BSHW is not None  # layers >= 1
        return features_BSHW

    def first_inputs(self, x_BCHW: Tensor, map_BDHW: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What enters the gates of the first layer before the bias of an item, the same under every condition.

        The map is in it: `forward` must be given it here or there.
        """
        first = self.layers[0]
        assert isinstance(first, GatedLayer)
        vertical_in, horizontal_in = first.gate_inputs(x_BCHW, x_BCHW)
        if map_BDHW is None:
            return vertical_in, horizontal_in
        vertical_bias, horizontal_bias = map_BDHW.chunk(2, dim=1)
        return vertical_in + vertical_bias, horizontal_in + horizontal_bias


def gate(x: Tensor) -> Tensor:
    """Equation 2 on dimension 1: tanh of the first half of the channels times sigmoid of the second."""
    value, opening = x.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(opening)


def _require_odd(kernel: int) -> None:
    if kernel < 1 or kernel % 2 == 0:
        raise UsageError(f"Expected an odd kernel side of at least 1, got {kernel}: use 3, 5 or 7.")
