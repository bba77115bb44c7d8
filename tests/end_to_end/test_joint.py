"""`vq-vae-joint`: from a finished vq-vae and its prior to a model of its own, through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stage1_vqvae.images.codec import ImageCodec
from twostage.storage.checkpoint import load_checkpoint, load_newest
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main

COMMON = """
name = "small"
threads = 1
models = ["vq-vae", "vq-vae-joint"]
[data]
name = "{data}"
[quantiser]
codebook_size = 8
{quantiser}
[codebook_training]
steps = 60
batch_size = 8
learning_rate = 3e-3
validate_every = 60
[prior_training]
steps = 30
batch_size = 8
learning_rate = 1e-2
validate_every = 30
[joint_training]
steps = 20
batch_size = 8
learning_rate = 1e-3
validate_every = 10
checkpoint_every = 6
"""
DIGITS = """
[stage1]
downsampling = 2
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
{stage1}
[prior]
layers = 2
channels = 8
first_kernel = 3
dropout = 0.1
[evaluation]
coded_items = 2
"""
VOWELS = """
[audio]
channels = 8
residual_blocks = 0
residual_channels = 8
head_channels = 8
segment_samples = 256
mixtures = 2
[wavenet_decoder]
blocks = 0
[wavenet_prior]
blocks = 1
layers_per_block = 2
channels = 8
[evaluation]
coded_items = 2
"""
JOINT = ("--model", "vq-vae-joint")


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _recipe(folder: Path, data: str = "digits", *, quantiser: str = "embedding_dim = 8", stage1: str = "") -> Path:
    path = folder / "small.toml"
    own = DIGITS.format(stage1=stage1) if data == "digits" else VOWELS
    path.write_text(COMMON.format(data=data, quantiser=quantiser) + own)
    return path


def _train_main(folder: Path, run: Path, **settings: Any) -> Path:
    """A finished vq-vae with its prior; the recipe."""
    recipe = _recipe(folder, **settings)
    assert twostage("train-codebook", recipe, "--out", run) == 0
    assert twostage("train-prior", run) == 0
    return recipe


@pytest.fixture(scope="module")
def main_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe beside a run on digits that holds vq-vae and its prior; to be copied, not written to."""
    folder = tmp_path_factory.mktemp("main")
    return _train_main(folder, folder / "run")


