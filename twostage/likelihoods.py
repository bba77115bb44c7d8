"""Discrete likelihoods p(x|z): probability mass functions over the integer levels 0..L-1 of every sub-pixel.

Each likelihood owns the last linear layer (a 1x1 convolution written as a matrix product), takes the decoder's features
and the integer image, and answers with exact log-masses in nats. Nothing is dequantised or rounded, so the masses of
all L levels sum to one and -log2 p is the length of a code that could be written.

Shapes: B items, F features, C image channels, H x W pixels, L levels, M pixels above zero.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from twostage.errors import UsageError


class Likelihood(Protocol):
    """What stage one asks of p(x|z); sub-pixels are independent given the features."""

    levels: int

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """Log-mass of every sub-pixel in nats, `[B, C, H, W]`, fp32; x holds integers 0..levels-1."""

    def probabilities(self, features_BFHW: Tensor) -> Tensor:
        """Masses of all levels, `[B, C, H, W, L]`, fp32, summing to one over the last axis."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Weights of the last layer."""


def _project(features_BFHW: Tensor, linear: nn.Linear, channels: int) -> Tensor:
    """1x1 convolution to `[B, C, H, W, outputs per channel]`, fp32."""
    return rearrange(linear(features_BFHW.movedim(1, -1)), "b h w (c n) -> b c h w n", c=channels).float()


class CategoricalLikelihood(nn.Module):
    """One softmax over all L levels per sub-pixel (van den Oord et al. 2017 use L = 256).

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels.
        levels: L, size of the alphabet.
    """

    def __init__(self, *, features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.logits = nn.Linear(features, channels * levels)

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        logits_BCHWL = _project(features_BFHW, self.logits, self.channels)
        return -F.cross_entropy(logits_BCHWL.movedim(-1, 1), x_BCHW.long(), reduction="none")

    def probabilities(self, features_BFHW: Tensor) -> Tensor:
        return _project(features_BFHW, self.logits, self.channels).softmax(-1)


class HurdleLikelihood(nn.Module):
    """P(x = 0) by a logit, then a softmax over the L-1 other levels: exact, and cheap where most pixels are background.

    The softmax is evaluated only at pixels above zero, which is all the log-mass needs; on MNIST one pixel in five.

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels.
        levels: L, size of the alphabet, at least 2.
    """

    def __init__(self, *, features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.zero_logit = nn.Linear(features, channels)
        self.above_logits = nn.Linear(features, channels * (levels - 1))

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        above_BCHW = x_BCHW > 0
        zero_logit_BCHW = _project(features_BFHW, self.zero_logit, self.channels).squeeze(-1)
        # log sigmoid(+a) for zero, log sigmoid(-a) for anything else.
        log_prob_BCHW = F.logsigmoid(torch.where(above_BCHW, -zero_logit_BCHW, zero_logit_BCHW))
        features_BHWF = features_BFHW.movedim(1, -1)
        weight_CLF = rearrange(self.above_logits.weight, "(c l) f -> c l f", c=self.channels)
        bias_CL = rearrange(self.above_logits.bias, "(c l) -> c l", c=self.channels)
        level_log_prob = []
        for channel in range(self.channels):
            mask_BHW = above_BCHW[:, channel]
            logits_ML = F.linear(features_BHWF[mask_BHW], weight_CLF[channel], bias_CL[channel]).float()
            target_M = x_BCHW[:, channel][mask_BHW].long() - 1
            log_prob_M = -F.cross_entropy(logits_ML, target_M, reduction="none")
            level_log_prob.append(torch.zeros_like(log_prob_BCHW[:, channel]).masked_scatter(mask_BHW, log_prob_M))
        return log_prob_BCHW + torch.stack(level_log_prob, 1)

    def probabilities(self, features_BFHW: Tensor) -> Tensor:
        zero_BCHW1 = _project(features_BFHW, self.zero_logit, self.channels).sigmoid()
        above_BCHWL = _project(features_BFHW, self.above_logits, self.channels).softmax(-1)
        return torch.cat([zero_BCHW1, (1 - zero_BCHW1) * above_BCHWL], -1)


LIKELIHOODS: dict[str, type[CategoricalLikelihood] | type[HurdleLikelihood]] = {
    "categorical": CategoricalLikelihood,
    "hurdle": HurdleLikelihood,
}


def make_likelihood(
    name: str, *, features: int, channels: int, levels: int
) -> CategoricalLikelihood | HurdleLikelihood:
    """The likelihood of that name.

    Raises:
        UsageError: the name is not one of `LIKELIHOODS`, or the alphabet is too small.
    """
    if name not in LIKELIHOODS:
        raise UsageError(f"the likelihood must be one of {', '.join(LIKELIHOODS)}, not {name!r}")
    if levels < 2:
        raise UsageError(f"a likelihood needs at least 2 levels, not {levels}")
    return LIKELIHOODS[name](features=features, channels=channels, levels=levels)


def mean_image(probabilities_BCHWL: Tensor) -> Tensor:
    """Mean of p(x|z) in levels, `[B, C, H, W]`, fp32: the image whose PSNR is reported."""
    levels_L = torch.arange(probabilities_BCHWL.shape[-1], dtype=torch.float32, device=probabilities_BCHWL.device)
    return probabilities_BCHWL @ levels_L
