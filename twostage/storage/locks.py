"""Locks on open files, which go with the process, however it ends: `flock`, where system and file system have it.

Windows has none, and of file systems some network ones and those in user space refuse it. What a lock protects must
then do without: two trainings in one folder are not held apart, and what a killed command left is not removed.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

from twostage.errors import RunError
from twostage.progress import say
from twostage.storage.regular_file import open_own

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_WITHOUT = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What a file system without locks answers."""


def lock(file: BinaryIO | int, *, wait: bool) -> Literal["held", "taken", "none"]:
    """Lock an open file against other processes.

    Args:
        file: the open file.
        wait: for another process that holds it, instead of `taken`.

    Returns:
        `held` by this process now, `taken` by another one, or `none`: there are no locks here.

    Raises:
        OSError: of another kind, such as EIO.
    """
    if fcntl is None:
        return "none"
    flock: Any = fcntl.flock
    try:
        flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return "taken"
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise
        return "none"
    return "held"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a training folder against other processes; the lock goes with the process, however it ends.

    Where there are no locks (`twostage.storage.locks`), that is said and the training goes on.

    Raises:
        RunError: another process is training there, or what has the name of the lock is no file of its own.
    """
    place = folder / ".lock"
    try:
        with open_own(place) as file:
            answer = lock(file, wait=False)
            if answer == "taken":
                raise RunError(f"another process is training in {folder}; wait for it or stop it")
            if answer == "none":
                _say_not_held()
            yield
    except OSError as error:
        if error.filename != str(place):  # of what was done under the lock
            raise
        raise RunError(f"{place} cannot be used as a lock ({error.strerror}): remove it or free the folder") from error


@cache  # once for all trainings of a command
def _say_not_held() -> None:
    say(
        "warning: the file system of the run has no locks, so nothing holds two trainings in one folder apart: start "
        "no second one there while this one lasts"
    )
