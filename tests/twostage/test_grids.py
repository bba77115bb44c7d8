"""Codes of several grids in one array."""

import numpy as np
import pytest
import torch

from twostage.grids import axes_of, named_grids, parsed_grids, positions_of, split_levels


def test_levels_lie_one_behind_the_other_in_raster_order() -> None:
    top, bottom = torch.arange(2 * 3 * 4).reshape(2, 3, 2, 2), torch.arange(100, 100 + 2 * 3 * 16).reshape(2, 3, 4, 4)
    codes = torch.cat([top.flatten(2), bottom.flatten(2)], 2)
    grids = ((2, 2), (4, 4))
    assert axes_of(grids) == (20,)
    assert positions_of(grids) == (4, 16)
    for found, level in zip(split_levels(codes, grids), (top, bottom), strict=True):
        assert torch.equal(found, level)
    for found, level in zip(split_levels(codes.numpy(), grids), (top, bottom), strict=True):
        assert np.array_equal(found, level.numpy())


def test_one_level_keeps_its_axes() -> None:
    codes = np.zeros((5, 1, 3, 4), np.uint8)
    assert axes_of(((3, 4),)) == (3, 4)
    assert split_levels(codes, ((3, 4),))[0] is codes


@pytest.mark.parametrize("shape", [(2, 1, 19), (2, 1, 4, 5), (2, 1, 21)])
def test_codes_that_do_not_fill_the_grids_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected codes"):
        split_levels(np.zeros(shape), ((2, 2), (4, 4)))


@pytest.mark.parametrize("grids", [((7, 7),), ((52,),), ((8, 8), (16, 12)), ((1, 1), (2, 2), (4, 4))])
def test_grids_are_named_and_parsed(grids: tuple[tuple[int, ...], ...]) -> None:
    assert parsed_grids(named_grids(grids)) == grids


@pytest.mark.parametrize("text", ["", "8x", "8x8+", "eight"])
def test_other_texts_are_no_grids(text: str) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        parsed_grids(text)
