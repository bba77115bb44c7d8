"""Sheets of the report: which pictures stand where, in which colours, and what their captions promise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, Split, load_dataset
from twostage.metrics.memorisation import nearest_images
from twostage_pipelines.generate.sheets import (
    MOST_CLASSES,
    ReferenceImages,
    Sheet,
    model_sheets,
    neighbour_sheet,
    reference_images,
)
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")
WriteRun = Callable[..., Path]
RED, GREEN, BLUE, WHITE = (4, 0, 0), (0, 4, 0), (0, 0, 4), (4, 4, 4)


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


def test_only_labels_with_training_items_have_a_column(digits: ImageDataset, write_run: WriteRun) -> None:
    run = write_run(names=tuple("abcdefghij"), trained=("a", "c", "d"))
    for model in ("vq-vae", "cvae"):
        sheet = _sheets(run, digits, model)["samples"]
        assert "one class a column, from the left a, c, d, temperature" in sheet.caption
        assert sheet.picture_CHW.shape == (1, 91, 28)  # ten rows and three columns of 8 pixels behind borders of 1


def _plain(*colours: tuple[int, int, int]) -> np.ndarray:
    """One 2x2 picture of 5 levels per colour."""
    return np.array(colours, np.uint8)[:, :, None, None] * np.ones((1, 1, 2, 2), np.uint8)


def _sheets(path: Path, dataset: ImageDataset, model: str, seed: int = 0) -> dict[str, Sheet]:
    run = Run.open(path)
    reference = reference_images(run, dataset)
    sheets = model_sheets(run, model, run.stage1(model, CPU), dataset, reference, device=CPU, seed=seed)
    return {sheet.kind: sheet for sheet in sheets}


def test_colour_samples_stand_beside_their_nearest_training_images_in_their_colours() -> None:
    train = _plain(WHITE, BLUE, GREEN, RED, (3, 0, 1), (0, 0, 3))
    samples = _plain(RED, BLUE)
    reference = ReferenceImages(images_MCHW=train, held_out=nearest_images(_plain((4, 0, 2)), train, count=1))
    sheet = neighbour_sheet("m", samples, reference, levels=5)
    # A strip is four pictures of 2 pixels, with borders of 1: 13 pixels; strips have borders of 3.
    left = [3 + strip * (13 + 3) + 1 + picture * (2 + 1) for strip in (0, 1) for picture in range(4)]
    shown = [tuple((sheet.picture_CHW[:, 5, column] // 63).tolist()) for column in left]
    assert shown == [RED, RED, (3, 0, 1), (0, 0, 3), BLUE, BLUE, (0, 0, 3), (3, 0, 1)]
    assert "2 of the samples are copies" in sheet.caption
    assert "the 3 nearest training images" in sheet.caption


def test_the_number_is_the_ratio_of_medians(digits: ImageDataset, write_run: WriteRun) -> None:
    reference = reference_images(Run.open(write_run(classes=10)), digits)
    assert len(reference.held_out.distances_Nk) == 100
    copies = neighbour_sheet("m", digits.train.images[:50], reference, levels=17)
    assert "ratio 0.00; 50 of the samples are copies" in copies.caption
    test = digits.test.images[np.linspace(0, 299, 100).astype(int)]
    assert "ratio 1.00; 0 of the samples" in neighbour_sheet("m", test, reference, levels=17).caption


def test_mirrored_copies_are_found_where_the_model_trains_on_them(digits: ImageDataset, write_run: WriteRun) -> None:
    run = Run.open(write_run(classes=10))
    flipping = replace(run, recipe=replace(run.recipe, data=replace(run.recipe.data, horizontal_flips=True)))
    mirrored = digits.train.images[:30, ..., ::-1].copy()
    for wanting, copies in ((run, 0), (flipping, 30)):
        sheet = neighbour_sheet("m", mirrored, reference_images(wanting, digits), levels=17)
        assert f"{copies} of the samples are copies" in sheet.caption


def test_sheets_of_a_plain_decoder_show_means(digits: ImageDataset, write_run: WriteRun) -> None:
    path = write_run(classes=10)
    for model, origin in (("vq-vae", "one class a column"), ("vae", "Gaussian prior")):
        sheets = _sheets(path, digits, model)
        assert list(sheets) == ["samples", "reconstructions", "neighbours"]
        assert origin in sheets["samples"].caption
        assert not any("sampled" in sheet.caption for sheet in sheets.values())
        other = _sheets(path, digits, model, seed=1)
        assert (sheets["reconstructions"].picture_CHW == other["reconstructions"].picture_CHW).all()
        assert (sheets["samples"].picture_CHW != other["samples"].picture_CHW).any()


def test_sheets_of_an_autoregressive_decoder_say_that_pixels_are_sampled(
    digits: ImageDataset, write_run: WriteRun
) -> None:
    path = write_run(classes=10, autoregressive_layers=1, autoregressive_channels=4, autoregressive_kernel=3)
    for model in ("vq-vae", "vae"):
        sheets = _sheets(path, digits, model)
        assert "and sampled reconstructions" in sheets["reconstructions"].caption
        assert "pixels sampled" in sheets["samples"].caption
        again, other = _sheets(path, digits, model), _sheets(path, digits, model, seed=1)
        for kind in ("reconstructions", "samples"):
            assert (sheets[kind].picture_CHW == again[kind].picture_CHW).all()
            assert (sheets[kind].picture_CHW != other[kind].picture_CHW).any()


def test_many_classes_do_not_make_an_endless_sheet(digits: ImageDataset, write_run: WriteRun) -> None:
    sheet = _sheets(write_run(classes=40), digits, "vq-vae")["samples"]
    assert sheet.picture_CHW.shape == (1, 1 + 10 * 9, 1 + MOST_CLASSES * 9)
    assert "(the first 16 of 40)" in sheet.caption
    unconditional = _sheets(write_run(name="other", conditional=False), digits, "vq-vae")["samples"]
    assert "class" not in unconditional.caption


def test_fewer_training_images_than_neighbours_are_enough(digits: ImageDataset, write_run: WriteRun) -> None:
    one = replace(digits, train=Split(images=digits.train.images[:1], labels=digits.train.labels[:1]))
    assert "the nearest training image" in _sheets(write_run(classes=10), one, "vq-vae")["neighbours"].caption
