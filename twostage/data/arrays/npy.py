"""One array out of a file of numpy's formats, .npy or a member of .npz, which may come from anywhere.

Nothing is unpickled: an array of Python objects is refused by its header. A header is read within a limit of bytes,
and what it says is compared with the bytes that are there (in an archive: that are said to be there, and no more of
them than deflate can have packed) before memory is taken for it. An array is read whole and once, so that a file that
is changed later changes nothing.
"""

import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np

from twostage.data.packed import LARGEST_RATIO, read_exactly
from twostage.printable import printable
from twostage.storage.regular_file import open_regular

_MAGIC, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_LONGEST_HEADER = 10_000  # numpy's own limit
_LENGTHS = {1: "<H", 2: "<I"}  # of the length of the header, by the version of the format
_MOST_MEMBERS = 1000
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy packs arrays by."""


class Unreadable(Exception):
    """There is no array to be read; the message is a clause on the file, such as `is empty`."""


@dataclass(frozen=True)
class Header:
    """What the beginning of an array says."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    """Whether the first axis runs fastest."""

    @property
    def size(self) -> int:
        """Bytes of the numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


Check = Callable[[Header], None]
"""Raises `Unreadable` for what is not wanted, before memory is taken for it."""


def read_file(path: Path, checks: dict[str, Check]) -> dict[str, np.ndarray]:
    """The arrays in a file that have a check, in C order: those of an .npz by name, the one of an .npy under "".

    The content decides, not the name. Arrays of an archive without a check are not looked at; those with one that are
    not there are left out.

    Raises:
        Unreadable: the file, or an array, cannot be read or is refused by its check.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(len(_MAGIC))
            file.seek(0)
            if not start:
                raise Unreadable("is empty")
            if not start.startswith(_ZIP):
                return {"": _read(file, size, checks[""])}
            with zipfile.ZipFile(file) as archive:
                return dict(_members(archive, checks))
    except OSError as error:
        raise Unreadable(f"could not be read ({error.strerror or printable(str(error))})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:  # a ValueError of damaged names and offsets
        raise Unreadable(f"is damaged ({printable(str(error))})") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, a compression that there is not
        raise Unreadable(f"is an archive that cannot be read ({printable(str(error))})") from error


def read_array(path: Path, check: Check) -> np.ndarray:
    """The array of an .npy file.

    Raises:
        Unreadable: there is none to be read, or its check refuses it.
    """
    arrays = read_file(path, {"": check})
    if not arrays:
        raise Unreadable("is an archive and no single array")
    return arrays[""]


def _members(archive: zipfile.ZipFile, checks: dict[str, Check]) -> Iterator[tuple[str, np.ndarray]]:
    found = archive.infolist()
    if len(found) > _MOST_MEMBERS:
        raise Unreadable(f"is an archive of {len(found):,} members, and at most {_MOST_MEMBERS} are looked at")
    for info in found:
        name = info.filename.removesuffix(".npy")
        if not name or name not in checks:
            continue
        if info.compress_type not in _PACKINGS:
            raise Unreadable(
                f"has an array {name!r} that is packed neither as np.savez nor as np.savez_compressed does"
            )
        if info.file_size > LARGEST_RATIO * info.compress_size:
            raise Unreadable(f"is damaged ({name!r} cannot unpack to the {info.file_size:,} bytes that it states)")
        with archive.open(info) as member, _named(name):
            yield name, _read(member, info.file_size, checks[name])


@contextmanager
def _named(name: str) -> Iterator[None]:
    """What is wrong inside, with the name of the member."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(f"has an array {name!r} that {error}") from error


def _read(file: IO[bytes], size: int, check: Check) -> np.ndarray:
    """The array in an open file of so many bytes."""
    header = _header(file)
    check(header)
    shape, there = "x".join(map(str, header.shape)), size - file.tell()
    if header.size != there:
        raise Unreadable(f"states {shape} of {header.dtype}, {header.size:,} bytes, but holds {there:,}")
    if header.size > _memory():
        raise Unreadable(f"takes {header.size / 2**30:.1f} GiB, more than the memory of this machine")
    try:
        data, more = read_exactly(file, header.size)
    except MemoryError as error:
        raise Unreadable(f"takes {header.size / 2**30:.1f} GiB, more memory than there is") from error
    if len(data) < header.size or more:
        raise Unreadable(f"states {header.size:,} bytes, but holds {'more' if more else f'{len(data):,}'}")
    numbers = data.view(header.dtype)
    if header.fortran:
        return np.ascontiguousarray(numbers.reshape(header.shape[::-1]).T)
    return numbers.reshape(header.shape)


def _header(file: IO[bytes]) -> Header:
    """What stands in front of the numbers; the file is left where they begin."""
    start = file.read(len(_MAGIC) + 2)
    if not start.startswith(_MAGIC):
        raise Unreadable("is no array of numpy, or its beginning is damaged")
    if len(start) < len(_MAGIC) + 2 or start[len(_MAGIC)] not in _LENGTHS:
        raise Unreadable("is of a version of numpy's format that has no whole numbers")
    form = _LENGTHS[start[len(_MAGIC)]]
    stated = file.read(struct.calcsize(form))
    length = struct.unpack(form, stated)[0] if len(stated) == struct.calcsize(form) else _LONGEST_HEADER + 1
    if length > _LONGEST_HEADER:
        raise Unreadable("has a damaged header")
    text = BytesIO(stated + file.read(length))
    parse = np.lib.format.read_array_header_1_0 if form == "<H" else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers that Python 2 wrote
            shape, fortran, dtype = parse(text, max_header_size=_LONGEST_HEADER)
    except (MemoryError, RecursionError):
        raise Unreadable("has a damaged header") from None
    except Exception as error:  # on damaged text numpy raises half a dozen types
        raise Unreadable("has a damaged header") from error
    if any(isinstance(axis, bool) or axis < 0 for axis in shape):
        raise Unreadable("has a damaged header")
    return Header(tuple(map(int, shape)), dtype, fortran)


def _memory() -> float:
    """Bytes of this machine; where it does not say, no limit."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