@pytest.fixture
def copied(main_model: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Makes a copy of that run under a name."""
    return lambda name: Path(shutil.copytree(main_model.parent / "run", tmp_path / name))


def _record(folder: Path) -> dict[str, Any]:
    newest = load_newest(folder, warn=pytest.fail)
    assert newest is not None
    record: dict[str, Any] = newest.state["record"]
    return record


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("digits", {"quantiser": "codebooks = 2\nembedding_dim = 8", "stage1": "hierarchy = 2"}),
        ("vowels", {}),
    ],
    ids=["digits", "vowels"],
)
def test_all_verbs_know_it(
    tmp_path: Path, data: str, settings: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert twostage("train", _recipe(tmp_path, data, **settings), "--out", run) == 0
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    found = {(row["model"], row["prior"]): row for row in rows}
    learned = found["vq-vae-joint", "learned"]
    assert learned["steps"] == 60 + 30 + 20 + 30  # with those of the model that it went on from
    assert found["vq-vae", "learned"]["steps"] == 60 + 30
    assert learned["bits_per_dim"] < found["vq-vae-joint", "uniform"]["bits_per_dim"]
    capsys.readouterr()
    assert twostage("generate", run, *JOINT, "--count", 2, "--label", 0, "--seed", 1) == 0
    assert twostage("train", tmp_path / "small.toml", "--out", run) == 0
    assert capsys.readouterr().err.count("already trained") == 4
    model = load_run(run, model="vq-vae-joint")
    assert model is not None


def _rates_and_totals(run: Path) -> tuple[list[float], list[float]]:
    """Validation rates, by the price that the frozen prior asks, and totals of the joint training, bits/dim."""
    rows = [json.loads(line) for line in (run / "models/vq-vae-joint/stage1/metrics.jsonl").read_text().splitlines()]
    validated = [row for row in rows if "validation_rate_bits_per_dim" in row]
    rates, totals = ([row[f"validation_{name}bits_per_dim"] for row in validated] for name in ("rate_", ""))
    return rates, totals


def test_the_price_keeps_the_rate_down_and_the_prior_stays(
    copied: Callable[[str], Path], main_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the same training without the price, in which codes move away from what the prior expects."""
    priced, free = copied("priced"), copied("free")
    before = load_checkpoint(priced / "models/vq-vae/prior/best").sha256
    flags = ("--joint-training.steps", 60, *JOINT)
    assert twostage("train-codebook", main_model, *flags, "--out", priced) == 0
    expected_nats = ImageCodec.expected_nats
    monkeypatch.setattr(ImageCodec, "expected_nats", lambda *given: 0 * expected_nats(*given))
    assert twostage("train-codebook", main_model, *flags, "--out", free) == 0
    (rates, totals), (free_rates, free_totals) = _rates_and_totals(priced), _rates_and_totals(free)
    assert len(rates) == len(free_rates) == 6
    assert rates[-1] < 0.5 * free_rates[-1]  # measured: 0.20 and 1.25
    assert totals[-1] < min(totals[0], free_totals[-1])
    assert load_checkpoint(priced / "models/vq-vae/prior/best").sha256 == before
    kept = load_checkpoint(priced / "models/vq-vae-joint/stage1/best").tensors["model"]
    assert kept.keys() == load_checkpoint(priced / "models/vq-vae/stage1/best").tensors["model"].keys()


def test_it_begins_with_the_weights_it_goes_on_from(copied: Callable[[str], Path], main_model: Path) -> None:
    run, barely = copied("run"), ("--joint-training.steps", 1, "--joint-training.learning-rate", 1e-30)
    barely += ("--joint-training.validate-every", 1)
    assert twostage("train-codebook", main_model, *barely, "--out", run, *JOINT) == 0
    for name in ("encoder", "decoder"):
        first, second = (
            {
                key: value
                for key, value in load_checkpoint(run / f"models/{model}/stage1/best").tensors["model"].items()
                if key.startswith(name)
            }
            for model in ("vq-vae", "vq-vae-joint")
        )
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_parts_and_interruptions_change_nothing(
    copied: Callable[[str], Path], main_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = copied("whole"), copied("parts")
    assert twostage("train-codebook", main_model, "--out", whole, *JOINT) == 0
    assert twostage("train-codebook", main_model, "--out", parts, *JOINT, "--joint-training.steps", 12) == 0
    assert twostage("train-codebook", main_model, "--out", parts, *JOINT, "--extend") == 0
    for run in (whole, parts):
        assert twostage("train-prior", run, *JOINT) == 0
    for stage in ("stage1", "prior"):
        first, second = (load_newest(run / "models/vq-vae-joint" / stage, warn=pytest.fail) for run in (whole, parts))
        assert first is not None
        assert second is not None
        assert {**first.sha256, "state.json": ""} == {**second.sha256, "state.json": ""}
        assert first.state["record"]["start"] == second.state["record"]["start"] if stage == "stage1" else True


def test_it_needs_a_finished_model_and_prior(
    main_model: Path, copied: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    assert twostage("train-codebook", main_model, "--out", new, *JOINT) == 1
    assert "holds no finished stage one of model vq-vae " in capsys.readouterr().err
    assert not new.exists()
    run = copied("run")
    shutil.rmtree(run / "models/vq-vae/prior")
    assert twostage("train-codebook", main_model, "--out", run, *JOINT) == 1
    assert "holds no finished prior of model vq-vae" in capsys.readouterr().err
    assert not (run / "models/vq-vae-joint").exists()


def test_it_goes_on_with_the_same_prior_alone(
    main_model: Path, copied: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied("run")
    assert twostage("train-codebook", main_model, "--out", run, *JOINT) == 0
    start = _record(run / "models/vq-vae-joint/stage1")["start"]
    prior = load_checkpoint(run / "models/vq-vae/prior/best").sha256["model.safetensors"]
    assert (start["model"], start["prior_sha256"], start["steps"]) == ("vq-vae", prior, 90)
    assert twostage("train-prior", run, "--prior-training.steps", 40, "--extend") == 2
    assert "vq-vae-joint in" in (said := capsys.readouterr().err)
    assert "went on from vq-vae prior, which a longer training changes" in said
    shutil.rmtree(run / "models/vq-vae/prior")
    assert twostage("train-prior", run, "--seed", 7) == 0
    for command in (("train-codebook", main_model, "--out", run), ("train-prior", run)):
        capsys.readouterr()
        assert twostage(*command, *JOINT) == 2
        assert "went on from the prior" in (said := capsys.readouterr().err)
        assert "trained again since" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "vq-vae-joint", "vq-vae"], "models must name vq-vae before vq-vae-joint"),
        (["--models", "vq-vae-joint"], "models must name vq-vae before vq-vae-joint"),
        (
            ["--quantiser.kind", "fsq", "--quantiser.fsq-levels", "4", "3"],
            "by their distances, which quantiser.kind fsq",
        ),
        (["--stage1.likelihood", "mse"], "which stage1.likelihood mse does not have"),
        (["--joint-training.steps", "0"], "joint_training.steps must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert twostage("train", _recipe(tmp_path), *flags, "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_comparison_of_equal_steps_leaves_it_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = _recipe(tmp_path), ("--out", tmp_path / "all", "--dry-run")
    assert twostage("compare", recipe, "--models", "vq-vae", "vq-vae-joint", *out) == 2
    assert "compare gives every model the same" in capsys.readouterr().err
    assert twostage("compare", recipe, *out) == 0
    assert "joint" not in capsys.readouterr().err
