"""Drawn shapes: every factor changes what it should and nothing else, and no two descriptions give one image."""

import itertools
import math

import numpy as np
import pytest

from twostage.data import ImageDataset
from twostage.data.images.shapes import (
    CLASSES,
    FACTOR_SIZES,
    FACTORS,
    draw_shape,
    load_shapes,
    render_shapes,
    shape_factors,
)
from twostage.errors import UsageError

PERIODS = (math.pi / 2, math.pi, 2 * math.pi)


@pytest.fixture(scope="module")
def shapes() -> ImageDataset:
    return load_shapes()


@pytest.fixture(scope="module")
def drawings_SHW() -> np.ndarray:
    """Every shape, scale and orientation, in the order of their numbers, at one position."""
    return render_shapes(np.array([(*triple, 7, 21) for triple in itertools.product(*map(range, FACTOR_SIZES[:3]))]))[
        :, 0
    ]


def varied(name: str, others: tuple[int, ...] = (2, 3, 11, 9, 20)) -> np.ndarray:
    """Images [V, H, W] of all values of one factor, the others held."""
    column = FACTORS.index(name)
    factors_VF = np.tile(others, (FACTOR_SIZES[column], 1))
    factors_VF[:, column] = range(FACTOR_SIZES[column])
    return render_shapes(factors_VF)[:, 0]


def middles(images_NHW: np.ndarray) -> np.ndarray:
    """Centroids [N, 2] as (column, row)."""
    area_N = images_NHW.sum((1, 2))
    steps = np.arange(images_NHW.shape[-1])
    return np.stack([images_NHW.sum(1) @ steps / area_N, images_NHW.sum(2) @ steps / area_N], axis=1)


@pytest.mark.parametrize("shape", range(3), ids=CLASSES)
def test_positions_move_the_same_pixels_by_one_pixel_a_step(shape: int) -> None:
    for axis, name in ((2, "x"), (1, "y")):
        images = varied(name, (shape, 5, 3, 31, 31))
        for step, image in enumerate(images):
            assert (image == np.roll(images[0], step, axis=axis - 1)).all()
        assert images.sum((1, 2)).tolist() == [images[0].sum()] * 32  # none falls off the edge


def test_centroids_stand_at_the_position_whatever_the_other_factors(drawings_SHW: np.ndarray) -> None:
    off = middles(drawings_SHW) - (7 + 16.19, 21 + 16.07)
    assert abs(off).max() < 0.5  # an upright square has whole rows of pixels more on one side
    assert abs(off.reshape(18, 40, 2).mean(1)).max() < 0.05


def test_scale_changes_the_area_by_its_square_and_shape_and_orientation_do_not(drawings_SHW: np.ndarray) -> None:
    area_FSO = drawings_SHW.sum((1, 2)).reshape(FACTOR_SIZES[:3])
    expected_S = 400 * np.linspace(0.5, 1, 6) ** 2
    # A boundary of 35 to 80 pixels that is cut at pixel middles: a few pixels more or less, never a tenth of the area.
    assert abs(area_FSO / expected_S[:, None] - 1).max() < 0.08
    assert abs(area_FSO.mean(2) / expected_S - 1).max() < 0.01


@pytest.mark.parametrize("shape", range(3), ids=CLASSES)
def test_a_full_period_brings_the_image_back_and_no_part_of_it_does(shape: int) -> None:
    turned = [draw_shape(shape, scale=0.8, angle=0.3 + PERIODS[shape] * part) for part in (0, 1, 2, 0.5, 1 / 3, 0.25)]
    assert (turned[0] == turned[1]).all()
    assert (turned[0] == turned[2]).all()
    assert all((turned[0] != other).sum() > 20 for other in turned[3:])


@pytest.mark.parametrize("shape", range(3), ids=CLASSES)
def test_orientations_divide_the_period_of_the_shape(shape: int) -> None:
    images = varied("orientation", (shape, 5, 0, 0, 0))
    for step in (0, 1, 17, 39):
        drawn = draw_shape(shape, scale=1.0, angle=PERIODS[shape] * step / 40)
        assert (images[step, :33, :33] == drawn).all()


