"""Where a command reads and writes, settled before it starts: homes written as `~`, run folders, data that were moved.

A run folder may come from anywhere and lie anywhere. What has the name of one of its files or folders must be its own:
a symbolic link would have a training write elsewhere, a pipe has it wait without end, and a file of more bytes than it
can have takes all memory. The run folder itself may be a link. Readers keep to these limits on their own, too; looking
at everything first costs a millisecond and no training fails over it hours later.
"""

import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from twostage.config.load import CONFIG, user_path
from twostage.config.load import LARGEST_BYTES as LARGEST_CONFIG
from twostage.errors import DataError, RunError
from twostage.storage.exported import check_exported
from twostage.training.record import LARGEST_BYTES as LARGEST_RECORD

C = TypeVar("C")

_OWN = re.compile(
    r"config\.toml|models|codes|samples|decoded|converted|report\.html|evaluation(-\w+)?\.json|disentanglement.*"
    r"|comparison\.json|rate-distortion\.png|config\.json|README\.md|onnx",
    re.ASCII,
)
"""Names in a run folder, or in that of a comparison, that commands write to."""
_OWN_IN_TRAINING = re.compile(r"\.lock|metrics\.jsonl|best|step-\d+|pictures|tensorboard", re.ASCII)
_LARGEST = {CONFIG: LARGEST_CONFIG, "metrics.jsonl": LARGEST_RECORD}


def is_path(hint: Any) -> bool:
    """Whether the type of a command's field is a path, or several, or may be one."""
    return hint is Path or any(map(is_path, get_args(hint)))


def with_homes(command: C) -> C:
    """The command with `~` and `~name` expanded in every path: shells leave them alone behind `--out=`."""
    hints = get_type_hints(type(command))
    changed: dict[str, Any] = {}
    for item in fields(command):  # type: ignore[arg-type]
        value = getattr(command, item.name)
        if is_path(hints[item.name]) and value is not None:
            several = isinstance(value, tuple)
            changed[item.name] = tuple(map(_home, value)) if several else _home(value)
    return replace(command, **changed)  # type: ignore[type-var]


def _home(value: object) -> object:
    return user_path(str(value)) if isinstance(value, Path) else value  # what tyro has found missing is none yet


def check_places(verb: str, command: Any) -> None:
    """Whether the run folder of a command holds what it may, and its data are where they were.

    Raises:
        RunError: something in the run folder is no file or folder of its own.
        DataError: the folder of the data is gone.
    """
    run = getattr(command, "run", None)
    if run is not None:
        check_run(run)
    elif verb == "compare":
        check_run(command.folder)
        for found in sorted(command.folder.glob("seed-*")):
            check_run(found)
    place = command.stored.data.path if hasattr(command, "data") else None
    if place is not None and command.data.path is None and not Path(place).exists():
        raise DataError(
            f"{run} was trained on data in {place}, which is not there now: put them back, or, if they were moved, say "
            f"where to: twostage {verb} {shlex.quote(str(run))} --data.path FOLDER"
        )


def check_run(run: Path) -> None:
    """Whether everything in a run folder is its own; that it is there, or a run folder, is for others to say.

    Raises:
        RunError: a link that leads out of it, a pipe or a device, or a file far larger than it can be; or it was
            exported and is not whole.
    """
    root = Path(os.path.realpath(run))
    for place in _places(run):
        real = Path(os.path.realpath(place))
        if not real.is_relative_to(root):
            raise RunError(
                f"{place} is a symbolic link that leads out of the run folder, to {real}, where a run writes nothing: "
                "put what it leads to in its place, or make the whole run folder a link"
            )
        try:
            found = place.stat()
        except OSError:  # a link to nothing, or no permission: whoever needs it says so
            continue
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise RunError(f"{place} is neither a file nor a folder but a pipe or a device: remove it")
        most = _LARGEST.get(place.name)
        if most is not None and stat.S_ISREG(found.st_mode) and found.st_size > most:
            raise RunError(
                f"{place} is {found.st_size} bytes long, but no such file has more than {most}: restore it from a "
                "copy, or remove it"
            )
    check_exported(run)


def _places(run: Path) -> Iterator[Path]:
    """Every path in a run folder whose meaning is the run's, parents first."""
    yield from (place for place in _listed(run) if _OWN.fullmatch(place.name))
    for model in _listed(run / "models"):
        yield model
        for training in _listed(model):
            yield training
            yield from (place for place in _listed(training) if _OWN_IN_TRAINING.fullmatch(place.name))
    for model in _listed(run / "codes"):
        yield model
        yield from _listed(model)


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:  # no permission: whoever needs it says so
        return []
