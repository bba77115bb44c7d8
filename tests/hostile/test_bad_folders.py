"""Folders that are built to hurt: links, pipes, names, depth; the loaders and `check-data` see the same in them."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from twostage.data.audio.folder import load_recordings
from twostage.data.audio.splits import SplitRule
from twostage.data.images.folder import load_folder
from twostage.errors import DataError, TwoStageError, UsageError
from twostage_pipelines.cli.check_data import run_check_data
from twostage_pipelines.commands.tools import CheckData

NOISE = np.random.default_rng(0).integers(-9000, 9000, 500).astype(np.int16)
KINDS = ("images", "recordings")
SUFFIX = {"images": ".png", "recordings": ".wav"}


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.new("RGB", (4, 4), (len(path.name), 2, 3)).save(path)
    else:
        soundfile.write(path, NOISE, 8000)


def load(root: Path, kind: str, *, pattern: str | None = None) -> None:
    if kind == "images":
        load_folder(
            str(root),
            size=(4, 4),
            fit="resize",
            colour="rgb",
            bits=8,
            train_folder=None,
            test_folder=None,
            skip_unreadable=0,
        )
    else:
        load_recordings(str(root), sample_rate_hz=8000, pattern=pattern)


def lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be listed; the superuser may list any."""
    scandir = os.scandir
    (root / "locked").mkdir()

    def refuse(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


Spoil = Callable[[Path, str, pytest.MonkeyPatch], object]
FOLDERS: dict[str, tuple[Spoil, list[str]]] = {
    "all is well": (lambda *_: None, []),
    "others beside": (lambda root, *_: (root / "notes.txt").write_text("x"), []),
    "hidden": (lambda root, s, _: (root / f".x{s}").write_bytes(b""), []),
    "a link to no file of the kind": (lambda root, *_: (root / "notes").symlink_to("/etc/passwd"), []),
    "a link within": (lambda root, s, _: (root / f"x{s}").symlink_to(root / f"0{s}"), ["'x' is a symbolic link"]),
    "a link out": (lambda root, s, _: (root / f"x{s}").symlink_to("/etc/passwd"), ["'x' is a symbolic link"]),
    "a link to itself": (lambda root, s, _: (root / f"x{s}").symlink_to(root / f"x{s}"), ["'x' is a symbolic link"]),
    "a folder's link to itself": (lambda root, *_: (root / "loop").symlink_to(root / "loop"), []),
    "a folder's link up": (lambda root, *_: (root / "up").symlink_to(root.parent), ["'up' is a symbolic link"]),
    "a pipe": (lambda root, s, _: os.mkfifo(root / f"x{s}"), ["'x' is no regular file"]),
    "a folder with the name of a file": (lambda root, s, _: (root / f"x{s}").mkdir(), []),
    "a folder that may not be listed": (lambda root, _, patch: lock(root, patch), ["locked"]),
    "nothing in a file": (lambda root, s, _: (root / f"0{s}").write_bytes(b""), ["'0' is empty"]),
    "three faults": (
        lambda root, s, _: [(root / f"{n}{s}").write_bytes(b"") for n in "012"],
        ["'0' is empty", "'1' is empty", "'2' is empty"],
    ),
    "a line break in a name": (lambda root, s, _: (root / f"a\nb{s}").write_bytes(b""), [r"'a\nb' is empty"]),
    "an escape sequence in a name": (
        lambda root, s, _: (root / f"\x1b[2Jx{s}").write_bytes(b""),
        [r"'\x1b[2Jx' is empty"],
    ),
    "a turned name": (lambda root, s, _: (root / f"\u202ex{s}").write_bytes(b""), [r"'\u202ex' is empty"]),
    "a name that is no text": (
        lambda root, s, _: (root / os.fsdecode(b"\xff" + s.encode())).write_bytes(b""),
        [r"'\udcff' is empty"],
    ),
    "letters of the world": (lambda root, s, _: save(root / f"für 日本 \U0001f3b5{s}"), []),
    "files beside labels": (lambda root, s, _: save(root / "cat" / f"x{s}"), ["sub-folders"]),
    "only labels": (lambda root, s, _: move(root, root / "cat", s), []),
    "a label with a line break": (lambda root, s, _: move(root, root / "c\nt", s), ["print"]),
    "two files": (lambda root, s, _: [(root / f"{n}{s}").unlink() for n in range(4)], ["train, validation"]),
    "no file": (lambda root, s, _: [(root / f"{n}{s}").unlink() for n in range(6)], []),
    "a path of 300 folders": (lambda root, s, _: deep(root, s), []),
}  # fmt: skip


def move(root: Path, folder: Path, suffix: str) -> None:
    folder.mkdir()
    for number in range(6):
        (root / f"{number}{suffix}").rename(folder / f"{number}{suffix}")


def deep(root: Path, suffix: str) -> None:
    for number in range(6):
        save(root / "/".join(["d"] * 300) / f"{number}{suffix}")
        (root / f"{number}{suffix}").unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOLDERS)
def test_training_and_check_data_agree(
    tmp_path: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both take a folder or refuse it, and where single files are at fault, with the same words."""
    root, suffix = tmp_path / "data", SUFFIX[kind]
    for number in range(6):
        save(root / f"{number}{suffix}")
    spoil, said = FOLDERS[name]
    spoil(root, suffix, monkeypatch)
    refused = {}
    for who, run in (("loader", lambda: load(root, kind)), ("check", lambda: check(root, kind))):
        capsys.readouterr()
        try:
            run()
        except TwoStageError as error:
            refused[who] = str(error) + capsys.readouterr().out
    assert all(line.isprintable() for message in refused.values() for line in message.split("\n"))
    assert set(refused) == ({"loader", "check"} if said or name == "no file" else set())
    for words in said:
        expected = re.sub(r"^'(.*?)'", lambda found: f"'{found[1]}{suffix}'" if found[1] != "up" else found[0], words)
        assert all(expected in message for message in refused.values())


def check(root: Path, kind: str = "auto", **settings: object) -> None:
    run_check_data(CheckData(path=root, kind=kind, **settings).resolved())  # type: ignore[arg-type]


def test_folders_for_training_and_test_may_not_lead_out_by_a_link(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "elsewhere" / f"{number}.png")
        save(tmp_path / "data" / "fit" / f"{number}.png")
    (tmp_path / "data" / "try").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="leads out of it by a symbolic link"):
        load_folder(
            str(tmp_path / "data"),
            size=(4, 4),
            fit="resize",
            colour="rgb",
            bits=8,
            train_folder="fit",
            test_folder="try",
            skip_unreadable=0,
        )


@pytest.mark.parametrize("place", ["link", "link above", "up", "pipe"])
def test_lists_of_names_may_not_lie_elsewhere(tmp_path: Path, place: str) -> None:
    root = tmp_path / "data"
    for number in range(6):
        save(root / f"{number}.wav")
    (tmp_path / "list").write_text("0.wav\n")
    setting = "list"
    if place == "link":
        (root / "list").symlink_to(tmp_path / "list")
    elif place == "link above":
        (root / "above").symlink_to(tmp_path)
        setting = "above/list"
    elif place == "up":
        setting = "../list"
    else:
        os.mkfifo(root / "list")
    rule = SplitRule(test_list=setting)
    with pytest.raises((UsageError, DataError), match=r"inside|no regular file"):
        load_recordings(str(root), sample_rate_hz=8000, split_rule=rule, pattern="{index}")
