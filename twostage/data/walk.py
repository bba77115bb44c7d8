"""What lies below a folder, one entry after the other: images and recordings are found by the same rules.

Files are found by suffix, in either case, at any depth; names that begin with a dot are passed over, as by a shell, and
so are those that match one of the shell patterns of `ignore`. Symbolic links are not followed but reported: they may
lead out of the folder, in circles, or show one file to both training and test.

Entries come as the system lists them and none is kept, so a folder of a million files takes no more memory than one of
ten; only the names of sub-folders that are still to be read wait in a list.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from twostage.class_names import composed
from twostage.errors import DataError

LINK = "is a symbolic link"
NO_FILE = "is no regular file"


@dataclass(frozen=True, slots=True)
class Found:
    """One entry."""

    name: str
    """Relative to the folder, with forward slashes."""
    kind: Literal["file", "other", "ignored", "unusable", "unlisted"]
    """A wanted file; one of another suffix; a wanted one that `ignore` passes over; what has the name of a wanted file
    or folder but is none; a folder that could not be listed."""
    fault: str = ""
    """Of the last two: a clause such as `is a symbolic link`."""


def walk(root: Path, suffixes: tuple[str, ...], ignore: tuple[str, ...] = ()) -> Iterator[Found]:
    """Everything below `root` but names that begin with a dot; an unreadable folder is an entry, not an error."""
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(root / inside) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = inside + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{name}/")
                    else:
                        yield _judge(entry, name, suffixes, ignore)
        except OSError as error:
            yield Found(inside.rstrip("/"), "unlisted", f"could not be listed ({error.strerror})")


def _judge(entry: os.DirEntry[str], name: str, suffixes: tuple[str, ...], ignore: tuple[str, ...]) -> Found:
    wanted = entry.name.lower().endswith(suffixes)
    if any(fnmatchcase(composed(name), composed(shell)) for shell in ignore):
        return Found(name, "ignored" if wanted else "other")
    if entry.is_symlink():
        # os.path.isdir and not the entry's own, which raises an error on a link to itself.
        folder = os.path.isdir(entry.path)  # noqa: PTH112
        return Found(name, "unusable", LINK) if wanted or folder else Found(name, "other")
    if not wanted:
        return Found(name, "other")
    return Found(name, "file") if entry.is_file(follow_symlinks=False) else Found(name, "unusable", NO_FILE)


SPLITS = ("train", "validation", "test")


HELD_OUT_SHARE = 10


def unlisted(root: Path, found: Found) -> DataError:
    """The error for a folder below `root` that could not be listed."""
    return DataError(
        f"expected to read {root / found.name}, but it {found.fault}: change its permissions or move it away"
    )
