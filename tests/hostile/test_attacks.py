"""Files that run code when something careless opens them: none of them does here, wherever it is put.

Every payload would make the folder of a canary. It is put in place of each file that the project reads, also with
digests that are right, and in the names under which other tools look for pickles.
"""

import hashlib
import io
import marshal
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostage.config.load import dump_run_recipe, load_recipe, load_run_recipe
from twostage.data.audio.decode import decode_recording
from twostage.data.audio.part import Unreadable as UnreadableAudio
from twostage.data.images.cifar import load_cifar10
from twostage.data.images.decode import Unreadable as UnreadableImage
from twostage.data.images.decode import decode_image
from twostage.data.images.idx import read_idx
from twostage.errors import TwoStageError
from twostage.storage.checkpoint import load_checkpoint, load_newest, newest_state, save_checkpoint
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, load_codes, save_codes
from twostage.storage.manifest import MANIFEST, Entry, render_manifest
from twostage_pipelines.generate.two_stage import load_run


class Bait:
    """A pickle of this makes the canary's folder when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.makedirs, (str(self.canary),)


def pickled(protocol: int, canary: Path) -> bytes:
    return pickle.dumps(Bait(canary), protocol)


def torch_zip(canary: Path) -> bytes:
    """What torch.save writes since 1.6."""
    buffer = io.BytesIO()
    torch.save({"state_dict": Bait(canary)}, buffer)
    return buffer.getvalue()


def torch_legacy(canary: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": Bait(canary)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def numpy_array(canary: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bait(canary)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def numpy_zip(canary: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Bait(canary)], dtype=object))
    return buffer.getvalue()


def module(canary: Path) -> bytes:
    return f"import os; os.makedirs({str(canary)!r})\n".encode()


def zipped_module(canary: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("__main__.py", module(canary))
    return buffer.getvalue()


def compiled(canary: Path) -> bytes:
    return bytes(16) + marshal.dumps(compile(module(canary), "x", "exec"))


def tensor_header(canary: Path) -> bytes:
    """A safetensors file whose metadata is a pickle in base 16, as some tools keep optimisers."""
    text = b'{"__metadata__":{"pickle":"%s"}}' % pickle.dumps(Bait(canary)).hex().encode()
    return struct.pack("<Q", len(text)) + text


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    **{f"pickle {protocol}": partial(pickled, protocol) for protocol in (0, 2, 5)},
    "torch zip": torch_zip,
    "torch legacy": torch_legacy,
    "numpy array": numpy_array,
    "numpy zip": numpy_zip,
    "module": module,
    "zipped module": zipped_module,
    "compiled module": compiled,
    "tensor header": tensor_header,
    "YAML": lambda canary: f"!!python/object/apply:os.makedirs ['{canary}']\n".encode(),
    "JSON": lambda canary: b'{"py/reduce":[{"py/type":"os.makedirs"},["%s"]]}' % str(canary).encode(),
    "shell": lambda canary: f"#!/bin/sh\nmkdir {canary}\n".encode(),
}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as far as its files go."""
    run = tmp_path_factory.mktemp("run")
    (run / "config.toml").write_text(dump_run_recipe(load_recipe("digits")))
    state = {"step": 1, "finished": True, "record": {"kind": "vq-vae", "architecture": {}}}
    for stage in ("stage1", "prior"):
        for name in ("best", "step-00000001"):
            folder = run / "models" / "vq-vae" / stage / name
            save_checkpoint(folder, tensors={"model": {"weight": torch.ones(3)}}, state=state)
    header = CodeHeader("digits", "train", "vq-vae", 4, 1, ((2,),), 10, "ab" * 32)
    file = CodeFile(np.zeros((1, 1, 2), int), np.zeros(1, int), header)
    save_codes(run / "codes" / "vq-vae" / "train.safetensors", file)
    return run


