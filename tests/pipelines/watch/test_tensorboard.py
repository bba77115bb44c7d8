"""`--log tensorboard`: what stands in the events, of one session and of two, and what is said where it cannot be."""

import shutil
import sys
import warnings
from pathlib import Path

import pytest

from twostage_pipelines.cli.main import main
from twostage_pipelines.runs import session as session_module

RECIPE = """
models = ["vq-vae"]
threads = 1
stage1 = {channels = 8, downsampling = 2, residual_blocks = 1, residual_channels = 4, head_channels = 4}
quantiser = {codebook_size = 8, embedding_dim = 4}
codebook_training = {steps = 4, batch_size = 8, validate_every = 2, checkpoint_every = 2}
"""


def _train(tmp_path: Path, *flags: str) -> int:
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    run = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    return main(["train-codebook", str(tmp_path / "recipe.toml"), *run, *flags])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_events_hold_numbers_pictures_and_codes_once_each(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    assert _train(tmp_path, "--log", "tensorboard") == 0
    training = tmp_path / "run/models/vq-vae/stage1"
    shutil.rmtree(training / "step-00000004")  # as a kill before that checkpoint leaves it
    assert _train(tmp_path, "--log", "tensorboard") == 0
    found = EventAccumulator(str(training / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"bits_per_dim/validation", "loss/training"} <= set(tags["scalars"])
    assert [event.step for event in found.Scalars("bits_per_dim/validation")] == [2, 4]
    assert [event.step for event in found.Images("reconstructions")] == [2, 4]
    histogram = found.Histograms("codes")[-1].histogram_value
    assert histogram.num == 64 * 16  # of 64 validation images of 4x4 codes
    assert 0 <= histogram.min <= histogram.max < 8


def test_a_missing_package_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert _train(tmp_path, "--log", "tensorboard") == 1
    assert "pip install 'twostage[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_place_where_no_event_can_be_written_is_said_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session_module, "load_writer", lambda: None)
    place = tmp_path / "run/models/vq-vae/stage1/tensorboard"
    place.parent.mkdir(parents=True)
    place.write_text("a file in its way", encoding="utf-8")
    assert _train(tmp_path, "--log", "tensorboard") == 2
    assert f"{place} is a file" in capsys.readouterr().err
    assert not (tmp_path / "run/config.toml").exists()
