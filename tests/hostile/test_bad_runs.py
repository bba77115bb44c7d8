"""Pipes, devices, links and files of impossible size in a run folder: a sentence, in bounded time and memory."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from twostage.errors import RunError
from twostage.storage import locks
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, load_codes, save_codes
from twostage.storage.locks import exclusive
from twostage.training.record import Metrics, read_metrics
from twostage_pipelines.evaluate.rows import Evaluation

SIX_GIB = 6 << 30
MEMORY = 1 << 28
"""Bytes that a reader may take beyond what the process has; far below the sparse files."""
SECONDS = 5


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """An alarm where a pipe is waited for, MemoryError where a sparse file is read."""

    def late(*_: object) -> None:
        raise AssertionError("waited too long")  # a TimeoutError would be an OSError, which readers explain

    before, limits = signal.signal(signal.SIGALRM, late), resource.getrlimit(resource.RLIMIT_AS)
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY + (1 << 28), limits[1]))
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)


def sparse(path: Path) -> None:
    """6 GiB that take no room."""
    path.write_bytes(b"")
    os.truncate(path, SIX_GIB)


SPOILT: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": sparse,
    "folder": Path.mkdir,
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "metrics": ("metrics.jsonl", read_metrics),
    "evaluation": ("evaluation.json", Evaluation.read),
    "codes": ("codes.safetensors", load_codes),
    "record to go on with": ("metrics.jsonl", lambda path: Metrics(path, size=0)),
    "lock": (".lock", lambda path: exclusive(path.parent).__enter__()),
}


@pytest.mark.parametrize("kind", SPOILT)
@pytest.mark.parametrize("reader", READERS)
def test_readers_take_regular_files_of_their_size_only(tmp_path: Path, reader: str, kind: str) -> None:
    name, read = READERS[reader]
    SPOILT[kind](tmp_path / name)
    if kind == "sparse" and reader in ("record to go on with", "lock"):  # cut back to the checkpoint, and never read
        made = read(tmp_path / name)
        if isinstance(made, Metrics):
            made.close()
        return
    with pytest.raises(RunError) as raised:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)
    assert str(raised.value).isprintable()


def test_codes_behind_which_a_hole_follows_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    header = CodeHeader(
        dataset="x", split="test", model="vq-vae", codebook_size=4, codebooks=1, grids=((2, 2),), classes=0,
        stage1_sha256="0" * 64,
    )  # fmt: skip
    save_codes(path, CodeFile(codes=np.zeros((3, 1, 2, 2), np.int64), labels=np.zeros(3, np.int64), header=header))
    assert load_codes(path).codes.shape == (3, 1, 2, 2)
    os.truncate(path, 3 << 30)
    with pytest.raises(RunError, match="3221225472 bytes long where its header states"):
        load_codes(path)


def test_a_line_of_a_record_that_is_too_long_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": ' + b"9" * 200_000 + b'}\n[1]\n{"step": 2}\n')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_a_record_that_was_cut_back_knows_its_length(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n')
    metrics = Metrics(path, size=12)
    assert metrics.sync() == 12
    metrics.write({"step": 3})
    assert metrics.sync() == 24
    metrics.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 3}]


def test_a_record_that_is_a_link_is_not_cut(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious\n")
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "outside")
    (tmp_path / ".lock").symlink_to(tmp_path / "outside")
    with pytest.raises(RunError, match="is a symbolic link"):
        Metrics(tmp_path / "metrics.jsonl", size=0)
    with pytest.raises(RunError, match="is a symbolic link"), exclusive(tmp_path):
        pass
    assert (tmp_path / "outside").read_bytes() == b"precious\n"


class TestLocks:
    @pytest.fixture(autouse=True)
    def _say_it_again(self) -> None:
        locks._say_not_held.cache_clear()

    @pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EOPNOTSUPP", "EINVAL", "no fcntl"])
    def test_without_them_a_training_goes_on_and_says_so_once(
        self, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

        if name == "no fcntl":
            monkeypatch.setattr(locks, "fcntl", None)
        else:
            monkeypatch.setattr("fcntl.flock", refuse)
        done = 0
        for _ in range(2):
            with exclusive(tmp_path):
                done += 1
        assert done == 2
        assert capsys.readouterr().err.count("nothing holds two trainings in one folder apart") == 1

    def test_another_error_is_no_such_file_system(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr("fcntl.flock", fail)
        with pytest.raises(OSError, match="Input/output error"), exclusive(tmp_path):
            pass

    def test_with_them_the_second_is_refused(self, tmp_path: Path) -> None:
        with exclusive(tmp_path), pytest.raises(RunError, match="another process is training"), exclusive(tmp_path):
            pass

    def test_the_package_loads_where_there_is_no_fcntl(self) -> None:
        code = "import sys; sys.modules['fcntl'] = None; from twostage.storage import atomic, locks; print(locks.fcntl)"
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert loaded.stdout == "None\n"
