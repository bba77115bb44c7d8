"""Unreadable files of a folder: refused by name, or left out by name where so many are admitted."""

from collections.abc import Mapping

from twostage.errors import DataError
from twostage.printable import show
from twostage.progress import say


def left_out(kind: str, path: str, faults: Mapping[str, str], *, total: int, most: int) -> tuple[str, ...]:
    """Names of the unreadable files, in order; a line names them with their faults.

    Args:
        kind: what the files should be: `images`.
        path: of their folder.
        faults: what is wrong with each, by name.
        total: files in all.
        most: of them that may be unreadable.

    Raises:
        DataError: more are.
    """
    if not faults:
        return ()
    named = show([f"{name!r} {faults[name]}" for name in sorted(faults)])
    if len(faults) > most:
        admitted = f", and data.skip_unreadable admits {most}" if most else ""
        are, them = ("is", "it") if len(faults) == 1 else ("are", "them")
        raise DataError(
            f"expected readable {kind} in {path}, but {len(faults)} of {total} files {are} not{admitted}: {named}; "
            f"repair or remove {them}, or leave {them} out with data.skip_unreadable {len(faults)}"
        )
    say(f"left out {len(faults)} of {total} files in {path}: {named}")
    return tuple(sorted(faults))
