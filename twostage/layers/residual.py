"""The residual block of convolutional networks over images and codes (van den Oord et al. 2017, arXiv 1711.00937)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

LEAST_IN_A_GROUP = 16
"""Channels: one alone would lose its mean over the picture, with which networks tell brightness and contrast."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation (Wu and He 2018, arXiv 1803.08494), in groups of 16 channels or more."""
    groups = max(1, channels // LEAST_IN_A_GROUP)
    return nn.GroupNorm(math.gcd(groups, channels), channels)


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))); spatial size and width are kept.

    Args:
        channels: width.
        residual_channels: width between the two convolutions.
        normalised: group normalisation in front of both ReLUs.
    """

    def __init__(self, *, channels: int, residual_channels: int, normalised: bool = False) -> None:
        super().__init__()
        self.norm = group_norm(channels) if normalised else nn.Identity()
        self.spatial = nn.Conv2d(channels, residual_channels, 3, padding=1)
        self.residual_norm = group_norm(residual_channels) if normalised else nn.Identity()
        self.pointwise = nn.Conv2d(residual_channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = self.spatial(F.relu(self.norm(x_BCHW)))
        return x_BCHW + self.pointwise(F.relu(self.residual_norm(inner)))
