"""Discretised mixture of logistics with sub-pixel dependence (Salimans et al. 2017, PixelCNN++, arXiv 1701.05517).

Sections 2.1 and 2.2 of the paper: a pixel draws one of M components; in component m, channel c is a logistic with
location `mu_mc + sum_{j<c} a_mcj x_j` (x of the earlier channels, scaled to [-1, 1]) and scale s_mc, and a level has
the mass between its two bin edges. The lowest and the highest level take the open tails, so the masses sum to one.
Behind every channel the components' weights are normalised anew by a softmax: as a difference of two log-sums a
channel's log-mass would carry the rounding of all that came before it, 1e-3 after an improbable channel (10 000 nats).

Departures. The paper's locations stand anywhere in the alphabet, so that at the start they are chosen by the weights
instead of moved, and the mean of p(x|z) learns slowly. Here they count from a frame (`twostage.likelihoods.frame`):
`c_c + u mu_mc + sum_{j<c} a_cj (x_j - c_j)` with the scale u s_mc. What is expected moves as a whole, how sure it is
likewise, and the components hold the shape alone; links count from the centres and are shared by the components, since
a pixel of sixteen channels has 120 of them.
The mass of an inner bin is computed as `sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))`, whose
logarithm is finite at every scale, where the paper's code falls back to the density at the bin's centre; and the chain
rule is written out, so that every sub-pixel has its own log-mass given the channels before it.

All of it is fp32, for 256 levels of a pixel as for 65536 of a sound, whose bins are 2^-15 wide. Hence a bin's width
comes from its scale and not as the difference of two rounded edges, and an edge is seen from the location without
rounding it first (`_upper_edge`): every mass is right to a few 1e-7 of itself per scale that the level lies away, so
that all of them sum to one within 1e-6 (tests hold them against float64). Masses, means and draws take memory for the
components of a pixel and none for its levels; `probabilities` alone lists them.

Shapes: B items, F features, C image channels, P = H W pixels, innermost, L levels, M components, N levels tried at
once, Q = M (1 + 2 C) numbers of a pixel.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from twostage.errors import UsageError
from twostage.likelihoods.frame import Frame, LearnedFrame
from twostage.likelihoods.mixture_gradient import Alphabet, MixtureLogMass

LOG_SCALES = (-7.0, 7.0)
"""Narrower logistics put all their mass on one of 256 levels (half a bin is exp(-5.5)), wider ones on the two ends. The
lower bound follows the width of a bin where there are more levels."""

_START_LATER = -1.0
"""Log-scales of the channels behind the first start lower by so much: the links tell them what they share."""

_FEW = 4096
"""Up to so many numbers are drawn by a search among sixteen parts at a time, which takes four rounds for 65536 levels
where bisection takes sixteen: a sampler draws a few numbers per call, and calling small operations is what costs.
Bisection does less work and needs less memory. Both find the same level."""


def bin_log_mass(high: Tensor, low: Tensor, width: Tensor, *, lowest: Tensor, highest: Tensor) -> Tensor:
    """log(sigmoid(high) - sigmoid(low)) of bins, in units of the scale; the arguments broadcast.

    `width` is high - low without the rounding of the two edges. Where `lowest` the lower edge is minus infinity, where
    `highest` the upper edge is plus infinity.
    """
    below_top = torch.where(highest, 0.0, F.logsigmoid(high))
    above_bottom = torch.where(lowest, 0.0, F.logsigmoid(-low))
    # With an open end the factor 1 - exp(-width) is one.
    inner = torch.where(lowest | highest, 0.0, torch.log(-torch.expm1(-width)))
    return below_top + above_bottom + inner


def clipped_mean(location: Tensor, log_scale: Tensor) -> Tensor:
    """Mean of a logistic whose mass beyond -1 and 1 lies at -1 and 1; the arguments broadcast.

    It is -1 plus the integral of P(X > t) over [-1, 1], which the mean over the levels sums by midpoints.
    """
    scale = log_scale.exp()
    return scale * (F.softplus((location + 1.0) / scale) - F.softplus((location - 1.0) / scale)) - 1.0


class _Components(NamedTuple):
    """What the features say of every pixel, fp32."""

    log_weight_BMP: Tensor
    location_BCMP: Tensor
    log_scale_BCMP: Tensor
    frame: Frame


class LogisticMixtureLikelihood(nn.Module):
    """Mixture of discretised logistics over the levels of a pixel, channels in order.

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels; more than one needs a learned frame.
        levels: L, size of the alphabet.
        mixtures: M, components per pixel.
        frame: `learned` by a layer of its own, `given` by the last two features (a centre and the logarithm of a unit),
            or `none`: the centre is 0 and the unit 1.
        start_spread: the components' locations start evenly from minus to plus this, in units.
        start_log_scales: and their log-scales evenly from the first to the second of these.

    Raises:
        UsageError: several channels without a learned frame, which alone has links.
    """

    discrete = True

    def __init__(
        self,
        *,
        features: int,
        channels: int,
        levels: int,
        mixtures: int,
        frame: Literal["learned", "given", "none"] = "learned",
        start_spread: float = 0.5,
        start_log_scales: tuple[float, float] = (-0.7, 0.7),
    ) -> None:
        super().__init__()
        if channels > 1 and frame != "learned":
            raise UsageError(f"a pixel of {channels} channels needs a learned frame, not one that is {frame}")
        self.channels, self.levels, self.mixtures = channels, levels, mixtures
        self.alphabet = Alphabet(levels, (LOG_SCALES[0] - math.log(max(levels / 256, 1.0)), LOG_SCALES[1]))
        self.frame = LearnedFrame(features=features, channels=channels) if frame == "learned" else None
        self.given = 2 if frame == "given" else 0
        self.parameters_per_mixture = 1 + 2 * channels
        self.project = nn.Linear(features - self.given, mixtures * self.parameters_per_mixture)
        with torch.no_grad():
            bias_MP = self.project.bias.view(mixtures, self.parameters_per_mixture)
            bias_MP.zero_()
            if mixtures > 1:
                bias_MP[:, 1 : 1 + channels] = torch.linspace(-start_spread, start_spread, mixtures)[:, None]
                bias_MP[:, 1 + channels :] = torch.linspace(*start_log_scales, mixtures)[:, None]
            else:
                bias_MP[:, 1 + channels :] = sum(start_log_scales) / 2
            bias_MP[:, 2 + channels :].add_(_START_LATER)

    def _layer(self, features_BFP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the last layer is given, its weights `[Q, F]` and bias `[Q]`: logits, then locations, then log-scales.

        The last two by channel, where the parameters hold them by component.
        """
        weight, bias = (part.unflatten(0, (self.mixtures, -1)) for part in (self.project.weight, self.project.bias))
        own_BFP = features_BFP[:, : self.project.in_features].to(weight.dtype)
        return own_BFP, weight.transpose(0, 1).flatten(0, 1), bias.t().flatten()

    def _components(self, features_BFHW: Tensor) -> _Components:
        """Weights, locations given nothing, scales and the frame of every pixel."""
        features_BFP = features_BFHW.flatten(2)
        # bf16 has eight bits: a location would be half a level off.
        with torch.autocast(features_BFHW.device.type, enabled=False):
            own_BFP, weight_QF, bias_Q = self._layer(features_BFP)
            raw_BQP = torch.baddbmm(bias_Q[:, None], weight_QF.expand(len(own_BFP), -1, -1), own_BFP).float()
            frame = self._frame(features_BFP)
        logit_BMP, *of_channels = raw_BQP.split(self.mixtures, dim=1)
        location_BCMP, log_scale_BCMP = torch.stack(of_channels, 1).chunk(2, dim=1)
        log_unit_B11P = frame.log_unit_B1P[:, None]
        return _Components(
            logit_BMP.log_softmax(1),
            frame.centre_BCP[:, :, None] + location_BCMP * log_unit_B11P.exp(),
            (log_scale_BCMP + log_unit_B11P).clamp(*self.alphabet.log_scales),
            frame,
        )

    def _frame(self, features_BFP: Tensor) -> Frame:
        """With the logarithm of the unit inside the bounds of scales."""
        if self.frame is not None:
            frame = self.frame(features_BFP)
        elif self.given:
            centre, log_unit = features_BFP[:, -2:].float().split(1, 1)
            frame = Frame(centre, log_unit, centre[:, :0])
        else:
            zero_B1P = torch.zeros_like(features_BFP[:, :1], dtype=torch.float32)
            frame = Frame(zero_B1P, zero_B1P, zero_B1P[:, :0])
        return frame._replace(log_unit_B1P=frame.log_unit_B1P.clamp(*self.alphabet.log_scales))

    def _residual(self, frame: Frame, channel: int, level_B1P: Tensor) -> Tensor:
        """What integer levels leave over of their centre, `[B, 1, P]`."""
        return self.alphabet.scaled(level_B1P) - frame.centre_BCP[:, channel, None]

    def _upper_edge(self, location: Tensor, inverse: Tensor, level: Tensor) -> Tensor:
        """Upper edge of the bins of integer levels, seen from the location and in units of the scale."""
        edge, rest = self.alphabet.upper_edge(level)
        return ((edge - location) + rest) * inverse

    def _log_mass(self, location: Tensor, log_scale: Tensor, level: Tensor) -> Tensor:
        """Log-mass of integer levels under every component; the arguments broadcast."""
        level = level.long()  # unsigned bytes have no level below 0
        inverse = torch.exp(-log_scale)
        # The lower edge is that of the bin below, to the bit: `high - width` would round by the distance of the upper
        # edge, which in a small alphabet is a thousand scales where the lower one is at hand.
        high, low = (self._upper_edge(location, inverse, edge) for edge in (level, level - 1))
        width = (2.0 / (self.levels - 1)) * inverse
        return bin_log_mass(high, low, width, lowest=level == 0, highest=level == self.levels - 1)

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Log-mass of every sub-pixel given the earlier channels of its pixel, nats, `[B, C, H, W]`, fp32."""
        features_BFP, x_BCP = features_BFHW.flatten(2), x_BCHW.flatten(2)
        with torch.autocast(features_BFHW.device.type, enabled=False):
            frame = self._frame(features_BFP)
            layer = (part.float() for part in self._layer(features_BFP))
            origin_BCP = frame.origins(self.alphabet.scaled(x_BCP))
            log_prob_BCP = MixtureLogMass.apply(*layer, origin_BCP, frame.log_unit_B1P, x_BCP, self.alphabet)
        return log_prob_BCP.view(x_BCHW.shape)

    def probabilities(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Masses of all levels of every sub-pixel given the earlier channels in x, `[B, C, H, W, L]`, fp32."""
        log_weight, location, log_scale, frame = self._components(features_BFHW)
        levels_L = torch.arange(self.levels, device=x_BCHW.device)
        residuals, result = list[Tensor](), []
        for channel, level_B1P in enumerate(x_BCHW.flatten(2).split(1, 1)):
            mean = location[:, channel] + frame.shift(channel, residuals)
            log_mass = self._log_mass(mean[..., None], log_scale[:, channel, ..., None], levels_L)
            result.append((log_weight[..., None] + log_mass).logsumexp(1).exp())
            index = level_B1P[..., None].long().expand(*log_mass.shape[:-1], 1)
            log_weight = (log_weight + log_mass.gather(-1, index).squeeze(-1)).log_softmax(1)
            residuals.append(self._residual(frame, channel, level_B1P))
        return torch.stack(result, 1).unflatten(2, x_BCHW.shape[2:])

    def draw(self, features_BFHW: Tensor, uniform_BCHW: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Levels `[B, C, H, W]`, int64, at which the distribution function first exceeds the uniform numbers.

        The temperature, above 0, divides the logits of the components and multiplies their scales.
        """
        log_weight, location, log_scale, frame = self._components(features_BFHW)
        log_weight = log_weight / temperature
        log_scale = (log_scale + math.log(temperature)).clamp(*self.alphabet.log_scales)
        residuals, result = list[Tensor](), []
        for channel, uniform_BP in enumerate(uniform_BCHW.flatten(2).double().unbind(1)):
            mean = location[:, channel] + frame.shift(channel, residuals)
            weight = log_weight.softmax(1).double()
            # The weights add up to one but for rounding, and the highest level would pay for what is missing.
            level_B1P = self._invert(weight, mean, log_scale[:, channel], uniform_BP * weight.sum(1))[:, None]
            result.append(level_B1P)
            if channel + 1 < self.channels:
                log_mass = self._log_mass(mean, log_scale[:, channel], level_B1P)
                log_weight = (log_weight + log_mass).log_softmax(1)
                residuals.append(self._residual(frame, channel, level_B1P))
        return torch.cat(result, 1).view(uniform_BCHW.shape)

    def _invert(self, weight_BMP: Tensor, location_BMP: Tensor, log_scale_BMP: Tensor, uniform_BP: Tensor) -> Tensor:
        """Lowest level whose distribution function exceeds the uniform number, `[B, P]`, int64.

        The distribution function ends at the sum of the weights, so the numbers lie below that sum.
        """
        # In float64 the upper edge of a level is a line in the level; a round is eight operations.
        weight_BPM, location_BPM, log_scale_BPM = (
            part.transpose(1, 2) for part in (weight_BMP, location_BMP, log_scale_BMP)
        )
        inverse_BPM1 = torch.exp(-log_scale_BPM.double())[..., None]
        slope_BPM1 = inverse_BPM1 * (2.0 / (self.levels - 1))
        offset_BPM1 = (1.0 / (self.levels - 1) - 1.0 - location_BPM.double()[..., None]) * inverse_BPM1
        uniform_BP1 = uniform_BP[..., None]
        parts = 16 if uniform_BP.numel() <= _FEW else 2
        places_N = torch.arange(1, parts, device=uniform_BP.device, dtype=torch.float64)
        level_BP = torch.zeros_like(uniform_BP)
        stride = 1
        while stride * parts < self.levels:
            stride *= parts
        while stride:
            # The answer is in level .. level + parts * stride - 1: count the parts that end before it.
            tried_BP1N = (level_BP[..., None] + (places_N * stride - 1)).clamp(max=self.levels - 1)[..., None, :]
            edge_BPMN = torch.addcmul(offset_BPM1, tried_BP1N, slope_BPM1)
            below_BPN = (weight_BPM[..., None, :] @ edge_BPMN.sigmoid()).squeeze(-2)
            level_BP = torch.add(level_BP, (below_BPN <= uniform_BP1).sum(-1), alpha=stride)
            stride //= parts
        return level_BP.long().clamp(max=self.levels - 1)

    def mean(self, features_BFHW: Tensor) -> Tensor:
        """Mean of p(x|z) in levels, `[B, C, H, W]`, fp32.

        In every component a channel follows the earlier ones at their means. But for what the ends of the alphabet cut
        off of those, and for logistics narrower than a bin, which may be half a level off, this is the mean itself;
        summing it exactly would take L^C terms per pixel.
        """
        log_weight, location, log_scale, frame = self._components(features_BFHW)
        weight, residuals, result = log_weight.exp(), list[Tensor](), []
        for channel in range(self.channels):
            mean = clipped_mean(location[:, channel] + frame.shift(channel, residuals), log_scale[:, channel])
            result.append((weight * mean).sum(1))
            residuals.append(mean - frame.centre_BCP[:, channel, None])
        mean_BCP = (torch.stack(result, 1) + 1.0) * ((self.levels - 1) / 2)
        return mean_BCP.unflatten(2, features_BFHW.shape[2:])
