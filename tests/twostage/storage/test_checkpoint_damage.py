"""Damaged and hostile checkpoints: each is refused with a sentence, and nothing of it is run."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from twostage.errors import RunError
from twostage.storage.checkpoint import load_checkpoint, load_newest, save_checkpoint, verify_checkpoint
from twostage.storage.manifest import MANIFEST, Entry, canonical_json, render_manifest


def save(path: Path, number: int) -> None:
    save_checkpoint(path, tensors={"model": {"weight": torch.full((3,), float(number))}}, state={"number": number})


def refusal(path: Path, *, forged: bool = False) -> str:
    with pytest.raises(RunError) as raised:
        load_checkpoint(path)
    # What a forger vouches for has the right digests, and only parsing shows what it is.
    assert (verify_checkpoint(path) is None) or forged
    message = str(raised.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def forge(path: Path, files: dict[str, bytes], manifest: bytes | None = None) -> None:
    """A directory whose manifest vouches for `files`, whatever they are."""
    path.mkdir()
    listed = {}
    for name, data in files.items():
        (path / name).write_bytes(data)
        listed[name] = Entry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    (path / MANIFEST).write_bytes(render_manifest(listed) if manifest is None else manifest)


def sealed(body: dict[str, Any]) -> bytes:
    """A manifest of any content with a right digest of its own."""
    return canonical_json(body | {"sha256": hashlib.sha256(canonical_json(body)).hexdigest()})


class TestDamage:
    @pytest.mark.parametrize("name", ["model.safetensors", "state.json", MANIFEST])
    def test_every_flipped_bit_is_refused(self, tmp_path: Path, name: str) -> None:
        save(tmp_path / "best", 1)
        path = tmp_path / "best" / name
        whole = path.read_bytes()
        # The bit that turns a into A, and one other, of every byte.
        for bit in (8 * byte + shift for byte in range(len(whole)) for shift in {5, byte % 8}):
            flip(path, bit)
            with pytest.raises(RunError):
                load_checkpoint(tmp_path / "best")
            path.write_bytes(whole)
        assert load_checkpoint(tmp_path / "best").state == {"number": 1}

    @pytest.mark.parametrize("name", ["model.safetensors", "state.json", MANIFEST])
    def test_every_truncation_any_surplus_and_absence_are_refused(self, tmp_path: Path, name: str) -> None:
        save(tmp_path / "best", 1)
        path = tmp_path / "best" / name
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert name in refusal(tmp_path / "best")
        path.write_bytes(whole + b"\n")
        assert name in refusal(tmp_path / "best")
        path.unlink()
        assert f"incomplete: {name} is missing" in refusal(tmp_path / "best")

    def test_digests_are_checked_before_any_tensor_is_parsed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save_checkpoint(tmp_path / "best", tensors={"a": {"x": torch.ones(3)}, "b": {"x": torch.ones(3)}}, state={})
        flip(tmp_path / "best" / "b.safetensors", 8 * 60)
        parsed: list[bytes] = []
        monkeypatch.setattr(safetensors.torch, "load", parsed.append)
        refusal(tmp_path / "best")
        assert parsed == []

    def test_missing_directories_and_files_in_their_place(self, tmp_path: Path) -> None:
        assert "no such directory" in refusal(tmp_path / "absent")
        assert "no such directory" in refusal(tmp_path / "absent" / "best")
        (tmp_path / "model.pt").write_bytes(b"x")
        refusal(tmp_path / "model.pt")

    def test_files_of_two_checkpoints_do_not_mix(self, tmp_path: Path) -> None:
        save(tmp_path / "a", 1)
        save(tmp_path / "b", 2)
        (tmp_path / "a" / "state.json").write_bytes((tmp_path / "b" / "state.json").read_bytes())
        assert "state.json does not match" in refusal(tmp_path / "a")

    def test_files_that_are_not_listed_are_never_opened(self, tmp_path: Path) -> None:
        save(tmp_path / "best", 1)
        os.mkfifo(tmp_path / "best" / "pipe.safetensors")  # opening it would block for ever
        (tmp_path / "best" / "notes.txt").write_text("good one")
        checkpoint = load_checkpoint(tmp_path / "best")
        assert checkpoint.state == {"number": 1}
        assert set(checkpoint.tensors) == {"model"}


class Canary:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


class TestHostile:
    def test_no_pickle_is_ever_loaded(self, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        data = pickle.dumps(Canary(canary))
        forge(tmp_path / "a", {"state.json": b"{}\n", "model.pt": data})
        forge(tmp_path / "b", {"state.json": b"{}\n", "model.safetensors": data})
        forge(tmp_path / "c", {"state.json": data})
        forge(tmp_path / "d", {"state.json": b"{}\n"}, manifest=data)
        forge(tmp_path / "step-00000001", {"pytorch_model.bin": data, "model.pkl": data}, manifest=b"")
        for name in "abcd":
            refusal(tmp_path / name, forged=True)
        assert "'model.pt'" in refusal(tmp_path / "a")
        with pytest.raises(RunError):
            load_newest(tmp_path, warn=print)
        assert not canary.exists()
        pickle.loads(data)
        assert canary.exists()  # the bait works

    @pytest.mark.parametrize(
        "name",
        [
            "../x.safetensors",
            "/tmp/x.safetensors",
            "a/b.safetensors",
            "a\\b.safetensors",
            "..safetensors",
            ".safetensors",
            "x.safetensors\n",
            "ä.safetensors",
            "\ud800.safetensors",
            "x.pt",
            "manifest.json",
            "",
            "x" * 5000,
        ],
    )
    def test_names_that_are_not_plain(self, tmp_path: Path, name: str) -> None:
        entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
        body = {"format": "twostage-checkpoint", "version": 1, "files": {"state.json": entry, name: entry}}
        forge(tmp_path / "best", {}, manifest=sealed(body))
        message = refusal(tmp_path / "best")
        assert "lists the file name" in message
        assert len(message) < 500 + len(str(tmp_path))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"version": 2}, "version is 2"),
            ({"format": "other"}, "format"),
            ({"files": []}, "lists no state.json"),
            ({"files": {}}, "lists no state.json"),
            ({"files": {"state.json": None}}, "no size"),
            ({"files": {"state.json": {"size": True, "sha256": "0" * 64}}}, "no size"),
            ({"files": {"state.json": {"size": -1, "sha256": "0" * 64}}}, "no size"),
            ({"files": {"state.json": {"size": 3, "sha256": "G" * 64}}}, "no size"),
            ({"files": {"state.json": {"size": 10**18, "sha256": "0" * 64}}}, "claims"),
        ],
    )
    def test_manifests_that_make_no_sense(self, tmp_path: Path, change: dict[str, Any], said: str) -> None:
        body = {"format": "twostage-checkpoint", "version": 1, "files": {}} | change
        forge(tmp_path / "best", {"state.json": b"{}\n"}, manifest=sealed(body))
        assert said in refusal(tmp_path / "best")

    def test_a_claimed_size_is_not_allocated(self, tmp_path: Path) -> None:
        state = Entry(size=3, sha256=hashlib.sha256(b"{}\n").hexdigest())
        manifest = render_manifest({"state.json": state, "model.safetensors": Entry(size=10**18, sha256="0" * 64)})
        forge(tmp_path / "best", {"state.json": b"{}\n", "model.safetensors": b"x"}, manifest=manifest)
        assert "1 bytes long where" in refusal(tmp_path / "best")

    @pytest.mark.parametrize(
        "text",
        [b"[" * 200_000, b'{"x":NaN}', b'{"x":1e999}', b"[]", b"\xff\xfe", b"", b'{"x":' + b"9" * 5000 + b"}"],
    )
    def test_json_that_python_would_stumble_over(self, tmp_path: Path, text: bytes) -> None:
        forge(tmp_path / "a", {"state.json": text})
        assert "state.json is not" in refusal(tmp_path / "a", forged=True)
        forge(tmp_path / "b", {"state.json": b"{}\n"}, manifest=text)
        assert "manifest.json is not" in refusal(tmp_path / "b")

    def test_links_pipes_and_folders_in_place_of_files(self, tmp_path: Path) -> None:
        for kind in ("link", "pipe", "folder"):
            path = tmp_path / kind
            save(path, 1)
            file = path / "model.safetensors"
            file.rename(tmp_path / f"{kind}.safetensors")
            if kind == "link":
                file.symlink_to(tmp_path / f"{kind}.safetensors")
            elif kind == "pipe":
                os.mkfifo(file)
            else:
                file.mkdir()
            assert "model.safetensors" in refusal(path)

    def test_tensor_headers_that_lie(self, tmp_path: Path) -> None:
        def tensor_file(header: Any) -> bytes:
            text = json.dumps(header).encode()
            return len(text).to_bytes(8, "little") + text + bytes(8)

        huge = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
        for index, header in enumerate(
            [[], {"x": 1}, {"x": huge}, {"x": huge | {"dtype": "F8_E8M0", "shape": [8], "data_offsets": [0, 8]}}]
        ):
            forge(tmp_path / str(index), {"state.json": b"{}\n", "model.safetensors": tensor_file(header)})
            with pytest.raises(RunError, match="not a safetensors file"):
                load_checkpoint(tmp_path / str(index))
