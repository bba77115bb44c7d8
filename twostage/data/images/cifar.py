"""Reader of CIFAR-10's binary version: no pickle is ever read.

Six files, each 10 000 records of one label byte and 3072 pixel bytes (red, green and blue planes of 32 x 32). They may
lie in a folder, in `cifar-10-batches-bin/` inside it, each plain or gzip-compressed, or still in the `.tar.gz` archive,
whose members are read where they are; nothing is unpacked to disk. `batches.meta.txt` holds the class names, which are
known, and is not read.

Split: the last 5000 of the 50 000 training images are validation.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

from twostage.data.images.dataset import ImageDataset, Split
from twostage.data.images.download import fetch
from twostage.data.packed import BinaryFile, find_files, open_unpacked, read_exactly
from twostage.errors import DataError

LEVELS = 256
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
RECORDS_PER_FILE = 10_000
HELD_OUT_SHARE = 10
_MOST_MEMBERS = 100
_LARGEST_READ = 1 << 21
# What tarfile raises on hostile headers besides its own errors.
_TAR_FAULTS = (tarfile.TarError, ValueError, OverflowError, RecursionError)
ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDER = "cifar-10-batches-bin"
_TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_FILES = (*_TRAIN_FILES, "test_batch.bin")


def load_cifar10(path: str | None) -> ImageDataset:
    """CIFAR-10 as images uint8 [N, 3, 32, 32], levels 0..255, labels 0..9.

    Args:
        path: folder with the files, or the archive; None: downloaded on first use.

    Raises:
        DataError: a file is missing, damaged or of another kind, or the download failed.
    """
    place = fetch("cifar10") / ARCHIVE if path is None else Path(path)
    images_NCHW = np.empty((len(_FILES) * RECORDS_PER_FILE, *SHAPE), dtype=np.uint8)
    labels_N = np.empty(len(images_NCHW), dtype=np.int64)

    def store(file: BinaryFile, name: str, origin: str) -> None:
        start = _FILES.index(name) * RECORDS_PER_FILE
        rows = slice(start, start + RECORDS_PER_FILE)
        images_NCHW[rows], labels_N[rows] = _read_records(file, origin)

    if place.is_file():
        _read_archive(place, store)
    else:
        inner = place / _FOLDER
        folder = inner if inner.is_dir() else place
        for name, file_path in zip(_FILES, find_files(folder, {name: [name] for name in _FILES}), strict=True):
            with open_unpacked(file_path) as (file, _):
                store(file, name, str(file_path))
    test = len(_TRAIN_FILES) * RECORDS_PER_FILE
    validation = test - test // HELD_OUT_SHARE

    def part(rows: slice) -> Split:
        return Split(images=images_NCHW[rows], labels=labels_N[rows])

    return ImageDataset(
        name="cifar10",
        levels=LEVELS,
        classes=CLASSES,
        train=part(slice(validation)),
        validation=part(slice(validation, test)),
        test=part(slice(test, None)),
    )


def _read_records(file: BinaryFile, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 3, 32, 32] and labels uint8 [N] of one whole file."""
    expected = RECORDS_PER_FILE * RECORD_BYTES
    data, more = read_exactly(file, expected)
    if len(data) < expected or more:
        raise DataError(
            f"expected {RECORDS_PER_FILE} records of {RECORD_BYTES} bytes in {origin}, but it holds "
            f"{'more' if more else f'only {len(data)} bytes'}: fetch the binary version of CIFAR-10 again"
        )
    records = data.reshape(RECORDS_PER_FILE, RECORD_BYTES)
    labels_N = records[:, 0]
    if labels_N.max() >= len(CLASSES):
        raise DataError(
            f"expected labels 0 to {len(CLASSES) - 1}, but {origin} has the label {labels_N.max()} at position "
            f"{labels_N.argmax()}: fetch the binary version of CIFAR-10 again"
        )
    return records[:, 1:].reshape(RECORDS_PER_FILE, *SHAPE), labels_N


class _Careful:
    """A file that is not asked for much at once: a header of a hostile archive may state any size, also below zero."""

    def __init__(self, file: BinaryFile) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """As of any file.

        Raises:
            tarfile.ReadError: the size is none that a whole archive leads to.
        """
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members, a bounded number of them: a negative size leads back to its own header, without end."""
    for number, member in enumerate(archive):
        if number == _MOST_MEMBERS:
            raise tarfile.ReadError(f"more than {_MOST_MEMBERS} members")
        yield member


def _read_archive(path: Path, store: Callable[[BinaryFile, str, str], None]) -> None:
    """Hand every one of the six files to `store`; only regular members of exactly these names are looked at."""
    wanted = {f"{folder}{name}": name for folder in ("", f"{_FOLDER}/") for name in _FILES}
    missing = set(_FILES)
    with open_unpacked(path) as (unpacked, _):
        try:
            # The stream is unpacked here and not by tarfile, which would not read it to the checksum at its end.
            with tarfile.open(fileobj=cast(IO[bytes], _Careful(unpacked)), mode="r:") as archive:
                for member in _members(archive):
                    name = wanted.get(member.name.removeprefix("./"))
                    file = archive.extractfile(member) if name is not None and member.isreg() else None
                    if name is not None and file is not None:
                        store(file, name, f"{member.name} in {path}")
                        missing.discard(name)
        except _TAR_FAULTS as error:
            raise DataError(
                f"expected a folder with the files of CIFAR-10's binary version or its archive {ARCHIVE}, but {path} "
                f"is no whole archive ({error}): fetch it again or correct data.path"
            ) from error
        while unpacked.read(1 << 20):
            pass
    if missing:
        raise DataError(
            f"expected {', '.join(sorted(missing))} in {path}, but {'they are' if len(missing) > 1 else 'it is'} not "
            f"there: fetch the binary version of CIFAR-10 ({ARCHIVE}) again"
        )