def reseal(folder: Path) -> None:
    """A manifest that vouches for whatever lies in a checkpoint's folder under a name that it may list."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}
    listed = {name: Entry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
    (folder / MANIFEST).write_bytes(render_manifest(listed))


def read_everything(run: Path) -> int:
    """Open the run in every way; how many that fit the untouched run were refused, with a sentence."""
    sentences: list[str] = []
    always = 0
    stages = [run / "models" / "vq-vae" / stage for stage in ("stage1", "prior")]
    readers: list[Callable[[], object]] = [
        lambda: load_run_recipe(run),
        lambda: load_recipe(run / "config.toml"),
        lambda: load_codes(run / "codes" / "vq-vae" / "train.safetensors"),
        lambda: load_run(run),
        *(lambda stage=stage: load_checkpoint(stage / "best") for stage in stages),
        *(lambda stage=stage: load_newest(stage, warn=lambda _: None) for stage in stages),
        *(lambda stage=stage: newest_state(stage, warn=lambda _: None) for stage in stages),
    ]
    for read in readers:
        try:
            read()
        except TwoStageError as error:
            sentences.append(str(error))
            always += read is readers[3]  # the models of this run have no architecture
    assert all(sentence.isprintable() for sentence in sentences)
    return len(sentences) - always


PLACES = (
    "config.toml",
    "codes/vq-vae/train.safetensors",
    "models/vq-vae/stage1/best/model.safetensors",
    "models/vq-vae/stage1/best/state.json",
    "models/vq-vae/stage1/best/manifest.json",
    "models/vq-vae/prior/step-00000001/model.safetensors",
    "models/vq-vae/prior/step-00000001/state.json",
)
BESIDE = ("model.pt", "model.bin", "pytorch_model.bin", "model.ckpt", "optimizer.pkl", "model.npy", "data.npz", "x.pth")
MODULES = ("__init__.py", "sitecustomize.py", "conftest.py", "torch.py", "usercustomize.py", "modelling.py")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_in_place_of_a_file(run_folder: Path, tmp_path: Path, payload: str) -> None:
    """Each payload in each of seven places, in four of them also with digests that vouch for it: 154 files."""
    data = PAYLOADS[payload](tmp_path / "canary")
    for name in PLACES:
        path = run_folder / name
        whole = {beside: beside.read_bytes() for beside in (path, path.parent / MANIFEST) if beside.is_file()}
        try:
            path.write_bytes(data)
            assert read_everything(run_folder) > 0
            if path.name in ("model.safetensors", "state.json"):
                reseal(path.parent)
                plain = payload in ("tensor header", "JSON") and (path.suffix == ".json") == (payload == "JSON")
                assert read_everything(run_folder) > 0 or plain
        finally:
            for beside, content in whole.items():
                beside.write_bytes(content)
    assert not (tmp_path / "canary").exists()
    assert read_everything(run_folder) == 0


def test_beside_the_files(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that other tools open, and modules that Python would import, in every folder of the run."""
    canary = tmp_path / "canary"
    folders = [run_folder, *(path for path in run_folder.rglob("*") if path.is_dir())]
    added = []
    for folder in folders:
        for name in (*BESIDE, *MODULES):
            (folder / name).write_bytes(module(canary) if name.endswith(".py") else pickle.dumps(Bait(canary)))
            added.append(folder / name)
    monkeypatch.chdir(run_folder)
    modules = set(sys.modules)
    try:
        assert read_everything(run_folder) == 0
    finally:
        for path in added:
            path.unlink()
    assert not canary.exists()
    assert not [name for name in set(sys.modules) - modules if getattr(sys.modules[name], "__file__", None) in added]


@pytest.mark.parametrize("name", ["../model.pt", "model.pt", "../../evil.safetensors", "/tmp/evil.safetensors"])
def test_listed_by_a_manifest_that_is_right(run_folder: Path, tmp_path: Path, name: str) -> None:
    """A manifest that lists a pickle, or a file elsewhere, under its right digest."""
    folder, data = tmp_path / "a" / "b", pickle.dumps(Bait(tmp_path / "canary"))
    save_checkpoint(folder, tensors={"model": {"weight": torch.ones(3)}}, state={})
    if not name.startswith("/"):
        (folder / name).write_bytes(data)
    listed = {"state.json": (folder / "state.json").read_bytes(), name: data}
    files = {each: Entry(len(content), hashlib.sha256(content).hexdigest()) for each, content in listed.items()}
    (folder / MANIFEST).write_bytes(render_manifest(files))
    with pytest.raises(TwoStageError, match="lists the file name"):
        load_checkpoint(folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_as_data(tmp_path: Path, payload: str) -> None:
    path, canary = tmp_path / "data", tmp_path / "canary"
    path.write_bytes(PAYLOADS[payload](canary))
    with pytest.raises(UnreadableImage):
        decode_image(path, np.zeros((3, 8, 8), np.uint8), fit="resize")
    with pytest.raises(UnreadableAudio):
        decode_recording(path, sample_rate_hz=8000)
    readers: tuple[Callable[[], object], ...] = (
        lambda: load_recipe(path),
        lambda: load_codes(path),
        lambda: load_cifar10(str(path)),
        lambda: read_idx(path, axes=3),
    )
    for read in readers:
        with pytest.raises(TwoStageError) as raised:
            read()
        assert str(raised.value).isprintable()
    assert not canary.exists()


def test_the_bait_works(tmp_path: Path) -> None:
    """Each payload that Python itself can open does make the canary."""
    openers: dict[str, Callable[[bytes], object]] = {
        **{f"pickle {version}": pickle.loads for version in (0, 2, 5)},
        "torch zip": lambda data: torch.load(io.BytesIO(data), weights_only=False),
        "torch legacy": lambda data: torch.load(io.BytesIO(data), weights_only=False),
        "numpy array": lambda data: np.load(io.BytesIO(data), allow_pickle=True),
        "numpy zip": lambda data: np.load(io.BytesIO(data), allow_pickle=True)["x"],
        "module": exec,
        "compiled module": lambda data: exec(marshal.loads(data[16:])),
    }
    for number, (payload, opened) in enumerate(openers.items()):
        canary = tmp_path / str(number)
        opened(PAYLOADS[payload](canary))
        assert canary.is_dir(), payload
