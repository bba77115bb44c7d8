"""Rotation trick (Fifty et al. 2024, arXiv 2410.06424): the decoder's gradient turns with the vector it belongs to.

Each vector z reaches its code e by a rotation R in the plane of the two and the scale lambda = |e| / |z|, so that
e = lambda R z. Both are held constant: the encoder gets lambda R^T g, whose angle with z is that of g with e. The value
is e itself, bit for bit; only the gradient differs from the straight-through estimator.

With unit vectors a = z/|z|, b = e/|e| and r = (a + b)/|a + b|, the paper's R = I - 2 r r^T + 2 b a^T is the product of
two reflections, (I - 2 r r^T)(I - 2 a a^T). That form is used because rounding of r cannot spoil its orthogonality:
|gradient at z| = lambda |gradient at e| up to the last bits. No D x D matrix exists.

Where the paper defines nothing:

- Opposite vectors have no one plane, so r = 0: what is left is the reflection I - 2 a a^T, which takes a to b as well.
- Where one of the two is zero, or a million times shorter than the other, the gradient is copied (straight-through):
  no angle is known, and lambda would silence the encoder or drown every other vector's gradient.

Shape letters: G codebooks, N vectors, D channels of one codebook; [B, D, *S] is the encoder's layout of the same (see
`stage1_vqvae.quantiser.layout`).
"""

from typing import Any

import torch
from torch import Tensor

from stage1_vqvae.quantiser.layout import Split

# |a + b| is off by about 1e-7: below this, the direction of r would be made of rounding errors.
_OPPOSITE = 1e-4
_SHORTEST = 1e-6


class Rotation(torch.autograd.Function):
    """The value of `e_BDS`, the gradient of lambda R `z_GND` with lambda and R constant; every vector on its own."""

    @staticmethod
    def forward(ctx: Any, z_GND: Tensor, e_BDS: Tensor) -> Tensor:
        ctx.save_for_backward(z_GND, e_BDS)
        return e_BDS

    @staticmethod
    def backward(ctx: Any, grad_BDS: Tensor) -> tuple[Tensor, None]:
        # detached: constants, also for a second derivative
        z_GND, e_BDS = (tensor.detach() for tensor in ctx.saved_tensors)
        grad_GND, e_GND = (Split.apply(x_BDS, len(z_GND)) for x_BDS in (grad_BDS, e_BDS))
        z_norm_GN1 = torch.linalg.vector_norm(z_GND, dim=-1, keepdim=True)
        e_norm_GN1 = torch.linalg.vector_norm(e_GND, dim=-1, keepdim=True)
        shorter_GN1, longer_GN1 = torch.minimum(z_norm_GN1, e_norm_GN1), torch.maximum(z_norm_GN1, e_norm_GN1)
        rotatable_GN1 = shorter_GN1 > _SHORTEST * longer_GN1
        # a = r = 0 and scale 1 leave the gradient as it is; where() also drops the 1 / 0 of zero vectors
        a_GND = z_GND * torch.where(rotatable_GN1, 1 / z_norm_GN1, 0.0)
        r_GND = torch.addcmul(a_GND, e_GND, torch.where(rotatable_GN1, 1 / e_norm_GN1, 0.0))
        r_norm_GN1 = torch.linalg.vector_norm(r_GND, dim=-1, keepdim=True)
        r_GND.mul_(torch.where(r_norm_GN1 > _OPPOSITE, 1 / r_norm_GN1, 0.0))
        scale_GN1 = torch.where(rotatable_GN1, e_norm_GN1 / z_norm_GN1, 1.0)
        return scale_GN1 * _reflect(_reflect(grad_GND, r_GND), a_GND), None


def _reflect(grad_GND: Tensor, unit_GND: Tensor) -> Tensor:
    """(I - 2 u u^T) g, vector by vector."""
    return torch.addcmul(grad_GND, unit_GND, (grad_GND * unit_GND).sum(dim=-1, keepdim=True), value=-2.0)


class StraightThrough(torch.autograd.Function):
    """The value of `e` bit for bit, the gradient of `z`; z + (e - z).detach() rounds, and costs two passes more."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, e: Tensor) -> Tensor:
        return e

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class SquaredError(torch.autograd.Function):
    """Mean of |x - y|^2 over elements, given as `mean` by who has measured it; gradient to `x` only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, mean: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return mean.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, y = ctx.saved_tensors
        return (x - y) * (2 * grad / max(1, x.numel())), None, None
