"""Arrays from anywhere by the command line: one sentence and exit code 1, before anything is trained."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from twostage_pipelines.cli.main import main

FLAG = Path("ran")


class Bomb:
    """Its pickle runs code where it is read."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {FLAG}",)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb()))


def array_of_objects(path: Path) -> None:
    np.save(path, np.array([Bomb()] * 9, dtype=object), allow_pickle=True)


def archived_objects(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.array([Bomb()] * 9, dtype=object), allow_pickle=True)


def huge_shape(path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 4096, 4096)})
    path.write_bytes(head.getvalue() + bytes(4096))


def bomb(path: Path) -> None:
    """64 MiB of zeros in 64 KiB, behind a header that states 16 PB."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**15, 4, 4)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as member:
        member.write(head.getvalue())
        for _ in range(64):
            member.write(bytes(1 << 20))


def many_channels(path: Path) -> None:
    np.save(path, np.zeros((9, 17, 4, 4), np.uint8))


def truncated(path: Path) -> None:
    np.save(path, np.zeros((9, 4, 4), np.uint8))
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "make", [pickled, array_of_objects, archived_objects, huge_shape, bomb, many_channels, truncated]
)
def test_nothing_is_run_unpacked_or_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.npy")
    source = ["images", "--data.name", "arrays", "--data.path", str(tmp_path / "x.npy")]
    assert main(["train-codebook", *source, "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("twostage: expected arrays of images in ")
    assert "'x.npy' " in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run/models").exists()
    assert main(["check-data", str(tmp_path / "x.npy")]) == 1
    assert "'x.npy' " in capsys.readouterr().out
    assert not FLAG.exists()
