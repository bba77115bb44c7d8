"""What is checked before a training begins."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.config.load import load_recipe, recipe_names
from twostage.storage.checkpoint import newest_state
from twostage.training import precision
from twostage_pipelines.cli.main import main


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


TINY = ["--data.image-size", "8", "--data.colour", "grey", "--stage1.downsampling", "2", "--stage1.channels", "8"]
TINY += ["--stage1.head-channels", "8", "--stage1.likelihood", "hurdle", "--quantiser.codebook-size", "8"]
TINY += ["--codebook-training.warmup-steps", "0", "--codebook-training.batch-size", "8"]


def test_bf16_on_a_cpu_that_emulates_it(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anything is written, unless forced; a training that has begun in it goes on."""
    run = folder.parent / f"{folder.name}-run"

    def train(setting: str, steps: int = 2) -> tuple[int, str]:
        flags = ["--codebook-training.steps", str(steps), "--codebook-training.precision", setting, "--out", str(run)]
        code = main(["train-codebook", "images", "--data.path", str(folder), *TINY, *flags])
        return code, capsys.readouterr().err

    monkeypatch.setattr(precision, "cpu_cost", lambda: 12.3)
    code, said = train("bf16")
    assert code == 2
    assert "12 times as long in bf16" in said
    assert not run.exists()
    code, said = train("bf16-forced")
    assert code == 0
    state = newest_state(run / "models/vq-vae/stage1", warn=pytest.fail)
    assert state is not None
    assert state["record"]["precision"] == "bf16"
    for setting in ("auto", "bf16", "bf16-forced"):  # finished, and the same training to all of them
        code, said = train(setting)
        assert (code, "already trained" in said) == (0, True), said
    code, said = train("fp32")
    assert code == 2
    assert "training.precision: bf16 -> fp32" in said


def test_shipped_recipes_leave_the_precision_to_the_device() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        trainings = (recipe.codebook_training, recipe.decoder_training, recipe.prior_training, recipe.baseline_training)
        assert {training.precision for training in trainings} <= {"auto", "fp32"}, name
