"""Exported folders that came through a bad download, or from someone who means harm: a sentence, in bounded time."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stage1_vqvae import VQVAE
from twostage.config.load import dump_recipe, load_recipe
from twostage.errors import TwoStageError
from twostage.storage.checkpoint import save_checkpoint
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main

BEST = "models/vq-vae/stage1/best"
FILES = ("config.json", "config.toml", f"{BEST}/manifest.json", f"{BEST}/state.json", f"{BEST}/model.safetensors")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
SIX_GIB = 6 << 30


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """An alarm where a pipe is waited for."""

    def late(*_: object) -> None:
        raise AssertionError("waited too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """What `twostage export` makes of a tiny codebook without a prior, its data out of reach."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(dump_recipe(load_recipe("digits")))
    torch.manual_seed(0)
    architecture: dict[str, Any] = {
        "image_shape": (1, 8, 8), "levels": 17, "likelihood": "hurdle", "channels": 4, "residual_blocks": 1,
        "residual_channels": 4, "head_channels": 4, "codebook_size": 4, "embedding_dim": 4,
    }  # fmt: skip
    record = {
        "kind": "vq-vae", "architecture": architecture, "dataset": "digits", "classes": ["a"], "trained_labels": ["a"],
        "config": {"training": {"steps": 1}, "data": {"name": "digits", "sha256": "0" * 64}},
    }  # fmt: skip
    state = {"step": 1, "seconds": 1.0, "finished": True, "record": record}
    for name in ("step-00000001", "best"):
        tensors = {"model": VQVAE(**architecture).state_dict()}
        save_checkpoint(run / "models/vq-vae/stage1" / name, tensors=tensors, state=state)
    assert main(["export", str(run), "--to", str(tmp_path / "exported")]) == 0
    return tmp_path / "exported"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sparse(path: Path) -> None:
    os.truncate(path, SIX_GIB)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "flipped": flipped,
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
    "pointer": lambda path: path.write_bytes(POINTER),
    "sparse": sparse,
    "pipe": replaced(os.mkfifo),
    "folder": replaced(Path.mkdir),
    "device": replaced(lambda path: path.symlink_to("/dev/zero")),
}
READERS: dict[str, Callable[[Path], object]] = {"load_run": load_run, "from_folder": VQVAE.from_folder}


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What every reader says of the folder; all must refuse it."""
    said = []
    for read in READERS.values():
        with pytest.raises(TwoStageError) as raised:
            read(folder)
        said.append(str(raised.value))
    image = folder.parent / "x.png"
    image.write_bytes(b"")
    capsys.readouterr()
    assert main(["reconstruct", str(folder), str(image), "--out", str(folder.parent / "out")]) in (1, 2)
    return [*said, capsys.readouterr().err.strip()]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_a_sentence(exported: Path, file: str, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    if (file, damage) == ("config.json", "missing"):
        pytest.skip("without it the folder is a run without training states, whose weights are checked as ever")
    assert load_run(exported).name == "vq-vae"
    DAMAGE[damage](exported / file)
    if (file, damage) == ("config.json", "flipped"):  # of a word that nobody reads, perhaps
        (exported / file).write_text((exported / file).read_text().replace('"version": 1', '"version": 3'))
    for said in refused(exported, capsys):
        assert said.isprintable()
        assert str(exported) in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": {"../run/config.toml": "0" * 64}}, "no plain path"),
        ({"files": {"/etc/passwd": "0" * 64}}, "no plain path"),
        ({"files": {"models//x": "0" * 64}}, "no plain path"),
        ({"files": {"a\nb": "0" * 64}}, "no plain path"),
        ({"files": {"README.md": "\u001b[31m"}}, "gives no SHA-256 for README.md"),
        ({"files": {"README.md": 3}}, "gives no SHA-256 for README.md"),
        ({"files": {"README.md": "0" * 64}}, "README.md does not match its SHA-256"),
        ({"files": {}}, "lists no files"),
        ({"files": ["config.toml"]}, "lists no files"),
        ({"version": 2}, "its format version is 2 and this twostage reads 1"),
        ({"version": "\u001b[31m" * 99}, "its format version is"),
        ({"format": "bert"}, "is that of another program"),
    ],
)
def test_what_config_json_may_say(
    exported: Path, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = json.loads((exported / "config.json").read_text())
    (exported / "config.json").write_text(json.dumps(index | change))
    for sentence in refused(exported, capsys):
        assert said in sentence
        assert sentence.isprintable()


def test_deep_json_is_no_index(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (exported / "config.json").write_text('{"files": ' + "[" * 200_000)
    assert all("config.json is not valid JSON" in said for said in refused(exported, capsys))


def test_the_folder_of_another_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"")
    assert all("is that of another program" in said for said in refused(folder, capsys))
    (folder / "config.json").unlink()
    assert all(str(folder) in said for said in refused(folder, capsys))


def test_files_of_a_cache_of_links_are_refused_with_the_reason(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = exported / BEST / "model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    assert all("model.safetensors could not be read" in said for said in refused(exported, capsys))
