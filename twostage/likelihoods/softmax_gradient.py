"""The last linear layer and the log-masses of a softmax over all levels, block by block, with their gradient.

A colour image of 32 x 32 pixels has 3072 softmaxes over 256 levels: 3 MiB of logits, and autograd keeps their softmax
and makes two more arrays of that size. Here logits are made for a block of pixels at a time, while they are in a cache;
all that is kept of them is the logarithm of their sum, and the gradient makes them once more.

Shapes: B items, F features, C image channels, P pixels, L levels; of a block b items and p pixels.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from twostage.likelihoods.blocks import Place, blocks

_CPU_LOGITS = 2**18
"""Of a block: a megabyte."""
_ACCELERATOR_LOGITS = 2**27
_NOTHING = -40.0
"""An exponent that gives nothing beside 1 in fp32. Smaller ones lead to denormal numbers, ten times as slow."""


def _places(x_BCP: Tensor, numbers: int) -> Iterator[Place]:
    return blocks(x_BCP, cpu_pixels=_CPU_LOGITS // numbers, accelerator_pixels=_ACCELERATOR_LOGITS // numbers)


def _logits(features_bFp: Tensor, weight_NF: Tensor, bias_N: Tensor, channels: int) -> Tensor:
    """`[b, p, C, L]`, fp32."""
    weight_bFN = weight_NF.t().expand(len(features_bFp), -1, -1)
    return torch.baddbmm(bias_N, features_bFp.mT, weight_bFN).float().unflatten(-1, (channels, -1))


class SoftmaxLogMass(torch.autograd.Function):
    """Log-mass `[B, C, P]`, fp32, of levels under softmaxes of `weight features + bias`, nats.

    Args:
        features_BFP, weight_NF, bias_N: of one dtype, in which the products are taken; N = C L, by channel.
        x_BCP: integer levels.
    """

    @staticmethod
    def forward(ctx: Any, features_BFP: Tensor, weight_NF: Tensor, bias_N: Tensor, x_BCP: Tensor) -> Tensor:
        channels = x_BCP.shape[1]
        log_sum_BCP, result_BCP = features_BFP.new_empty((2, *x_BCP.shape), dtype=torch.float32)
        for place in _places(x_BCP, len(bias_N)):
            logits_bpCL = _logits(features_BFP[place], weight_NF, bias_N, channels)
            level_bpC1 = x_BCP[place].mT.long()[..., None]
            log_mass_bpC = logits_bpCL.log_softmax(-1).gather(-1, level_bpC1).squeeze(-1)
            # log-softmax is computed faster than the logarithm of the sum, which follows from it.
            chosen_bpC = logits_bpCL.gather(-1, level_bpC1).squeeze(-1)
            result_BCP[place] = log_mass_bpC.mT
            log_sum_BCP[place] = (chosen_bpC - log_mass_bpC).mT
        ctx.save_for_backward(features_BFP, weight_NF, bias_N, x_BCP, log_sum_BCP)
        return result_BCP

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BCP: Tensor) -> tuple[Tensor | None, ...]:
        features_BFP, weight_NF, bias_N, x_BCP, log_sum_BCP = ctx.saved_tensors
        of_features = torch.zeros_like(features_BFP)
        # In bf16 the sum would be rounded with every block.
        of_weight, of_bias = (torch.zeros_like(part, dtype=torch.float32) for part in (weight_NF, bias_N))
        for place in _places(x_BCP, len(bias_N)):
            mass_bpCL = _logits(features_BFP[place], weight_NF, bias_N, x_BCP.shape[1])
            mass_bpCL.sub_(log_sum_BCP[place].mT[..., None]).clamp_(min=_NOTHING).exp_()
            gradient_bpC1 = gradient_BCP[place].mT[..., None]
            of_logits_bpCL = mass_bpCL.mul_(-gradient_bpC1)
            of_logits_bpCL.scatter_add_(-1, x_BCP[place].mT.long()[..., None], gradient_bpC1.contiguous())
            of_bias += of_logits_bpCL.flatten(2).sum((0, 1))
            of_logits_bpN = of_logits_bpCL.flatten(2).to(weight_NF.dtype)
            weight_bFN = weight_NF.t().expand(len(of_logits_bpN), -1, -1)
            of_features[place] = torch.bmm(weight_bFN, of_logits_bpN.mT)
            of_weight += torch.bmm(of_logits_bpN.mT, features_BFP[place].mT).sum(0, dtype=torch.float32)
        return of_features, of_weight.to(weight_NF.dtype), of_bias.to(bias_N.dtype), None
