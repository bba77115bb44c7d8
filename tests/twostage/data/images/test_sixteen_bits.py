"""Grey images of 16 bits: every level is kept where they are asked for, and whatever has none of them is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.data.images.decode import Fit, Unreadable, decode_image, inspect_image, quiet_pillow
from twostage.errors import DataError, UsageError

GENERATOR = np.random.default_rng(0)


def noise(height: int, width: int) -> np.ndarray:
    return GENERATOR.integers(0, 65536, (height, width)).astype(np.uint16)


def decode(path: Path, size: tuple[int, int], fit: Fit = "exact", bits: int = 16) -> np.ndarray:
    pixels_CHW = np.full((1, *size), 77, np.uint16 if bits == 16 else np.uint8)
    with quiet_pillow():
        decode_image(path, pixels_CHW, fit=fit)
    return pixels_CHW[0]


def refusal(path: Path, bits: int = 16) -> str:
    with pytest.raises(Unreadable) as raised:
        decode(path, (4, 4), bits=bits)
    with pytest.raises(Unreadable, match=str(raised.value).partition("(")[0]), quiet_pillow():
        inspect_image(path, bits=bits)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "order", "options"),
    [
        ("x.png", "<u2", {}),
        ("x.tif", "<u2", {}),
        ("x.tif", ">u2", {}),
        ("x.tiff", "<u2", {"compression": "tiff_lzw"}),
        ("x.tiff", "<u2", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_every_level_is_kept(tmp_path: Path, name: str, order: str, options: dict[str, Any]) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(128, 512)
    Image.fromarray(levels.astype(order)).save(tmp_path / name, **options)
    np.testing.assert_array_equal(decode(tmp_path / name, (128, 512)), levels)
    assert inspect_image(tmp_path / name, bits=16).height == 128


def test_the_centre_is_cut_out(tmp_path: Path) -> None:
    pixels = noise(9, 12)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png", (5, 4), "crop"), pixels[2:7, 4:8])


@pytest.mark.parametrize("size", [(8, 12), (16, 6), (40, 40)])
def test_scaling_is_that_of_eight_bits_on_a_finer_scale(tmp_path: Path, size: tuple[int, int]) -> None:
    """Levels that are multiples of 257 are those of 8 bits, whose scaled copies are known to half a level."""
    coarse = np.asarray(Image.fromarray(noise(4, 5).astype(np.uint8)).resize((30, 20), Image.Resampling.BICUBIC))
    Image.fromarray(coarse.astype(np.uint16) * 257).save(tmp_path / "fine.png")
    Image.fromarray(coarse).save(tmp_path / "coarse.png")
    fine = decode(tmp_path / "fine.png", size, "resize") / 257
    assert np.abs(fine - decode(tmp_path / "coarse.png", size, "resize", bits=8)).max() <= 1.02
    assert len(np.unique(fine % 1)) > 10  # what 8 bits have no room for


def test_overshooting_filters_end_at_black_and_white(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint16)
    pixels[:, 4:] = 65535
    Image.fromarray(pixels).save(tmp_path / "x.png")
    got = decode(tmp_path / "x.png", (32, 32), "resize")
    assert (got[:, 0] == 0).all()
    assert (got[:, -1] == 65535).all()
    assert (np.diff(got[0].astype(int)) > -8000).all()  # no wrap from black to white


def test_other_files_are_refused_where_sixteen_bits_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x"
    Image.new("L", (4, 4)).save(path, format="PNG")
    assert refusal(path) == "has 8 bits per channel and not the 16 that are asked for"
    Image.new("RGB", (4, 4)).save(path, format="JPEG")
    assert refusal(path) == "has 8 bits per channel and not the 16 that are asked for"
    Image.fromarray(noise(4, 4)).save(path, format="PNG", transparency=9)
    assert "a transparent level" in refusal(path)
    Image.fromarray(noise(4, 4)).save(path, format="TIFF", tiffinfo={262: 0})
    assert "counted from white" in refusal(path)
    Image.fromarray(noise(4, 4).astype(np.float32)).save(path, format="TIFF")
    assert refusal(path) == "has 32 bits per channel and not the 16 that are asked for"
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, format="PNG")
    path.write_bytes(buffer.getvalue()[:-3000])
    assert "is damaged" in refusal(path)


def test_eight_bits_refuse_them_with_the_setting_that_does_not(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4)).save(tmp_path / "x.png")
    assert refusal(tmp_path / "x.png", bits=8) == (
        "has 16 bits per channel and not the 8 bits per channel that are read, unless data.bits is 16"
    )


def test_a_folder_of_them_is_a_data_set_of_65536_levels(tmp_path: Path) -> None:
    images = [noise(4, 6) for _ in range(12)]
    for number, pixels in enumerate(images):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    settings: dict[str, Any] = {"name": "images", "path": str(tmp_path), "image_size": "4x6", "fit": "exact"}
    dataset = load_dataset(DataConfig(colour="grey", bits=16, **settings))
    assert (dataset.levels, dataset.shape, dataset.train.images.dtype) == (65536, (1, 4, 6), np.uint16)
    found = {image.tobytes() for name in ("train", "validation", "test") for image in dataset.split(name).images}
    assert found == {pixels.tobytes() for pixels in images}
    with pytest.raises(UsageError, match=r"16 bits are read of grey images, but data.bits is 16 and data.colour rgb"):
        load_dataset(DataConfig(bits=16, **settings))
    Image.new("L", (6, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"1 of 13 files is not: 'a.png' has 8 bits per channel"):
        load_dataset(DataConfig(colour="grey", bits=16, **settings))
