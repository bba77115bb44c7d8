"""Checkpoints: a directory of safetensors files, one `state.json` and a manifest that vouches for every byte.

    step-00000500/
        model.safetensors  optimiser.safetensors ...    tensors
        state.json                                      everything else, canonical JSON
        manifest.json                                   size and SHA-256 of every file above, and of itself

Every byte is verified (see `twostage.storage.manifest`) before a parser sees it, and only safetensors and JSON are
understood: no pickle is ever read, so a checkpoint from the internet cannot run code.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from twostage.errors import RunError
from twostage.storage import atomic
from twostage.storage.manifest import (
    LARGEST_STATE_BYTES,
    MANIFEST,
    STATE,
    TENSORS_SUFFIX,
    Damaged,
    Entry,
    canonical_json,
    is_stem,
    parse_json,
    read_manifest,
    read_verified,
    render_manifest,
)
from twostage.storage.tensors import parse_tensors, render_tensors

_Content = TypeVar("_Content")
_STEP = re.compile(r"step-([0-9]{8,15})", re.ASCII)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every byte was verified."""

    path: Path
    """The directory it was asked for as."""
    tensors: dict[str, dict[str, Tensor]]
    """File stem (`model`) -> name -> tensor on the CPU."""
    state: dict[str, Any]
    sha256: dict[str, str]
    """File name (`model.safetensors`) -> hexadecimal SHA-256."""


def step_name(step: int) -> str:
    """Directory name of the training state after `step` optimiser steps."""
    return f"step-{step:08d}"


