"""Codes of several grids in one array: the levels of a hierarchy, coarsest first.

Codes of one grid are `[B, G, *grid]`. Codes of a hierarchy are `[B, G, N]`: the levels one behind the other, each in
raster order, so that N is the number of positions of all. Files, priors, rates, sampler and range coder see an
array of integers either way; what tells the levels apart asks here. Arrays of numpy and tensors of torch alike.

Shapes: B items, G codebooks, N positions of all levels.
"""

import math
from typing import Any

Grid = tuple[int, ...]
Grids = tuple[Grid, ...]
"""Grid of every level; one of everything but a hierarchy."""


def positions_of(grids: Grids) -> tuple[int, ...]:
    """Positions of every level."""
    return tuple(math.prod(grid) for grid in grids)


def axes_of(grids: Grids) -> Grid:
    """Axes of the codes behind the codebooks: the grid of a single level, (N,) of a hierarchy."""
    return grids[0] if len(grids) == 1 else (sum(positions_of(grids)),)


def split_levels(codes: Any, grids: Grids) -> list[Any]:
    """Codes `[B, G, *grid]` of every level, views of codes `[B, G, *axes_of(grids)]`, coarsest first.

    Raises:
        ValueError: the codes do not fill the grids.
    """
    if tuple(codes.shape[2:]) != axes_of(grids):
        raise ValueError(f"expected codes [B, G, {axes_of(grids)}] of the grids {grids}, got {tuple(codes.shape)}")
    if len(grids) == 1:
        return [codes]
    levels, start = [], 0
    for grid, positions in zip(grids, positions_of(grids), strict=True):
        levels.append(codes[:, :, start : start + positions].reshape(*codes.shape[:2], *grid))
        start += positions
    return levels


def named_grids(grids: Grids) -> str:
    """Grids for people and headers, coarsest first: `8x8`, or `8x8+16x16`."""
    return "+".join("x".join(map(str, grid)) for grid in grids)


def parsed_grids(text: str) -> Grids:
    """The grids that `named_grids` wrote.

    Raises:
        ValueError: the text is something else.
    """
    return tuple(tuple(int(length) for length in grid.split("x")) for grid in text.split("+"))
