"""Images whose heights and widths differ: each is compared with what the plain operations give."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, load_dataset
from twostage.data.images.decode import Fit
from twostage.errors import DataError


def load(root: Path, size: str, fit: Fit) -> ImageDataset:
    return load_dataset(DataConfig(name="images", path=str(root), image_size=size, fit=fit))


def refusal(root: Path, size: str, fit: Fit) -> str:
    with pytest.raises(DataError) as raised:
        load(root, size, fit)
    return str(raised.value)


@pytest.fixture
def pixels(tmp_path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 20, 36, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    return pixels


def found(root: Path, size: str, fit: Fit) -> set[bytes]:
    """Every image, as its levels `[C, H, W]`."""
    dataset = load(root, size, fit)
    return {image.tobytes() for name in ("train", "validation", "test") for image in dataset.split(name).images}


def test_exact_keeps_every_pixel(tmp_path: Path, pixels: np.ndarray) -> None:
    expected = {np.moveaxis(image, -1, 0).tobytes() for image in pixels}
    assert found(tmp_path, "20x36", "exact") == expected
    assert load(tmp_path, "20x36", "exact").shape == (3, 20, 36)
    assert "have 20x36 pixels (height x width)" in refusal(tmp_path, "36x20", "exact")


def test_crop_cuts_the_centre_out(tmp_path: Path, pixels: np.ndarray) -> None:
    expected = {np.moveaxis(image[6:14, 2:34], -1, 0).tobytes() for image in pixels}
    assert found(tmp_path, "8x32", "crop") == expected
    assert "at least 32x8 pixels (height x width)" in refusal(tmp_path, "32x8", "crop")


@pytest.mark.parametrize(
    ("size", "covering", "centre"),
    [
        ("10x12", (18, 10), (3, 0, 15, 10)),
        ("6x18", (18, 10), (0, 2, 18, 8)),
        ("20x36", (36, 20), (0, 0, 36, 20)),
    ],
)
def test_resize_covers_the_size_and_cuts_what_stands_out(
    tmp_path: Path,
    pixels: np.ndarray,
    size: str,
    covering: tuple[int, int],
    centre: tuple[int, int, int, int],
) -> None:
    scaled = [Image.fromarray(image).resize(covering, Image.Resampling.LANCZOS).crop(centre) for image in pixels]
    expected = {np.moveaxis(np.asarray(image), -1, 0).tobytes() for image in scaled}
    assert found(tmp_path, size, "resize") == expected
