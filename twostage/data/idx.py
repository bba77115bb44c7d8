"""Reader of IDX files, the format of MNIST (and of Fashion-MNIST, KMNIST and own sets in the same shape).

An IDX file is four bytes (0, 0, element type, number of axes), one big-endian 32-bit length per axis and the elements.
Only unsigned bytes are read. Files may be gzip-compressed; the content decides, not the name, because browsers unpack
`.gz` files and keep the name. Everything is checked: magic, axes, exact length and, for gzip, the checksum at the end.

Split: the last twelfth of the training file is validation, which for MNIST's 60 000 are the usual last 5000.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits".
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from twostage.data.dataset import ImageDataset, Split
from twostage.errors import DataError, UsageError

LEVELS = 256
CLASSES = tuple("0123456789")
HELD_OUT_SHARE = 12
LARGEST_BYTES = 1 << 32
_UNSIGNED_BYTE = 0x08
_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot shrink by more than 1032:1, so a header that promises more is false and nothing is allocated for it.
_LARGEST_RATIO = 1040
_CHUNK_BYTES = 1 << 20
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_mnist(path: str | None) -> ImageDataset:
    """The four IDX files in the folder `path` as images uint8 [N, 1, H, W], levels 0..255, labels 0..9.

    Raises:
        UsageError: no folder was named.
        DataError: the folder or a file in it is missing, damaged or does not fit the others.
    """
    if path is None:
        raise UsageError(
            f"the data set mnist needs a folder with the files {', '.join(_FILES)} (each plain or .gz): "
            "name it with --data.path FOLDER, or as path under [data] in the recipe"
        )
    train_images, train_labels, test_images, test_labels = _find(Path(path))
    train = _read_split(train_images, train_labels)
    test = _read_split(test_images, test_labels)
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
        name="mnist",
        levels=LEVELS,
        classes=CLASSES,
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
    try:
        stored_bytes = path.stat().st_size
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    return _read_array(unpacked, path, axes, stored_bytes * _LARGEST_RATIO)
            return _read_array(raw, path, axes, stored_bytes)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"expected a whole gzip file, but {path} is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise DataError(f"expected a readable file, but {path} could not be read ({error.strerror})") from error


def _read_array(file: IO[bytes] | gzip.GzipFile, path: Path, axes: int, largest_bytes: int) -> np.ndarray:
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
    array = np.empty(expected_bytes, dtype=np.uint8)
    filled = 0
    while filled < expected_bytes and (chunk := file.read(min(_CHUNK_BYTES, expected_bytes - filled))):
        array[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    # Reading on to the end makes gzip compare its checksum, too.
    if filled < expected_bytes or file.read(1):
        came = f"only {filled}" if filled < expected_bytes else "more"
        raise DataError(f"expected {expected_bytes} elements ({stated}), but {path} holds {came}: fetch it again")
    return array.reshape(shape)


def _read_split(images_path: Path, labels_path: Path) -> Split:
    images_NHW = read_idx(images_path, axes=3)
    labels_N = read_idx(labels_path, axes=1)
    if len(images_NHW) != len(labels_N):
        raise DataError(
            f"expected one label per image, but {images_path} has {len(images_NHW)} images "
            f"and {labels_path} has {len(labels_N)} labels: put files of one data set into the folder"
        )
    if labels_N.max() >= len(CLASSES):
        raise DataError(
            f"expected labels 0 to {len(CLASSES) - 1}, but {labels_path} has the label {labels_N.max()} "
            f"at position {labels_N.argmax()}: use a set with {len(CLASSES)} classes"
        )
    return Split(images=images_NHW[:, None], labels=labels_N.astype(np.int64))


def _find(folder: Path) -> list[Path]:
    """The four files in the order of `_FILES`; all that are missing are named at once."""
    if not folder.is_dir():
        raise DataError(
            f"expected a folder with the four IDX files, but {folder} is "
            f"{'a file' if folder.exists() else 'not there'}: correct data.path"
        )
    found = {name: next((path for path in _spellings(folder, name) if path.is_file()), None) for name in _FILES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DataError(
            f"expected {', '.join(missing)} (plain or .gz) in {folder}, but "
            f"{'they are' if len(missing) > 1 else 'it is'} not there: fetch what is missing or correct data.path"
        )
    return [path for path in found.values() if path is not None]


def _spellings(folder: Path, name: str) -> list[Path]:
    names = (name, name.replace("-idx", ".idx"))
    return [folder / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in names]


def _size(split: Split) -> str:
    return "x".join(map(str, split.images.shape[2:]))
