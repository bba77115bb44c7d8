"""Files that may be gzip-compressed, read as what they hold.

The content decides, not the name, because browsers unpack `.gz` files and keep the name.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from twostage.errors import DataError
from twostage.storage.regular_file import open_regular

_GZIP_MAGIC = b"\x1f\x8b"
# Deflate cannot shrink by more than 1032:1, so a header that promises more is false and nothing is allocated for it.
LARGEST_RATIO = 1040
_CHUNK_BYTES = 1 << 20

BinaryFile = IO[bytes] | gzip.GzipFile


@contextmanager
def open_unpacked(path: Path) -> Iterator[tuple[BinaryFile, int]]:
    """The file, unpacked on reading, and an upper limit of the bytes it can hold.

    Raises:
        DataError: it cannot be read or, also while it is read, turns out to be a damaged gzip file.
    """
    try:
        with open_regular(path) as raw:
            stored_bytes = os.fstat(raw.fileno()).st_size
            packed = raw.read(2) == _GZIP_MAGIC
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked, stored_bytes * LARGEST_RATIO
            else:
                yield raw, stored_bytes
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"expected a whole gzip file, but {path} is damaged ({error}): fetch it again") from error
    except OSError as error:
        raise DataError(f"expected a readable file, but {path} could not be read ({error.strerror})") from error


def read_exactly(file: BinaryFile, count: int) -> tuple[np.ndarray, bool]:
    """The next `count` bytes, or as many as there are, as uint8, and whether more follow.

    Looking for more reads a gzip file to its end, which compares its checksum, too.
    """
    array = np.empty(count, dtype=np.uint8)
    filled = 0
    while filled < count and (chunk := file.read(min(_CHUNK_BYTES, count - filled))):
        array[filled : filled + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
        filled += len(chunk)
    return array[:filled], bool(file.read(1))


def find_files(folder: Path, spellings: dict[str, list[str]]) -> list[Path]:
    """The first spelling of every file that is there, plain before `.gz`, in the order of `spellings`.

    Raises:
        DataError: the folder, or any file, is not there; all that are missing are named at once.
    """
    if not folder.is_dir():
        raise DataError(
            f"expected a folder with {', '.join(spellings)}, but {folder} is "
            f"{'a file' if folder.exists() else 'not there'}: correct data.path"
        )
    found: dict[str, Path] = {}
    for name, spelled in spellings.items():
        paths = [folder / f"{spelling}{suffix}" for suffix in ("", ".gz") for spelling in spelled]
        present = next((path for path in paths if path.is_file()), None)
        if present is not None:
            found[name] = present
    missing = [name for name in spellings if name not in found]
    if missing:
        raise DataError(
            f"expected {', '.join(missing)} (plain or .gz) in {folder}, but "
            f"{'they are' if len(missing) > 1 else 'it is'} not there: fetch what is missing or correct data.path"
        )
    return [found[name] for name in spellings]
