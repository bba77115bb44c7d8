"""The residual block of convolutional networks over images and codes (van den Oord et al. 2017, arXiv 1711.00937)."""

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))); spatial size and width are kept."""

    def __init__(self, *, channels: int, residual_channels: int) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, residual_channels, 3, padding=1)
        self.pointwise = nn.Conv2d(residual_channels, channels, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.pointwise(F.relu(self.spatial(F.relu(x_BCHW))))
