"""A crash at every file system call, an interrupt, a full disk: the previous checkpoint or the new one loads."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from twostage.errors import RunError
from twostage.storage import checkpoint as checkpoint_module
from twostage.storage.atomic import remove_directory, write_atomic
from twostage.storage.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_newest,
    prune,
    save_checkpoint,
    step_name,
    verify_checkpoint,
)
from twostage.storage.manifest import Entry


def save(path: Path, number: int) -> None:
    save_checkpoint(path, tensors={"model": {"weight": torch.full((3,), float(number))}}, state={"number": number})


def number(checkpoint: Checkpoint | None) -> int:
    """The number that was saved, provided that tensors and state belong together."""
    assert checkpoint is not None
    assert set(checkpoint.tensors["model"]["weight"].tolist()) == {float(checkpoint.state["number"])}
    return checkpoint.state["number"]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class Crash(BaseException):
    """The process dies: nothing that runs afterwards may change the file system any more."""


def crash_at(patch: pytest.MonkeyPatch, call: int) -> list[str]:
    """Let the `call`-th file system call and all later ones raise; a write gets half of its bytes out."""
    calls: list[str] = []

    def wrapped(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def function(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            if len(calls) == call and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if len(calls) >= call:
                raise Crash
            return real(*arguments, **options)

        return function

    for name in ("mkdir", "open", "write", "fsync", "rename", "replace", "unlink", "rmdir"):
        patch.setattr(os, name, wrapped(name, getattr(os, name)))
    return calls


def crashes(action: Callable[[], None]) -> Iterator[str]:
    """Run `action` with a crash at its first, second, ... file system call, until it is reached no more."""
    for call in range(1, 200):
        with pytest.MonkeyPatch.context() as patch:
            calls = crash_at(patch, call)
            try:
                action()
            except Crash:
                crashed = True
            else:
                crashed = False
        if not crashed:
            return
        yield f"{call}: {calls[call - 1]}"
    raise AssertionError("never ran through")


class TestCrash:
    def test_replacing_always_leaves_the_old_or_the_new(self, tmp_path: Path) -> None:
        folder = tmp_path / "stage1"
        best = folder / "best"
        save(best, 1)
        outcomes: list[int] = []
        moved_aside = 0
        for point in crashes(lambda: save(best, 2)):
            moved_aside += not best.exists()
            outcome = number(load_checkpoint(best))
            assert outcome in (1, 2), point
            assert verify_checkpoint(best) is not None
            outcomes.append(outcome)
            save(best, 1)  # as a resumed training would
            prune(folder, keep=2)
            assert names(folder) == ["best"], point
            assert number(load_checkpoint(best)) == 1
        assert outcomes == sorted(outcomes)  # once the new one is there the old one does not come back
        assert set(outcomes) == {1, 2}
        assert moved_aside >= 1

    def test_everything_is_on_the_disk_before_it_gets_its_name(self, tmp_path: Path) -> None:
        """A power failure after the rename must not find empty files behind the final name."""
        for action, files in ((lambda: save(tmp_path / "best", 1), 4), (lambda: write_atomic(tmp_path / "f", b"x"), 1)):
            with pytest.MonkeyPatch.context() as patch:
                recorded = crash_at(patch, 10**9)
                action()
            renamed = next(index for index, name in enumerate(recorded) if name in ("rename", "replace"))
            assert recorded[:renamed].count("fsync") == files  # each file, and the directory that lists them
            assert "fsync" in recorded[renamed:]  # the rename itself

    def test_a_new_step_is_there_or_not_there(self, tmp_path: Path) -> None:
        save(tmp_path / "step-00000001", 1)
        warnings: list[str] = []
        seen = set()
        for point in crashes(lambda: save(tmp_path / "step-00000002", 2)):
            seen.add(number(load_newest(tmp_path, warn=warnings.append)))
            assert warnings == [], point  # a cut write is no damaged checkpoint
            prune(tmp_path, keep=5)
            assert not [name for name in names(tmp_path) if name.startswith(".")], point
            if (tmp_path / "step-00000002").exists():
                remove_directory(tmp_path / "step-00000002")
        assert seen == {1, 2}

    def test_pruning_cut_short_leaves_no_damaged_step(self, tmp_path: Path) -> None:
        for step in range(1, 4):
            save(tmp_path / step_name(step), step)
        for point in crashes(lambda: prune(tmp_path, keep=1)):
            for path in tmp_path.glob("step-*"):
                assert verify_checkpoint(path) is not None, point
            assert number(load_newest(tmp_path, warn=print)) == 3
            for step in range(1, 4):
                save(tmp_path / step_name(step), step)

    def test_single_files_are_old_or_new(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b"old")
        seen = set()
        for point in crashes(lambda: write_atomic(path, b"new and longer")):
            seen.add(path.read_bytes())
            assert seen <= {b"old", b"new and longer"}, point
            path.write_bytes(b"old")
        assert seen == {b"old", b"new and longer"}

    def test_an_interrupt_is_cleaned_up(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C, unlike a crash, leaves time to put things back."""
        save(tmp_path / "best", 1)
        real = Path.rename

        def interrupted(self: Path, target: Path) -> Path:
            if self.name.startswith(".tmp-"):
                raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "best", 2)
        assert names(tmp_path) == ["best"]
        assert number(load_checkpoint(tmp_path / "best")) == 1

    def test_reading_while_another_process_replaces(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`generate` beside a running training: never a mixture, never a false alarm."""
        save(tmp_path / "best", 1)
        real = checkpoint_module.read_verified
        left = [3]

        def slow(path: Path, entry: Entry) -> bytes:
            if left[0] and path.name == "model.safetensors":
                left[0] -= 1
                save(tmp_path / "best", 10 - left[0])
            return real(path, entry)

        monkeypatch.setattr(checkpoint_module, "read_verified", slow)
        assert number(load_checkpoint(tmp_path / "best")) == 10


class TestFullDisk:
    @pytest.mark.parametrize("share", [0, 0.01, 0.04, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 0.99])
    def test_the_previous_checkpoint_stays_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
    ) -> None:
        save(tmp_path / "best", 1)
        write_atomic(tmp_path / "config.toml", b"old")
        room = int(share * sum(file.stat().st_size for file in (tmp_path / "best").iterdir()))
        real = os.write
        left = [room]

        def write(descriptor: int, data: Any) -> int:
            if left[0] == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written = real(descriptor, data[: left[0]])
            left[0] -= written
            return written

        monkeypatch.setattr(os, "write", write)
        with pytest.raises(RunError) as raised:
            save(tmp_path / "best", 2)
        assert str(tmp_path / "best") in str(raised.value)
        assert "no space left on device" in str(raised.value)
        left[0] = min(room, 5)
        with pytest.raises(RunError, match=r"config\.toml: no space left on device"):
            write_atomic(tmp_path / "config.toml", b"new and longer")
        assert names(tmp_path) == ["best", "config.toml"]
        assert number(load_checkpoint(tmp_path / "best")) == 1
        assert (tmp_path / "config.toml").read_bytes() == b"old"

    @pytest.mark.parametrize("function", ["mkdir", "open", "fsync", "rename"])
    @pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
    def test_any_refusal_of_the_system_is_a_sentence(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, code: int
    ) -> None:
        save(tmp_path / "best", 1)

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(RunError) as raised:
                save(tmp_path / "best", 2)
        reason = os.strerror(code)
        assert f"could not write {tmp_path / 'best'}: {reason[0].lower()}{reason[1:]}" in str(raised.value)
        assert number(load_checkpoint(tmp_path / "best")) == 1
        prune(tmp_path, keep=1)
        assert names(tmp_path) == ["best"]

    def test_a_file_in_the_place_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("mine")
        with pytest.raises(RunError, match=r"run/stage1/best"):
            save(tmp_path / "run" / "stage1" / "best", 1)
        with pytest.raises(RunError, match=r"could not write .*run"):
            save(tmp_path / "run", 1)
        assert (tmp_path / "run").read_text() == "mine"
        assert names(tmp_path) == ["run"]
