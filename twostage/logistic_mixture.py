"""Discretised mixture of logistics with sub-pixel dependence (Salimans et al. 2017, PixelCNN++, arXiv 1701.05517).

Sections 2.1 and 2.2 of the paper: a pixel draws one of M components; in component m, channel c is a logistic with
location `mu_mc + sum_{j<c} a_mcj x_j` (x of the earlier channels, scaled to [-1, 1]) and scale s_mc, and a level has
the mass between its two bin edges. The lowest and the highest level take the open tails, so the masses sum to one.

Departures: the mass of an inner bin is computed as `sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))`,
whose logarithm is finite at every scale, where the paper's code falls back to the density at the bin's centre; one
formula gives the edge that two bins share, so that rounding moves mass between neighbours and never makes any; and the
chain rule is written out, so that every sub-pixel has its own log-mass given the channels before it.

Shapes: B items, F features, C image channels, H x W pixels, L levels, M components.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SCALES = (-7.0, 7.0)
"""Narrower logistics put all their mass on one of 256 levels (half a bin is exp(-5.5)), wider ones on the two ends."""


def bin_log_mass(low: Tensor, high: Tensor, *, lowest: Tensor, highest: Tensor) -> Tensor:
    """log(sigmoid(high) - sigmoid(low)) for the edges of bins in units of the scale; the arguments broadcast.

    Where `lowest` the lower edge is minus infinity, where `highest` the upper edge is plus infinity.
    """
    below_top = torch.where(highest, 0.0, F.logsigmoid(high))
    above_bottom = torch.where(lowest, 0.0, F.logsigmoid(-low))
    # Edges may round to one number where no mass is left; with an open end the factor 1 - exp(-width) is one.
    width = (high - low).clamp(min=1e-9)
    inner = torch.where(lowest | highest, 0.0, torch.log(-torch.expm1(-width)))
    return below_top + above_bottom + inner


class LogisticMixtureLikelihood(nn.Module):
    """Mixture of discretised logistics over the levels of a pixel, channels in order.

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels.
        levels: L, size of the alphabet.
        mixtures: M, components per pixel.
    """

    discrete = True

    def __init__(self, *, features: int, channels: int, levels: int, mixtures: int) -> None:
        super().__init__()
        self.channels, self.levels, self.mixtures = channels, levels, mixtures
        self.links = channels * (channels - 1) // 2
        """Coefficients per component: one for every pair of channels."""
        self.parameters_per_mixture = 1 + 2 * channels + self.links
        self.project = nn.Linear(features, mixtures * self.parameters_per_mixture)
        with torch.no_grad():
            # Components start spread over the alphabet and wide, so that every level has mass from the first step on.
            bias_MP = self.project.bias.view(mixtures, self.parameters_per_mixture)
            bias_MP.zero_()
            start_M = torch.linspace(-0.9, 0.9, mixtures) if mixtures > 1 else torch.zeros(1)
            bias_MP[:, 1 : 1 + channels] = start_M[:, None]
            bias_MP[:, 1 + channels : 1 + 2 * channels] = -1.5

    def _components(self, features_BFHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-weights `[B, H, W, M]`, locations and log-scales `[B, H, W, M, C]`, links `[B, H, W, M, pairs]`; fp32."""
        # bf16 has eight bits: a location would be half a level off.
        with torch.autocast(features_BFHW.device.type, enabled=False):
            raw = self.project(features_BFHW.movedim(1, -1).to(self.project.weight.dtype)).float()
        raw = raw.unflatten(-1, (self.mixtures, -1))
        log_weight, location, log_scale, link = raw.split([1, self.channels, self.channels, self.links], dim=-1)
        return (
            log_weight.squeeze(-1).log_softmax(-1),
            location,
            log_scale.clamp(*LOG_SCALES),
            torch.tanh(link),
        )

    def _shift(self, link: Tensor, earlier: list[Tensor]) -> Tensor | float:
        """What channel c = len(earlier) adds to its locations, `[B, H, W, M]`, from the channels before it."""
        count = len(earlier)
        first = count * (count - 1) // 2
        return sum((link[..., first + j] * earlier[j] for j in range(count)), 0.0)

    def _upper_edge(self, location: Tensor, log_scale: Tensor, level: Tensor) -> Tensor:
        """Upper edge of the bins of integer levels, seen from the location and in units of the scale."""
        step = 2.0 / (self.levels - 1)
        return ((level.float() + 0.5) * step - 1.0 - location) * torch.exp(-log_scale)

    def _log_mass(self, location: Tensor, log_scale: Tensor, level: Tensor) -> Tensor:
        """Log-mass of integer levels under every component; the arguments broadcast."""
        level = level.long()  # unsigned bytes have no level below 0
        low, high = (self._upper_edge(location, log_scale, edge) for edge in (level - 1, level))
        return bin_log_mass(low, high, lowest=level == 0, highest=level == self.levels - 1)

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Log-mass of every sub-pixel given the earlier channels of its pixel, nats, `[B, C, H, W]`, fp32."""
        log_weight, location, log_scale, link = self._components(features_BFHW)
        scaled = x_BCHW.float() * (2.0 / (self.levels - 1)) - 1.0
        joint = log_weight  # log p(component, channels so far)
        evidence, earlier, result = torch.zeros_like(joint[..., 0]), list[Tensor](), []
        for channel in range(self.channels):
            level = x_BCHW[:, channel, :, :, None]
            mean = location[..., channel] + self._shift(link, earlier)
            joint = joint + self._log_mass(mean, log_scale[..., channel], level)
            total = joint.logsumexp(-1)
            result.append(total - evidence)
            evidence = total
            earlier.append(scaled[:, channel, :, :, None])
        return torch.stack(result, 1)

    def probabilities(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Masses of all levels of every sub-pixel given the earlier channels in x, `[B, C, H, W, L]`, fp32."""
        log_weight, location, log_scale, link = self._components(features_BFHW)
        scaled = x_BCHW.float() * (2.0 / (self.levels - 1)) - 1.0
        levels_L = torch.arange(self.levels, device=x_BCHW.device)
        joint, earlier, result = log_weight, list[Tensor](), []
        for channel in range(self.channels):
            mean = (location[..., channel] + self._shift(link, earlier))[..., None]
            log_mass = self._log_mass(mean, log_scale[..., channel, None], levels_L)
            result.append((joint.softmax(-1)[..., None] * log_mass.exp()).sum(-2))
            index = x_BCHW[:, channel, :, :, None, None].long().expand(*log_mass.shape[:-1], 1)
            joint = joint + log_mass.gather(-1, index).squeeze(-1)
            earlier.append(scaled[:, channel, :, :, None])
        return torch.stack(result, 1)

    def draw(self, features_BFHW: Tensor, uniform_BCHW: Tensor) -> Tensor:
        """Levels `[B, C, H, W]`, int64, at which the distribution function first exceeds the uniform numbers.

        Bisection over the levels: log2 L values of the distribution function instead of L masses.
        """
        log_weight, location, log_scale, link = self._components(features_BFHW)
        joint, earlier, result = log_weight, list[Tensor](), []
        for channel in range(self.channels):
            mean = location[..., channel] + self._shift(link, earlier)
            weight, uniform = joint.softmax(-1).double(), uniform_BCHW[:, channel]
            level = self._invert(weight, mean, log_scale[..., channel], uniform)
            joint = joint + self._log_mass(mean, log_scale[..., channel], level[..., None])
            earlier.append(level[..., None].float() * (2.0 / (self.levels - 1)) - 1.0)
            result.append(level)
        return torch.stack(result, 1)

    def _invert(self, weight: Tensor, location: Tensor, log_scale: Tensor, uniform_BHW: Tensor) -> Tensor:
        """Lowest level whose distribution function exceeds the uniform number, `[B, H, W]`, int64."""
        low = torch.zeros_like(uniform_BHW, dtype=torch.int64)
        high = torch.full_like(low, self.levels - 1)
        for _ in range((self.levels - 1).bit_length()):
            middle = (low + high) // 2
            edge = self._upper_edge(location, log_scale, middle[..., None])
            exceeds = (weight * edge.double().sigmoid()).sum(-1) > uniform_BHW
            high = torch.where(exceeds, middle, high)
            low = torch.where(exceeds, low, torch.minimum(middle + 1, high))
        return high

    def mean(self, features_BFHW: Tensor) -> Tensor:
        """Weighted mean of the components' locations in levels, `[B, C, H, W]`, fp32, clipped to the alphabet.

        A location follows the earlier channels at their own locations. Apart from what the open tails cut off this is
        the mean of p(x|z); summing it exactly would take L^C terms per pixel.
        """
        log_weight, location, _, link = self._components(features_BFHW)
        earlier: list[Tensor] = []
        for channel in range(self.channels):
            earlier.append((location[..., channel] + self._shift(link, earlier)).clamp(-1.0, 1.0))
        mean = torch.stack([(log_weight.exp() * value).sum(-1) for value in earlier], 1)
        return (mean + 1.0) * ((self.levels - 1) / 2)
