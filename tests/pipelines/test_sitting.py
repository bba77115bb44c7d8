"""What is checked before a training begins."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage_pipelines.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty small grey images."""
    generator = np.random.default_rng(0)
    for index in range(30):
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{index:02}.png")
    return tmp_path


def test_a_run_is_not_written_into_its_own_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data.path", str(folder), "--data.image-size", "8", "--data.colour", "grey"]
    before = sorted(folder.iterdir())
    assert main(["train", "images", *flags, "--out", str(folder / "runs" / "images")]) == 2
    assert "lies in" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_a_batch_larger_than_the_data_says_what_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data.path", str(folder), "--data.image-size", "8", "--data.colour", "grey"]
    flags += ["--codebook-training.batch-size", "64", "--out", str(folder.parent / "run"), "--dry-run"]
    assert main(["train-codebook", "images", *flags]) == 2
    assert "choose a smaller batch_size" in capsys.readouterr().err


def test_an_empty_path_is_no_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "images", "--data.path", "", "--dry-run"]) == 2
    assert "an empty one came" in capsys.readouterr().err
