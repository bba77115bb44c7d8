"""The last linear layer and the log-masses of a discretised mixture of logistics, with their gradient written out.

Every training of the mixture spends its time here, on numbers as many as pixels times channels times components. What
makes it fast and small:

- Blocks of pixels that stay in the second-level cache. What the layer says of them is never whole in memory, and
  nothing of it is kept for the gradient, which computes it once more.
- Pixels innermost, so that sums over components are sums of rows.
- One logarithm a component and channel. A bin's mass is `exp(-relu(a) - relu(b)) r` with its edges a (the upper one,
  negated) and b in units of the scale and `r = sigmoid(|a|) sigmoid(|b|) (1 - exp(a + b))` in (0, 1], so that the sum
  over components needs the exponent of its largest term alone.
- No comparison: an open end is an edge at 1e30.

With T_c the logarithm of a component's weight times its masses of channels 0 .. c, channel c has the log-mass
`logsumexp T_c - logsumexp T_{c-1}`. Its gradient weighs the components by their posterior shares q_c given those
channels: with g_c the gradient that comes in, T_c gets `(g_c - g_{c+1}) q_c`, and the weights also `-g_0 q_{-1}`.

Shapes: B items, F features, C image channels, P pixels, L levels, M components, Q = M (1 + 2 C) numbers of a pixel; of
a block b items and p pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CPU_NUMBERS = 2**16
"""Pixels times components of a block: a quarter of a megabyte an array."""
_ACCELERATOR_NUMBERS = 2**26

_OPEN = 1e30
"""Where the outer edges of the outer bins are. Times the inverse of the narrowest scale it is still a number."""
_NOTHING = -40.0
"""An exponent that gives nothing beside 1 in fp32. Smaller ones lead to denormal numbers, ten times as slow."""


@dataclass(frozen=True)
class Alphabet:
    """Levels 0 .. L - 1 on [-1, 1], and between what bounds log-scales are."""

    levels: int
    log_scales: tuple[float, float]

    def scaled(self, level: Tensor) -> Tensor:
        """Where integer levels lie, fp32."""
        return level.float() * (2.0 / (self.levels - 1)) - 1.0

    def upper_edge(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Upper edge of the bins of integer levels, as a sum of two fp32 numbers of which the second is small.

        The edge is n / (L - 1) for an integer n from -(L - 2) to L. Rounded to fp32 it would be off by up to 1e-2 of
        the narrowest scale of 65536 levels. n / 2^b with L - 1 < 2^b is exact, and the rest is small.
        """
        power = 1 << (self.levels - 1).bit_length()
        numerator = 2.0 * level.float() + (2 - self.levels)
        return numerator * (1.0 / power), numerator * ((power - self.levels + 1) / (power * (self.levels - 1)))


