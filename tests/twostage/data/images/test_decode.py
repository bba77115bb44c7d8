"""One image file to levels: every kind that is read, and one clause for each that is refused."""

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twostage.data.images.decode import (
    CMYK,
    PALETTE,
    TRANSPARENCY,
    Fit,
    Unreadable,
    WrongSize,
    decode_image,
    quiet_pillow,
)
from twostage.data.images.headers import LARGEST_PIXELS


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def photo(height: int, width: int) -> np.ndarray:
    """Smooth, so that JPEG keeps it."""
    small = Image.fromarray(noise(height // 12 + 2, width // 12 + 2))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def decode(
    path: Path, size: tuple[int, int], *, channels: int = 3, fit: Fit = "exact"
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels `[H, W, C]` and remarks."""
    pixels_CHW = np.full((channels, *size), 77, dtype=np.uint8)
    with quiet_pillow():
        remarks = decode_image(path, pixels_CHW, fit=fit)
    return np.moveaxis(pixels_CHW, 0, -1), remarks


def refusal(path: Path, size: tuple[int, int] = (4, 4), fit: Fit = "exact") -> str:
    with pytest.raises(Unreadable) as raised:
        decode(path, size, fit=fit)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def png_bytes(width: int, height: int, *, depth: int, colour_type: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("webp", {"lossless": True}),
        ("bmp", {}),
        ("tif", {}),
        ("tif", {"compression": "tiff_lzw"}),
        ("tif", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_lossless_files_keep_every_pixel_in_rows_columns_and_channels(
    tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    pixels = noise(5, 7)
    Image.fromarray(pixels).save(tmp_path / f"x.{suffix}", **options)
    got, remarks = decode(tmp_path / f"x.{suffix}", (5, 7))
    np.testing.assert_array_equal(got, pixels)
    assert remarks == ()


def test_content_and_not_the_name_decides_how_a_file_is_read(tmp_path: Path) -> None:
    pixels = photo(48, 48)
    Image.fromarray(pixels).save(tmp_path / "x.png", format="JPEG", quality=95, subsampling=0)
    got, _ = decode(tmp_path / "x.png", (48, 48))
    assert np.abs(got.astype(int) - pixels).mean() < 3


def test_grey_is_the_usual_luma_and_grey_files_fill_all_channels(tmp_path: Path) -> None:
    pixels = noise(4, 4)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    got, _ = decode(tmp_path / "x.png", (4, 4), channels=1)
    assert np.abs(got[..., 0] - luma).max() <= 0.51
    Image.fromarray(got[..., 0]).save(tmp_path / "grey.png")
    as_colour, _ = decode(tmp_path / "grey.png", (4, 4))
    np.testing.assert_array_equal(as_colour, np.repeat(got, 3, axis=-1))


def save_transparent(path: Path) -> None:
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:, :2] = (255, 0, 0, 255)
    pixels[:, 2:] = (0, 0, 0, 0)
    pixels[3] = (255, 0, 0, 51)
    Image.fromarray(pixels, "RGBA").save(path)


def save_palette(path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.save(path)


def save_transparent_palette(path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.save(path, transparency=bytes([255, 0]))


def save_keyed_grey(path: Path) -> None:
    Image.new("L", (4, 4), 9).save(path, transparency=9)


def save_grey_alpha(path: Path) -> None:
    Image.new("LA", (4, 4), (0, 51)).save(path)


def save_opaque(path: Path) -> None:
    Image.new("RGBA", (4, 4), (1, 2, 3, 255)).save(path)


def save_one_bit(path: Path) -> None:
    picture = Image.new("1", (4, 4), 1)
    picture.putpixel((2, 1), 0)
    picture.save(path)


def save_cmyk(path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(path, format="JPEG", quality=100)


@pytest.mark.parametrize(
    ("save", "corner", "far_corner", "remarks"),
    [
        (save_transparent, (255, 0, 0), (255, 204, 204), (TRANSPARENCY,)),
        (save_palette, (10, 200, 30), (10, 200, 30), (PALETTE,)),
        (save_transparent_palette, (255, 255, 255), (255, 255, 255), (PALETTE, TRANSPARENCY)),
        (save_keyed_grey, (255, 255, 255), (255, 255, 255), (TRANSPARENCY,)),
        (save_grey_alpha, (204, 204, 204), (204, 204, 204), (TRANSPARENCY,)),
        (save_opaque, (1, 2, 3), (1, 2, 3), ()),
        (save_one_bit, (255, 255, 255), (255, 255, 255), ()),
        (save_cmyk, (255, 0, 0), (255, 0, 0), (CMYK,)),
    ],
)
def test_every_kind_becomes_rgb_and_says_what_it_was(
    tmp_path: Path,
    save: Callable[[Path], None],
    corner: tuple[int, int, int],
    far_corner: tuple[int, int, int],
    remarks: tuple[str, ...],
) -> None:
    save(tmp_path / "x.png")
    got, said = decode(tmp_path / "x.png", (4, 4))
    assert said == remarks
    assert np.abs(got[0, 0].astype(int) - corner).max() <= 2
    assert np.abs(got[3, 3].astype(int) - far_corner).max() <= 2
    if save is save_one_bit:
        assert got[1, 2].tolist() == [0, 0, 0]
    if save is save_transparent:
        assert got[0, 3].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["exact", "resize"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_every_orientation_of_a_camera_comes_out_upright(
    tmp_path: Path, suffix: str, orientation: int, fit: Fit
) -> None:
    upright = noise(6, 6)
    # How the sensor saw it: the inverse of what a viewer does for that orientation.
    seen = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.ascontiguousarray(seen)).save(path, exif=exif, lossless=True)
    np.testing.assert_array_equal(decode(path, (6, 6), fit=fit)[0], upright)


def test_orientation_comes_before_the_size_is_looked_at(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(4, 9)).save(tmp_path / "x.png", exif=exif)
    assert decode(tmp_path / "x.png", (9, 4))[0].shape == (9, 4, 3)
    with pytest.raises(WrongSize, match=r"has 9x4 pixels \(height x width\)"):
        decode(tmp_path / "x.png", (4, 9))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_every_16_bit_png_is_refused(tmp_path: Path, colour_type: int, channels: int) -> None:
    """Pillow itself would read all but the first kind, and keep the upper 8 bits."""
    rows = (b"\0" + bytes(range(4 * 2 * channels))) * 4
    (tmp_path / "x.png").write_bytes(png_bytes(4, 4, depth=16, colour_type=colour_type, data=rows))
    assert "16 bits per channel" in refusal(tmp_path / "x.png")


def test_8_bit_png_made_the_same_way_is_read(tmp_path: Path) -> None:
    rows = b"".join(b"\0" + bytes(range(4 * row, 4 * row + 4)) for row in range(4))
    (tmp_path / "x.png").write_bytes(png_bytes(4, 4, depth=8, colour_type=0, data=rows))
    assert decode(tmp_path / "x.png", (4, 4), channels=1)[0].ravel().tolist() == list(range(16))


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("png", "is animated (2 frames)"),
        ("webp", "is animated (2 frames)"),
        ("avif", "is animated (2 frames)"),
        ("gif", "is animated"),
        ("tif", "has more than one page"),
    ],
)
def test_files_of_several_pictures_are_refused(tmp_path: Path, suffix: str, said: str) -> None:
    first, second = (Image.fromarray(noise(4, 4, seed=seed)) for seed in (0, 1))
    first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second], duration=50)
    for fit in ("exact", "crop", "resize"):
        assert refusal(tmp_path / f"x.{suffix}", fit=fit) == said


def test_gif_and_avif_are_read(tmp_path: Path) -> None:
    shades = np.arange(16, dtype=np.uint8).reshape(4, 4) * 15
    Image.fromarray(shades).save(tmp_path / "x.gif")
    np.testing.assert_array_equal(decode(tmp_path / "x.gif", (4, 4), channels=1)[0][..., 0], shades)
    pixels = photo(48, 48)
    Image.fromarray(pixels).save(tmp_path / "x.avif", quality=95, subsampling="4:4:4")
    assert np.abs(decode(tmp_path / "x.avif", (48, 48))[0].astype(int) - pixels).mean() < 3


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Image.new("I;16", (4, 4)), "has 16 bits per channel and not the 8 bits"),
        (Image.new("F", (4, 4)), "has 32 bits per channel and not the 8 bits"),
        (Image.new("LAB", (4, 4)), "has channels of the kind LAB"),
    ],
)
def test_tiff_of_other_channels_are_refused(tmp_path: Path, picture: Image.Image, said: str) -> None:
    picture.save(tmp_path / "x.tif")
    assert refusal(tmp_path / "x.tif").startswith(said)


def test_the_thumbnail_in_a_raw_file_is_not_taken_for_the_photograph(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4)).save(tmp_path / "x.tif", tiffinfo={254: 1})
    assert refusal(tmp_path / "x.tif").startswith("holds a reduced picture")


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "x.webp").write_bytes(b"RIFF\xff\xff\xff\x7fWEBPVP8L")
    os.truncate(tmp_path / "x.webp", 6 << 30)
    assert refusal(tmp_path / "x.webp") == "has more than 320,000,000 bytes"


def test_the_first_picture_of_a_phone_with_two_is_read(tmp_path: Path) -> None:
    main, depth = photo(48, 48), np.zeros((48, 48, 3), dtype=np.uint8)
    Image.fromarray(main).save(
        tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[Image.fromarray(depth)], quality=95
    )
    with Image.open(tmp_path / "x.jpg") as picture:
        assert picture.format == "MPO"
    for fit in ("exact", "resize"):
        assert np.abs(decode(tmp_path / "x.jpg", (48, 48), fit=fit)[0].astype(int) - main).mean() < 3


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\0\0\0\0WEBP"]
)
def test_files_without_an_image_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert refusal(tmp_path / "x.png").startswith(
        "is empty" if not content else "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"
    )


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x24ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x24ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\xff\x0a\xfa\x7f", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"II*\0\x10\0\0\0CR\2\0", "camera raw"),
        (b"P6\n4 4\n255\n", "Netpbm"),
    ],
)
def test_formats_that_are_not_read_are_called_by_their_names(tmp_path: Path, start: bytes, name: str) -> None:
    (tmp_path / "x.png").write_bytes(start + bytes(100))
    assert refusal(tmp_path / "x.png").startswith(f"is of the format {name}, which is not read: PNG, JPEG, ")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x.png") == f"could not be read ({os.strerror(2)})"
    assert "could not be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("AVIF", {}),
    ],
)
def test_every_truncation_is_refused_or_has_lost_nothing(tmp_path: Path, kind: str, options: dict[str, int]) -> None:
    path, buffer = tmp_path / "x.png", BytesIO()
    Image.fromarray(noise(9, 9)).save(buffer, format=kind, **options)
    whole = buffer.getvalue()
    path.write_bytes(whole)
    pixels, _ = decode(path, (9, 9))
    refused = 0
    lengths = {*range(0, len(whole), 3), *range(len(whole) - 40, len(whole))}
    for length in lengths:
        path.write_bytes(whole[:length])
        target = np.full((3, 9, 9), 77, dtype=np.uint8)
        try:
            with quiet_pillow():
                decode_image(path, target, fit="exact")
        except Unreadable:
            refused += 1
            wanted = np.full_like(pixels, 77)  # untouched
        else:
            wanted = pixels
        np.testing.assert_array_equal(np.moveaxis(target, 0, -1), wanted)
    assert refused >= len(lengths) - 30


@pytest.mark.parametrize("side", [LARGEST_PIXELS // 10_000 + 1, 65_535])
def test_an_absurd_size_in_the_header_is_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "x.png").write_bytes(png_bytes(side, 10_000, depth=8, colour_type=2, data=b""))
    assert "64,000,000" in refusal(tmp_path / "x.png", fit="resize")


def test_exact_refuses_other_sizes_with_the_size(tmp_path: Path) -> None:
    Image.fromarray(noise(5, 4)).save(tmp_path / "x.png")
    with pytest.raises(WrongSize, match=r"has 5x4 pixels \(height x width\)") as raised:
        decode(tmp_path / "x.png", (4, 4))
    assert raised.value.size == (5, 4)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (9, 4)])
def test_crop_takes_the_centre(tmp_path: Path, height: int, width: int) -> None:
    pixels = noise(height, width)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    top, left = (height - 4) // 2, (width - 4) // 2
    got, _ = decode(tmp_path / "x.png", (4, 4), fit="crop")
    np.testing.assert_array_equal(got, pixels[top : top + 4, left : left + 4])


@pytest.mark.parametrize(("height", "width"), [(3, 9), (9, 3)])
def test_crop_refuses_a_smaller_image(tmp_path: Path, height: int, width: int) -> None:
    Image.fromarray(noise(height, width)).save(tmp_path / "x.png")
    with pytest.raises(WrongSize):
        decode(tmp_path / "x.png", (4, 4), fit="crop")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize(("height", "width"), [(200, 200), (200, 325), (325, 200)])
def test_resize_is_the_short_side_scaled_and_the_centre_cut(
    tmp_path: Path, suffix: str, height: int, width: int
) -> None:
    """Against the plain order, without JPEG's scaled decoding or reductions: scale everything, then cut."""
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(photo(height, width)).save(path, quality=95)
    with Image.open(path) as picture:
        scaled = picture.resize((width * 16 // 200, height * 16 // 200), Image.Resampling.LANCZOS)
    left, top = (scaled.width - 16) // 2, (scaled.height - 16) // 2
    plain = np.asarray(scaled.crop((left, top, left + 16, top + 16))).astype(int)
    got, _ = decode(path, (16, 16), fit="resize")
    inner = (slice(2, -2), slice(2, -2))  # the plain order sees the pixels beyond the cut, too
    assert np.abs(got.astype(int) - plain)[inner].mean() < 1.5
    assert np.abs(np.roll(got, 1, 1).astype(int) - plain)[inner].mean() > 6


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photograph_is_resized_as_if_it_had_been_upright(tmp_path: Path, orientation: int) -> None:
    """Reduced while it lies on its side; the sizes leave a fraction of a pixel in JPEG's scaled decoding."""
    upright, turns = photo(325, 201), {3: 2, 6: 1, 8: -1}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(upright).save(tmp_path / "upright.png")
    seen = Image.fromarray(np.ascontiguousarray(np.rot90(upright, turns)))
    seen.save(tmp_path / "x.jpg", exif=exif, quality=98, subsampling=0)
    for size in ((16, 16), (20, 10), (10, 20)):
        plain, _ = decode(tmp_path / "upright.png", size, fit="resize")
        got, _ = decode(tmp_path / "x.jpg", size, fit="resize")
        assert np.abs(got.astype(int) - plain).mean() < 2.5


def test_resize_leaves_images_of_that_size_alone_and_enlarges_small_ones(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    np.testing.assert_array_equal(decode(tmp_path / "x.png", (8, 8), fit="resize")[0], pixels)
    Image.new("RGB", (2, 1), (9, 8, 7)).save(tmp_path / "x.png")
    assert (decode(tmp_path / "x.png", (8, 8), fit="resize")[0] == (9, 8, 7)).all()


def test_resize_stays_inside_the_image_for_every_size(tmp_path: Path) -> None:
    """The cut is computed in floating point; a hair outside would be an error."""
    path = tmp_path / "x.png"
    for width in range(1, 120):
        Image.new("L", (width, 37)).save(path, compress_level=0)
        for size in ((7, 7), (3, 5)):
            decode(path, size, channels=1, fit="resize")
