"""CIELAB against published values, and what is measured in it."""

import pytest
import torch

from twostage.metrics.colour import chroma, colour_error, to_lab


def _flat(*colours: tuple[int, int, int]) -> torch.Tensor:
    """A picture of 2x3 pixels of each colour."""
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, 2, 3)


@pytest.mark.parametrize(
    ("colour", "lab"),
    [
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((119, 119, 119), (50.03, 0.0, 0.0)),
        ((3, 3, 3), (0.82, 0.0, 0.0)),  # in the linear parts of both curves
    ],
)
def test_colours_are_where_the_standard_has_them(colour: tuple[int, int, int], lab: tuple[float, ...]) -> None:
    assert to_lab(_flat(colour), 256)[0, :, 0, 0].tolist() == pytest.approx(lab, abs=0.01)


def test_levels_are_a_share_of_the_highest_and_clipped() -> None:
    of_256, of_6 = to_lab(_flat((255, 51, 0)), 256), to_lab(_flat((5, 1, 0)), 6)
    assert torch.allclose(of_256, of_6)
    assert torch.equal(to_lab(_flat((300, 51, -7)), 256), of_256)


def test_distance_and_chroma_are_means_over_pixels() -> None:
    red, grey, black = to_lab(_flat((255, 0, 0), (119, 119, 119), (0, 0, 0)), 256).split(1)
    assert chroma(red).tolist() == pytest.approx([(80.0925**2 + 67.2032**2) ** 0.5], abs=1e-3)
    assert chroma(grey).tolist() == pytest.approx([0.0], abs=1e-6)
    assert colour_error(grey, black).tolist() == pytest.approx([50.03], abs=0.01)
    half = torch.cat([red[..., :1], grey[..., :1]], -1)
    assert colour_error(half, red[..., :2]) == pytest.approx(float(colour_error(grey, red)) / 2)