class _Room:
    """Arrays by name that every block writes anew: fresh ones would cost more in page faults than in arithmetic."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._arrays = like, dict[str, Tensor]()

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        found = self._arrays.get(name)
        if found is None or found.shape != shape:
            found = self._arrays[name] = self._like.new_empty(shape)
        return found


class _Block:
    """Some pixels of some items; arrays `..._M` are `[b, M, p]`, other small letters `[b, 1, p]`."""

    def __init__(
        self, room: _Room, weight_QF: Tensor, bias_Q1: Tensor, parts: list[Tensor], alphabet: Alphabet
    ) -> None:
        features_bFp, self.origin_bCp, self.log_unit, x_bCp = parts
        items, channels, pixels = x_bCp.shape
        self.room, self.channels, self.mixtures = room, channels, len(bias_Q1) // (1 + 2 * channels)
        self.weight_QF, self.features_bFp = weight_QF, features_bFp
        self.shape, self.numbers = (items, self.mixtures, pixels), (items, len(bias_Q1), pixels)
        raw_bQp = torch.baddbmm(
            bias_Q1, weight_QF.expand(items, -1, -1), features_bFp, out=room("numbers", self.numbers)
        )
        self.logit_M, *of_channels = raw_bQp.split(self.mixtures, 1)
        self.locations, self.log_scales = of_channels[:channels], of_channels[channels:]
        self.unit, self.negated_unit = self.log_unit.exp(), self.log_unit.neg()
        self.negated_bounds = -alphabet.log_scales[1], -alphabet.log_scales[0]
        self.edges = _edges(x_bCp, alphabet)

    def _array(self, name: str) -> Tensor:
        return self.room(name, self.shape)

    def log_masses(self, *, gradient: bool = False) -> Iterator[Tensor]:
        """Of one channel after the other, `[b, 1, p]`.

        With `gradient` the room then holds what `write_gradient` needs.
        """
        spare_M, log_weight_M = self._array("spare"), self._array("log-weight").copy_(self.logit_M)
        share_M, _ = self._shares(log_weight_M)
        total = share_M.sum(1, keepdim=True)
        if gradient:
            torch.div(share_M, total, out=self._array("shares before"))
        log_weight_M.sub_(total.log_())
        for channel in range(self.channels):
            ratio_M = self._masses(channel, log_weight_M, gradient=gradient)
            share_M, largest = self._shares(log_weight_M)
            total = torch.mul(share_M, ratio_M, out=spare_M).sum(1, keepdim=True)
            ratio_M.div_(total)
            if gradient:
                torch.mul(share_M, ratio_M, out=self._array(f"shares {channel}"))
            yield total.mul_(2.0).log_().add_(largest)
            if channel + 1 < self.channels:
                log_weight_M.add_(ratio_M.log_())

    def _shares(self, exponent_M: Tensor) -> tuple[Tensor, Tensor]:
        """exp of it less its largest, and that, which is taken from the argument."""
        largest = exponent_M.amax(1, keepdim=True)
        exponent_M.sub_(largest)
        return torch.clamp(exponent_M, min=_NOTHING, out=self._array("shares")).exp_(), largest

    def _masses(self, channel: int, log_weight_M: Tensor, *, gradient: bool) -> Tensor:
        """Half of r; the exponents are added to `log_weight_M`."""
        array, (high, high_rest, low, low_rest, half_width) = self._array, (part[channel] for part in self.edges)
        spare_M, origin = array("spare"), self.origin_bCp[:, channel : channel + 1]
        inverse_M = self._negated_log_scale(channel, array("inverse")).clamp_(*self.negated_bounds).exp_()
        location_M = torch.addcmul(origin, self.locations[channel], self.unit, out=array("b"))
        # The lower edge is that of the bin below, to the bit: `high - width` would round by the distance of the upper
        # edge, which in a small alphabet is a thousand scales where the lower one is at hand.
        a_M = torch.sub(location_M, high, out=array("a")).sub_(high_rest).mul_(inverse_M)
        b_M = torch.sub(low, location_M, out=location_M).add_(low_rest).mul_(inverse_M)
        half_width_M = torch.mul(half_width, inverse_M, out=array("half width"))
        cost_M, at_b_M = torch.clamp(a_M, min=0.0, out=array("cost")), torch.clamp(b_M, min=0.0, out=array("at b"))
        below_a_M = torch.sub(a_M, cost_M, alpha=2, out=array("-|a|")).clamp_(min=_NOTHING)
        below_b_M = torch.sub(b_M, at_b_M, alpha=2, out=array("-|b|")).clamp_(min=_NOTHING)
        log_weight_M.sub_(cost_M.add_(at_b_M))
        exp_a_M, exp_b_M = torch.exp(below_a_M, out=array("at a")), torch.exp(below_b_M, out=at_b_M)
        within_M = torch.tanh(half_width_M, out=array("within"))
        within_M.div_(torch.add(within_M, 1.0, out=spare_M))  # half of 1 - exp(-width)
        ratio_M = torch.add(exp_a_M, 1.0, out=array("ratio"))
        one_b_M = torch.add(exp_b_M, 1.0, out=spare_M)
        if gradient:
            exp_a_M.div_(ratio_M)  # sigmoid(-|a|)
            exp_b_M.div_(one_b_M)
        torch.div(within_M, ratio_M.mul_(one_b_M), out=ratio_M)
        if gradient:
            by_log_scale_M = array(f"by log-scale {channel}")
            torch.addcmul(cost_M, exp_a_M, below_a_M, out=by_log_scale_M).addcmul_(exp_b_M, below_b_M)
            half_width_M.clamp_(max=-0.5 * _NOTHING)
            torch.mul(half_width_M, -2.0, out=spare_M).exp_()
            by_log_scale_M.sub_(spare_M.mul_(half_width_M).div_(within_M))
            torch.gt(b_M, 0.0, out=spare_M).sub_(exp_b_M).abs_()  # sigmoid(b)
            by_location_M = torch.gt(a_M, 0.0, out=array(f"by location {channel}")).sub_(exp_a_M).abs_()
            torch.sub(spare_M, by_location_M, out=by_location_M).mul_(inverse_M)
        return ratio_M

    def _negated_log_scale(self, channel: int, out: Tensor) -> Tensor:
        """Without bounds."""
        return torch.sub(self.negated_unit, self.log_scales[channel], out=out)

    def write_gradient(
        self, incoming_bCp: Tensor, features_bFp: Tensor, origin_bCp: Tensor, log_unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write the gradients of the inputs into the last three; those of weight and bias, `[Q, F]` and `[Q]`."""
        for _ in self.log_masses(gradient=True):
            pass
        array, spare_M, of_mass_M = self._array, self._array("spare"), self._array("log-weight").zero_()
        of_raw_bQp = self.room("gradient", self.numbers)
        of_logit_M, *of_channels = of_raw_bQp.split(self.mixtures, 1)
        of_locations, of_log_scales = of_channels[: self.channels], of_channels[self.channels :]
        incoming = incoming_bCp.split(1, 1)
        log_unit.zero_()
        for c in reversed(range(self.channels)):
            later = incoming[c + 1] if c + 1 < self.channels else 0.0
            of_mass_M.addcmul_(array(f"shares {c}"), incoming[c] - later)
            of_location_M = array(f"by location {c}").mul_(of_mass_M)
            torch.sum(of_location_M, 1, keepdim=True, out=origin_bCp[:, c : c + 1])
            torch.mul(of_location_M, self.unit, out=of_locations[c])
            log_unit.add_(torch.mul(of_locations[c], self.locations[c], out=spare_M).sum(1, keepdim=True))
            negated_M = self._negated_log_scale(c, array("a"))
            torch.eq(torch.clamp(negated_M, *self.negated_bounds, out=array("b")), negated_M, out=spare_M)
            torch.mul(array(f"by log-scale {c}").mul_(of_mass_M), spare_M, out=of_log_scales[c])
            log_unit.add_(of_log_scales[c].sum(1, keepdim=True))
        torch.addcmul(of_mass_M, array("shares before"), incoming[0], value=-1, out=of_logit_M)
        items = len(of_raw_bQp)
        features_bFp.copy_(torch.bmm(self.weight_QF.t().expand(items, -1, -1), of_raw_bQp))
        return torch.bmm(of_raw_bQp, self.features_bFp.mT).sum(0), of_raw_bQp.sum((0, 2))


