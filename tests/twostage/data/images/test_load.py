"""Data sets: fixed splits, the IDX reader, and one sentence for each kind of damage."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, Split, load_dataset
from twostage.data.images.idx import read_idx
from twostage.errors import DataError, UsageError


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_set(folder: Path, *, train: int = 30, test: int = 7, packed: bool = False, dotted: bool = False) -> None:
    """A small IDX set whose image i is filled with i and has the label i % 10."""
    folder.mkdir(exist_ok=True)
    for prefix, items in (("train", train), ("t10k", test)):
        images = np.broadcast_to(np.arange(items, dtype=np.uint8)[:, None, None], (items, 4, 6))
        labels = (np.arange(items) % 10).astype(np.uint8)
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            name = f"{prefix}-{kind.replace('-idx', '.idx') if dotted else kind}"
            data = idx_bytes(array)
            (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)


def load_mnist(folder: Path) -> ImageDataset:
    return load_dataset(DataConfig(name="mnist", path=str(folder)))


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as raised:
        load_mnist(folder)
    message = str(raised.value)
    assert message.startswith("expected ")
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


def as_keys(split: Split) -> list[bytes]:
    return [image.tobytes() for image in split.images]


class TestDigits:
    def test_splits_partition_the_1797_images_of_scikit_learn(self, digits: ImageDataset) -> None:
        from sklearn import datasets

        source = datasets.load_digits()
        ours = sorted(
            (key, label)
            for split in (digits.train, digits.validation, digits.test)
            for key, label in zip(as_keys(split), split.labels.tolist(), strict=True)
        )
        theirs = sorted(
            (image.astype(np.uint8).tobytes(), label)
            for image, label in zip(source.images, source.target.tolist(), strict=True)
        )
        assert ours == theirs
        assert [len(split) for split in (digits.train, digits.validation, digits.test)] == [1297, 200, 300]

    def test_held_out_splits_have_equally_many_of_each_class(self, digits: ImageDataset) -> None:
        assert np.bincount(digits.test.labels).tolist() == [30] * 10
        assert np.bincount(digits.validation.labels).tolist() == [20] * 10

    def test_levels_are_integers_that_use_the_whole_alphabet(self, digits: ImageDataset) -> None:
        assert digits.train.images.dtype == np.uint8
        assert digits.train.labels.dtype == np.int64
        assert np.unique(digits.train.images).tolist() == list(range(digits.levels))
        assert digits.shape == (1, 8, 8)
        assert digits.dims == 64

    def test_the_split_never_moves(self, digits: ImageDataset) -> None:
        """Scores of different versions are comparable only if this digest stays as it is."""
        digest = hashlib.sha256(digits.test.images.tobytes() + digits.test.labels.tobytes()).hexdigest()
        assert digest[:16] == "1204d1d1cf1c7ab3"

    def test_a_folder_that_would_not_be_read_is_refused(self) -> None:
        with pytest.raises(UsageError, match=r"built in.*'/some/folder'"):
            load_dataset(DataConfig(name="digits", path="/some/folder"))

    def test_split_by_name(self, digits: ImageDataset) -> None:
        assert digits.split("validation") is digits.validation
        with pytest.raises(UsageError, match="'val'"):
            digits.split("val")


class TestMnist:
    @pytest.mark.parametrize("packed", [False, True])
    @pytest.mark.parametrize("dotted", [False, True])
    def test_reads_every_spelling_and_holds_out_the_last_twelfth(
        self, tmp_path: Path, packed: bool, dotted: bool
    ) -> None:
        write_set(tmp_path, train=30, test=7, packed=packed, dotted=dotted)
        dataset = load_mnist(tmp_path)
        assert dataset.shape == (1, 4, 6)
        assert dataset.levels == 256
        assert dataset.train.images[:, 0, 0, 0].tolist() == list(range(28))
        assert dataset.validation.images[:, 0, 3, 5].tolist() == [28, 29]
        assert dataset.validation.labels.tolist() == [8, 9]
        assert dataset.test.labels.tolist() == list(range(7))

    def test_content_decides_whether_a_file_is_packed(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        plain = tmp_path / "train-labels-idx1-ubyte"
        plain.rename(tmp_path / "train-labels-idx1-ubyte.gz")
        assert len(load_mnist(tmp_path).train) == 28

    def test_rows_and_columns_are_not_exchanged(self, tmp_path: Path) -> None:
        images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
        (tmp_path / "images").write_bytes(idx_bytes(images))
        np.testing.assert_array_equal(read_idx(tmp_path / "images", axes=3), images)

    def test_folder_not_there_or_a_file(self, tmp_path: Path) -> None:
        assert "not there" in refusal(tmp_path / "absent")
        (tmp_path / "file").write_bytes(b"")
        assert "is a file" in refusal(tmp_path / "file")

    def test_all_missing_files_are_named_at_once(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        (tmp_path / "train-labels-idx1-ubyte").unlink()
        (tmp_path / "t10k-images-idx3-ubyte").unlink()
        message = refusal(tmp_path)
        assert "train-labels-idx1-ubyte" in message
        assert "t10k-images-idx3-ubyte" in message
        assert "train-images" not in message

    @pytest.mark.parametrize("packed", [False, True])
    def test_every_truncation_is_refused(self, tmp_path: Path, packed: bool) -> None:
        write_set(tmp_path, train=30, packed=packed)
        path = tmp_path / ("t10k-labels-idx1-ubyte" + (".gz" if packed else ""))
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert path.name in refusal(tmp_path)

    def test_every_flipped_bit_of_a_packed_image_file_is_refused_or_harmless(self, tmp_path: Path) -> None:
        """Gzip's own checksum covers the content; its header (time, name) does not matter."""
        path = tmp_path / "images.gz"
        images = np.random.default_rng(0).integers(0, 256, (2, 3, 4), dtype=np.uint8)
        whole = gzip.compress(idx_bytes(images), mtime=0)
        refused = 0
        for bit in range(8 * len(whole)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                np.testing.assert_array_equal(read_idx(path, axes=3), images)
            except DataError:
                refused += 1
        assert refused >= 8 * (len(whole) - 10)

    def test_surplus_bytes_are_refused(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(path.read_bytes() + b"\0")
        assert "more" in refusal(tmp_path)

    @pytest.mark.parametrize(
        ("start", "came"),
        [(b"\0\0\x0d\x03", "00000d03"), (b"\0\0\x08\x01", "00000801"), (b"\x89PNG", "89504e47"), (b"", "nothing")],
    )
    def test_wrong_magic_is_named(self, tmp_path: Path, start: bytes, came: str) -> None:
        write_set(tmp_path)
        path = tmp_path / "train-images-idx3-ubyte"
        path.write_bytes(start + path.read_bytes()[4:] if start else b"")
        message = refusal(tmp_path)
        assert "00000803" in message
        assert came in message

    def test_a_header_that_promises_too_much_costs_no_memory(self, tmp_path: Path) -> None:
        path = tmp_path / "huge"
        header = bytes((0, 0, 8, 3)) + struct.pack(">3I", 60000, 280, 280)  # 4.7 GB
        for data in (header, gzip.compress(header)):
            path.write_bytes(data)
            with pytest.raises(DataError, match="60000x280x280"):
                read_idx(path, axes=3)

    def test_an_unpacked_size_beyond_the_header_is_not_unpacked(self, tmp_path: Path) -> None:
        """A compression bomb behind an honest header is left after one byte."""
        path = tmp_path / "bomb.gz"
        path.write_bytes(gzip.compress(idx_bytes(np.zeros(5, dtype=np.uint8)) + bytes(1 << 26)))
        with pytest.raises(DataError, match="more"):
            read_idx(path, axes=1)

    def test_fashion_mnist_has_the_same_format_and_other_classes(self, tmp_path: Path) -> None:
        write_set(tmp_path, packed=True)
        fashion = load_dataset(DataConfig(name="fashion-mnist", path=str(tmp_path)))
        mnist = load_mnist(tmp_path)
        assert fashion.name == "fashion-mnist"
        assert len(fashion.classes) == 10
        assert fashion.classes[:2] == ("T-shirt/top", "Trouser")
        np.testing.assert_array_equal(fashion.validation.images, mnist.validation.images)
        assert fashion.sha256 != mnist.sha256

    def test_counts_must_match(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(29, dtype=np.uint8)))
        message = refusal(tmp_path)
        assert "30 images" in message
        assert "29 labels" in message

    def test_labels_out_of_range_are_named_with_their_position(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        labels = np.zeros(7, dtype=np.uint8)
        labels[4] = 10
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
        message = refusal(tmp_path)
        assert "t10k-labels-idx1-ubyte has the label 10 at position 4" in message

    def test_image_sizes_must_agree(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((7, 6, 4), dtype=np.uint8)))
        message = refusal(tmp_path)
        assert "4x6" in message
        assert "6x4" in message

    def test_too_few_and_empty(self, tmp_path: Path) -> None:
        write_set(tmp_path, train=11)
        assert "has 11" in refusal(tmp_path)
        write_set(tmp_path, train=0)
        assert "0x4x6" in refusal(tmp_path)

    def test_the_official_files(self) -> None:
        root = os.environ.get("TWOSTAGE_DATA")
        if not root or not (Path(root) / "mnist").is_dir():
            pytest.skip("TWOSTAGE_DATA names no folder with mnist/")
        dataset = load_mnist(Path(root) / "mnist")
        assert dataset.shape == (1, 28, 28)
        assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [55000, 5000, 10000]
        # The published MD5 sums of the unpacked files, headers included; the training file is put together again.
        rebuilt = {
            "6bbc9ace898e44ae57da46a324031adb": np.concatenate([dataset.train.images, dataset.validation.images])[:, 0],
            "a25bea736e30d166cdddb491f175f624": np.concatenate([dataset.train.labels, dataset.validation.labels]),
            "2646ac647ad5339dbf082846283269ea": dataset.test.images[:, 0],
            "27ae3e4e09519cfbb04c329615203637": dataset.test.labels,
        }
        for published, array in rebuilt.items():
            assert hashlib.md5(idx_bytes(array.astype(np.uint8)), usedforsecurity=False).hexdigest() == published
