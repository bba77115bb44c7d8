"""Pictures out and in: grey and colour, whole round trips, and one sentence for every file that is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.errors import DataError
from twostage_pipelines.media.png import display_scale, grid, png, read_image, to_bytes, to_words, write_png


def colours(count: int, height: int = 3, width: int = 5, channels: int = 3, levels: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, levels, (count, channels, height, width), dtype=np.uint8)


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def test_a_png_has_the_channels_rows_and_columns_of_the_array() -> None:
    picture_CHW = colours(1)[0]
    pixels_HWC = opened(png(picture_CHW))
    assert pixels_HWC.shape == (3, 5, 3)
    for channel in range(3):
        np.testing.assert_array_equal(pixels_HWC[..., channel], picture_CHW[channel])
    assert opened(png(picture_CHW[:1])).shape == (3, 5)


def test_scale_repeats_pixels_and_mixes_none() -> None:
    picture_CHW = colours(1)[0]
    pixels_HWC = opened(png(picture_CHW, scale=3))
    assert pixels_HWC.shape == (9, 15, 3)
    for row in range(3):
        for column in range(3):
            np.testing.assert_array_equal(pixels_HWC[row::3, column::3], np.moveaxis(picture_CHW, 0, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_holds_every_picture_row_by_row(channels: int) -> None:
    pictures = colours(5, channels=channels)
    sheet = grid(pictures, columns=2, border=1, background=96)
    assert sheet.shape == (channels, 3 * 4 + 1, 2 * 6 + 1)
    for index in range(5):
        top, left = 1 + (index // 2) * 4, 1 + (index % 2) * 6
        np.testing.assert_array_equal(sheet[:, top : top + 3, left : left + 5], pictures[index])
    assert (sheet[:, :, 0] == 96).all()
    assert (sheet[:, 9:, 7:] == 96).all()
    assert opened(png(sheet)).shape == ((13, 13, 3) if channels == 3 else (13, 13))


def test_means_are_rounded_and_never_wrap_around() -> None:
    assert to_bytes(np.array([[[-0.4, 0.0, 0.5, 1.0, 1.2]]]), 2).tolist() == [[[0, 0, 128, 255, 255]]]
    assert display_scale(28) == 2
    assert display_scale(500) == 1


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_alphabet_survives_the_way_through_a_file(tmp_path: Path, levels: int, channels: int) -> None:
    picture_CHW = (np.arange(16 * 16 * channels) % levels).astype(np.uint8).reshape(channels, 16, 16)
    write_png(tmp_path / "x.png", to_bytes(picture_CHW, levels))
    np.testing.assert_array_equal(
        read_image(tmp_path / "x.png", image_shape=(channels, 16, 16), levels=levels), picture_CHW
    )


def test_two_levels_are_a_threshold_at_half(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 127], [128, 254, 255]], dtype=np.uint8)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", image_shape=(1, 2, 3), levels=2).tolist() == [[[0, 0, 0], [1, 1, 1]]]


def test_other_sizes_fit_where_asked(tmp_path: Path) -> None:
    picture_CHW = colours(1, 8, 8)[0]
    write_png(tmp_path / "x.png", picture_CHW)
    cropped = read_image(tmp_path / "x.png", image_shape=(3, 4, 6), levels=256, fit="crop")
    np.testing.assert_array_equal(cropped, picture_CHW[:, 2:6, 1:7])
    assert read_image(tmp_path / "x.png", image_shape=(3, 4, 6), levels=256, fit="resize").shape == (3, 4, 6)
    with pytest.raises(DataError, match=r"of 4x6 pixels .height x width., but .*x\.png has 8x8 pixels"):
        read_image(tmp_path / "x.png", image_shape=(3, 4, 6), levels=256)
    with pytest.raises(DataError, match=r"at least 9x9 pixels"):
        read_image(tmp_path / "x.png", image_shape=(3, 9, 9), levels=256, fit="crop")


@pytest.mark.parametrize(
    ("name", "clause"),
    [
        ("absent.png", "could not be read"),
        ("empty.png", "is empty"),
        ("text.png", "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"),
        ("cut.png", "is damaged"),
        ("deep.png", "8 bits per channel"),
        ("moving.png", "is animated"),
    ],
)
def test_every_refusal_names_the_file_and_the_fault(tmp_path: Path, name: str, clause: str) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"text")
    whole = png(colours(1, 8, 8)[0])
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 9)]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError) as raised:
        read_image(tmp_path / name, image_shape=(3, 8, 8), levels=256)
    assert name in str(raised.value)
    assert clause in str(raised.value)


def test_a_conversion_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGBA", (4, 4)).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png", image_shape=(3, 4, 4), levels=256) == 255).all()
    assert "x.png: transparent and laid on white" in capsys.readouterr().err


def test_sixteen_bits_survive_the_way_through_a_file(tmp_path: Path) -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(1, 128, 512)
    write_png(tmp_path / "x.png", to_words(levels, 65536))
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.mode == "I;16"
    back = read_image(tmp_path / "x.png", image_shape=(1, 128, 512), levels=65536, bits=16)
    np.testing.assert_array_equal(back, levels)
    assert back.dtype == np.uint16
    black_and_white = read_image(tmp_path / "x.png", image_shape=(1, 128, 512), levels=2, bits=16)
    np.testing.assert_array_equal(black_and_white, levels >= 32768)
    with pytest.raises(DataError, match=r"has 16 bits per channel"):
        read_image(tmp_path / "x.png", image_shape=(1, 128, 512), levels=256)


@pytest.mark.parametrize(("channels", "shown"), [(1, [0]), (2, [0]), (3, [0, 1, 2]), (4, [0, 1, 2]), (16, [0, 1, 2])])
def test_pictures_show_the_channels_that_there_is_a_colour_for(channels: int, shown: list[int]) -> None:
    levels = np.random.default_rng(0).integers(0, 1000, (2, channels, 4, 6)).astype(np.uint16)
    expected = np.rint(levels[:, shown] * (255 / 999)).astype(np.uint8)
    np.testing.assert_array_equal(to_bytes(levels, 1000), expected)


@pytest.mark.parametrize(("channels", "bits"), [(2, 8), (5, 8), (3, 16)])
def test_pictures_are_not_read_for_channels_that_they_do_not_have(tmp_path: Path, channels: int, bits: int) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=rf"expected an \.npy file, as images of {channels} channels of {bits} bits"):
        read_image(tmp_path / "x.png", image_shape=(channels, 4, 4), levels=1 << bits, bits=bits)  # type: ignore[arg-type]
