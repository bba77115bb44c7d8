"""Small files that a careless reader makes large ones of in memory (`mutated_files`)."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mutation_targets import seal_codes

from twostage.config.load import load_recipe
from twostage.storage.checkpoint import load_checkpoint
from twostage.storage.codes import load_codes
from twostage.storage.manifest import LARGEST_MANIFEST_BYTES, LARGEST_STATE_BYTES, MANIFEST, Entry, render_manifest


@dataclass(frozen=True)
class Bomb:
    """A small file, or a checkpoint, that a careless reader makes a large one of."""

    path: Path
    size: int
    kind: Literal["checkpoint", "codes", "recipe"]

    def read(self) -> str:
        """Errors as they come."""
        readers = {"checkpoint": load_checkpoint, "codes": load_codes, "recipe": load_recipe}
        readers[self.kind](self.path)
        return "another whole file"


def bombs(folder: Path) -> list[Bomb]:
    """All of them, written into `folder`."""
    return list(_bombs(folder))


def _bombs(folder: Path) -> Iterator[Bomb]:
    size = LARGEST_STATE_BYTES
    for name, item in (("lists", b"[],"), ("tables", b"{},"), ("pairs", b'{"b":0},'), ("numbers", b"1e9,")):
        state = b'{"a":[' + item * ((size - 20) // len(item)) + b"0]}"
        yield _bomb(folder / f"state of {name}", {"state.json": state})
    many = {str(number): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(30_000)}
    long = {"x": {"dtype": "F32", "shape": [0] * 500_000, "data_offsets": [0, 0]}}
    huge = {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    overflow = {"x": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [0, 0]}}
    for name, header in (("many", many), ("long", long), ("huge", huge), ("overflow", overflow)):
        text = json.dumps(header, separators=(",", ":")).encode()
        tensors = len(text).to_bytes(8, "little") + text
        yield _bomb(folder / f"tensors {name}", {"state.json": b"{}\n", "model.safetensors": tensors})
    nested = b'{"files":[' + b"[]," * (LARGEST_MANIFEST_BYTES // 4) + b"0]}"
    yield _bomb(folder / "manifest", {"state.json": b"{}\n"}, manifest=nested)
    for name, text in (
        ("nested header", b'{"__metadata__":' + b"[" * 4_000_000),
        ("header of lists", b'{"__metadata__":[' + b"[]," * 1_300_000 + b"0]}"),
        ("header of tables", b'{"a":[' + b"{}," * 1_300_000 + b"0]}"),
        ("names", _code_header(json.dumps(["ab"] * 500_000, separators=(",", ":")))),
        ("counted names", _code_header(json.dumps(["ab"] * 400_000, separators=(",", ":")), items=400_000)),
        ("names of lists", _code_header("[" + "[]," * 1_000_000 + "0]")),
        ("grid", _code_header("[]", grid="x".join("1" * 500_000))),
    ):
        path = folder / f"{name}.safetensors"
        text += b" " * (-len(text) % 8)
        data = len(text).to_bytes(8, "little") + text + bytes(5 * 400_000 if name == "counted names" else 0)
        path.write_bytes((seal_codes(path)(data) or {path: data})[path])
        yield Bomb(path, path.stat().st_size, "codes")
    for name, text in (
        ("dotted keys", b"\n".join(b"k%d" % number + b".a" * 90 + b" = 1" for number in range(340))),
        ("tables", b"\n".join(b"[t%d]" % number for number in range(8000))),
        ("lists", b"models = [" + b"[]," * 20_000 + b"]"),
        ("10 MB string", b"name = '" + b"x" * 10_000_000 + b"'"),
    ):
        path = folder / f"{name}.toml"
        path.write_bytes(text)
        yield Bomb(path, len(text), "recipe")


def _bomb(path: Path, files: dict[str, bytes], manifest: bytes | None = None) -> Bomb:
    path.mkdir()
    for name, data in files.items():
        (path / name).write_bytes(data)
    listed = {name: Entry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    (path / MANIFEST).write_bytes(render_manifest(listed) if manifest is None else manifest)

    return Bomb(path, sum(map(len, files.values())), "checkpoint")


def _code_header(names: str, *, grid: str = "1", items: int = 0) -> bytes:
    metadata = {
        "format": "twostage-codes", "version": "1", "dataset": "x", "split": "x", "model": "x", "codebook_size": "2",
        "codebooks": "1", "grid": grid, "classes": "0", "stage1_sha256": "0" * 64, "sha256": "0" * 64, "names": names,
    }  # fmt: skip
    codes = {"dtype": "U8", "shape": [items, 1, 1], "data_offsets": [0, items]}
    labels = {"dtype": "I32", "shape": [items], "data_offsets": [items, 5 * items]}
    header = {"__metadata__": metadata, "codes": codes, "labels": labels}
    return json.dumps(header, separators=(",", ":")).encode()
