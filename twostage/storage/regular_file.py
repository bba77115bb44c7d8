"""Opening a file that may turn out to be anything: only regular files are opened, and read no further than they can be.

A pipe under the name of a checkpoint, an image or a recipe would be waited for without end, a device such as /dev/zero
read without end, and a sparse file takes no room on the disk but all of the memory. Checked on the open descriptor, so
that nothing can be exchanged between the look and the reading.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# Without a meaning on Windows, where there are no such flags: opening waits for nothing there.
_NONBLOCK, _CLOEXEC, _NOFOLLOW = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW"))
_BINARY = getattr(os, "O_BINARY", 0)


def open_regular(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """The regular file `path`, open for reading.

    Raises:
        OSError: as of `open`; with the reason as its `strerror` also for folders, pipes, sockets and devices, and for
            symbolic links unless they are followed.
    """
    # O_NONBLOCK: opening a pipe must not wait for a writer; on regular files it does nothing.
    flags = os.O_RDONLY | _NONBLOCK | _CLOEXEC | _BINARY | (0 if follow_links else _NOFOLLOW)
    return _checked(path, os.open(path, flags), "rb")


def open_own(path: Path) -> BinaryIO:
    """A regular file that is written in place and grows, open for appending, made if it is not there.

    Raises:
        OSError: as of `open_regular`; symbolic links are never followed, so that nothing elsewhere is written to.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NONBLOCK | _CLOEXEC | _BINARY | _NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, which may lead out of the run", str(path)) from None
        raise
    return _checked(path, descriptor, "ab")


def read_regular(path: Path, *, most: int) -> bytes:
    """The content of the regular file `path`.

    Args:
        path: the file.
        most: bytes that it can have at most; a longer one is not read.

    Raises:
        OSError: as of `open_regular`, and for longer files.
    """
    with open_regular(path) as file:
        return file.read(check_size(file, path, most=most))


def regular_lines(path: Path, *, most: int, longest: int) -> Iterator[bytes]:
    """The lines of the regular file `path`, one after another; of a line longer than `longest` bytes pieces.

    Raises:
        OSError: as of `read_regular`, before the first line.
    """
    with open_regular(path) as file:
        check_size(file, path, most=most)
        while line := file.readline(longest):
            yield line


def check_size(file: BinaryIO, path: Path, *, most: int) -> int:
    """Bytes of the open file `path`, known before one is read.

    Raises:
        OSError: there are more than `most`.
    """
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"it is {size} bytes long, and at most {most} are read of such a file", str(path))
    return size


def _checked(path: Path, descriptor: int, mode: str) -> BinaryIO:
    """The open descriptor as a file, where it is one of a regular file."""
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(descriptor, mode)  # type: ignore[return-value]
    except BaseException:
        os.close(descriptor)
        raise
