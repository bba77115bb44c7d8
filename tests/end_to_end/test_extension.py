"""`--extend`: N steps and M more are N + M steps, for every kind of training, and nothing loses its codebook by it."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twostage.config.schema import TrainingConfig
from twostage.storage.checkpoint import load_newest
from twostage_pipelines.cli.main import main
from twostage_pipelines.runs.extension import Extension
from twostage_pipelines.runs.jobs import Job

SMALL = """
name = "small"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "{data}"
{kind}
[quantiser]
codebook_size = 8
embedding_dim = 4
revival_threshold = 0.5
[gaussian]
latent_channels = 2
[codebook_training]
steps = 8
batch_size = 4
warmup_steps = 2
weight_ema = 0.9
validate_every = 8
checkpoint_every = 3
[prior_training]
steps = 8
batch_size = 4
validate_every = 8
checkpoint_every = 3
[baseline_training]
steps = 8
batch_size = 4
validate_every = 8
checkpoint_every = 3
"""
IMAGES = """
[stage1]
downsampling = 2
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 8
[prior]
layers = 2
channels = 8
dropout = 0.1
"""
SOUND = """
[audio]
channels = 8
residual_blocks = 0
residual_channels = 8
head_channels = 8
segment_samples = 256
mixtures = 2
[wavenet_decoder]
blocks = 1
layers_per_block = 2
channels = 8
head_channels = 8
mixtures = 2
segment_samples = 256
[wavenet_prior]
blocks = 1
layers_per_block = 2
channels = 8
[decoder_training]
steps = 8
batch_size = 4
validate_every = 8
checkpoint_every = 3
"""
KINDS = {"digits": IMAGES, "vowels": SOUND}


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _recipe(folder: Path, data: str) -> Path:
    path = folder / "small.toml"
    path.write_text(SMALL.format(data=data, kind=KINDS[data]))
    return path


def _state(folder: Path) -> dict[str, str]:
    """Digests of the newest training state, the best model and the record."""
    newest = load_newest(folder, warn=pytest.fail)
    assert newest is not None
    best = hashlib.sha256((folder / "best/model.safetensors").read_bytes()).hexdigest()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    record = [row for row in rows if any(key.startswith("validation") for key in row)]
    return {"step": str(newest.state["step"]), **newest.sha256, "best": best, "record": json.dumps(record)} | {
        "state.json": ""  # seconds
    }


def _trainings(data: str) -> list[tuple[str, str, str]]:
    """Verb, section and folder of every training, in order."""
    return [
        ("train-codebook", "codebook_training", "vq-vae/stage1"),
        ("train-baseline", "baseline_training", "vae/stage1"),
        *([("train-decoder", "decoder_training", "vq-vae/decoder")] if data == "vowels" else []),
        ("train-prior", "prior_training", "vq-vae/prior"),
    ]


@pytest.mark.parametrize("data", list(KINDS))
def test_more_steps_are_what_they_would_have_been_from_the_start(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, whole, parts = _recipe(tmp_path, data), tmp_path / "whole", tmp_path / "parts"
    for verb, section, folder in _trainings(data):
        steps = f"--{section.replace('_', '-')}.steps"

        def train(run: Path, *more: object, verb: str = verb) -> int:
            where = (recipe, "--out", run) if verb == "train-codebook" else (run,)
            return twostage(verb, *where, *more)

        assert train(parts, steps, 8) == 0
        assert train(whole, steps, 16) == 0
        capsys.readouterr()
        assert train(parts, steps, 16, "--extend") == 0
        said = capsys.readouterr().err
        assert "goes on from step 8 to 16 instead of 8" in said
        assert "going on from step 8" in said
        assert _state(parts / "models" / folder) == _state(whole / "models" / folder)
    if data == "digits":
        assert twostage("evaluate", parts) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on digits with its prior; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    assert twostage("train-codebook", _recipe(folder, "digits"), "--out", folder / "run") == 0
    assert twostage("train-prior", folder / "run") == 0
    return folder / "run"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_codebook_that_a_prior_was_fitted_to_is_not_extended(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _files(trained)
    for verb in ("train-codebook", "train"):
        command = (verb, trained.parent / "small.toml", "--codebook-training.steps", 16, "--out", trained, "--extend")
        assert twostage(*command) == 2
        said = capsys.readouterr().err
        assert re.search(r"has a prior on its codes, which a longer training changes: remove .*/prior, extend it", said)
    assert _files(trained) == before


def test_only_extend_goes_on_and_finds_what_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("train-codebook", _recipe(tmp_path, "digits"), "--out", tmp_path / "run", "--codebook-training.steps")
    assert twostage(*more, 8) == 0
    capsys.readouterr()
    assert twostage(*more, 16) == 2
    refused = capsys.readouterr().err
    assert "training.steps: 8 -> 16" in refused
    assert "add --extend" in refused
    assert twostage(*more, 16, "--extend") == 0
    for again in (("--extend",), ()):
        assert twostage(*more, 16, *again) == 0
        assert "already trained" in capsys.readouterr().err
    assert twostage(*more, 8) == 2
    assert "add --extend" not in capsys.readouterr().err


def test_extend_asks_for_a_training_and_refuses_another_setting(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, before = trained.parent / "small.toml", _files(trained)
    assert twostage("train-codebook", recipe, "--extend", "--out", tmp_path / "new") == 2
    assert "holds no such training to go on with" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert twostage("train-prior", trained, "--prior-training.steps", 6, "--extend") == 2
    assert "training.steps: 8 -> 6" in capsys.readouterr().err
    changed = ("--prior-training.steps", 16, "--prior-training.learning-rate", 1e-3, "--extend")
    assert twostage("train-prior", trained, *changed) == 2
    assert "learning_rate" in capsys.readouterr().err
    assert twostage("train-prior", trained, "--prior-training.steps", 16, "--extend", "--dry-run") == 0
    said = capsys.readouterr().err
    assert "goes on from step 8 to 16" in said
    assert "done already" not in said
    assert _files(trained) == before


def test_a_training_that_its_patience_ended_is_not_extended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "small.toml"
    text = SMALL.format(data="digits", kind=IMAGES)
    recipe.write_text(text.replace("warmup_steps = 2", "learning_rate = 1e-30\npatience = 1\nweight_decay = 0.0"))
    command = ("train-codebook", recipe, "--out", tmp_path / "run", "--codebook-training.validate-every", 1)
    settings = ("--quantiser.update", "loss", "--quantiser.revival-threshold", 0.0)
    assert twostage(*command, *settings) == 0
    assert "stopped early" in capsys.readouterr().err
    assert twostage(*command, *settings, "--codebook-training.steps", 16, "--extend") == 2
    assert "was ended by its patience after step" in capsys.readouterr().err


def test_a_cosine_goes_back_up_and_a_line_says_from_where_to_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _recipe(tmp_path, "digits")
    cosine = (
        "--codebook-training.schedule",
        "cosine",
        "--codebook-training.warmup-steps",
        0,
        "--out",
        tmp_path / "run",
    )
    assert twostage("train-codebook", recipe, *cosine) == 0
    assert twostage("train-codebook", recipe, *cosine, "--codebook-training.steps", 16, "--extend") == 0
    said = capsys.readouterr().err
    assert "cosine learning rate, 0 at this step of the shorter training, goes back up to 0.0001 and decreases" in said
    rates = [
        json.loads(line).get("learning_rate")
        for line in (tmp_path / "run/models/vq-vae/stage1/metrics.jsonl").read_text().splitlines()
    ]
    assert rates[-2] is None or rates[-2] < 1e-5


def test_an_extension_that_was_killed_goes_on_by_the_same_command(tmp_path: Path) -> None:
    recipe, folder = _recipe(tmp_path, "digits"), tmp_path / "parts/models/vq-vae/stage1"
    seldom = ("--codebook-training.validate-every", "40", "--codebook-training.checkpoint-every", "40")
    more = (*seldom, "--codebook-training.steps", "600")
    assert twostage("train-codebook", recipe, *more, "--out", tmp_path / "whole") == 0
    short = (*seldom, "--codebook-training.steps", "40")
    assert twostage("train-codebook", recipe, *short, "--out", tmp_path / "parts") == 0
    command = ("train-codebook", str(recipe), *more, "--out", str(tmp_path / "parts"), "--extend")
    for number, after in ((signal.SIGKILL, 40), (signal.SIGTERM, 200)):
        process = subprocess.Popen([sys.executable, "-m", "twostage_pipelines", *command], stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 120
            while not any(after < int(path.name[5:]) for path in folder.glob("step-*")):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(number)
            assert process.wait(120) == (-number if number == signal.SIGKILL else 128 + number)
        finally:
            process.kill()
    assert twostage(*command) == 0
    assert _state(folder) == _state(tmp_path / "whole/models/vq-vae/stage1")


def test_one_prior_after_the_other_gets_more_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = _recipe(tmp_path, "digits"), tmp_path / "run"
    for model in ("vq-vae", "vq-vae-loss"):
        assert twostage("train-codebook", recipe, "--out", run, "--model", model) == 0
        assert twostage("train-prior", run, "--model", model) == 0
    longer = ("train-prior", run, "--prior-training.steps", 12, "--extend")
    assert twostage(*longer) == 0
    capsys.readouterr()
    # One run is one recipe: whatever else is begun now waits for the other one.
    assert twostage("train-baseline", run) == 2
    said = capsys.readouterr().err
    assert "vq-vae-loss prior" in said
    assert "(training.steps: 8 -> 12): use those, extend it, too (train-prior --model vq-vae-loss --extend)" in said
    assert twostage(*longer, "--model", "vq-vae-loss") == 0
    assert twostage("train-baseline", run) == 0


def test_a_training_that_was_shortened_goes_on_with_its_warm_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, run = _recipe(tmp_path, "digits"), tmp_path / "run"
    recipe.write_text(recipe.read_text().replace("[prior_training]\n", "[prior_training]\nwarmup_steps = 6\n"))
    train = ["train", recipe, "--out", run, "--prior-training.steps"]
    assert twostage(*train, 4) == 0
    capsys.readouterr()
    assert twostage(*train, 12) == 2
    said = capsys.readouterr().err
    assert "(training.steps: 4 -> 12; training.warmup_steps: 4 -> 6): use those, add --extend" in said
    for goes_on in (True, False):  # the same command again has nothing left to do
        assert twostage(*train, 12, "--extend") == 0
        said = capsys.readouterr().err
        assert f"prior_training.warmup_steps is 4 instead of the recipe's 6, as in {run}, which goes on" in said
        assert ("prior: goes on from step 4 to 12 instead of 4" in said) == goes_on
    newest = load_newest(run / "models/vq-vae/prior", warn=pytest.fail)
    assert newest is not None
    training = newest.state["record"]["config"]["training"]
    assert (newest.state["step"], training["steps"], training["warmup_steps"]) == (12, 12, 4)


@pytest.mark.parametrize(
    ("warmup", "what"), [(2, "goes back up to"), (4, "learning rate decreases to zero at the new end")]
)
def test_a_cosine_that_had_not_begun_to_fall_does_not_go_up(warmup: int, what: str) -> None:
    training = TrainingConfig(steps=12, warmup_steps=warmup, schedule="cosine")
    job = Job(model="vae", stage="stage1", folder=Path(), training=training, config={}, what="stage one")
    sentence = Extension(job, step=4, steps=4).sentence
    assert what in sentence
    assert ("back up" in sentence) == (warmup < 4)
