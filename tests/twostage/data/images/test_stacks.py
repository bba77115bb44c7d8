"""Arrays as a data set of images: splits, labels and levels as the README says, and one sentence for what is wrong."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, load_dataset
from twostage.errors import DataError, UsageError

GENERATOR = np.random.default_rng(0)


def load(path: Path | None, **settings: Any) -> ImageDataset:
    return load_dataset(DataConfig(name="arrays", path=None if path is None else str(path), **settings))


def refusal(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as raised:
        load(path, **settings)
    assert str(raised.value).startswith("expected ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def noise(count: int, *shape: int, top: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return GENERATOR.integers(0, top, (count, *shape)).astype(dtype)


def test_one_file_is_split_by_digests_of_the_numbers_of_its_images(tmp_path: Path) -> None:
    images, labels = noise(57, 5, 4, 6, top=3000, dtype=np.uint16), np.arange(57) % 3 + 7
    np.savez_compressed(tmp_path / "x.npz", images=images, labels=labels)
    dataset = load(tmp_path / "x.npz")
    # The plain way: one image after the other, by its rank.
    ranks = [hashlib.sha256(f"twostage arrays split 1 {row}".encode()).hexdigest() for row in range(57)]
    order = sorted(range(57), key=lambda row: ranks[row])
    expected = {"test": order[:5], "validation": order[5:10], "train": order[10:]}
    for name, rows in expected.items():
        split = dataset.split(name)
        np.testing.assert_array_equal(split.images, [images[row] for row in sorted(rows)])
        assert [dataset.classes[label] for label in split.labels] == [str(labels[row]) for row in sorted(rows)]
    assert (dataset.classes, dataset.shape, dataset.name) == (("7", "8", "9"), (5, 4, 6), "arrays")
    assert dataset.train.images.dtype == np.uint16


def test_labels_of_an_npy_file_lie_beside_it(tmp_path: Path) -> None:
    images = noise(20, 4, 6)
    np.save(tmp_path / "x.npy", images)
    plain = load(tmp_path / "x.npy")
    assert (plain.classes, plain.shape, plain.levels) == ((), (1, 4, 6), 256)
    np.save(tmp_path / "x_labels.npy", np.arange(20) % 2)
    labelled = load(tmp_path / "x.npy")
    assert labelled.classes == ("0", "1")
    np.testing.assert_array_equal(labelled.train.images, plain.train.images)
    kept = [row for row in range(20) if any(np.array_equal(images[row], x[0]) for x in labelled.train.images)]
    assert labelled.train.labels.tolist() == [row % 2 for row in kept]


def test_a_folder_says_its_splits_and_validation_may_be_held_out(tmp_path: Path) -> None:
    parts = {"train": noise(30, 3, 4, 6), "test": noise(7, 3, 4, 6), "validation": noise(5, 3, 4, 6)}
    np.save(tmp_path / "train.npy", parts["train"])
    np.savez(tmp_path / "test.npz", images=parts["test"])
    dataset = load(tmp_path)
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [27, 3, 7]
    together = np.concatenate([dataset.train.images, dataset.validation.images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, parts["train"]))
    np.save(tmp_path / "validation.npy", np.asfortranarray(parts["validation"]))
    dataset = load(tmp_path)
    for name, images in parts.items():
        np.testing.assert_array_equal(dataset.split(name).images, images)


@pytest.mark.parametrize(
    ("dtype", "largest", "asked", "levels", "held"),
    [
        (np.uint8, 3, 0, 256, np.uint8),
        (np.uint8, 3, 4, 4, np.uint8),
        (np.int8, 100, 0, 128, np.uint8),
        (np.uint16, 255, 0, 256, np.uint8),
        (np.uint16, 256, 0, 512, np.uint16),
        (np.int16, 4095, 0, 4096, np.uint16),
        (np.uint16, 65535, 0, 65536, np.uint16),
        (np.uint16, 0, 0, 2, np.uint8),
        (np.uint16, 1000, 1001, 1001, np.uint16),
        (">u2", 700, 0, 1024, np.uint16),
    ],
)
def test_levels_are_those_asked_for_or_of_the_type(
    tmp_path: Path, dtype: Any, largest: int, asked: int, levels: int, held: type
) -> None:
    images = np.zeros((10, 4, 6), dtype)
    images[:, 1, 2] = largest
    np.save(tmp_path / "x.npy", images)
    dataset = load(tmp_path / "x.npy", levels=asked)
    assert (dataset.levels, dataset.train.images.dtype) == (levels, held)
    np.testing.assert_array_equal(dataset.test.images[0, 0], images[0])


def test_a_level_outside_of_the_alphabet_names_its_file(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", np.full((9, 4, 4), 100, np.uint16))
    np.save(tmp_path / "test.npy", np.full((2, 4, 4), 128, np.uint16))
    message = refusal(tmp_path)
    assert "'test.npy' has levels up to 128, outside of the 128 levels of the training images: set data." in message
    assert "'train.npy' has levels up to 100, outside of the 64 levels that data.levels admits" in refusal(
        tmp_path, levels=64
    )
    assert load(tmp_path, levels=129).levels == 129


IMAGES = np.zeros((9, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("array", "clause"),
    [
        (IMAGES.astype(np.float32), r"holds float32 and not whole numbers: round it to levels"),
        (IMAGES.astype(bool), "holds bool and not whole numbers"),
        (IMAGES.astype(np.complex64), "holds complex64"),
        (IMAGES.astype(object), "Python objects are never read"),
        (np.array(["a", "b"]), "and not whole numbers"),
        (np.zeros(9, [("a", "u1")]), "and not whole numbers"),
        (np.zeros(9, [("a", "O")]), "Python objects are never read"),
        (IMAGES.astype(np.int64), r"holds int64, and levels have at most 16 bits: store it with astype\(np.uint16\)"),
        (IMAGES[0], "is of the shape 4x4 and not N x H x W"),
        (np.uint8(3), "is of the shape no axes"),
        (np.zeros((9, 32, 32, 3), np.uint8), r"with 32 channels .*np.moveaxis\(x, -1, 1\)"),
        (np.zeros((9, 0, 4, 4), np.uint8), "with 0 channels"),
        (IMAGES[:0], "without an image"),
        (IMAGES[:, :, :1], "sides of 2 to 4,096"),
        (np.zeros((1, 2, 4097), np.uint8), "sides of 2 to 4,096"),
        (IMAGES.astype(np.int8) - 3, "has levels below 0, down to -3"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, clause: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    assert re.search(f"'x.npy' .*{clause}", refusal(tmp_path / "x.npy"))


@pytest.mark.parametrize(
    ("labels", "clause"),
    [
        (np.zeros(9), "holds float64 and not whole numbers: number the classes from 0"),
        (np.zeros((9, 1), int), "is of the shape 9x1 and not N"),
        (np.zeros(8, int), "has 8 labels for 9 images"),
        (np.zeros(9, int) - 1, "has labels from -1 to -1"),
        (np.zeros(9, np.uint64) + 2**40, "has labels from"),
        (np.array(["a"] * 9, object), "holds object"),
    ],
)
def test_other_labels_are_refused(tmp_path: Path, labels: np.ndarray, clause: str) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "x_labels.npy", labels, allow_pickle=True)
    assert f"'x_labels.npy' {clause}" in refusal(tmp_path / "x.npy")
    np.savez(tmp_path / "y.npz", images=IMAGES, labels=labels)
    assert clause in refusal(tmp_path / "y.npz")


def test_every_faulty_file_of_a_folder_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", IMAGES.astype(np.float64))
    (tmp_path / "validation.npz").write_bytes(b"PK\x03\x04")
    np.save(tmp_path / "test.npy", IMAGES)
    np.savez(tmp_path / "test.npz", images=IMAGES)
    message = refusal(tmp_path)
    assert all(f"'{name}'" in message for name in ("train.npy", "validation.npz", "test.npz"))


def test_parts_go_together(tmp_path: Path) -> None:
    np.save(tmp_path / "train.npy", IMAGES)
    assert "expected test.npy or test.npz in" in refusal(tmp_path)
    np.savez(tmp_path / "test.npz", images=IMAGES, labels=np.zeros(9, int))
    assert "'test.npz' has some labels, but train.npy has none" in refusal(tmp_path)
    np.savez(tmp_path / "test.npz", images=IMAGES[:, :, :3])
    assert "'test.npz' has images of the shape (1, 4, 3), but train.npy of (1, 4, 4)" in refusal(tmp_path)
    np.savez(tmp_path / "test.npz", pictures=IMAGES)
    assert "'test.npz' has no array 'images'" in refusal(tmp_path)


def test_too_few_images_for_three_splits_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES[:2])
    assert "expected at least 3 images in x.npy" in refusal(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", IMAGES[:3])
    assert len(load(tmp_path / "x.npy").train) == 1


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs an .npy or .npz file"):
        load(None)
    with pytest.raises(UsageError, match="at least 2, but is 1"):
        load(tmp_path, levels=1)
    with pytest.raises(UsageError, match=r"data.image_size is for folders of images, but data.name is arrays"):
        load(tmp_path, image_size=8)
    with pytest.raises(UsageError, match=r"data.levels is for arrays, but data.name is images"):
        load_dataset(DataConfig(name="images", path=str(tmp_path), levels=9))
    assert "is not there" in refusal(tmp_path / "none.npy")


def test_other_arrays_of_a_folder_and_repeated_images_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "train.npy", IMAGES)
    np.save(tmp_path / "test.npy", IMAGES)
    np.save(tmp_path / "masks.npy", IMAGES)
    load(tmp_path)
    said = capsys.readouterr().err
    assert "passed over 1 other files of arrays" in said
    assert "'masks.npy'" in said
    assert "9 of 9 test images also stand in the training data, level for level" in said


def test_sixteen_bits_may_be_drawn_to_black_and_white(tmp_path: Path) -> None:
    images = np.zeros((400, 4, 6), np.uint16)
    images[:, 0] = 65535
    images[:, 1] = 16384
    np.save(tmp_path / "x.npy", images)
    drawn = load(tmp_path / "x.npy", binarise="dynamic")
    assert (drawn.levels, drawn.intensity_levels, drawn.train.images.dtype) == (2, 65536, np.uint8)
    share = drawn.train.images[:, 0].mean((0, 2))
    assert share[[0, 2, 3]].tolist() == [1, 0, 0]
    assert share[1] == pytest.approx(0.25, abs=0.05)  # 1920 draws: 5 standard errors
