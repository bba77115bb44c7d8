"""Reader of IDX files, the format of MNIST, of Fashion-MNIST and of own sets in the same shape.

An IDX file is four bytes (0, 0, element type, number of axes), one big-endian 32-bit length per axis and the elements.
Only unsigned bytes are read. Files may be gzip-compressed. Everything is checked: magic, axes, exact length and, for
gzip, the checksum at the end.

Split: the last twelfth of the training file is validation, which for 60 000 images are the usual last 5000.

Sources: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; H. Xiao, K. Rasul, R. Vollgraf,
"Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms", arXiv 1708.07747.
"""

import math
import struct
from pathlib import Path

import numpy as np

from twostage.data.images.dataset import ImageDataset, Split
from twostage.data.images.download import fetch
from twostage.data.packed import BinaryFile, find_files, open_unpacked, read_exactly
from twostage.errors import DataError

LEVELS = 256
MNIST_CLASSES = tuple("0123456789")
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
HELD_OUT_SHARE = 12
LARGEST_BYTES = 1 << 32
_UNSIGNED_BYTE = 0x08
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist(path: str | None) -> ImageDataset:
    """MNIST: four IDX files as images uint8 [N, 1, H, W], levels 0..255, labels 0..9.

    Args:
        path: the folder that holds them; None: downloaded on first use.

    Raises:
        DataError: the folder or a file in it is missing, damaged or does not fit the others, or a download failed.
    """
    return _load("mnist", path, MNIST_CLASSES)


def load_fashion_mnist(path: str | None) -> ImageDataset:
    """Fashion-MNIST: ten kinds of clothing in MNIST's format; arguments and errors as for `load_mnist`."""
    return _load("fashion-mnist", path, FASHION_CLASSES)


def _load(name: str, path: str | None, classes: tuple[str, ...]) -> ImageDataset:
    folder = fetch(name) if path is None else Path(path)
    # Some unpackers write the dash as a dot.
    spellings = {file: [file, file.replace("-idx", ".idx")] for file in _FILES}
    train_images, train_labels, test_images, test_labels = find_files(folder, spellings)
    train = _read_split(train_images, train_labels, len(classes))
    test = _read_split(test_images, test_labels, len(classes))
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"expected training and test images of one size, but {train_images} has {_size(train)} "
            f"and {test_images} has {_size(test)}: put files of one data set into the folder"
        )
    held_out = len(train) // HELD_OUT_SHARE
    if held_out == 0:
        raise DataError(
            f"expected at least {HELD_OUT_SHARE} training images (a twelfth is held out for validation), "
            f"but {train_images} has {len(train)}: use a larger set"
        )
    # The arrays are slices of one block: nothing is copied.
    return ImageDataset(
        name=name,
        levels=LEVELS,
        classes=classes,
        train=Split(images=train.images[:-held_out], labels=train.labels[:-held_out]),
        validation=Split(images=train.images[-held_out:], labels=train.labels[-held_out:]),
        test=test,
    )


def read_idx(path: Path, *, axes: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzip.

    Args:
        path: the file.
        axes: number of axes it must have (1 for labels, 3 for images).

    Returns:
        uint8 array with `axes` axes, none of length zero.

    Raises:
        DataError: anything but a whole IDX file of that kind.
    """
    with open_unpacked(path) as (file, largest_bytes):
        return _read_array(file, path, axes, largest_bytes)


def _read_array(file: BinaryFile, path: Path, axes: int, largest_bytes: int) -> np.ndarray:
    header_bytes = 4 + 4 * axes
    header = file.read(header_bytes)
    magic = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if header[:4] != magic:
        raise DataError(
            f"expected an IDX file with the magic number {magic.hex()}, but {path} begins with "
            f"{header[:4].hex() or 'nothing'}: check that this is the right file"
        )
    if len(header) < header_bytes:
        raise DataError(f"expected an IDX header of {header_bytes} bytes, but {path} ends within it: fetch it again")
    shape = struct.unpack(f">{axes}I", header[4:])
    expected_bytes = math.prod(shape)
    stated = "x".join(map(str, shape))
    if expected_bytes == 0 or expected_bytes > min(largest_bytes, LARGEST_BYTES):
        raise DataError(
            f"expected as many elements as the header of {path} states ({stated}), but the file cannot hold them "
            "or holds none: fetch it again"
        )
    array, more = read_exactly(file, expected_bytes)
    if len(array) < expected_bytes or more:
        came = "more" if more else f"only {len(array)}"
        raise DataError(f"expected {expected_bytes} elements ({stated}), but {path} holds {came}: fetch it again")
    return array.reshape(shape)


def _read_split(images_path: Path, labels_path: Path, classes: int) -> Split:
    images_NHW = read_idx(images_path, axes=3)
    labels_N = read_idx(labels_path, axes=1)
    if len(images_NHW) != len(labels_N):
        raise DataError(
            f"expected one label per image, but {images_path} has {len(images_NHW)} images "
            f"and {labels_path} has {len(labels_N)} labels: put files of one data set into the folder"
        )
    if labels_N.max() >= classes:
        raise DataError(
            f"expected labels 0 to {classes - 1}, but {labels_path} has the label {labels_N.max()} "
            f"at position {labels_N.argmax()}: use a set with {classes} classes"
        )
    return Split(images=images_NHW[:, None], labels=labels_N.astype(np.int64))


def _size(split: Split) -> str:
    return "x".join(map(str, split.images.shape[2:]))
