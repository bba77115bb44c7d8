"""Code files that are not damaged but built to hurt: their digests are right, and what they say is not."""

import hashlib
import json
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostage.errors import RunError
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, load_codes, save_codes

ITEMS = 3
METADATA = {
    "format": "twostage-codes", "version": "1", "dataset": "x", "split": "files", "model": "vq-vae",
    "codebook_size": "4", "codebooks": "1", "grid": "2", "classes": "0", "stage1_sha256": "ab" * 32,
    "sha256": "0" * 64, "names": '["a", "b", "c"]',
}  # fmt: skip
CODES = {"dtype": "U8", "shape": [ITEMS, 1, 2], "data_offsets": [12, 18]}
LABELS = {"dtype": "I32", "shape": [ITEMS], "data_offsets": [0, 12]}


def sealed(metadata: dict[str, Any], *, body: bytes = bytes(18), **tensors: Any) -> bytes:
    """A file of that header with a right digest; a tensor of None is left out."""
    found = {"codes": CODES, "labels": LABELS} | tensors
    header = {"__metadata__": METADATA | metadata, **{name: value for name, value in found.items() if value}}
    text = json.dumps(header, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(text)) + text + body
    start = data.index(b'"sha256":"') + 10
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[start + 64 :]


NAMES: dict[str, str] = {
    "up": "../c",
    "far up": "../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "a drive": "C:c",
    "a share": "\\\\host\\share",
    "a backslash": "..\\c",
    "this folder": ".",
    "the folder above": "..",
    "nothing": "",
    "NUL": "c\0.png",
    "a line break": "c\nd",
    "an escape sequence": "\x1b]0;x\x07",
    "a turned name": "\u202egnp.exe",
    "no character": "\ud800",
    "300 letters": "c" * 300,
    "100 letters of three bytes": "日" * 100,
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_lead_elsewhere(tmp_path: Path, kind: str) -> None:
    said = "too long for a file" if "letters" in kind else "no plain file name"
    assert said in refusal(tmp_path, sealed({"names": json.dumps(["a", "b", NAMES[kind]])}))


def refusal(folder: Path, data: bytes) -> str:
    path = folder / "codes.safetensors"
    path.write_bytes(data)
    with pytest.raises(RunError) as raised:
        load_codes(path)
    message = str(raised.value)
    assert message.isprintable()
    assert len(message) < 500 + len(str(path))
    return message


FILES: dict[str, tuple[bytes, str]] = {
    "a header of 2^64 bytes": (b"\xff" * 8 + b"{}", "is no safetensors file"),
    "a header longer than the file": (struct.pack("<Q", 1000) + b"{}", "is no safetensors file"),
    "no header": (bytes(64), "is no safetensors file"),
    "a pickle": (b"\x80\x04\x95" + bytes(5) + b"\x8c\x02os\x94.", "is no safetensors file"),
    "overlapping offsets": (sealed({}, codes=CODES | {"data_offsets": [10, 16]}, body=bytes(16)), "wrong kind"),
    "negative offsets": (sealed({}, codes=CODES | {"data_offsets": [-6, 0]}), "wrong kind"),
    "offsets the wrong way round": (sealed({}, codes=CODES | {"data_offsets": [18, 12]}), "wrong kind"),
    "offsets beyond the end": (sealed({}, codes=CODES | {"data_offsets": [12, 1 << 40]}), "wrong kind"),
    "offsets beyond 64 bits": (sealed({}, codes=CODES | {"data_offsets": [12, 1 << 70]}), "wrong kind"),
    "a hole": (sealed({}, codes=CODES | {"data_offsets": [14, 20]}, body=bytes(20)), "wrong kind"),
    "a shape beyond 64 bits": (sealed({}, codes=CODES | {"shape": [1 << 63, 1 << 63, 2]}), "wrong kind"),
    "a negative shape": (sealed({}, codes=CODES | {"shape": [-3, 1, 2]}), "wrong kind"),
    "an unknown type": (sealed({}, codes=CODES | {"dtype": "PICKLE"}), "wrong kind"),
    "fractions": (sealed({}, codes=CODES | {"dtype": "F16", "shape": [ITEMS, 1, 1]}), "not integers"),
    "no codes": (sealed({}, codes=None, body=bytes(12)), "lacks a tensor"),
    "another number of labels": (
        sealed(
            {},
            labels=LABELS | {"shape": [2], "data_offsets": [0, 8]},
            codes=CODES | {"data_offsets": [8, 14]},
            body=bytes(14),
        ),
        "labels and header say (2, 1, 2)",
    ),
    "a grid of 30000 lengths": (sealed({"grid": "x".join("1" * 30_000)}), "one or two lengths of the grid"),
    "a grid of length 0": (sealed({"grid": "0"}), "one or two lengths of the grid"),
    "a grid below 0": (sealed({"grid": "-2"}), "one or two lengths of the grid"),
    "a hierarchy under the version of one grid": (sealed({"grid": "1x1+1x2"}), "version is 1 but"),
    "one grid under the version of hierarchies": (sealed({"version": "2"}), "version is 2 but"),
    "a hierarchy of 30000 levels": (
        sealed({"version": "2", "grid": "+".join(["1x1"] * 30_000)}),
        "each a multiple of those of the grid before",
    ),
    "a hierarchy that shrinks": (sealed({"version": "2", "grid": "2x2+1x1"}), "each a multiple of those of"),
    "a hierarchy of sequences": (sealed({"version": "2", "grid": "1+2"}), "each a multiple of those of"),
    "a hierarchy with a grid of nothing": (sealed({"version": "2", "grid": "1x1+0x0"}), "one or two lengths"),
    "a hierarchy with a side of 5000 digits": (sealed({"version": "2", "grid": "1x1+" + "9" * 5000 + "x2"}), "wrong"),
    "more positions than codes": (sealed({"version": "2", "grid": "1x1+2x2"}), "labels and header say (3, 1, 5)"),
    "2^61 positions": (sealed({"version": "2", "grid": "1x1+1073741824x2147483648"}), "labels and header say"),
    "K of 5000 digits": (sealed({"codebook_size": "9" * 5000}), "wrong kind"),
    "K of 100 digits": (sealed({"codebook_size": "9" * 100}), "no number beyond 2^31"),
    "2^40 speakers": (sealed({"speakers": str(1 << 40)}), "no number beyond 2^31"),
    "a data set with a line break": (sealed({"dataset": "a\nb"}), "is no printable short name"),
    "a model with an escape sequence": (sealed({"model": "\x1b[2J"}), "is no printable short name"),
    "a split of 10000 letters": (sealed({"split": "x" * 10_000}), "is no printable short name"),
    "a digest that is a path": (sealed({"stage1_sha256": "../" * 20}), "as the SHA-256 of its codebook"),
    "names in names": (sealed({"names": '[["a"], "b", "c"]'}), "something in their list is no plain file name"),
    "a table for names": (sealed({"names": '{"a": 1}'}), "something in their list is no plain file name"),
    "a hundred thousand names": (sealed({"names": "[" + '"ab",' * 100_000 + '"a"]'}), "holds 100001 names for 3 items"),
    "names of brackets": (sealed({"names": "[" * 1_000_000}), "something in their list is no plain file name"),
    "a header of lists": (
        (lambda text: struct.pack("<Q", len(text)) + text)(b'{"__metadata__":' + b"[]," * 1_000_000 + b"0}"),
        "holds far more than a code file has",
    ),
    "a header of brackets": (
        (lambda text: struct.pack("<Q", len(text)) + text)(b"[" * 1900),
        "its header is not valid JSON",
    ),
    "a header of 5 MB": (sealed({"names": "[" + '"' + "x" * 5_000_000 + '"]'}), "is no safetensors file"),
}  # fmt: skip


def test_the_file_that_the_others_are_made_of_is_read(tmp_path: Path) -> None:
    (tmp_path / "codes").write_bytes(sealed({}))
    assert load_codes(tmp_path / "codes").header.names == ("a", "b", "c")


@pytest.mark.parametrize("kind", FILES)
def test_bad_code_files(tmp_path: Path, kind: str) -> None:
    data, said = FILES[kind]
    tracemalloc.start()
    message = refusal(tmp_path, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said in message
    assert peak < len(data) + (64 << 20)


def test_names_that_no_reader_would_take_are_not_written(tmp_path: Path) -> None:
    names = tuple(f"{number:0250d}" for number in range(18_000))
    header = CodeHeader("x", "files", "vq-vae", 4, 1, ((2,),), 0, "ab" * 32, names=names)
    file = CodeFile(np.zeros((len(names), 1, 2), int), np.zeros(len(names), int), header)
    with pytest.raises(ValueError, match="names that fit into"):
        save_codes(tmp_path / "codes", file)


@pytest.mark.parametrize(
    ("place", "said"), [("pipe", "it is no regular file"), ("device", "it is no regular file"), ("folder", "directory")]
)
def test_what_is_no_file_to_read(tmp_path: Path, place: str, said: str) -> None:
    path = tmp_path / "codes"
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[place]()
    with pytest.raises(RunError, match=said):
        load_codes(path)
