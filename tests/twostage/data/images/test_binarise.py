"""Binarised data: right probabilities, draws that never move, and grey levels only where training may draw anew."""

from dataclasses import replace

import numpy as np
import pytest

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, Split, load_dataset
from twostage.data.images.binarise import binarised


def constant(level: int, *, levels: int, items: int = 40) -> ImageDataset:
    def part(count: int) -> Split:
        return Split(images=np.full((count, 1, 50, 50), level, np.uint8), labels=np.zeros(count, np.int64))

    return ImageDataset("grey", levels, (), train=part(items), validation=part(items), test=part(items))


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


def test_a_sub_pixel_is_one_with_probability_level_by_highest_level() -> None:
    for levels, level in ((256, 0), (256, 1), (256, 100), (256, 255), (17, 4), (17, 16), (2, 0), (2, 1)):
        dataset = binarised(constant(level, levels=levels), mode="static")
        wanted = level / (levels - 1)
        for split in (dataset.train, dataset.validation, dataset.test):
            assert split.images.dtype == np.uint8
            assert set(np.unique(split.images).tolist()) <= {0, 1}
            # Five standard errors of 100 000 draws; the ends are exact.
            margin = 5 * np.sqrt(wanted * (1 - wanted) / split.images.size)
            assert abs(split.images.mean() - wanted) <= margin


def test_draws_are_independent_across_sub_pixels_items_and_splits() -> None:
    dataset = binarised(constant(128, levels=256), mode="static")
    parts = [split.images.reshape(40, -1).astype(float) - 0.5 for split in (dataset.train, dataset.validation)]
    pairs = [
        (parts[0], parts[1]),
        (parts[0][1:], parts[0][:-1]),
        (parts[0][:, 1:], parts[0][:, :-1]),
        (parts[0][:, 50:], parts[0][:, :-50]),
    ]
    for first, second in pairs:
        assert abs((first * second).mean() * 4) < 5 / np.sqrt(first.size)


def test_the_draws_never_move(digits: ImageDataset) -> None:
    """Scores of different versions are comparable only if this digest stays as it is."""
    assert binarised(digits, mode="static").sha256[:16] == "a3260499664d682e"


def test_a_draw_depends_on_the_position_and_not_on_the_number_of_items() -> None:
    few = binarised(constant(128, levels=256, items=3), mode="static")
    many = binarised(constant(128, levels=256, items=1500), mode="static")
    np.testing.assert_array_equal(many.train.images[:3], few.train.images)
    again = binarised(constant(128, levels=256, items=1100), mode="static")
    np.testing.assert_array_equal(many.train.images[:1100], again.train.images)


def test_static_keeps_no_grey_levels_and_dynamic_those_of_training_images_only(digits: ImageDataset) -> None:
    static = load_dataset(DataConfig(name="digits", binarise="static"))
    dynamic = load_dataset(DataConfig(name="digits", binarise="dynamic"))
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(static.split(name).images, dynamic.split(name).images)
        np.testing.assert_array_equal(static.split(name).labels, digits.split(name).labels)
    assert dynamic.train.intensities is not None
    np.testing.assert_array_equal(dynamic.train.intensities, digits.train.images)
    assert [split.intensities for split in (static.train, dynamic.validation, dynamic.test)] == [None] * 3
    assert (static.levels, static.intensity_levels) == (2, None)
    assert (dynamic.levels, dynamic.intensity_levels) == (2, 17)
    assert (static.name, dynamic.name) == ("digits-binarised-static", "digits-binarised-dynamic")
    assert dynamic.classes == digits.classes


def test_the_digest_covers_what_decides_training(digits: ImageDataset) -> None:
    static, dynamic = (binarised(digits, mode=mode) for mode in ("static", "dynamic"))  # type: ignore[arg-type]
    assert dynamic.train.intensities is not None
    brighter = dynamic.train.intensities.copy()
    brighter[0, 0, 0, 0] += 1
    others = [
        digits,
        static,
        dynamic,
        replace(dynamic, intensity_levels=18),
        replace(dynamic, train=replace(dynamic.train, intensities=brighter)),
    ]
    assert len({dataset.sha256 for dataset in others}) == len(others)


def test_the_digest_of_other_data_is_what_it_was(digits: ImageDataset) -> None:
    """Runs of earlier versions name it: a change would disown them."""
    assert digits.sha256[:16] == "dba03f3cbc6b8d9d"
    assert replace(digits, skipped=("x.png",)).sha256 == digits.sha256
