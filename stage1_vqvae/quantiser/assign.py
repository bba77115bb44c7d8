"""Vectors of a batch replaced by the nearest of a codebook, with both losses and a gradient past the choice.

Shapes: B items, D channels, S any spatial axes, G codebooks of K vectors, N = B * prod(S) tokens. In a `_GKD` or `_GND`
tensor the last axis is D/G, one codebook's channels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantiser.gradients import Rotation, SquaredError, StraightThrough
from stage1_vqvae.quantiser.layout import Join, Split, replace
from stage1_vqvae.quantiser.nearest import nearest_codes


@dataclass(frozen=True)
class Assignment:
    """A batch and the codes it was given."""

    vectors: Tensor
    """`[B, D, *S]`, those of the codes; gradient to the input only."""
    codes_GN: Tensor
    z_GND: Tensor
    """The vectors that were replaced, detached."""
    commitment_loss: Tensor
    codebook_loss: Tensor
    """Without a gradient unless it was asked for."""


def assign(
    z_BDS: Tensor,
    codebook_GKD: Tensor,
    *,
    codebook_learns: bool,
    rotate: bool,
    penalty_GK: Tensor | None = None,
) -> Assignment:
    """Replace every vector of `z_BDS`, fp32, by the nearest one.

    Args:
        penalty_GK: what is added to the squared distance to every code; None: nothing.
        codebook_learns: give the codebook loss a gradient to `codebook_GKD`.
        rotate: turn the gradient as the vector was turned, instead of copying it.
    """
    groups = len(codebook_GKD)
    z_GND = Split.apply(z_BDS, groups)
    penalties = [None] * groups if penalty_GK is None else penalty_GK.unbind()
    codes_GN = torch.stack([nearest_codes(z_GND[g], codebook_GKD[g], penalties[g]) for g in range(groups)])
    e_BDS, squared = replace(z_GND, codes_GN, codebook_GKD, z_BDS.shape)
    mean_squared = squared / max(1, z_BDS.numel())
    codebook_loss = mean_squared
    if codebook_learns:
        codebook_loss = SquaredError.apply(gather(codes_GN, codebook_GKD), z_GND.detach(), mean_squared)
    vectors_BDS = Rotation.apply(z_GND, e_BDS) if rotate else StraightThrough.apply(z_BDS, e_BDS)
    return Assignment(
        vectors=vectors_BDS,
        codes_GN=codes_GN,
        z_GND=z_GND.detach(),
        commitment_loss=SquaredError.apply(z_BDS, e_BDS, mean_squared),
        codebook_loss=codebook_loss,
    )


def squared_distances(z_GND: Tensor, codebook_GKD: Tensor) -> Tensor:
    """|z - e|^2 of every vector to every code, `[G, N, K]`, with gradient to both; by rounding a little below 0."""
    mean_G1D = codebook_GKD.detach().mean(dim=1, keepdim=True)  # cancels, and what is left of the terms is smaller
    z_GND, e_GKD = z_GND - mean_G1D, codebook_GKD - mean_G1D
    products_GNK = z_GND @ e_GKD.mT
    return z_GND.square().sum(2, keepdim=True) - 2 * products_GNK + e_GKD.square().sum(2)[:, None]


def gather(codes_GN: Tensor, codebook_GKD: Tensor) -> Tensor:
    """`[G, N, D/G]`: one embedding lookup for all codebooks, in a table of G * K rows."""
    offsets_G1 = codebook_GKD.shape[1] * torch.arange(len(codes_GN), device=codes_GN.device)[:, None]
    return F.embedding(codes_GN + offsets_G1, codebook_GKD.flatten(0, 1))


def vectors_of(codes_BGS: Tensor, codebook_GKD: Tensor) -> Tensor:
    """`[B, D, *S]`, the vectors of checked codes, codebooks side by side in the channels."""
    batch, groups, *grid = codes_BGS.shape
    e_GND = gather(codes_BGS.transpose(0, 1).reshape(groups, batch * math.prod(grid)), codebook_GKD)
    return Join.apply(e_GND, torch.Size((batch, groups * codebook_GKD.shape[2], *grid)))
