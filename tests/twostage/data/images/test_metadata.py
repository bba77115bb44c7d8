"""Metadata that are damaged or endless: the photograph is read all the same, upright wherever that can be told."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from twostage.data.images.decode import UNORIENTED, Fit, decode_image, inspect_image, quiet_pillow
from twostage.data.images.metadata import MOST_TEXT_BYTES, bare

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
EXIF_OF_6 = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
XMP_OF_6 = b'<rdf:Description tiff:Orientation="6"/>'
FITS: tuple[Fit, ...] = ("exact", "crop", "resize")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path: Path, *before: bytes, after: bytes = b"") -> None:
    """PIXELS with chunks before and behind its pixels."""
    Image.fromarray(PIXELS).save(path, format="PNG")
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(before) + data[33:-12] + after + data[-12:])


def jpeg(path: Path, *segments: tuple[int, bytes], jfif: bool = True) -> None:
    """PIXELS with application segments behind JFIF's, or in its place."""
    Image.fromarray(PIXELS).save(path, format="JPEG", quality=100, subsampling=0)
    data = path.read_bytes()
    made = b"".join(struct.pack(">BBH", 255, marker, len(content) + 2) + content for marker, content in segments)
    path.write_bytes(data[: 20 if jfif else 2] + made + data[20:])


def read(path: Path, *, turned: bool = False) -> tuple[np.ndarray, set[tuple[str, ...]]]:
    """Pixels `[H, W, C]`, the same under every `fit`, and all remarks."""
    size = (8, 6) if turned else (6, 8)
    made, remarks = [], set()
    with quiet_pillow():
        for fit in FITS:
            pixels_CHW = np.zeros((3, *size), np.uint8)
            remarks.add(decode_image(path, pixels_CHW, fit=fit))
            made.append(np.moveaxis(pixels_CHW, 0, -1))
        remarks.add(inspect_image(path).remarks)
    for pixels in made[1:]:
        np.testing.assert_array_equal(pixels, made[0])
    return made[0], remarks


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


MIB_64 = 64 << 20


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"Comment\0\0" + packed(MIB_64)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + packed(MIB_64)),
        chunk(b"iCCP", b"profile\0\0" + packed(MIB_64)),
        chunk(b"zTXt", b"Comment\0\7" + packed(9)),  # a method of compression that nobody knows
        chunk(b"tEXt", b"Comment\0words")[:-4] + b"????",  # a wrong checksum
        chunk(b"gAMA", b"\1"),
        chunk(b"pHYs", b"\1"),
        chunk(b"tEXt", b"\xff" * 200),
    ],
)
def test_no_chunk_beside_the_pixels_refuses_a_png(tmp_path: Path, metadata: bytes) -> None:
    for before, after in ((metadata, b""), (b"", metadata)):
        png(tmp_path / "x.png", before, after=after)
        pixels, remarks = read(tmp_path / "x.png")
        np.testing.assert_array_equal(pixels, PIXELS)
        assert remarks == {()}


def raw_profile(exif: bytes) -> bytes:
    """As ImageMagick writes it."""
    return f"\nexif\n{len(exif):8}\n{exif.hex()}\n".encode()


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"eXIf", EXIF_OF_6),
        chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(EXIF_OF_6)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(EXIF_OF_6))),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP_OF_6),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0key\0" + zlib.compress(XMP_OF_6 + bytes(MIB_64))),
    ],
)
def test_every_place_of_an_orientation_in_a_png_is_looked_at(tmp_path: Path, metadata: bytes) -> None:
    for before, after in ((metadata, b""), (b"", metadata)):
        png(tmp_path / "x.png", before, after=after)
        pixels, remarks = read(tmp_path / "x.png", turned=True)
        np.testing.assert_array_equal(pixels, np.rot90(PIXELS, -1))
        assert remarks == {()}


def test_what_is_unpacked_of_a_text_is_bounded(tmp_path: Path) -> None:
    for keyword in (b"XML:com.adobe.xmp", b"Raw profile type exif"):
        png(tmp_path / "x.png", chunk(b"zTXt", keyword + b"\0\0" + packed(MIB_64)))
        info = bare((tmp_path / "x.png").read_bytes()).info
        assert [len(text) for text in info.values()] == [MOST_TEXT_BYTES]