def save_checkpoint(path: Path, *, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
    """Write the checkpoint directory `path`, replacing an existing one; at every moment the old or the new one loads.

    Args:
        path: directory to create; missing parents are created.
        tensors: file stem (letters, digits, `-`, `_`) -> name -> tensor on any device, shared or not contiguous as it
            may be. Sharing is not restored: each name owns its values.
        state: JSON values with string keys and finite numbers; tuples come back as lists.

    Raises:
        RunError: the disk refused; the previous checkpoint is untouched and nothing half-written is left.
        ValueError, TypeError: a stem or a value of `state` that this format cannot hold.
    """
    for stem in tensors:
        if not is_stem(stem):
            raise ValueError(f"expected a file stem of letters, digits, '-' and '_', but {stem!r} came")
    rendered = ((stem + TENSORS_SUFFIX, render_tensors(named)) for stem, named in tensors.items())
    _publish(path, state, rendered)


def copy_checkpoint(source: Path, path: Path, *, state: Mapping[str, Any]) -> None:
    """Write the tensors of the checkpoint `source`, byte by byte, as the checkpoint `path` with another state.

    Raises:
        RunError: the source is no whole checkpoint, or the disk refused.
        ValueError, TypeError: as of `save_checkpoint`.
    """
    _publish(path, state, _whole(source, _read_tensor_files).items())


def _publish(path: Path, state: Mapping[str, Any], tensors: Iterable[tuple[str, bytes]]) -> None:
    """Write the checkpoint directory `path` of a state and files of tensors, by name, each made when it is written."""
    state_bytes = canonical_json(dict(state))
    if len(state_bytes) > LARGEST_STATE_BYTES:
        raise ValueError(f"expected at most {LARGEST_STATE_BYTES} bytes of state, but {len(state_bytes)} came")
    if json.loads(state_bytes) != _listed(state):
        raise TypeError("expected state with string keys and JSON values only; something would not come back equal")
    temporary = atomic.temporary_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            files = {STATE: _write(temporary / STATE, state_bytes)}
            for name, data in tensors:
                files[name] = _write(temporary / name, data)
            atomic.write_synced(temporary / MANIFEST, render_manifest(files))
            atomic.sync_directory(temporary)
            atomic.publish_directory(temporary, path)
        except BaseException:
            if temporary.is_dir():
                atomic.remove_entry(temporary)
            raise
    except OSError as error:
        raise atomic.disk_refusal(path, error) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Verify the checkpoint directory `path` and read it.

    If a crash came while it was being replaced, the previous one, moved aside, is read in its place.

    Raises:
        RunError: it is missing, incomplete, damaged, foreign or of a newer format.
    """
    return _whole(path, _read)


def read_state(path: Path) -> dict[str, Any]:
    """`load_checkpoint(path).state` at the cost of its two small files: the tensors are neither read nor verified.

    Raises:
        RunError: as of `load_checkpoint`.
    """
    return _whole(path, _read_state)


def _whole(path: Path, read: Callable[[Path, Path], _Content]) -> _Content:
    """What `read` finds in the checkpoint `path`; RunError where that is damaged."""
    try:
        return _load(path, read)
    except Damaged as damage:
        raise RunError(
            f"expected a whole checkpoint in {path}, but {damage}; use an intact copy or an earlier checkpoint, "
            "or train again"
        ) from damage


def verify_checkpoint(path: Path) -> dict[str, str] | None:
    """Digests (file name -> SHA-256) of a checkpoint whose every byte was checked, or None if it is not whole.

    Reads every file but neither keeps nor parses one, so it costs no memory beyond the largest file.
    """
    try:
        directory = atomic.present_directory(path)
        if directory is None:
            return None
        files = read_manifest(directory)
        for name, entry in files.items():
            read_verified(directory / name, entry)
    except (Damaged, OSError):
        return None
    return {name: entry.sha256 for name, entry in files.items()}


def load_newest(folder: Path, *, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole `step-XXXXXXXX` checkpoint of a training folder, or None if there is none of that name at all.

    Args:
        folder: training folder; it need not exist.
        warn: called with one sentence per newer checkpoint that is not whole, naming it and the one used instead.

    Raises:
        RunError: there are checkpoints and none is whole; starting afresh over them must be the user's decision.
    """
    return _newest(folder, _read, warn)


def newest_state(folder: Path, *, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """`load_newest(...).state` at the cost of its two small files: the tensors are neither read nor verified.

    Raises:
        RunError: there are checkpoints, and none has a whole manifest and state.
    """
    return _newest(folder, _read_state, warn)


def _newest(folder: Path, read: Callable[[Path, Path], _Content], warn: Callable[[str], None]) -> _Content | None:
    refused: list[tuple[Path, Damaged]] = []
    for path in _steps(folder):
        try:
            content = _load(path, read)
        except Damaged as damage:
            refused.append((path, damage))
            continue
        for bad, reason in refused:
            warn(f"the checkpoint {bad} is not whole ({reason}); going on from the earlier {path}")
        return content
    if not refused:
        return None
    newest, reason = refused[0]
    raise RunError(
        f"expected at least one whole checkpoint in {folder}, but none of the {len(refused)} there is "
        f"(the newest, {newest.name}: {reason}); restore one from a copy, or move the folder away and train again"
    )


def prune(folder: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` step checkpoints, and what interrupted writes left behind.

    If none of the newest `keep` is whole, the newest whole one is kept as well.

    Raises:
        RunError: the operating system refused a removal.
        ValueError: `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"expected keep >= 1, but {keep} came")
    steps = _steps(folder)
    surplus = steps[keep:]
    if surplus and not any(verify_checkpoint(path) for path in steps[:keep]):
        whole = next((path for path in surplus if verify_checkpoint(path)), None)
        # Without any whole one nothing is removed: a person may still be able to rescue something.
        surplus = [path for path in surplus if path != whole] if whole else []
    try:
        for path in surplus:
            present = atomic.present_directory(path)
            if present is not None:
                atomic.remove_directory(present)
        if folder.is_dir():
            atomic.remove_stale(folder)
    except OSError as error:
        raise RunError(f"could not remove old checkpoints in {folder}: {error.strerror}; free it by hand") from error


def _load(path: Path, read: Callable[[Path, Path], _Content]) -> _Content:
    while True:
        directory, identity = _find(path)
        if directory is None:
            raise Damaged("there is no such directory")
        try:
            return read(path, directory)
        except Damaged:
            # A training may have replaced the directory while it was being read: then the new one is tried.
            if _find(path)[1] == identity:
                raise


def _find(path: Path) -> tuple[Path | None, tuple[int, int] | None]:
    """The directory published as `path` and its (device, inode), which change when it is replaced."""
    try:
        directory = atomic.present_directory(path)
        found = directory.stat() if directory else None
    except OSError as error:
        raise Damaged(f"it could not be opened ({error.strerror})") from error
    return directory, (found.st_dev, found.st_ino) if found else None


def _read(path: Path, directory: Path) -> Checkpoint:
    files = read_manifest(directory)
    contents = {name: read_verified(directory / name, entry) for name, entry in files.items()}
    state = parse_json(contents.pop(STATE), STATE)
    tensors = {}
    for name in sorted(contents):
        # Popped, because the parser copies: two copies of one file in memory at a time, not of all.
        tensors[name.removesuffix(TENSORS_SUFFIX)] = parse_tensors(contents.pop(name), name)
    return Checkpoint(path=path, tensors=tensors, state=state, sha256={name: files[name].sha256 for name in files})


def _read_tensor_files(_: Path, directory: Path) -> dict[str, bytes]:
    files = read_manifest(directory)
    return {name: read_verified(directory / name, files[name]) for name in sorted(files) if name != STATE}


def _read_state(_: Path, directory: Path) -> dict[str, Any]:
    return parse_json(read_verified(directory / STATE, read_manifest(directory)[STATE]), STATE)


def _write(path: Path, data: bytes) -> Entry:
    atomic.write_synced(path, data)
    return Entry(size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _listed(value: Any) -> Any:
    """`value` as JSON brings it back: mappings as dicts, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value


def _steps(folder: Path) -> list[Path]:
    """Step checkpoints, newest first, by the names they were published under (present or moved aside)."""
    if not folder.is_dir():
        return []
    names = {atomic.aside_name(entry) or entry.name for entry in folder.iterdir() if entry.is_dir()}
    numbered = [(int(match[1]), name) for name in names if (match := _STEP.fullmatch(name))]
    return [folder / name for _, name in sorted(numbered, reverse=True)]
