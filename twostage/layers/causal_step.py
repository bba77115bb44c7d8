"""One position of a `GatedStack` at a time, at a cost that does not depend on how many came before.

Vertical stack: each layer keeps a window of as many rows as its kernel is high; when a row starts, the whole row of all
layers is computed, together with everything the row will add to the horizontal stack (link and biases). Horizontal
stack: each layer keeps its inputs along the current row; a position costs one product for the gate and one for the
residual per layer, and a single product for all skips. Only a block of attention, where there is one, costs time linear
in the positions before.

At batch 1 the cost is the overhead per operation, so there are four of them per layer and position, all into buffers
and through views prepared beforehand. The sigmoid is spared by `sigmoid(x) = (1 + tanh(x / 2)) / 2`: the halves are
folded into the weights, and twice the gate becomes `t + t u` with `(t, u) = tanh(...)` taken in one go.

The weights are copied when a state is made. A state therefore belongs to the weights of that moment: an optimiser step
in between changes nothing in it, and the next `GatedStackState` sees the new weights. Values follow eval mode: dropout
is never applied. Needs about 11 B W L C numbers for B items, W columns, L layers of C channels and kernel 3.

Shape suffixes as in `twostage.layers.causal`; R rows of a window, k its columns, P = taps times channels, N = 2 C gate
inputs.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from twostage.layers.attention import CausalAttention, CausalAttentionState
from twostage.layers.causal import GatedLayer, GatedStack, gate


class GatedStackState:
    """Position, buffers and folded weights of one walk over a grid.

    Args:
        stack: the stack to walk.
        batch_size: items B walked side by side.
        grid: (H, W).
        bias_BLD, map_BDHW: the biases that `GatedStack.forward` would be given, or None.
    """

    @torch.no_grad()
    def __init__(
        self,
        stack: GatedStack,
        *,
        batch_size: int,
        grid: tuple[int, int],
        bias_BLD: Tensor | None = None,
        map_BDHW: Tensor | None = None,
    ) -> None:
        layers = [cast(GatedLayer, layer) for layer in stack.layers]
        like = layers[0].output.weight
        if bias_BLD is None:
            bias_BLD = like.new_zeros(1, len(layers), 4 * stack.channels)
        self._grid = grid
        self._position = 0
        self._rows = [
            _VerticalRow.fold(
                layer,
                bias_BLD[:, index],
                None if index else map_BDHW,
                batch_size=batch_size,
                width=grid[1],
            )
            for index, layer in enumerate(layers)
        ]
        self._gates_BLC = like.new_zeros(batch_size, len(layers), stack.channels)
        self._gates_BP = self._gates_BLC.flatten(1)
        self._skip_weight_PS = torch.cat([_output_weight(layer)[:, layer.splits[0] :] for layer in layers])
        # A row of inputs per layer, behind the zero columns to its left.
        inputs = [_row_buffer(layer, batch_size, grid[1]) for layer in layers]
        self._inputs_BWC = inputs[0][:, -grid[1] :]
        attention = {
            int(index): CausalAttentionState(cast(CausalAttention, block), batch_size=batch_size, width=grid[1])
            for index, block in stack.attention.items()
        }
        self._operations = _prepare(layers, self._rows, inputs, self._gates_BLC, attention)

    @torch.no_grad()
    def advance(self, x_BC: Tensor | None) -> Tensor:
        """Take in the input of the previous position, None before the first; return the features of this one [B, S]."""
        height, width = self._grid
        if self._position >= height * width:
            raise ValueError(f"expected at most {height * width} positions, got one more: make a new state")
        if (x_BC is None) != (self._position == 0):
            raise ValueError("expected None before the first position and an input before every other one")
        if x_BC is not None:
            self._inputs_BWC[:, (self._position - 1) % width] = x_BC
        column = self._position % width
        if column == 0:
            row_BWC = self._inputs_BWC  # zeros before the first row
            for layer_row in self._rows:
                row_BWC = layer_row.advance(row_BWC, self._position // width)
        self._position += 1
        for op in self._operations[column]:
            torch.addmm(op.from_row_BN, op.taps_BP, op.weight_PN, out=op.gate_in_BN)
            op.gate_in_BN.tanh_()
            torch.addcmul(op.value_BC, op.value_BC, op.opening_BC, out=op.gate_BC)
            if op.next_BC is not None:
                torch.addmm(op.residual_BC, op.gate_BC, op.residual_weight_CC, out=op.next_BC)
                if op.attention is not None:
                    op.attention.advance(op.next_BC, self._position - 1)
        return torch.mm(self._gates_BP, self._skip_weight_PS)


@dataclass(frozen=True)
class _VerticalRow:
    """Vertical half of one layer: flat weights, the window of input rows, and where a row's results go."""

    first: bool
    last: bool
    weight_PN: Tensor
    bias_BN: Tensor
    link_NN: Tensor
    link_bias_BN: Tensor
    window_BRWC: Tensor  # inputs of the last R rows, zero columns on both sides
    taps_WBRkC: Tensor  # the same memory, as each output column sees it
    out_WBN: Tensor  # what this row adds to the horizontal gate inputs
    map_HWBN: Tensor | None  # biases by position, of the vertical and of the horizontal gate
    link_map_HWBN: Tensor | None

    @classmethod
    def fold(
        cls, layer: GatedLayer, bias_BD: Tensor, map_BDHW: Tensor | None, *, batch_size: int, width: int
    ) -> "_VerticalRow":
        weight_NCRk = layer.vertical.conv.weight
        gate_inputs, channels, rows, kernel = weight_NCRk.shape
        window_BRWC = weight_NCRk.new_zeros(batch_size, rows, width + kernel - 1, channels)
        vertical_bias_BN, horizontal_bias_BN = bias_BD.chunk(2, dim=1)
        scale_N = _tanh_form(layer)
        map_HWBN, link_map_HWBN = (None, None) if map_BDHW is None else map_BDHW.permute(2, 3, 0, 1).chunk(2, dim=3)
        return cls(
            first=layer.first,
            last=layer.last,
            weight_PN=weight_NCRk.permute(2, 3, 1, 0).reshape(-1, gate_inputs).clone(),
            bias_BN=vertical_bias_BN + _bias(layer.vertical.conv),
            link_NN=layer.link.weight[:, :, 0, 0].T * scale_N,
            link_bias_BN=(horizontal_bias_BN + _bias(layer.horizontal.conv)) * scale_N,
            window_BRWC=window_BRWC,
            taps_WBRkC=window_BRWC.unfold(2, kernel, 1).permute(2, 0, 1, 4, 3),
            out_WBN=weight_NCRk.new_zeros(width, batch_size, gate_inputs),
            map_HWBN=map_HWBN,
            link_map_HWBN=None if link_map_HWBN is None else link_map_HWBN * scale_N,
        )

    def advance(self, row_BWC: Tensor, index: int) -> Tensor:
        """Take in the inputs above row `index`, fill `out_WBN`, and return the row of inputs for the layer above."""
        window_BRWC = self.window_BRWC
        margin = (window_BRWC.shape[2] - row_BWC.shape[1]) // 2
        window_BRWC[:, :-1] = window_BRWC[:, 1:].clone()
        window_BRWC[:, -1, margin : margin + row_BWC.shape[1]] = row_BWC
        taps_XP = self.taps_WBRkC.reshape(-1, self.weight_PN.shape[0])
        gate_in_WBN = torch.mm(taps_XP, self.weight_PN).view(self.out_WBN.shape).add_(self.bias_BN)
        if self.map_HWBN is not None:
            gate_in_WBN += self.map_HWBN[index]
        torch.mm(gate_in_WBN.flatten(0, 1), self.link_NN, out=self.out_WBN.flatten(0, 1))
        self.out_WBN.add_(self.link_bias_BN)
        if self.link_map_HWBN is not None:
            self.out_WBN.add_(self.link_map_HWBN[index])
        if self.last:
            return row_BWC
        gate_BWC = gate(gate_in_WBN.flatten(0, 1)).view(*gate_in_WBN.shape[:2], -1).transpose(0, 1)
        return gate_BWC if self.first else row_BWC + gate_BWC


