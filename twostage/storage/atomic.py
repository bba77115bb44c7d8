"""Files and directories that appear whole or not at all.

Everything is written under a temporary sibling name (`.tmp-NAME-xxxxxxxx`), flushed to the disk with fsync, renamed to
its final name, and the parent directory is flushed too, so that neither a crash nor a full disk leaves something
half-written that looks whole. POSIX cannot exchange a non-empty directory for another in one step; `publish_directory`
therefore moves the old one aside (`.old-NAME-xxxxxxxx`) first, and `present_directory` finds it there if a crash came
between the two renames: at every moment one of the two is found.

A process that is killed leaves its temporary behind. Directories have one writer, which removes it (`remove_stale`). A
file may have several (two commands that write pictures into one folder), so each holds a lock on its temporary, which
the system releases however it ends: `write_atomic` removes those of the same suffix that nobody holds.

The standard library's `tempfile` and safetensors' `save_file` create files with mode 0600; these functions follow the
umask, because a model that a colleague cannot read is a surprise.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twostage.errors import RunError
from twostage.storage.locks import lock

TEMPORARY_PREFIX = ".tmp-"
ASIDE_PREFIX = ".old-"
_TOKEN_BYTES = 4
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write_atomic(path: Path, data: bytes) -> None:
    """Create or replace the file `path` with `data`; missing parent folders are created.

    Raises:
        RunError: the disk refused (full, read-only, no permission); the previous file is untouched.
    """
    temporary = temporary_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, path.suffix)
        try:
            with _held(temporary) as descriptor:
                _write_synced(descriptor, data)
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise disk_refusal(path, error) from error


def write_synced(path: Path, data: bytes) -> None:
    """Create the new file `path` (mode 0666 less the umask), write `data` and flush it to the disk."""
    descriptor = os.open(path, _NEW, 0o666)
    try:
        _write_synced(descriptor, data)
    finally:
        os.close(descriptor)


def _write_synced(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


@contextlib.contextmanager
def _held(path: Path) -> Iterator[int]:
    """The new file `path`, locked within the block."""
    while True:
        descriptor = os.open(path, _NEW, 0o666)
        try:
            with contextlib.suppress(OSError):  # without a lock nobody gets one in `_remove_unless_held`, either
                lock(descriptor, wait=True)
            if os.fstat(descriptor).st_nlink:  # none: another process took it for abandoned before it was locked
                yield descriptor
                return
        finally:
            os.close(descriptor)


@cache  # the first write of a process into a folder looks; a thousand pictures need not
def _remove_abandoned(folder: Path, suffix: str) -> None:
    """Remove the temporaries of files `*suffix` in `folder` whose processes are gone."""
    token = f"-[0-9a-f]{{{2 * _TOKEN_BYTES}}}"
    name = re.compile(f"{re.escape(TEMPORARY_PREFIX)}.+{re.escape(suffix)}{token}", re.DOTALL)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):  # held, gone by now, or another user's
                    _remove_unless_held(Path(entry.path))


def _remove_unless_held(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if lock(descriptor, wait=False) == "held":
            path.unlink()
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Flush the names inside a directory: without it a rename may be lost in a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a directory and say EINVAL; there is nothing better to do on them.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def publish_directory(temporary: Path, path: Path) -> None:
    """Rename the finished, flushed directory `temporary` to `path`, replacing an existing directory.

    If the second rename fails, the old directory is put back. OSError is left to the caller.
    """
    aside = None
    if path.is_dir():
        aside = path.parent / f"{ASIDE_PREFIX}{path.name}-{secrets.token_hex(_TOKEN_BYTES)}"
        path.rename(aside)
    try:
        temporary.rename(path)
    except BaseException:
        if aside is not None:
            aside.rename(path)
        raise
    sync_directory(path.parent)
    # The new directory is in place and safe: what cannot be removed now is removed by the next call or remove_stale.
    with contextlib.suppress(OSError):
        for stale in asides(path):
            remove_directory(stale)


def present_directory(path: Path) -> Path | None:
    """Where the directory published as `path` is now: there, aside after a crash in mid-replacement, or None."""
    if path.is_dir():
        return path
    found = asides(path)
    if found:
        # More than one exists only if an earlier one could not be removed; all are whole, and the youngest is meant.
        return max(found, key=lambda aside: aside.stat().st_mtime_ns)
    # Another process may have finished its replacement since the first look.
    return path if path.is_dir() else None


def asides(path: Path) -> list[Path]:
    """The directories that were moved aside while `path` was being replaced."""
    prefix = f"{ASIDE_PREFIX}{path.name}-"
    length = len(prefix) + 2 * _TOKEN_BYTES
    if not path.parent.is_dir():
        return []
    return [entry for entry in path.parent.iterdir() if entry.name.startswith(prefix) and len(entry.name) == length]


def remove_directory(path: Path) -> None:
    """Remove a directory so that its name disappears first: an interrupted removal leaves no damaged one behind."""
    doomed = temporary_sibling(path)
    path.rename(doomed)
    remove_entry(doomed)


def remove_stale(folder: Path) -> None:
    """Remove what interrupted writes left in `folder`; a directory moved aside stays while its replacement is missing.

    Only for a folder in which no other process is writing: its unfinished files look the same.
    """
    for entry in folder.iterdir():
        replaced = bool(aside_name(entry)) and (folder / aside_name(entry)).is_dir()
        if replaced or entry.name.startswith(TEMPORARY_PREFIX):
            remove_entry(entry)


def aside_name(entry: Path) -> str:
    """The published name of a directory that was moved aside (empty if `entry` has no such name)."""
    return entry.name[len(ASIDE_PREFIX) :].rpartition("-")[0] if entry.name.startswith(ASIDE_PREFIX) else ""


def temporary_sibling(path: Path) -> Path:
    """A new temporary name beside `path`, hence on the same file system."""
    return path.parent / f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(_TOKEN_BYTES)}"


def disk_refusal(path: Path, error: OSError) -> RunError:
    """One sentence for a write that the operating system refused."""
    reason = error.strerror or str(error)
    return RunError(
        f"could not write {path}: {reason[:1].lower()}{reason[1:]}; what was there before is untouched, "
        "so make room or choose a writable folder and give the same command again"
    )


def remove_entry(entry: Path) -> None:
    """Remove a directory tree, or a file or symbolic link (never what the link points to)."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
