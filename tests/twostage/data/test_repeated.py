"""Held-out items that are trained on: counted by their values, for images and recordings by one function."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.data.images.folder import load_folder
from twostage.data.repeated import tell_repeated


def test_only_items_that_are_alike_to_the_last_value_count(capsys: pytest.CaptureFixture[str]) -> None:
    train = [np.arange(5, dtype=np.int16), np.arange(3, dtype=np.int16)]
    held_out = {
        "validation": [np.arange(4, dtype=np.int16)],
        "test": [np.arange(10, dtype=np.int16)[:5], np.arange(3, dtype=np.int16), -np.arange(3, dtype=np.int16)],
    }
    tell_repeated(train, held_out, kind="things", alike="bit for bit")
    assert capsys.readouterr().err == "warning: 2 of 3 test things also stand in the training data, bit for bit\n"


def test_images_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    for part, images in (("train", pixels[:20]), ("test", pixels[15:30])):
        (tmp_path / part).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / part / f"{number}.png")
    data = load_folder(
        str(tmp_path),
        size=(4, 4),
        fit="exact",
        colour="grey",
        bits=8,
        train_folder="train",
        test_folder="test",
        skip_unreadable=0,
    )
    trained = {image.tobytes() for image in data.train.images}
    repeated = sum(image.tobytes() in trained for image in data.test.images)
    assert repeated >= 3
    said = capsys.readouterr().err
    assert f"warning: {repeated} of 15 test images also stand in the training data, pixel for pixel\n" in said
    assert "validation images" not in said
