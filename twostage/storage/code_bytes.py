"""The bytes of a code file: where its header lies, what it says, and the file's own digest within it."""

import hashlib
import json
import struct
from typing import Any

from twostage.storage.code_header import Refused, json_structure

BLANK = "0" * 64
"""What stands for the digest while it is taken."""
# Room for some ten thousand names. Python's objects of a hostile header are many times its size.
LARGEST_HEADER_BYTES = 1 << 22
_MOST_STRUCTURE = 2000  # of a header without its strings: a few tensors and some twelve fields


def sorted_header(data: bytes) -> bytes:
    """The same file with its metadata in sorted order: safetensors shuffles it, and equal codes must be equal bytes."""
    end = header_end(data)
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of eight bytes
    return b"".join((struct.pack("<Q", len(text)), text, data[end:]))


def header_end(data: bytes, *, size: int | None = None) -> int:
    """Where safetensors' JSON header ends: eight bytes hold its length.

    Args:
        data: the file, or its beginning.
        size: of the file; by default that of `data`.
    """
    (length,) = struct.unpack("<Q", data[:8]) if len(data) >= 8 else (0,)
    if not 0 < length <= min(LARGEST_HEADER_BYTES, (len(data) if size is None else size) - 8):
        raise Refused("it is no safetensors file with codes, or is cut short")
    return 8 + int(length)


def header_of(data: bytes) -> dict[str, Any]:
    """The JSON header of a safetensors file."""
    try:
        text = data[8 : header_end(data)].decode()
        if len(json_structure(text)) > _MOST_STRUCTURE:
            raise Refused("its header holds far more than a code file has, so it is some other safetensors file")
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused("its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise Refused("its header is not valid JSON")
    return header


def metadata_of(data: bytes) -> dict[str, str]:
    """The string metadata of a safetensors file."""
    metadata = header_of(data).get("__metadata__")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refused("it has no header of this project")
    return metadata


def digest_position(data: bytes, digest: str) -> int:
    """Where the file's own digest stands in its header."""
    key = f'"sha256":"{digest}"'.encode()
    found = data.find(key, 8, header_end(data))
    if found < 0:
        raise Refused("it does not match its own SHA-256")
    return found + len(b'"sha256":"')


def digest_of(data: bytes, start: int) -> str:
    """SHA-256 of the file with the 64 characters at `start` taken as zeros, without copying it."""
    view = memoryview(data)
    state = hashlib.sha256(view[:start])
    state.update(BLANK.encode())
    state.update(view[start + len(BLANK) :])
    return state.hexdigest()
