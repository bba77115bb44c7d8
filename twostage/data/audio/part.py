"""A part of a file as a file of its own, and the error of a file that gives no recording."""

import io
from dataclasses import dataclass
from typing import BinaryIO


class Unreadable(Exception):
    """The file gives no recording; the message is a clause on the file, such as `is empty`."""


@dataclass(frozen=True)
class Part:
    """Bytes `start` to `end` (without it) of a file."""

    start: int
    end: int


class PartOfFile(io.RawIOBase):
    """A part of a file that is open for reading, as a file of its own; closing it leaves the file open.

    Nothing is copied: a part may be as large as the file.
    """

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._part, self._position = file, part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._part.end - self._part.start}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        there = self._part.end - self._part.start - self._position
        if there <= 0:
            return 0
        self._file.seek(self._part.start + self._position)
        data = self._file.read(min(len(buffer), there))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
