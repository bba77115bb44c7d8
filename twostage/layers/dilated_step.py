"""One position of a `DilatedStack` at a time, at a cost that does not depend on how many came before.

Each layer keeps a queue of its last (k - 1) d inputs (the "fast WaveNet" of Le Paine et al. 2016, arXiv 1611.09482) and
nothing is ever moved in it: a ring of d slots holds k inputs each, those d apart side by side, which is how one product
wants its taps. The newest input takes the place of the oldest, so the order inside a slot turns by one with every round
of the ring, and the weights are kept in all k turns.

At batch 1 the cost is the overhead per operation, so there are four of them per layer and position, all into buffers
and through views that are made once: one product for the gate, sigmoid, the gate, one product for the residual; and a
single product for all skips. The tanh, which takes six times as long as a sigmoid, is spared by
`tanh(x) = 2 sigmoid(2 x) - 1`: the factor 2 is folded into the weights, and minus the gate is `s - 2 r s` with
`(r, s) = sigmoid(...)` taken in one go. A condition by position is projected for a stretch of positions and all layers
at once.

A block of attention, where there is one, keeps all positions and costs time linear in them.

The weights are copied when a state is made. A state therefore belongs to the weights of that moment: an optimiser step
in between changes nothing in it, and the next `DilatedStackState` sees the new weights. Values follow eval mode:
dropout is never applied. A layer of dilation d needs k C (B d + 2 k C) numbers for queue and kernels.

Shape suffixes as in `twostage.layers.dilated`; d slots of a ring, Y vectors of a stretch, N = L D.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from twostage.layers.attention import CausalAttention, CausalAttentionState
from twostage.layers.dilated import DilatedLayer, DilatedStack

# Positions whose condition is projected in one product: enough for an efficient product, small enough for a cache.
_STRETCH = 32


class DilatedStackState:
    """Position, queues and folded weights of one walk along a sequence.

    Without a condition by position a walk may go on for ever; with one it has that condition's T positions.

    Args:
        stack: the stack to walk.
        batch_size: items B walked side by side.
        bias_BLD, condition_BFX: what `DilatedStack.forward` would be given.
    """

    @torch.no_grad()
    def __init__(
        self,
        stack: DilatedStack,
        *,
        batch_size: int,
        bias_BLD: Tensor | None = None,
        condition_BFX: Tensor | None = None,
    ) -> None:
        stack.check_condition(condition_BFX)
        layers = [cast(DilatedLayer, layer) for layer in stack.layers]
        like = layers[0].output.weight
        self._position = 0
        self._positions = None if condition_BFX is None else condition_BFX.shape[2] * stack.condition_hold
        self._biases = _Biases.fold(stack, batch_size=batch_size, bias_BLD=bias_BLD, condition_BFX=condition_BFX)
        self._gate_in_BD = like.new_zeros(batch_size, 2 * stack.channels)
        self._gates_BP = like.new_zeros(batch_size, len(layers) * stack.channels)
        self._skip_weight_PS = torch.cat([_output_weight(layer)[:, layer.splits[0] :] for layer in layers])
        queues = [_Queue.empty(layer, batch_size=batch_size) for layer in layers]
        self._first = queues[0]
        attention = {
            int(index): CausalAttentionState(cast(CausalAttention, block), batch_size=batch_size)
            for index, block in stack.attention.items()
        }
        self._operations = [
            _Operands(gate_BC, _output_weight(layer)[:, : layer.splits[0]].clone(), above, attention.get(index))
            for index, (gate_BC, layer, above) in enumerate(
                zip(self._gates_BP.chunk(len(layers), dim=1), layers, [*queues[1:], None], strict=True)
            )
        ]

    @torch.no_grad()
    def advance(self, x_BC: Tensor | None) -> Tensor:
        """Take in the input of the previous position, None before the first; return the features of this one [B, S]."""
        position = self._position
        if (x_BC is None) != (position == 0):
            raise ValueError("expected None before the first position and an input before every other one")
        if self._positions is not None and position == self._positions:
            raise ValueError(f"expected at most {self._positions} positions, got one more: make a new state")
        biases = self._biases.at(position)
        self._position += 1
        gate_in_BD = self._gate_in_BD
        value_BC, opening_BC = gate_in_BD.chunk(2, dim=1)
        slot = self._first.at(position)
        if x_BC is not None:  # the queue starts with zeros
            slot.newest_BC.copy_(x_BC)
        for op, bias_BD in zip(self._operations, biases, strict=True):
            torch.addmm(bias_BD, slot.taps_BP, slot.weight_PD, out=gate_in_BD)
            gate_in_BD.sigmoid_()
            torch.addcmul(opening_BC, value_BC, opening_BC, value=-2.0, out=op.gate_BC)
            if op.above is not None:
                residual_BC, slot = slot.newest_BC, op.above.at(position)
                torch.addmm(residual_BC, op.gate_BC, op.residual_weight_CC, out=slot.newest_BC)
                if op.attention is not None:
                    op.attention.advance(slot.newest_BC, position)
        return torch.mm(self._gates_BP, self._skip_weight_PS)


@dataclass(frozen=True, slots=True)
class _Operands:
    """What one layer works on besides its slot."""

    gate_BC: Tensor  # minus the gate; a view of the buffer of all gates
    residual_weight_CC: Tensor
    above: "_Queue | None"  # the queue of the next layer, None in the last
    attention: CausalAttentionState | None  # adds to the newest input of that queue


@dataclass(frozen=True, slots=True)
class _Slot:
    """Views of a queue at one position."""

    newest_BC: Tensor
    taps_BP: Tensor  # all k inputs
    weight_PD: Tensor  # turned to the order in which they lie


@dataclass(frozen=True, slots=True)
class _Queue:
    """The last inputs of one layer, and the weights for each turn of their order."""

    ring_dBkC: Tensor
    weights: list[Tensor]  # k times [P, D]
    slots: list[_Slot | None]  # by position modulo k d, made when first reached

    @classmethod
    def empty(cls, layer: DilatedLayer, *, batch_size: int) -> "_Queue":
        kernel, dilation = len(layer.offsets), layer.dilation
        channels = layer.output.in_features
        weight_PD = layer.taps.weight.T * _sigmoid_form(layer)
        # Tap k - 1 belongs to the newest input. In turn `newest` that one lies at place `newest`, and the place before
        # it (after the first comes the last) holds the input d positions earlier.
        taps = weight_PD.chunk(kernel)
        weights = [
            torch.cat([taps[kernel - 1 - (newest - place) % kernel] for place in range(kernel)])
            for newest in range(kernel)
        ]
        ring_dBkC = weight_PD.new_zeros(dilation, batch_size, kernel, channels)
        return cls(ring_dBkC, weights, [None] * (kernel * dilation))

    def at(self, position: int) -> _Slot:
        index = position % len(self.slots)
        slot = self.slots[index]
        if slot is None:
            newest, place = divmod(index, len(self.ring_dBkC))
            inputs_BkC = self.ring_dBkC[place]
            slot = _Slot(inputs_BkC[:, newest], inputs_BkC.flatten(1), self.weights[newest])
            self.slots[index] = slot
        return slot


@dataclass(frozen=True, slots=True)
class _Biases:
    """What is added to every layer's gate inputs, folded; with a condition by position, for Y vectors at a time."""

    sums_YBLD: Tensor  # Y = 1 without a condition
    by_vector: list[list[Tensor]]  # the same memory, by vector, then layer: [B, D]
    constant_BLD: Tensor
    condition_XBF: Tensor | None
    weight_FN: Tensor | None  # N = L D
    hold: int  # positions that share a vector

    @classmethod
    def fold(
        cls, stack: DilatedStack, *, batch_size: int, bias_BLD: Tensor | None, condition_BFX: Tensor | None
    ) -> "_Biases":
        layers = [cast(DilatedLayer, layer) for layer in stack.layers]
        scale_D = _sigmoid_form(layers[0])
        constant_LD = torch.stack([layer.taps.bias for layer in layers])
        constant_BLD = constant_LD.expand(batch_size, -1, -1) if bias_BLD is None else constant_LD + bias_BLD
        constant_BLD = (constant_BLD * scale_D).expand(batch_size, -1, -1).contiguous()
        sums_YBLD, condition_XBF, weight_FN = constant_BLD[None], None, None
        if condition_BFX is not None:
            condition_XBF = condition_BFX.permute(2, 0, 1).contiguous()
            weight_FN = torch.cat([layer.condition.weight.T * scale_D for layer in layers], dim=1)
            vectors = min(max(_STRETCH // stack.condition_hold, 1), len(condition_XBF))
            sums_YBLD = constant_BLD.new_zeros(vectors, *constant_BLD.shape)
        by_vector = [list(sums_BLD.unbind(1)) for sums_BLD in sums_YBLD]
        return cls(sums_YBLD, by_vector, constant_BLD, condition_XBF, weight_FN, stack.condition_hold)

    def at(self, position: int) -> list[Tensor]:
        """The biases [B, D] of all layers; positions must come in order."""
        vector, within = divmod(position, self.hold)
        index = vector % len(self.by_vector)
        if index == within == 0 and self.condition_XBF is not None and self.weight_FN is not None:
            self._project(vector, self.condition_XBF, self.weight_FN)
        return self.by_vector[index]

    def _project(self, start: int, condition_XBF: Tensor, weight_FN: Tensor) -> None:
        some_YBF = condition_XBF[start : start + len(self.by_vector)]
        sums_YBLD = self.sums_YBLD[: len(some_YBF)]
        torch.mm(some_YBF.flatten(0, 1), weight_FN, out=sums_YBLD.view(-1, weight_FN.shape[1]))
        sums_YBLD.add_(self.constant_BLD)


def _output_weight(layer: DilatedLayer) -> Tensor:
    """[C, residual and skip], negative because the walk computes minus the gate."""
    return -layer.output.weight.T


def _sigmoid_form(layer: DilatedLayer) -> Tensor:
    """[D] factors: 2 for what goes into the tanh, 1 for what goes into the sigmoid."""
    ones_C = layer.output.weight.new_ones(layer.output.in_features)
    return torch.cat([2.0 * ones_C, ones_C])
