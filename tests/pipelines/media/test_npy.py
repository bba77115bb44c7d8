"""Single images as .npy files: back as they were, and one sentence for any other array."""

from pathlib import Path

import numpy as np
import pytest

from twostage.errors import DataError
from twostage_pipelines.media.npy import read_npy, write_npy

LEVELS = np.random.default_rng(0).integers(0, 3000, (5, 4, 6)).astype(np.uint16)


def test_images_come_back(tmp_path: Path) -> None:
    write_npy(tmp_path / "folder/x.npy", LEVELS)
    back = read_npy(tmp_path / "folder/x.npy", image_shape=(5, 4, 6), levels=3000)
    np.testing.assert_array_equal(back, LEVELS)
    assert back.dtype == np.uint16


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_axes_of_one_may_be_left_out(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", LEVELS[0].reshape(shape).astype(">i2"))
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy", image_shape=(1, 4, 6), levels=3000), LEVELS[:1])


@pytest.mark.parametrize(
    ("array", "clause"),
    [
        (LEVELS[:4], "is of the shape 4x4x6"),
        (LEVELS.transpose(0, 2, 1), "is of the shape 5x6x4"),
        (np.stack([LEVELS, LEVELS]), "is of the shape 2x5x4x6"),
        (np.zeros(3, np.uint8), "is of the shape 3"),
        (LEVELS.astype(np.float32), "holds float32 and not whole numbers"),
        (LEVELS.astype(object), "Python objects are never read"),
        (LEVELS.astype(np.int16) - 3000, "has levels below 0"),
        (LEVELS + 65000, "has levels up to"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, clause: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=clause) as raised:
        read_npy(tmp_path / "x.npy", image_shape=(5, 4, 6), levels=3000)
    start = "expected one image of 5 channels of 4x6 pixels (height x width), levels 0 to 2999, but "
    assert str(raised.value).startswith(start)


def test_what_is_no_file_of_numpy_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "x.npy").write_bytes(data)
        with pytest.raises(DataError, match=r"is empty|is no array of numpy"):
            read_npy(tmp_path / "x.npy", image_shape=(1, 4, 6), levels=256)
