"""Likelihoods p(x|z): probability mass functions over the integer levels 0..L-1 of every sub-pixel, and a plain MSE.

Each likelihood owns the last linear layer (a 1x1 convolution written as a matrix product), takes the decoder's features
and the integer image, and answers with exact log-masses in nats. Nothing is dequantised or rounded, so the masses of
all L levels sum to one and -log2 p is the length of a code that could be written. The exception is `mse`, a density
offered because people expect it: it trains and has PSNR, but `discrete` is False and nothing may call it bits.

All of them (`AnyLikelihood`) have `levels`, `discrete` and
- `log_prob(features, x)`: log-mass of every sub-pixel in nats, `[B, C, H, W]`, fp32; x holds integers 0..levels-1.
- `probabilities(features, x)`: masses of all levels given the earlier channels in x, `[B, C, H, W, L]`, fp32.
- `mean(features)`: mean of p(x|z) in levels, `[B, C, H, W]`, fp32, the image whose PSNR is reported.

Pixels are independent given the features; channels are too, or follow in order.

Shapes: B items, F features, C image channels, H x W pixels, L levels, M pixels above zero.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from twostage.errors import UsageError
from twostage.likelihoods.logistic_mixture import LogisticMixtureLikelihood
from twostage.likelihoods.softmax_gradient import SoftmaxLogMass


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

    discrete = True

    def __init__(self, *, features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.logits = nn.Linear(features, channels * levels)

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        kind, dtype = features_BFHW.device.type, self.logits.weight.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        parts = (features_BFHW.flatten(2), self.logits.weight, self.logits.bias)
        with torch.autocast(kind, enabled=False):
            log_prob_BCP = SoftmaxLogMass.apply(*(part.to(dtype) for part in parts), x_BCHW.flatten(2))
        return log_prob_BCP.view(x_BCHW.shape)

    def probabilities(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        return _project(features_BFHW, self.logits, self.channels).softmax(-1)

    def mean(self, features_BFHW: Tensor) -> Tensor:
        return _expectation(_project(features_BFHW, self.logits, self.channels).softmax(-1))


class HurdleLikelihood(nn.Module):
    """P(x = 0) by a logit, then a softmax over the L-1 other levels: exact, and cheap where most pixels are background.

    The softmax is evaluated only at pixels above zero, which is all the log-mass needs; on MNIST one pixel in five.

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels.
        levels: L, size of the alphabet, at least 2.
    """

    discrete = True

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

    def probabilities(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        zero_BCHW1 = _project(features_BFHW, self.zero_logit, self.channels).sigmoid()
        above_BCHWL = _project(features_BFHW, self.above_logits, self.channels).softmax(-1)
        return torch.cat([zero_BCHW1, (1 - zero_BCHW1) * above_BCHWL], -1)

    def mean(self, features_BFHW: Tensor) -> Tensor:
        above_BCHW = 1.0 + _expectation(_project(features_BFHW, self.above_logits, self.channels).softmax(-1))
        return above_BCHW * (-_project(features_BFHW, self.zero_logit, self.channels).squeeze(-1)).sigmoid()


class BernoulliLikelihood(nn.Module):
    """One logit per sub-pixel of binarised data (L = 2).

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels.
        levels: must be 2.

    Raises:
        UsageError: the data have another number of levels.
    """

    discrete = True

    def __init__(self, *, features: int, channels: int, levels: int) -> None:
        super().__init__()
        if levels != 2:
            raise UsageError(f"the bernoulli likelihood needs binarised data, not {levels} levels: set data.binarise")
        self.channels, self.levels = channels, levels
        self.logit = nn.Linear(features, channels)

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        logit_BCHW = _project(features_BFHW, self.logit, self.channels).squeeze(-1)
        return F.logsigmoid(torch.where(x_BCHW > 0, logit_BCHW, -logit_BCHW))

    def probabilities(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        logit_BCHW1 = _project(features_BFHW, self.logit, self.channels)
        return torch.cat([(-logit_BCHW1).sigmoid(), logit_BCHW1.sigmoid()], -1)

    def mean(self, features_BFHW: Tensor) -> Tensor:
        return _project(features_BFHW, self.logit, self.channels).squeeze(-1).sigmoid()


class SquaredErrorLikelihood(nn.Module):
    """Mean squared error: a Gaussian of unit variance around the output, levels scaled to [-1, 1]. Not a mass function.

    Args:
        features: F, channels of the decoder's output.
        channels: C, image channels.
        levels: L, size of the alphabet.
    """

    discrete = False

    def __init__(self, *, features: int, channels: int, levels: int) -> None:
        super().__init__()
        self.channels, self.levels = channels, levels
        self.output = nn.Linear(features, channels)

    def log_prob(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        """-(x - output)^2 / 2, `[B, C, H, W]`, fp32; the constant of the Gaussian is left out."""
        output_BCHW = _project(features_BFHW, self.output, self.channels).squeeze(-1)
        return -0.5 * (x_BCHW.float() * (2.0 / (self.levels - 1)) - 1.0 - output_BCHW) ** 2

    def probabilities(self, features_BFHW: Tensor, x_BCHW: Tensor) -> Tensor:
        raise UsageError("the likelihood mse has no masses: choose a discrete likelihood for bits/dim and sampling")

    def mean(self, features_BFHW: Tensor) -> Tensor:
        output_BCHW = _project(features_BFHW, self.output, self.channels).squeeze(-1)
        return (output_BCHW.clamp(-1.0, 1.0) + 1.0) * ((self.levels - 1) / 2)


_SIMPLE: dict[
    str,
    type[CategoricalLikelihood] | type[HurdleLikelihood] | type[BernoulliLikelihood] | type[SquaredErrorLikelihood],
] = {
    "categorical": CategoricalLikelihood,
    "hurdle": HurdleLikelihood,
    "bernoulli": BernoulliLikelihood,
    "mse": SquaredErrorLikelihood,
}
LIKELIHOODS = (*_SIMPLE, "logistic-mixture")

MOST_LISTED_LEVELS = 4096
"""Likelihoods with a logit for every level take no more: 65536 levels of 16 images of 3x32x32 were 12 GiB of logits."""

AnyLikelihood = (
    CategoricalLikelihood | HurdleLikelihood | BernoulliLikelihood | SquaredErrorLikelihood | LogisticMixtureLikelihood
)


def make_likelihood(name: str, *, features: int, channels: int, levels: int, mixtures: int = 10) -> AnyLikelihood:
    """The likelihood of that name; `mixtures` is read by the logistic mixture alone.

    Raises:
        UsageError: the name is not one of `LIKELIHOODS`, or the alphabet does not fit it.
    """
    if name not in LIKELIHOODS:
        raise UsageError(f"the likelihood must be one of {', '.join(LIKELIHOODS)}, not {name!r}")
    if levels < 2:
        raise UsageError(f"a likelihood needs at least 2 levels, not {levels}")
    if name in ("categorical", "hurdle") and levels > MOST_LISTED_LEVELS:
        raise UsageError(
            f"the likelihood {name} has a logit for every level and takes at most {MOST_LISTED_LEVELS} of them, not "
            f"{levels}: choose logistic-mixture, whose size does not grow with the levels"
        )
    if name == "logistic-mixture":
        return LogisticMixtureLikelihood(features=features, channels=channels, levels=levels, mixtures=mixtures)
    return _SIMPLE[name](features=features, channels=channels, levels=levels)


def draw_levels(
    likelihood: AnyLikelihood, features_BFHW: Tensor, uniform_BCHW: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Integer levels `[B, C, H, W]`, int64, from p(x|features) by inversion of the distribution function.

    Args:
        likelihood: a discrete one.
        features_BFHW: what the decoder says.
        uniform_BCHW: one number in [0, 1) per sub-pixel; the same numbers give the same levels.
        temperature: above 0; below 1 the likelier levels become likelier still. It is the exponent 1 / temperature of
            the masses; see `LogisticMixtureLikelihood.draw` for what it is there.
    """
    if isinstance(likelihood, LogisticMixtureLikelihood):
        return likelihood.draw(features_BFHW, uniform_BCHW, temperature=temperature)
    none_yet = torch.zeros_like(uniform_BCHW, dtype=torch.int64)  # channels are independent
    mass_BCHWL = likelihood.probabilities(features_BFHW, none_yet).double()
    if temperature != 1.0:
        mass_BCHWL = (mass_BCHWL.log() / temperature).softmax(-1)
    cumulative_BCHWL = mass_BCHWL.cumsum(-1)
    # Masses of fp32 add up to one but for rounding, and the last level would get or give the difference. The target
    # stays below their total, so that a level is always found, and never one without mass.
    target_BCHW1 = uniform_BCHW[..., None].double() * cumulative_BCHWL[..., -1:]
    return (cumulative_BCHWL <= target_BCHW1).sum(-1)


def _expectation(mass_BCHWL: Tensor) -> Tensor:
    """Mean of 0, 1, ... L-1 under masses, `[B, C, H, W]`, fp32."""
    levels_L = torch.arange(mass_BCHWL.shape[-1], dtype=torch.float32, device=mass_BCHWL.device)
    return mass_BCHWL @ levels_L
