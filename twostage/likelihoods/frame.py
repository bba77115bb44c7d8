"""The frame of a pixel: where the components of a mixture stand, in what unit, and how its channels hang together.

A frame is a centre c_c for every channel, the logarithm of one unit u, and a link a_cj for every pair of channels
j < c. A component's location in channel c is `c_c + u mu_mc + sum_{j<c} a_cj (x_j - c_j)`, its scale u s_mc. Two
choices of the parameters let a linear layer learn brightness sooner (`docs/log.md`); neither changes what distributions
there are:

- A centre is what all channels share plus a half of what the channel adds. The channels of a photograph go up and down
  together, and given the first the others are known several times as well: their gradients speak of colour above all,
  and brightness would be learned from one channel in three.
- The link from the channel just before starts at tanh(1), so that colours are counted from brightness from the first
  step on. Channels that have nothing in common have to unlearn it.

Shapes: B items, F features, C image channels, P pixels, innermost, N = C (C - 1) / 2 pairs (1-0, 2-0, 2-1 ...).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

_OWN_SHARE = 0.5
_START_LOG_UNIT = -1.0
_START_LINK = 1.0


class Frame(NamedTuple):
    """Frames of pixels, fp32; the alphabet is [-1, 1]."""

    centre_BCP: Tensor
    log_unit_B1P: Tensor
    link_BNP: Tensor

    def shift(self, channel: int, residuals: Sequence[Tensor]) -> Tensor | float:
        """What the earlier channels add to the locations of one, from what they left over of their centres.

        Residuals are `[B, 1, P]`, or `[B, M, P]` of components.
        """
        first = channel * (channel - 1) // 2
        return sum((self.link_BNP[:, first + j, None] * residuals[j] for j in range(channel)), 0.0)

    def origins(self, scaled_BCP: Tensor) -> Tensor:
        """Where the locations of every channel count from, given what the pixels are on [-1, 1]; `[B, C, P]`."""
        channels = scaled_BCP.shape[1]
        if channels == 1:
            return self.centre_BCP
        residuals = (scaled_BCP - self.centre_BCP).split(1, 1)
        centres = self.centre_BCP.split(1, 1)
        return torch.cat([centres[c] + self.shift(c, residuals) for c in range(channels)], 1)


class LearnedFrame(nn.Module):
    """A linear layer from features to frames.

    Args:
        features: F.
        channels: C.
    """

    def __init__(self, *, features: int, channels: int) -> None:
        super().__init__()
        self.channels, pairs = channels, channels * (channels - 1) // 2
        self.parts = [1, channels, 1, pairs]
        self.project = nn.Linear(features, sum(self.parts))
        with torch.no_grad():
            bias = self.project.bias
            bias.zero_()
            bias[channels + 1] = _START_LOG_UNIT
            for channel in range(1, channels):
                bias[channels + 2 + channel * (channel + 1) // 2 - 1] = _START_LINK

    def forward(self, features_BFP: Tensor) -> Frame:
        """Frames of `[B, F, P]`."""
        weight_QF, bias_Q = self.project.weight, self.project.bias
        weight_BQF = weight_QF.expand(len(features_BFP), -1, -1)
        raw_BQP = torch.baddbmm(bias_Q[:, None], weight_BQF, features_BFP.to(weight_QF.dtype)).float()
        common, own, log_unit, link = raw_BQP.split(self.parts, dim=1)
        return Frame(common + _OWN_SHARE * own, log_unit, torch.tanh(link))