@dataclass(frozen=True, slots=True)
class _Operands:
    """Operands of one layer's horizontal half at one column: views made once."""

    from_row_BN: Tensor
    taps_BP: Tensor
    weight_PN: Tensor
    gate_in_BN: Tensor
    value_BC: Tensor
    opening_BC: Tensor
    gate_BC: Tensor
    residual_BC: Tensor
    residual_weight_CC: Tensor
    next_BC: Tensor | None  # None in the last layer
    attention: CausalAttentionState | None  # adds to next_BC


def _prepare(
    layers: list[GatedLayer],
    rows: list[_VerticalRow],
    inputs: list[Tensor],
    gates_BLC: Tensor,
    attention: dict[int, CausalAttentionState],
) -> list[list[_Operands]]:
    """Operands by column, then layer."""
    batch_size, _, channels = gates_BLC.shape
    width = rows[0].out_WBN.shape[0]
    gate_in_BN = gates_BLC.new_zeros(batch_size, 2 * channels)
    value_BC, opening_BC = gate_in_BN.chunk(2, dim=1)
    no_residual_BC = gates_BLC.new_zeros(batch_size, channels)
    flat = [_horizontal_weight(layer) for layer in layers]
    residual_weights = [_output_weight(layer)[:, : layer.splits[0]].clone() for layer in layers]

    def operands(column: int, index: int) -> _Operands:
        layer, row_BWC = layers[index], inputs[index]
        taps_BkC = row_BWC[:, column : column + layer.horizontal.columns]
        return _Operands(
            from_row_BN=rows[index].out_WBN[column],
            taps_BP=taps_BkC.view(batch_size, -1),
            weight_PN=flat[index],
            gate_in_BN=gate_in_BN,
            value_BC=value_BC,
            opening_BC=opening_BC,
            gate_BC=gates_BLC[:, index],
            residual_BC=no_residual_BC if layer.first else row_BWC[:, column - width],
            residual_weight_CC=residual_weights[index],
            next_BC=None if layer.last else inputs[index + 1][:, column - width],
            attention=attention.get(index),
        )

    return [[operands(column, index) for index in range(len(layers))] for column in range(width)]


def _row_buffer(layer: GatedLayer, batch_size: int, width: int) -> Tensor:
    """Zeros [B, margin + W, C]: one row of inputs to the horizontal convolution, and the margin its taps need."""
    weight = layer.horizontal.conv.weight
    margin = layer.horizontal.columns - 1 + layer.horizontal.shifted
    return weight.new_zeros(batch_size, margin + width, weight.shape[1])


def _horizontal_weight(layer: GatedLayer) -> Tensor:
    weight_NCk = layer.horizontal.conv.weight[:, :, 0]
    return weight_NCk.permute(2, 1, 0).reshape(-1, weight_NCk.shape[0]) * _tanh_form(layer)


def _output_weight(layer: GatedLayer) -> Tensor:
    """[C, residual and skip], halved because the walk computes twice the gate."""
    return layer.output.weight[:, :, 0, 0].T / 2


def _tanh_form(layer: GatedLayer) -> Tensor:
    """[N] factors: 1 for what goes into the tanh, 1/2 for what goes into the sigmoid."""
    channels = layer.output.weight.shape[1]
    weight = layer.output.weight
    return torch.cat([weight.new_ones(channels), weight.new_full((channels,), 0.5)])


def _bias(conv: torch.nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