def test_all_737280_images_differ(drawings_SHW: np.ndarray) -> None:
    """Positions shift a drawing, so it is enough that no two drawings are equal up to a shift."""
    crops = set()
    for drawing in drawings_SHW:
        rows, columns = np.flatnonzero(drawing.any(1)), np.flatnonzero(drawing.any(0))
        crop = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crops.add((crop.shape, crop.tobytes()))
    assert len(crops) == len(drawings_SHW) == 720


def test_shapes_can_be_told_apart_at_every_scale_and_orientation(drawings_SHW: np.ndarray) -> None:
    """Eigenvalues of the second moments part ellipses from the rest, skewness parts hearts from squares."""
    column, row = np.meshgrid(np.arange(64.0), np.arange(64.0))
    for index, drawing in enumerate(drawings_SHW):
        inside = drawing.astype(bool)
        points = np.stack([column[inside], row[inside]])
        points -= points.mean(1, keepdims=True)
        short, long = np.linalg.eigvalsh(np.cov(points))
        axes = np.array([(math.cos(a), math.sin(a)) for a in np.linspace(0, math.pi, 24, endpoint=False)])
        skewness = abs(((axes @ points) ** 3).mean(1)).max() / short**1.5
        read = 1 if long / short > 1.6 else 2 if skewness > 0.2 else 0
        assert read == index // 240, (CLASSES[index // 240], long / short, skewness)


def test_no_pixel_lies_so_near_an_edge_that_another_machine_could_round_it_over() -> None:
    for shape, step, scale in itertools.product(range(3), range(0, 40, 3), np.linspace(0.5, 1, 6)):
        angle = PERIODS[shape] * step / 40
        plain = draw_shape(shape, scale=scale, angle=angle)
        for factor in (1 - 1e-10, 1 + 1e-10):
            assert (plain == draw_shape(shape, scale=scale * factor, angle=angle)).all()
            assert (plain == draw_shape(shape, scale=scale, angle=angle + factor - 1)).all()


class TestDataSet:
    def test_splits_hold_different_combinations_of_all_values(self, shapes: ImageDataset) -> None:
        parts = {name: shape_factors(name) for name in ("train", "validation", "test")}
        assert [len(part) for part in parts.values()] == [20_000, 2_000, 2_000]
        rows = np.concatenate(list(parts.values()))
        assert len(np.unique(rows, axis=0)) == len(rows)
        for part in parts.values():
            assert part.dtype == np.int64
            for column, size in enumerate(FACTOR_SIZES):
                count = np.bincount(part[:, column], minlength=size)
                expected = len(part) / size
                assert len(count) == size
                assert abs(count - expected).max() < 5 * math.sqrt(expected)
        assert abs(np.corrcoef(parts["train"].T) - np.eye(5)).max() < 0.03

    def test_images_are_those_of_their_factors_and_labels_are_shapes(self, shapes: ImageDataset) -> None:
        assert (shapes.shape, shapes.levels, shapes.classes) == ((1, 64, 64), 2, CLASSES)
        for name in ("train", "validation", "test"):
            split, factors = shapes.split(name), shape_factors(name)
            assert split.images.dtype == np.uint8
            assert (split.labels == factors[:, 0]).all()
            assert (split.images[-50:] == render_shapes(factors[-50:])).all()

    def test_the_data_set_never_changes(self, shapes: ImageDataset) -> None:
        assert shapes.sha256 == "88ebf59b02c5fe48f1da6bedb5906413c327571d434e87f5b29e967e13022f5e"


@pytest.mark.parametrize(
    ("factors", "word"),
    [
        ([[0, 0, 0, 0, 32]], "from 0"),
        ([[0, -1, 0, 0, 0]], "from 0"),
        ([[0, 0, 0, 0]], "one column"),
        ([[0.0, 0.0, 0.0, 0.0, 0.0]], "whole numbers"),
    ],
)
def test_factors_that_mean_no_image_are_refused(factors: list[list[float]], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        render_shapes(np.array(factors))


def test_factors_of_an_unknown_split_are_refused() -> None:
    with pytest.raises(UsageError, match="train, validation or test"):
        shape_factors("held-out")