def _edges(x_bCp: Tensor, alphabet: Alphabet) -> list[tuple[Tensor, ...]]:
    """Of the bins of a block's levels, by channel: either end in two parts, and half of their distance."""
    level = x_bCp.float()
    (high, high_rest), (low, low_rest) = alphabet.upper_edge(level), alphabet.upper_edge(level - 1.0)
    # Not `where`, which takes as long as ten sums.
    lowest, highest = (torch.eq(level, end, out=torch.empty_like(level)) for end in (0, alphabet.levels - 1))
    high.add_(highest, alpha=_OPEN)
    low.sub_(lowest, alpha=_OPEN)
    half_width = highest.add_(lowest).mul_(_OPEN).add_(1.0 / (alphabet.levels - 1))
    return [part.split(1, 1) for part in (high, high_rest, low, low_rest, half_width)]


class MixtureLogMass(torch.autograd.Function):
    """Log-mass `[B, C, P]` of every channel given those before it, nats.

    Args, all fp32 but the levels:
        features_BFP: what the decoder says.
        weight_QF, bias_Q: of the layer: logits of the components, then of every channel their locations in units, then
            their log-scales.
        origin_BCP: where locations count from.
        log_unit_B1P: logarithm of the unit of locations and scales.
        x_BCP: integer levels.
        alphabet: L, and the bounds of log-scales.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features_BFP: Tensor,
        weight_QF: Tensor,
        bias_Q: Tensor,
        origin_BCP: Tensor,
        log_unit_B1P: Tensor,
        x_BCP: Tensor,
        alphabet: Alphabet,
    ) -> Tensor:
        ctx.save_for_backward(features_BFP, weight_QF, bias_Q, origin_BCP, log_unit_B1P, x_BCP)
        ctx.alphabet = alphabet
        result_BCP = torch.empty(x_BCP.shape, dtype=origin_BCP.dtype, device=origin_BCP.device)
        room, given = _Room(origin_BCP), (features_BFP, origin_BCP, log_unit_B1P, x_BCP)
        for place in _places(x_BCP, len(bias_Q)):
            block = _Block(room, weight_QF, bias_Q[:, None], [part[place] for part in given], alphabet)
            for channel, log_mass in enumerate(block.log_masses()):
                result_BCP[place][:, channel : channel + 1] = log_mass
        return result_BCP

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCP: Tensor) -> tuple[Tensor | None, ...]:
        features_BFP, weight_QF, bias_Q, origin_BCP, log_unit_B1P, x_BCP = ctx.saved_tensors
        room, given = _Room(origin_BCP), (features_BFP, origin_BCP, log_unit_B1P, x_BCP)
        found = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in given[:3]]
        of_weight, of_bias = torch.zeros_like(weight_QF), torch.zeros_like(bias_Q)
        for place in _places(x_BCP, len(bias_Q)):
            block = _Block(room, weight_QF, bias_Q[:, None], [part[place] for part in given], ctx.alphabet)
            weight, bias = block.write_gradient(gradient_BCP[place], *(part[place] for part in found))
            of_weight += weight
            of_bias += bias
        of_features, of_origin, of_log_unit = found
        return of_features, of_weight, of_bias, of_origin, of_log_unit, None, None


def _places(x_BCP: Tensor, numbers: int) -> Iterator[tuple[slice, slice, slice]]:
    """Blocks of an array `[B, anything, P]`: whole items while they fit, parts of one otherwise."""
    items, channels, pixels = x_BCP.shape
    most = _CPU_NUMBERS if x_BCP.device.type == "cpu" else _ACCELERATOR_NUMBERS
    mixtures = numbers // (1 + 2 * channels)
    width = max(1, min(pixels, most // mixtures))
    height = max(1, most // (mixtures * max(1, pixels)))
    for top in range(0, items, height):
        for left in range(0, pixels, width):
            yield slice(top, top + height), slice(None), slice(left, left + width)
