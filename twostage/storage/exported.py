"""Run folders that are finished for good: what `twostage export` leaves of a run, to be read wherever it is copied to.

    FOLDER/config.json                        what it is, and the digests of the files that must not change
    FOLDER/config.toml                        the recipe, without the place of its data
    FOLDER/models/NAME/STAGE/best/            the weights; their `state.json` says "exported"
    FOLDER/README.md, evaluation.json, ...    for people

It is read as any run folder is. What it lacks are the states that a training would go on from (`step-XXXXXXXX/`), so
that the state of `best/` says in their place how long the training was. The digests of `config.json` are those of the
manifests and the recipe; a manifest vouches for the weights beside it (`twostage.storage.manifest`).
"""

import errno
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twostage.errors import RunError
from twostage.storage.manifest import Damaged, parse_json
from twostage.storage.regular_file import read_regular

INDEX = "config.json"
FORMAT = "twostage-export"
VERSION = 1
MARK = "exported"
"""Entry of the state of exported weights."""
LARGEST_BYTES = 1 << 21
"""Of `config.json`, and of a file that it lists."""
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def is_exported(folder: Path) -> bool:
    """Whether a folder says that it was exported; of no other program's `config.json`, and of none that is damaged."""
    try:
        return _read(folder).get("format") == FORMAT
    except (OSError, Damaged):
        return False


def file_digests(folder: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of files below `folder` by their paths, as `config.json` keeps them."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(names)}


def check_exported(folder: Path) -> None:
    """Whether an exported folder is whole; any other folder passes.

    Raises:
        RunError: `config.json` is damaged or of another program or version, or a file that it lists is missing or not
            what it was.
    """
    try:
        index = _read(folder)
        _check_index(index)
        for name, digest in index["files"].items():
            _check_file(folder, name, digest)
    except FileNotFoundError:
        return
    except NotADirectoryError:  # whoever opens the folder says what it is
        return
    except Damaged as damage:
        raise RunError(
            f"expected an exported model in {folder}, but {damage}: copy or download the whole folder anew, with real "
            "files in the place of links"
        ) from damage
    except OSError as error:
        raise RunError(f"{folder / INDEX} could not be read: {error.strerror}") from error


def _read(folder: Path) -> dict[str, Any]:
    return parse_json(read_regular(folder / INDEX, most=LARGEST_BYTES), INDEX)


def _check_index(index: Mapping[str, Any]) -> None:
    if index.get("format") != FORMAT:
        raise Damaged(f"its {INDEX} is that of another program")
    if index.get("version") != VERSION:
        raise Damaged(f"its format version is {index.get('version')!r:.40} and this twostage reads {VERSION}")
    files = index.get("files")
    if not isinstance(files, dict) or not files:
        raise Damaged(f"its {INDEX} lists no files")
    for name, digest in files.items():
        if not all(map(_PART.fullmatch, name.split("/"))):
            raise Damaged(f"its {INDEX} lists {name!r:.80}, which is no plain path")
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise Damaged(f"its {INDEX} gives no SHA-256 for {name}")


def _check_file(folder: Path, name: str, digest: str) -> None:
    try:
        content = read_regular(folder / name, most=LARGEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(f"{name} is missing") from None
    except OSError as error:
        reason = "is too large" if error.errno == errno.EFBIG else f"could not be read ({error.strerror})"
        raise Damaged(f"{name} {reason}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise Damaged(f"{name} does not match its SHA-256 in {INDEX}")
