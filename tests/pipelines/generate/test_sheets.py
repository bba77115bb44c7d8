"""Sheets of pictures: which stand where, in which colours, and what their captions promise."""

from dataclasses import replace

import numpy as np
import pytest

from twostage.config.load import load_recipe
from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, load_dataset
from twostage.metrics.memorisation import nearest_images
from twostage.metrics.statistics import evenly
from twostage_pipelines.generate.sheets import COMPARED, Reference, neighbour_sheet, reconstruction_sheet
from twostage_pipelines.modality.images import Images

RED, GREEN, BLUE, WHITE = (4, 0, 0), (0, 4, 0), (0, 0, 4), (4, 4, 4)


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


def _plain(*colours: tuple[int, int, int]) -> np.ndarray:
    """One 2x2 picture of 5 levels per colour."""
    return np.array(colours, np.uint8)[:, :, None, None] * np.ones((1, 1, 2, 2), np.uint8)


def test_colour_samples_stand_beside_their_nearest_training_images_in_their_colours() -> None:
    train = _plain(WHITE, BLUE, GREEN, RED, (3, 0, 1), (0, 0, 3))
    samples = _plain(RED, BLUE)
    reference = Reference(train, held_out=nearest_images(_plain((4, 0, 2)), train, count=1), levels=5)
    sheet = neighbour_sheet("m", samples, reference)
    # A strip is four pictures of 2 pixels, with borders of 1: 13 pixels; strips have borders of 3.
    left = [3 + strip * (13 + 3) + 1 + picture * (2 + 1) for strip in (0, 1) for picture in range(4)]
    shown = [tuple((sheet.picture_CHW[:, 5, column] // 63).tolist()) for column in left]
    assert shown == [RED, RED, (3, 0, 1), (0, 0, 3), BLUE, BLUE, (0, 0, 3), (3, 0, 1)]
    assert "2 of the samples are copies" in sheet.caption
    assert "the 3 nearest training images" in sheet.caption


def _reference(digits: ImageDataset, *, flips: bool = False) -> Reference:
    recipe = load_recipe("digits")
    recipe = replace(recipe, data=replace(recipe.data, horizontal_flips=flips))
    return Reference.of(Images().pictures(recipe, digits), digits.test.images[evenly(300, COMPARED)])


def test_the_number_is_the_ratio_of_medians(digits: ImageDataset) -> None:
    reference = _reference(digits)
    assert len(reference.held_out.distances_Nk) == 100
    copies = neighbour_sheet("m", digits.train.images[:50], reference)
    assert "ratio 0.00; 50 of the samples are copies" in copies.caption
    test = digits.test.images[np.linspace(0, 299, 100).astype(int)]
    assert "ratio 1.00; 0 of the samples" in neighbour_sheet("m", test, reference).caption


def test_mirrored_copies_are_found_where_the_model_trains_on_them(digits: ImageDataset) -> None:
    mirrored = digits.train.images[:30, ..., ::-1].copy()
    for flips, copies in ((False, 0), (True, 30)):
        sheet = neighbour_sheet("m", mirrored, _reference(digits, flips=flips))
        assert f"{copies} of the samples are copies" in sheet.caption


def test_a_single_training_item_is_enough_and_is_called_what_it_is() -> None:
    train = _plain(RED)
    held_out = nearest_images(_plain(BLUE), train, count=1)
    reference = Reference(train, held_out=held_out, levels=5, item="recording", level="grey levels")
    caption = neighbour_sheet("m", _plain(RED, BLUE), reference).caption
    assert "beside it is the nearest training recording. " in caption
    assert "from 2 samples" in caption
    assert "grey levels" in caption


def test_reconstructions_stand_right_of_their_originals() -> None:
    sheet = reconstruction_sheet("m", [_plain(RED, BLUE), _plain(GREEN, WHITE)], levels=5, item="image", sampled=False)
    shown = [tuple((sheet.picture_CHW[:, 1, 1 + 3 * picture] // 63).tolist()) for picture in range(4)]
    assert shown == [RED, GREEN, BLUE, WHITE]
    assert sheet.caption == "m: test images (left of each pair) and reconstructions."
