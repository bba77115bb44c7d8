"""The files that are mutated, small but of every kind that is read, and how each is read (`mutated_files`)."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutations import Edit, edit_json_file, edit_safetensors, edit_toml

from twostage.config.load import dump_recipe, dump_run_recipe, load_recipe, load_run_recipe
from twostage.errors import RunError
from twostage.storage.checkpoint import Checkpoint, load_checkpoint, load_newest, save_checkpoint, step_name
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, load_codes, save_codes
from twostage.storage.manifest import MANIFEST, Entry, canonical_json, render_manifest

KINDS = (
    "checkpoint",
    "manifest",
    "codes",
    "run config",
    "recipe",
    "sealed checkpoint",
    "sealed manifest",
    "sealed codes",
)


@dataclass(frozen=True)
class Target:
    """One file."""

    path: Path
    edits: Sequence[Edit]
    read: Callable[[], str]
    """`equal`, `fell back` or `accepted`; errors as they come."""
    seal: Callable[[bytes], dict[Path, bytes] | None] = lambda _: None
    """What else is written, or instead, to make the digests right; None: the mutated bytes alone."""
    whole: bytes = b""
    beside: tuple[tuple[Path, bytes], ...] = ()
    """Other files that sealing changes, as they were."""

    def write(self, data: bytes) -> bool:
        """Put the mutated file in place; whether its digests are right."""
        files = self.seal(data)
        for path, content in (files or {self.path: data}).items():
            path.write_bytes(content)
        return files is not None

    def restore(self) -> None:
        for path, content in ((self.path, self.whole), *self.beside):
            path.write_bytes(content)


def targets(kind: str, folder: Path) -> list[Target]:
    """The files of a kind, written into `folder`."""
    makers = {
        "checkpoint": _checkpoint_targets,
        "manifest": _manifest_targets,
        "codes": _code_targets,
        "run config": _config_targets,
        "recipe": _recipe_targets,
    }
    found = makers[kind.removeprefix("sealed ")](folder, kind.startswith("sealed "))
    beside = [path for target in found for path in (target.path.parent / MANIFEST,) if path.is_file()]
    return [
        replace(target, whole=target.path.read_bytes(), beside=tuple((path, path.read_bytes()) for path in set(beside)))
        for target in found
    ]


def _save_steps(folder: Path) -> Path:
    for step in (1, 2):
        generator = torch.Generator().manual_seed(step)
        weights = {"encoder.weight": torch.randn(8, 3, 4, 4, generator=generator), "codebook": torch.randn(32, 8)}
        moments = {name: torch.rand(tensor.shape, generator=generator) for name, tensor in weights.items()}
        state = {
            "step": step,
            "seconds": 1.5,
            "best": {"step": 1, "loss_nats": 2.25},
            "rng": {"torch": "ab" * 40, "numpy": list(range(20))},
            "record": {"kind": "vq-vae", "architecture": {"channels": 8}, "config": {"training": {"steps": 2}}},
        }
        save_checkpoint(folder / step_name(step), tensors={"model": weights, "optimiser": moments}, state=state)
    return folder / step_name(2)


def _same(first: Checkpoint, second: Checkpoint) -> bool:
    def flat(checkpoint: Checkpoint) -> dict[str, bytes]:
        return {
            f"{stem} {name} {tensor.dtype} {tuple(tensor.shape)}": tensor.numpy().tobytes()
            for stem, named in checkpoint.tensors.items()
            for name, tensor in named.items()
        }

    return first.state == second.state and flat(first) == flat(second)


def _checkpoint_reader(folder: Path, newest: Path) -> Callable[[], str]:
    """Reads as a resumed training does; damage must also be refused by itself."""
    whole = load_checkpoint(newest)

    def read() -> str:
        warnings: list[str] = []
        checkpoint = load_newest(folder, warn=warnings.append)
        assert checkpoint is not None
        if checkpoint.path == newest:
            return "equal" if not warnings and _same(checkpoint, whole) else "accepted"
        assert len(warnings) == 1
        assert warnings[0].isprintable()
        assert all(str(path) in warnings[0] for path in (newest, checkpoint.path))
        try:
            load_checkpoint(newest)
        except RunError as error:
            return "fell back" if str(error).isprintable() else "no sentence"
        return "accepted"

    return read


def _resealed(path: Path) -> Callable[[bytes], dict[Path, bytes]]:
    """The mutated file and a manifest that vouches for it."""
    directory = path.parent
    whole = {name.name: name.read_bytes() for name in directory.iterdir() if name.name != MANIFEST}

    def seal(data: bytes) -> dict[Path, bytes]:
        files = {**whole, path.name: data}
        listed = {name: Entry(len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()}
        return {path: data, directory / MANIFEST: render_manifest(listed)}

    return seal


def _checkpoint_targets(folder: Path, sealed: bool) -> list[Target]:
    newest = _save_steps(folder)
    read = _checkpoint_reader(folder, newest)
    found = []
    for name in ("model.safetensors", "optimiser.safetensors", "state.json"):
        edit: Edit = edit_json_file if name == "state.json" else edit_safetensors
        target = Target(newest / name, [edit], read)
        found.append(replace(target, seal=_resealed(newest / name)) if sealed else target)
    return found


def _manifest_targets(folder: Path, sealed: bool) -> list[Target]:
    newest = _save_steps(folder)
    path, read = newest / MANIFEST, _checkpoint_reader(folder, newest)

    def seal(data: bytes) -> dict[Path, bytes] | None:
        try:
            body = json.loads(data)
            del body["sha256"]
            return {path: canonical_json(body | {"sha256": hashlib.sha256(canonical_json(body)).hexdigest()})}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # nothing that has a digest

    target = Target(path, [edit_json_file], read)
    return [replace(target, edits=[edit_json_file] * 3, seal=seal) if sealed else target]


def _code_targets(folder: Path, sealed: bool) -> list[Target]:
    random = np.random.default_rng(0)
    header = CodeHeader("digits", "train", "vq-vae", 32, 2, ((3, 4),), 10, "0123456789abcdef" * 4)
    images = CodeFile(random.integers(0, 32, (40, 2, 3, 4)), random.integers(0, 10, 40), header)
    names = tuple(f"file {number}" for number in range(12))
    spoken = replace(header, split="files", codebook_size=512, codebooks=1, grids=((30,),), speakers=3, names=names)
    codes, labels = random.integers(0, 512, (12, 1, 30)), random.integers(0, 10, 12)
    lengths = random.integers(1, 31, 12)
    sounds = CodeFile(codes, labels, spoken, lengths, random.integers(0, 3, 12), samples=64 * lengths)
    found = []
    for name, file in (("images", images), ("sounds", sounds)):
        path = folder / f"{name}.safetensors"
        save_codes(path, file)
        target = Target(path, [edit_safetensors], _code_reader(path))
        found.append(replace(target, seal=seal_codes(path)) if sealed else target)
    return found


def _code_reader(path: Path) -> Callable[[], str]:
    def content() -> list[Any]:
        file = load_codes(path)
        arrays = [
            None if array is None else array.tolist()
            for array in (file.codes, file.labels, file.lengths, file.speakers, file.samples)
        ]
        return [*arrays, asdict(file.header)]

    whole = content()
    return lambda: "equal" if content() == whole else "accepted"


def seal_codes(path: Path) -> Callable[[bytes], dict[Path, bytes] | None]:
    """The mutated file with its own digest made right."""
    key = b'"sha256":"'

    def seal(data: bytes) -> dict[Path, bytes] | None:
        start = data.find(key) + len(key)
        if start < len(key):
            return None
        digest = hashlib.sha256(data[:start] + b"0" * 64 + data[start + 64 :]).hexdigest().encode()
        return {path: data[:start] + digest + data[start + 64 :]}

    return seal


def _config_targets(folder: Path, _: bool) -> list[Target]:
    recipe = load_recipe("digits")
    path = folder / "config.toml"
    path.write_text(dump_run_recipe(recipe))
    return [Target(path, [edit_toml], lambda: "equal" if load_run_recipe(folder) == recipe else "accepted")]


def _recipe_targets(folder: Path, _: bool) -> list[Target]:
    """Without a digest, because people write them: a changed number is another recipe, as it should be."""
    found = []
    for name in ("digits", "vctk"):
        recipe, path = load_recipe(name), folder / f"{name}.toml"
        path.write_text(dump_recipe(recipe))

        def read(path: Path = path, recipe: Any = recipe) -> str:
            return "equal" if load_recipe(path) == recipe else "another recipe"

        found.append(Target(path, [edit_toml], read))
    return found
