"""What a killed process left of a file is removed by the next one; what a living one is writing is not."""

import fcntl
import os
import signal
from pathlib import Path

import pytest

from twostage.storage import atomic
from twostage.storage.atomic import write_atomic


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(autouse=True)
def new_process() -> None:
    """A process looks for abandoned files once in every folder."""
    atomic._remove_abandoned.cache_clear()


def killed_while_writing(path: Path) -> None:
    """A process that dies between the bytes and the name of a file."""
    pid = os.fork()
    if pid == 0:
        Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign, assignment, return-value]
        write_atomic(path, b"half")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_the_next_write_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "one.png")
    assert [name[:13] for name in names(tmp_path)] == [".tmp-one.png-"]
    write_atomic(tmp_path / "two.png", b"whole")
    assert names(tmp_path) == ["two.png"]


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    with atomic._held(tmp_path / ".tmp-one.png-00000000") as descriptor:
        os.write(descriptor, b"slow")
        write_atomic(path, b"quick")
        assert names(tmp_path) == [".tmp-one.png-00000000", "one.png"]
        (tmp_path / ".tmp-one.png-00000000").replace(path)
    assert path.read_bytes() == b"slow"


def test_a_file_taken_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two calls that make a file and lock it, another process may come, lock and remove it."""
    real, removed = fcntl.flock, []

    def flock(descriptor: int, operation: int) -> None:
        for entry in [] if removed else tmp_path.glob(".tmp-*"):
            entry.unlink()
            removed.append(entry)
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    write_atomic(tmp_path / "one.png", b"whole")
    assert len(removed) == 1
    assert (tmp_path / "one.png").read_bytes() == b"whole"
    assert names(tmp_path) == ["one.png"]


def test_only_unfinished_files_of_that_kind_are_removed(tmp_path: Path) -> None:
    kept = [".tmp-one.txt-00000000", ".tmp-one.png-0000000", ".tmp-one.png-0000000g", ".tmp-.png-00000000", "a.png"]
    for name in kept:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / ".tmp-folder.png-00000000").mkdir()
    (tmp_path / ".tmp-link.png-00000000").symlink_to(tmp_path / "a.png")
    before = names(tmp_path)
    (tmp_path / ".tmp-one\nline.png-00000000").write_bytes(b"abandoned")
    write_atomic(tmp_path / "b.png", b"whole")
    assert names(tmp_path) == sorted([*before, "b.png"])


def test_without_locks_nothing_is_removed_and_all_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network file systems."""

    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".tmp-one.png-00000000").write_bytes(b"")
    write_atomic(tmp_path / "one.png", b"whole")
    assert names(tmp_path) == [".tmp-one.png-00000000", "one.png"]