@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"eXIf", b"garbage"),
        chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(EXIF_OF_6)[:-8]),
        chunk(b"zTXt", b"XML:com.adobe.xmp\0\0garbage"),
    ],
)
def test_a_png_whose_orientation_is_lost_is_read_and_says_so(tmp_path: Path, metadata: bytes) -> None:
    png(tmp_path / "x.png", metadata)
    pixels, remarks = read(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels, PIXELS)
    assert remarks == {(UNORIENTED,)}


@pytest.mark.parametrize(
    ("segment", "remarks"),
    [
        ((0xE1, b"Exif\0\0garbage"), (UNORIENTED,)),
        ((0xED, b"Photoshop 3.0\x008BIM"), ()),
        ((0xE2, b"ICC_PROFILE\0"), ()),
        ((0xE2, b"MPF\0garbage"), ()),
        ((0xE0, b"JFIF"), ()),
        ((0xEE, b"Adobe"), ()),
        ((0xFE, b"\xff" * 999), ()),
    ],
)
def test_no_segment_beside_the_pixels_refuses_a_jpeg(
    tmp_path: Path, segment: tuple[int, bytes], remarks: tuple[str, ...]
) -> None:
    jpeg(tmp_path / "x.jpg")
    plain, _ = read(tmp_path / "x.jpg")
    assert np.abs(plain.astype(int) - PIXELS).mean() < 3
    for jfif in (True, False):
        jpeg(tmp_path / "x.jpg", segment, jfif=jfif)
        pixels, said = read(tmp_path / "x.jpg")
        np.testing.assert_array_equal(pixels, plain)
        assert said == {remarks}


def test_a_resolution_that_cannot_be_written_again_turns_the_photograph(tmp_path: Path) -> None:
    """An unsigned fraction below zero: pillow reads it, and fails when it writes EXIF without the orientation."""
    entries = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack(">HHII", 0x011A, 10, 1, 38)
    exif = b"MM\0*\0\0\0\x08\0\2" + entries + bytes(4) + struct.pack(">ii", -72, 1)
    jpeg(tmp_path / "x.jpg")
    plain, _ = read(tmp_path / "x.jpg")
    jpeg(tmp_path / "x.jpg", (0xE1, b"Exif\0\0" + exif))
    pixels, remarks = read(tmp_path / "x.jpg", turned=True)
    np.testing.assert_array_equal(pixels, np.rot90(plain, -1))
    assert remarks == {()}


def save_avif(path: Path, exif: Image.Exif) -> None:
    Image.fromarray(PIXELS).save(path, quality=100, exif=exif)


def save_webp(path: Path, exif: Image.Exif) -> None:
    Image.fromarray(PIXELS).save(path, lossless=True, exif=exif)


def save_jpeg(path: Path, exif: Image.Exif) -> None:
    jpeg(path, (0xE1, exif.tobytes()), jfif=False)


@pytest.mark.parametrize(("suffix", "save"), [("avif", save_avif), ("webp", save_webp), ("jpg", save_jpeg)])
def test_no_damage_to_exif_refuses_a_photograph(
    tmp_path: Path, suffix: str, save: Callable[[Path, Image.Exif], None]
) -> None:
    path, random = tmp_path / f"x.{suffix}", Random(suffix)
    exif = Image.Exif()
    exif[0x010F], exif[0x011A], exif[0x0128] = "a camera", IFDRational(72, 1), 2
    exif.get_ifd(0x8769)[0x9000] = b"0220"
    save(path, exif)
    whole, block = path.read_bytes(), exif.tobytes()[6:]
    start = whole.index(block[:4])
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(random.choice((1, 2, 8))):
            damaged[start + random.randrange(len(block))] = random.choice((0, 255, random.randrange(256)))
        path.write_bytes(damaged)
        with quiet_pillow():
            assert inspect_image(path).remarks in ((), (UNORIENTED,))
