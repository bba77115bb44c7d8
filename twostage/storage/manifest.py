"""The manifest of a directory: size and SHA-256 of every file in it, and of itself.

The manifest's own digest is taken over its canonical JSON without the field `sha256`, and the file must be exactly the
canonical JSON of what it says, so no bit of any file can flip unseen. A file is read once; its size and digest are
checked before a parser sees it. Only names the manifest lists are opened, and only regular files inside the directory.
Files it does not list (a `.DS_Store`, someone's notes) are left alone: they are never opened, so refusing the whole
directory for them would cost a run and protect nothing.

The manifest guards against damage, not against malice: whoever can write the files can write a manifest for them.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twostage.storage.regular_file import open_regular

MANIFEST = "manifest.json"
STATE = "state.json"
TENSORS_SUFFIX = ".safetensors"
FORMAT = "twostage-checkpoint"
VERSION = 1
LARGEST_MANIFEST_BYTES = 1 << 18
LARGEST_STATE_BYTES = 1 << 21
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Damaged(Exception):
    """Why a directory is no whole checkpoint: a clause without the path, finished by the caller."""


@dataclass(frozen=True)
class Entry:
    """What the manifest says of one file."""

    size: int
    sha256: str


def canonical_json(value: Any) -> bytes:
    """The one way this project writes a JSON value: sorted keys, no spaces, ASCII, finite numbers, final newline."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def is_stem(name: str) -> bool:
    """Whether `name` may stand before `.safetensors`: a plain short name that no file system bends."""
    return _STEM.fullmatch(name) is not None


def render_manifest(files: Mapping[str, Entry]) -> bytes:
    """The content of `manifest.json` for files that were written (file name -> size and digest)."""
    listed = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()}
    body = {"format": FORMAT, "version": VERSION, "files": listed}
    return canonical_json(body | {"sha256": hashlib.sha256(canonical_json(body)).hexdigest()})


def read_manifest(directory: Path) -> dict[str, Entry]:
    """What the verified manifest of `directory` lists: plain file names only, `state.json` among them.

    Raises:
        Damaged: it is missing, damaged, foreign or of another version.
    """
    data = _read_regular(directory / MANIFEST, range(LARGEST_MANIFEST_BYTES + 1))
    manifest = parse_json(data, MANIFEST)
    claimed = manifest.pop("sha256", None)
    if claimed != hashlib.sha256(canonical_json(manifest)).hexdigest():
        raise Damaged(f"{MANIFEST} does not match its own SHA-256")
    if canonical_json(manifest | {"sha256": claimed}) != data:
        raise Damaged(f"{MANIFEST} is not in canonical form")
    if manifest.get("format") != FORMAT:
        raise Damaged(f"{MANIFEST} is not of the format {FORMAT}")
    if manifest.get("version") != VERSION:
        raise Damaged(f"its format version is {manifest.get('version')!r} and this twostage reads {VERSION}")
    files = manifest.get("files")
    if not isinstance(files, dict) or STATE not in files:
        raise Damaged(f"{MANIFEST} lists no {STATE}")
    return {name: _entry(name, files[name]) for name in files}


def read_verified(path: Path, entry: Entry) -> bytes:
    """The content of a listed file; Damaged unless its size and SHA-256 are those of the manifest."""
    data = _read_regular(path, range(entry.size, entry.size + 1))
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise Damaged(f"{path.name} does not match its SHA-256 in {MANIFEST}")
    return data


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object out of a file; Damaged for anything else, for NaN and infinities, and for absurd nesting."""
    try:
        value = json.loads(data)
        canonical_json(value)  # refuses NaN, Infinity and 1e999, which Python reads and JSON does not have
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is not valid JSON") from error
    if not isinstance(value, dict):
        raise Damaged(f"{name} is not a JSON object")
    return value


def _entry(name: str, fields: Any) -> Entry:
    # A name is a stem and a known suffix and nothing else, so it cannot leave the directory or bring a pickle in.
    if name != STATE and not (name.endswith(TENSORS_SUFFIX) and is_stem(name.removesuffix(TENSORS_SUFFIX))):
        raise Damaged(f"{MANIFEST} lists the file name {name[:100]!r}, which is neither {STATE} nor NAME.safetensors")
    size, digest = (fields.get("size"), fields.get("sha256")) if isinstance(fields, dict) else (None, None)
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise Damaged(f"{MANIFEST} gives no size and SHA-256 for {name}")
    if name == STATE and size > LARGEST_STATE_BYTES:
        raise Damaged(f"{STATE} claims {size} bytes and at most {LARGEST_STATE_BYTES} are read")
    return Entry(size=size, sha256=digest)


def _read_regular(path: Path, sizes: range) -> bytes:
    """The content of a regular file whose size is in `sizes`; links, pipes and devices are refused unread."""
    try:
        with open_regular(path, follow_links=False) as file:
            found = os.fstat(file.fileno()).st_size
            # Compared before anything is read or allocated: a manifest may claim any size.
            if found not in sizes:
                most = "" if len(sizes) == 1 else "at most "
                raise Damaged(f"{path.name} is {found} bytes long where {most}{sizes[-1]} were expected")
            return file.read(found)
    except FileNotFoundError:
        raise Damaged(
            f"it is incomplete: {path.name} is missing (a write or a copy was cut short, or it is no checkpoint)"
        ) from None
    except OSError as error:
        raise Damaged(f"{path.name} could not be read ({error.strerror})") from error
