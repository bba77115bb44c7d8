"""Between the encoder's layout, channels before positions, and the search's, one vector a row.

A transposing copy of an N x D batch costs as much as a tenth of the search in 512 codes, and so does every other pass
over memory of that size. On CPU, large items are therefore transposed one by one, by torch's blocked transpose of
matrices (three to four times as fast as its copy of a permuted batch), and `replace` writes, measures and forgets the
vectors of a few items at a time, while they are in the cache.

Shape letters: B items, D channels, S any spatial axes, P = prod(S) positions, G codebooks of K vectors, N = B * P
tokens, W = D/G; in a `_GND` or `_GKD` tensor the last axis is W.
"""

from typing import Any

import torch
from torch import Tensor

from twostage.errors import UsageError

# Elements of a matrix from which on torch transposes in blocks; below, one copy of the whole batch is faster.
_BLOCKED = 60 * 60
# Rows of `replace` at once: 256 KiB at 64 channels. At least one item's.
_ROWS = 1024


class Split(torch.autograd.Function):
    """`[B, D, *S]` to `[G, N, D/G]`; N runs over items, then positions in raster order. The inverse of `Join`."""

    @staticmethod
    def forward(ctx: Any, z_BDS: Tensor, codebooks: int) -> Tensor:
        ctx.shape = z_BDS.shape
        z_BGWP = _by_codebook(z_BDS, codebooks)
        items, _, width, positions = z_BGWP.shape
        z_GND = z_BDS.new_empty(codebooks, items * positions, width)
        for z_BWP, z_ND in zip(z_BGWP.unbind(1), z_GND, strict=True):
            _transpose(z_BWP, z_ND.view(items, positions, width))
        return z_GND

    @staticmethod
    def backward(ctx: Any, grad_GND: Tensor) -> tuple[Tensor, None]:
        return Join.apply(grad_GND, ctx.shape), None


class Join(torch.autograd.Function):
    """`[G, N, D/G]` to the given `[B, D, *S]`, the inverse of `Split`."""

    @staticmethod
    def forward(ctx: Any, e_GND: Tensor, shape: torch.Size) -> Tensor:
        ctx.codebooks = len(e_GND)
        e_BDS = e_GND.new_empty(shape)
        e_BGWP = _by_codebook(e_BDS, len(e_GND))
        items, _, width, positions = e_BGWP.shape
        for e_ND, e_BWP in zip(e_GND, e_BGWP.unbind(1), strict=True):
            _transpose(e_ND.reshape(items, positions, width), e_BWP)
        return e_BDS

    @staticmethod
    def backward(ctx: Any, grad_BDS: Tensor) -> tuple[Tensor, None]:
        return Split.apply(grad_BDS, ctx.codebooks), None


@torch.no_grad()
def replace(z_GND: Tensor, codes_GN: Tensor, codebook_GKD: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """The vectors of the codes in the layout `[B, D, *S]` of `shape`, and the sum of |e - z|^2, a scalar."""
    e_BDS = z_GND.new_empty(shape)
    e_BGWP = _by_codebook(e_BDS, len(z_GND))
    items, _, width, positions = e_BGWP.shape
    together = max(1, _ROWS // max(1, positions)) if z_GND.device.type == "cpu" else max(1, items)
    buffer_RW = z_GND.new_empty(min(together, items) * positions, width)
    squared = z_GND.new_zeros(())
    for g, codebook_KW in enumerate(codebook_GKD):
        for first in range(0, items, together):
            e_bWP = e_BGWP[first : first + together, g]
            rows = slice(first * positions, (first + len(e_bWP)) * positions)
            e_RW = buffer_RW[: rows.stop - rows.start]
            torch.index_select(codebook_KW, 0, codes_GN[g, rows], out=e_RW)
            _transpose(e_RW.view(len(e_bWP), positions, width), e_bWP)
            squared += e_RW.sub_(z_GND[g, rows]).square_().sum()
    return e_BDS, squared


def codes_by_item(codes_GN: Tensor, shape: torch.Size) -> Tensor:
    """`[G, N]` to `[B, G, *S]`, for vectors of the shape `[B, D, *S]`."""
    return codes_GN.reshape(len(codes_GN), shape[0], *shape[2:]).transpose(0, 1).contiguous()


def check_channels(z_BDS: Tensor, channels: int) -> None:
    """Raise UsageError unless `z_BDS` is `[B, channels, *S]`."""
    if z_BDS.ndim < 2 or z_BDS.shape[1] != channels:
        raise UsageError(
            f"The quantiser expects [batch, {channels} channels, ...], got shape {tuple(z_BDS.shape)}; "
            "give the encoder's last layer that many channels."
        )


def checked_codes(codes_BGS: Tensor, *, codebooks: int, codebook_size: int, fewer: bool = False) -> Tensor:
    """Integer codes `[B, G, *S]` as int64; raises UsageError for other shapes, types or values.

    Args:
        fewer: admit codes of the first codebooks alone.
    """
    unfit = codes_BGS.is_floating_point() or codes_BGS.is_complex() or codes_BGS.dtype == torch.bool
    if not unfit and codes_BGS.ndim >= 2:
        given = codes_BGS.shape[1]
        unfit = not 1 <= given <= codebooks if fewer else given != codebooks
    if unfit or codes_BGS.ndim < 2:
        raise UsageError(
            f"Lookup expects integer codes [batch, {'1 to ' if fewer else ''}{codebooks} codebooks, ...], got "
            f"{codes_BGS.dtype} {tuple(codes_BGS.shape)}; pass codes of this model."
        )
    codes_BGS = codes_BGS.long()
    if codes_BGS.numel() and not 0 <= int(codes_BGS.min()) <= int(codes_BGS.max()) < codebook_size:
        raise UsageError(
            f"Lookup expects codes from 0 to {codebook_size - 1}, got {int(codes_BGS.min())} to "
            f"{int(codes_BGS.max())}; they belong to another codebook."
        )
    return codes_BGS


def _by_codebook(x_BDS: Tensor, codebooks: int) -> Tensor:
    """`[B, G, W, P]`; a view where `x_BDS` is contiguous."""
    return x_BDS.reshape(len(x_BDS), codebooks, x_BDS.shape[1] // codebooks, x_BDS.shape[2:].numel())


def _transpose(x_XAB: Tensor, out_XBA: Tensor) -> None:
    """Copy every matrix of `x_XAB` transposed."""
    if x_XAB.device.type == "cpu" and x_XAB.shape[1:].numel() >= _BLOCKED:
        for x_AB, out_BA in zip(x_XAB, out_XBA, strict=True):
            out_BA.copy_(x_AB.t())
    else:
        out_XBA.copy_(x_XAB.mT)
