"""JPEG files cut anywhere and closed with an end marker: refused alike everywhere; whole ones are not."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twostage.data.images.decode import Fit, Unreadable, decode_image, inspect_image, quiet_pillow

END = b"\xff\xd9"
FITS: tuple[Fit, ...] = ("exact", "crop", "resize")
SIZE = (90, 131)


def photo(mode: str = "RGB", **options: Any) -> bytes:
    """Smooth, so that JPEG keeps it; brighter than mid grey at its end."""
    small = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    small[-2:] = 200
    buffer = BytesIO()
    picture = Image.fromarray(small).resize(SIZE[::-1], Image.Resampling.BICUBIC).convert(mode)
    picture.save(buffer, format="JPEG", quality=90, **options)
    return buffer.getvalue()


def faults(path: Path) -> set[str]:
    """What every way of reading says."""
    said = set()
    with quiet_pillow():
        for fit in FITS:
            size = (16, 16) if fit == "resize" else SIZE
            try:
                decode_image(path, np.zeros((3, *size), np.uint8), fit=fit)
                said.add("")
            except Unreadable as error:
                said.add(str(error))
        try:
            inspect_image(path)
            said.add("")
        except Unreadable as error:
            said.add(str(error))
    return said


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": 0}),
        ("RGB", {"restart_marker_rows": 1}),
        ("RGB", {"restart_marker_blocks": 3}),
        ("L", {}),
        ("CMYK", {}),
    ],
)
def test_a_cut_behind_which_an_end_marker_stands_is_found(tmp_path: Path, mode: str, options: dict[str, int]) -> None:
    whole, path = photo(mode, **options), tmp_path / "x.jpg"
    path.write_bytes(whole)
    assert faults(path) == {""}
    start = whole.index(b"\xff\xda") + 16
    for place in np.linspace(start, start + 0.9 * (len(whole) - start), 30).astype(int):
        path.write_bytes(whole[:place] + END)
        assert faults(path) == {"is damaged (its pixels end early, before an end marker)"}


def test_a_progressive_file_cut_in_its_first_scan_is_found(tmp_path: Path) -> None:
    whole = photo(progressive=True)
    start = whole.index(b"\xff\xda") + 16
    (tmp_path / "x.jpg").write_bytes(whole[: start + 20] + END)
    assert faults(tmp_path / "x.jpg") == {"is damaged (its pixels end early, before an end marker)"}


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}, {"quality": 100}],
)
@pytest.mark.parametrize("behind", [b"", bytes(999), b"\0\0\0\x18ftypmp42\xff\xd8\xff\xda\xff\xd9" * 9])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_photograph_that_ends_in_mid_grey_is_read(
    tmp_path: Path, mode: str, behind: bytes, options: dict[str, Any]
) -> None:
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    pixels[:40] = np.random.default_rng(0).integers(0, 256, (40, SIZE[1], 3))
    picture = Image.fromarray(pixels).convert("L" if mode == "L" else "RGB")
    if mode == "CMYK":
        picture = Image.fromarray(np.concatenate([pixels, pixels[..., :1]], -1), "CMYK")
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", **options)
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue() + behind)
    with Image.open(buffer) as opened:
        corner = opened.getpixel((SIZE[1] - 1, SIZE[0] - 1))
    assert set(corner if isinstance(corner, tuple) else (corner,)) <= {127, 128}
    assert faults(tmp_path / "x.jpg") == {""}
