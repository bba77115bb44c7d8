"""Causal self-attention between gated layers (Chen et al. 2018, "PixelSNAIL", arXiv 1712.09763), whole and stepwise.

A block reads the features of a position and of all positions before it, whatever their distance: with queries q, keys k
and values v, linear in the features, output i is the sum over j <= i of softmax_j(q_i . k_j / sqrt(E)) v_j, per head,
and a last product brings the heads back to the width of the features, which the block adds to. The features at a
position are a function of earlier inputs only, so a position may see itself. Queries and keys also read where they
stand: sinusoids of row and column, or of time (equation in section 3.5 of Vaswani et al. 2017, arXiv 1706.03762).

Departures from the paper, and why:
- The block is added to the features, where the paper merges it with the convolutions through further gated 1x1s: the
  gated layer after the block does that.
- Several heads, and a layer norm before the products, as in later transformers; the paper has one head and none.
- The position is sinusoids rather than two background channels, so that any offset is a linear map.
- Keys and values do not read the embedded inputs beside the features: the residual path holds them.
- Dropout drops outputs and no weights of the softmax. The whole pass then never holds a matrix of all pairs of
  positions where the device has a fused kernel (CPU and CUDA do): its memory is linear in their number, its time
  quadratic. A step costs time linear in the positions before it.

There is no window: all that came before is seen.

Shape suffixes: B items, N positions, C channels, W waves, h heads, E channels of a head, Y = h E, X = 3 h E.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twostage.errors import UsageError

_WAVES = 16
_LONGEST = 10_000.0
_ROOM = 64


def places(positions_N: Tensor, width: int) -> Tensor:
    """Sinusoids of the positions, wavelengths from 2 pi to 11 000 pi: [N, 32], or of row and column, [N, 64].

    Args:
        positions_N: int64.
        width: columns of a grid in raster order; 0 for a sequence.
    """
    axes = [positions_N // width, positions_N % width] if width else [positions_N]
    wave_W = _LONGEST ** (-torch.arange(_WAVES, device=positions_N.device) / _WAVES)
    angles = [axis_N[:, None] * wave_W for axis_N in axes]
    return torch.cat([wave for angle_NW in angles for wave in (angle_NW.sin(), angle_NW.cos())], dim=1)


class CausalAttention(nn.Module):
    """One block: [B, N, C] to what is added to it.

    Args:
        channels: C.
        axes: 1 for sequences, 2 for grids.
        heads, head_channels: h and E.
        dropout: probability of dropping an output in training mode.
    """

    def __init__(self, channels: int, *, axes: int, heads: int, head_channels: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.inputs = nn.Linear(channels, 3 * heads * head_channels, bias=False)
        self.place = nn.Linear(2 * _WAVES * axes, 2 * heads * head_channels, bias=False)
        self.output = nn.Linear(heads * head_channels, channels, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_normal_(self.inputs.weight, nonlinearity="linear")
        nn.init.kaiming_normal_(self.place.weight, nonlinearity="linear")
        # Small, so that the gated layers learn as they would alone at first.
        nn.init.normal_(self.output.weight, std=0.1 * (heads * head_channels) ** -0.5)

    def forward(self, x_BNC: Tensor, *, width: int = 0) -> Tensor:
        """In the precision of its inputs; `width` is that of a grid, 0 for a sequence."""
        dtype, position_N = x_BNC.dtype, torch.arange(x_BNC.shape[1], device=x_BNC.device)
        inputs_BNX = F.linear(self._normed(x_BNC), self.inputs.weight.to(dtype))
        place_NX = F.linear(places(position_N, width).to(dtype), self.place.weight.to(dtype))
        query, key, value = (inputs_BNX + F.pad(place_NX, (0, inputs_BNX.shape[2] - place_NX.shape[1]))).chunk(3, dim=2)
        query_BhNE, key_BhNE, value_BhNE = self._by_head(query), self._by_head(key), self._by_head(value)
        seen_BhNE = F.scaled_dot_product_attention(query_BhNE, key_BhNE, value_BhNE, is_causal=True)
        return self.dropout(F.linear(seen_BhNE.transpose(1, 2).flatten(2), self.output.weight.to(dtype)))

    def _normed(self, x_BNC: Tensor) -> Tensor:
        weight, bias = (parameter.to(x_BNC.dtype) for parameter in (self.norm.weight, self.norm.bias))
        return F.layer_norm(x_BNC, x_BNC.shape[2:], weight, bias).to(x_BNC.dtype)  # autocast makes it fp32

    def _by_head(self, x_BNX: Tensor) -> Tensor:
        return x_BNX.unflatten(2, (self.heads, -1)).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class AttentionBlocks:
    """Where attention blocks stand in a stack, and their size.

    Raises:
        UsageError: a size is below 1, or `every` below 0.
    """

    every: int
    """A block follows every so many gated layers; the last layer, whose features nothing reads, never has one. 0: no
    blocks."""
    heads: int
    head_channels: int

    def __post_init__(self) -> None:
        if min(self.every + 1, self.heads, self.head_channels) < 1:
            raise UsageError(
                f"Expected attention_every of at least 0, its heads and their channels of at least 1, got "
                f"{self.every}, {self.heads} and {self.head_channels}: enlarge the one that is not."
            )

    def modules(self, *, layers: int, channels: int, axes: int, dropout: float) -> nn.ModuleDict:
        """The blocks of a stack by the number of the layer that they follow, counted from 0, as text.

        Raises:
            UsageError: the stack has too few layers for a block.
        """
        if self.every >= layers:
            raise UsageError(
                f"Expected attention_every below the {layers} gated layers, got {self.every}: after the last layer "
                "there is no block."
            )
        sizes = {"axes": axes, "heads": self.heads, "head_channels": self.head_channels}
        follows = range(self.every - 1, layers - 1, self.every) if self.every else range(0)
        return nn.ModuleDict({str(index): CausalAttention(channels, **sizes, dropout=dropout) for index in follows})


class CausalAttentionState:
    """Keys and values of the positions so far, and a copy of the weights: one walk of a block. Eval mode is implied.

    The room for keys and values doubles when it is full, so that a walk may go on for ever.

    Args:
        block: the block to walk.
        batch_size: items B walked side by side.
        width: columns of the grid; 0 for a sequence.
    """

    @torch.no_grad()
    def __init__(self, block: CausalAttention, *, batch_size: int, width: int = 0) -> None:
        self._heads, self._width = block.heads, width
        self._norm = (block.norm.weight.clone(), block.norm.bias.clone())
        self._weight_CX = block.inputs.weight.T.clone()
        self._place_weight = block.place.weight.clone()
        self._output_YC = block.output.weight.T.clone()
        self._keys_BhNE = self._weight_CX.new_zeros(batch_size, block.heads, 0, block.output.in_features // block.heads)
        self._values_BhNE = self._keys_BhNE

    @torch.no_grad()
    def advance(self, x_BC: Tensor, position: int) -> None:
        """Add to the features of one position, in place; positions must come in order."""
        if position == self._keys_BhNE.shape[2]:
            self._enlarge(max(_ROOM, position))
        normed_BC = F.layer_norm(x_BC, x_BC.shape[1:], *self._norm)
        inputs_BX = torch.addmm(self._place_NX[position], normed_BC, self._weight_CX)
        query_BhE, key_BhE, value_BhE = inputs_BX.view(len(x_BC), 3, self._heads, -1).unbind(1)
        self._keys_BhNE[:, :, position] = key_BhE
        self._values_BhNE[:, :, position] = value_BhE
        scores_BhN = (self._keys_BhNE[:, :, : position + 1] @ query_BhE[..., None])[..., 0]
        weights_BhN = (scores_BhN * query_BhE.shape[2] ** -0.5).softmax(dim=2)
        seen_BhE = (weights_BhN[:, :, None] @ self._values_BhNE[:, :, : position + 1])[:, :, 0]
        x_BC.addmm_(seen_BhE.flatten(1), self._output_YC)

    def _enlarge(self, more: int) -> None:
        self._keys_BhNE = F.pad(self._keys_BhNE, (0, 0, 0, more))
        self._values_BhNE = F.pad(self._values_BhNE, (0, 0, 0, more))
        position_N = torch.arange(self._keys_BhNE.shape[2], device=self._keys_BhNE.device)
        place_NX = F.linear(places(position_N, self._width).to(self._keys_BhNE.dtype), self._place_weight)
        self._place_NX = F.pad(place_NX, (0, self._weight_CX.shape[1] - place_NX.shape[1]))
