"""The whole path on the real digits through the command line, as README says it, with budgets of seconds."""

import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.errors import UsageError
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main

RECIPE = """
name = "small"
threads = 1
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 32
residual_channels = 16
head_channels = 16
likelihood = "hurdle"
[quantiser]
codebook_size = 16
embedding_dim = 8
[gaussian]
latent_channels = 2
[codebook_training]
steps = 120
learning_rate = 2e-3
validate_every = 60
checkpoint_every = 50
[baseline_training]
steps = 120
learning_rate = 2e-3
validate_every = 60
checkpoint_every = 50
[prior]
layers = 3
channels = 24
first_kernel = 5
[prior_training]
steps = 100
learning_rate = 2e-3
validate_every = 50
checkpoint_every = 50
[evaluation]
iwae_samples = 8
"""


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by `twostage train`: all three models, evaluated and reported."""
    folder = tmp_path_factory.mktemp("end-to-end")
    (folder / "small.toml").write_text(RECIPE)
    assert _twostage("train", folder / "small.toml", "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def _digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob("*.png"))}


def test_train_writes_every_row_and_the_learned_prior_pays(trained: Path) -> None:
    evaluation = json.loads((trained / "evaluation.json").read_text())
    assert (evaluation["schema_version"], evaluation["unit"], evaluation["dataset"]) == (1, "bits/dim", "digits")
    assert (evaluation["items"], evaluation["dims"], evaluation["split"]) == (300, 64, "test")
    rows = {(row["model"], row["prior"], row["bound"]): row for row in evaluation["rows"]}
    assert set(rows) == {
        (model, prior, "two-part") for model in ("vq-vae", "vq-vae-loss") for prior in ("uniform", "unigram", "learned")
    } | {("vae", "gaussian", "elbo"), ("vae", "gaussian", "iwae")}
    for model, update in (("vq-vae", "ema"), ("vq-vae-loss", "loss")):
        uniform, unigram, learned = (rows[model, p, "two-part"] for p in ("uniform", "unigram", "learned"))
        assert uniform["rate_bits_per_dim"] == pytest.approx(16 * 4 / 64)
        assert uniform["bits_per_dim"] > unigram["bits_per_dim"] > learned["bits_per_dim"]
        assert uniform["distortion_bits_per_dim"] == learned["distortion_bits_per_dim"]
        assert learned["swapped_distortion_bits_per_dim"] > learned["distortion_bits_per_dim"] + 0.5
        assert (learned["labels"], learned["codebook_update"], learned["alphabet"]) == ("marginalised", update, 17)
        assert learned["bits_per_dim"] < 2.9  # 17 levels cost 4.09, a smoothed histogram of the pixels about 3.3
    elbo, iwae = rows["vae", "gaussian", "elbo"], rows["vae", "gaussian", "iwae"]
    assert iwae["bits_per_dim"] < elbo["bits_per_dim"] < 2.9
    assert iwae["rate_bits_per_dim"] is None
    assert {d["reference"] for d in evaluation["paired_differences"]} == {"vq-vae (ema), learned prior"}


def test_report_is_one_file_with_pictures_inside(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 10
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "vq-vae-loss (loss), learned prior" in page


def test_generate_same_seed_same_bytes_and_other_seeds_differ(trained: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        out = tmp_path / name
        assert _twostage("generate", trained, "--count", 12, "--label", 7, "--seed", seed, "--out", out) == 0
    a, b, c = (_digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
    assert len(a) == 13  # twelve images and the grid
    assert all(name.endswith("-7.png") or name == "grid.png" for name in a)
    with Image.open(tmp_path / "a" / "0000-7.png") as picture:
        assert (picture.size, picture.mode) == ((8, 8), "L")


def test_generate_depends_on_label_and_temperature(trained: Path) -> None:
    model = load_run(trained)
    # The same seed for every label: if labels did nothing, the images would be the same to the bit.
    drawn = [model.generate(20, labels=torch.full((20,), label), seed=0).reshape(20, 64) for label in range(10)]
    by_class = torch.stack(drawn).mean(1)
    assert torch.cdist(by_class, by_class).fill_diagonal_(9e9).min() > 2.0
    cold = model.generate(20, labels=torch.zeros(20, dtype=torch.int64), temperature=0.0)
    assert (cold == cold[:1]).all()


def test_vae_generates_too(trained: Path, tmp_path: Path) -> None:
    assert _twostage("generate", trained, "--count", 4, "--model", "vae", "--out", tmp_path) == 0
    assert len(_digests(tmp_path)) == 5
    assert _twostage("generate", trained, "--count", 4, "--model", "vae", "--label", 1) == 2


def test_reconstruct_brings_back_a_training_like_image(trained: Path, tmp_path: Path) -> None:
    digit = load_dataset(DataConfig(name="digits")).test.images[0, 0]
    Image.fromarray((digit.astype(np.uint16) * 255 // 16).astype(np.uint8)).save(tmp_path / "digit.png")
    assert _twostage("reconstruct", trained, tmp_path / "digit.png", "--out", tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "digit-reconstructed.png") as picture:
        difference = np.asarray(picture).astype(float) / 255 * 16 - digit
    assert np.sqrt((difference**2).mean()) < 0.6 * digit.std()


def test_train_again_does_nothing_and_other_settings_are_refused_with_the_difference(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = copy.parent / "small.toml"
    recipe.write_text(RECIPE)
    weights = (copy / "models/vq-vae/stage1/best/model.safetensors").stat().st_mtime_ns
    assert _twostage("train", recipe, "--out", copy) == 0
    assert (copy / "models/vq-vae/stage1/best/model.safetensors").stat().st_mtime_ns == weights
    capsys.readouterr()
    assert _twostage("train", recipe, "--out", copy, "--codebook-training.steps", 500) == 2
    assert "training.steps: 120 -> 500" in capsys.readouterr().err
    assert _twostage("train-codebook", recipe, "--out", copy, "--resume", "never") == 2
    assert _twostage("train-codebook", recipe, "--out", copy.parent / "new", "--resume", "must") == 2


def test_a_prior_of_another_codebook_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "models/vq-vae/prior")
    shutil.copytree(copy / "models/vq-vae-loss/prior", copy / "models/vq-vae/prior")
    assert _twostage("generate", copy, "--count", 1) == 1
    assert "was fitted to codebook" in capsys.readouterr().err
    assert _twostage("evaluate", copy) == 1


@pytest.mark.parametrize(
    ("remove", "verb", "sentence"),
    [
        ("models/vq-vae/prior", "generate", "no finished prior of model vq-vae; run train-prior"),
        ("models/vq-vae/stage1", "generate", "no finished stage one of model vq-vae"),
        ("models", "evaluate", "holds no finished model"),
        ("evaluation.json", "report", "run evaluate"),
        ("config.toml", "generate", "config.toml"),
    ],
)
def test_an_incomplete_run_says_what_is_missing(
    copy: Path, capsys: pytest.CaptureFixture[str], remove: str, verb: str, sentence: str
) -> None:
    target = copy / remove
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    capsys.readouterr()
    assert _twostage(verb, copy) in (1, 2)
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_flipped_bit_in_the_weights_is_found(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = copy / "models/vq-vae/prior/best/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    assert _twostage("generate", copy, "--count", 1) == 1
    assert "model.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--label", "10"], ["--label", "-1"], ["--top-k", "17"], ["--count", "0"]])
def test_generate_refuses_values_out_of_range(
    trained: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _twostage("generate", trained, *arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.png", b"not a picture"), ("empty.png", b""), ("missing.png", None), ("big.png", b"big")],
)
def test_reconstruct_names_the_file_it_cannot_use(
    trained: Path, tmp_path: Path, name: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content == b"big":
        Image.new("L", (9, 8)).save(path)
    elif content is not None:
        path.write_bytes(content)
    assert _twostage("reconstruct", trained, path, "--out", tmp_path / "out") in (1, 2)
    error = capsys.readouterr().err
    assert name in error
    assert "Traceback" not in error


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "twostage_pipelines", "train-codebook", str(tmp_path / "small.toml")]
    command += ["--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": ""})
    metrics = tmp_path / "run/models/vq-vae/stage1/metrics.jsonl"
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "run the same command again to go on" in error
    assert "Traceback" not in error
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    best = "models/vq-vae/stage1/best/model.safetensors"
    assert (tmp_path / "run" / best).read_bytes() == (trained / best).read_bytes()


def test_a_refused_command_leaves_the_run_as_it_was(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (copy / "config.toml").read_bytes()
    recipe = copy.parent / "small.toml"
    recipe.write_text(RECIPE)
    refused = [
        ["train-prior", copy, "--prior.layers", "4"],
        ["train-baseline", copy, "--beta", "2", "--baseline-training.steps", "5"],
        ["train-codebook", recipe, "--out", copy, "--model", "vq-vae-ema", "--stage1.channels", "16"],
        ["train", recipe, "--out", copy, "--seed", "5"],
    ]
    for command in refused:
        assert _twostage(*command) == 2
        assert "was trained with other settings" in capsys.readouterr().err
    assert (copy / "config.toml").read_bytes() == config
    assert not (copy / "models/beta-vae-2").exists()


def test_other_data_in_the_same_place_are_noticed(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from twostage.data.images import digits

    load = digits.load_digits

    def shifted() -> object:
        dataset = load()
        dataset.test.images[0, 0, 0, 0] += 1
        return dataset

    monkeypatch.setattr(digits, "load_digits", shifted)
    for command in (["evaluate", copy], ["report", copy], ["train-prior", copy]):
        assert _twostage(*command) in (1, 2)
        error = capsys.readouterr().err
        assert "data with digest" in error or "data.sha256" in error


def test_resume_must_goes_on_with_a_run_of_which_only_a_part_was_begun(copy: Path) -> None:
    recipe = copy.parent / "small.toml"
    recipe.write_text(RECIPE)
    shutil.rmtree(copy / "models/vae")
    assert _twostage("train", recipe, "--out", copy, "--resume", "must") == 0
    assert (copy / "models/vae/stage1/best").is_dir()


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "RUN", "--label", "77"],
        ["generate", "RUN", "--top-k", "17"],
        ["evaluate", "RUN", "--device", "cuda"],
        ["train-prior", "RUN", "--prior.layers", "4"],
    ],
)
def test_dry_run_finds_what_the_run_would_find(trained: Path, arguments: list[str]) -> None:
    assert _twostage(*[trained if a == "RUN" else a for a in arguments], "--dry-run") == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema_version": 1, "unit": "bits/dim", "rows": []}'])
def test_a_damaged_evaluation_is_refused(copy: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "evaluation.json").write_bytes(content)
    assert _twostage("report", copy) == 1
    assert "run evaluate again" in capsys.readouterr().err


def test_files_of_one_name_and_sixteen_bit_images_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    Image.new("L", (8, 8)).save(tmp_path / "a/x.png")
    assert _twostage("reconstruct", trained, tmp_path / "x.png", tmp_path / "a/x.png", "--out", tmp_path) == 2
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    assert _twostage("reconstruct", trained, tmp_path / "deep.png", "--out", tmp_path) == 1
    assert "8 bits per channel" in capsys.readouterr().err


def test_every_number_of_the_table_fits_an_ordinary_terminal(trained: Path) -> None:
    command = [sys.executable, "-m", "twostage_pipelines", "evaluate", str(trained)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"})
    evaluation = json.loads((trained / "evaluation.json").read_text())
    for row in evaluation["rows"]:
        assert f"{row['bits_per_dim']:.4f}" in done.stdout
    assert "vq-vae-loss (loss), learned prior" in done.stdout
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_one_training_may_have_a_seed_of_its_own(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = (copy / "config.toml").read_bytes()
    assert _twostage("train-prior", copy, "--seed", "5") == 2
    assert "seed: 0 -> 5" in capsys.readouterr().err
    before = (copy / "models/vq-vae/prior/best/model.safetensors").read_bytes()
    shutil.rmtree(copy / "models/vq-vae/prior")
    assert _twostage("train-prior", copy, "--seed", "5") == 0
    assert (copy / "models/vq-vae/prior/best/model.safetensors").read_bytes() != before
    assert _twostage("evaluate", copy) == 0
    assert (copy / "config.toml").read_bytes() == config


def test_library_generate_takes_labels_in_every_usual_form(trained: Path) -> None:
    model = load_run(trained)
    expected = model.generate(3, labels=torch.tensor([2, 2, 2]))
    assert torch.equal(model.generate(3, labels=2), expected)
    assert torch.equal(model.generate(3, labels=[2, 2, 2]), expected)
    assert torch.equal(model.generate(12), model.generate(12, labels=[*range(10), 0, 1]))
    for labels, sentence in ((10, "number, 0 to 9, got 10"), ([1, 2], "one for all or 3"), (0.5, "number, got 0.5")):
        with pytest.raises(UsageError, match=sentence):
            model.generate(3, labels=labels)
    with pytest.raises(UsageError, match="count of at least 1"):
        model.generate(0)


def test_generate_clears_its_own_earlier_images_from_the_run(copy: Path) -> None:
    keep = copy / "samples" / "mine.png"
    keep.write_bytes(b"mine")
    assert _twostage("generate", copy, "--count", 5, "--label", 3) == 0
    assert _twostage("generate", copy, "--count", 2) == 0
    names = {path.name for path in (copy / "samples").glob("0*.png")}
    assert names == {"0000-0.png", "0001-1.png"}
    assert keep.read_bytes() == b"mine"


@pytest.mark.parametrize("verb", ["train-codebook", "generate", "reconstruct"])
def test_a_file_where_a_folder_should_be_is_refused_also_on_a_dry_run(
    trained: Path, tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, picture = tmp_path / "small.toml", tmp_path / "p.png"
    recipe.write_text(RECIPE)
    Image.new("L", (8, 8)).save(picture)
    arguments = {"train-codebook": [recipe], "generate": [trained], "reconstruct": [trained, picture]}[verb]
    for dry in ([], ["--dry-run"]):
        assert _twostage(verb, *arguments, "--out", recipe, *dry) == 2
        assert "is a file, but a folder is needed" in capsys.readouterr().err


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.toml").write_text(RECIPE)
    command = ["train-codebook", tmp_path / "small.toml", "--out", tmp_path / "run"]
    assert _twostage(*command, "--codebook-training.batch-size", 1298) == 2
    assert "1297 training items" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_damaged_training_record_costs_the_report_its_curves_and_no_more(copy: Path) -> None:
    for path in copy.glob("models/*/*/metrics.jsonl"):
        path.write_bytes(b"\0\0{" + path.read_bytes()[:40])
    (copy / "models/vae/stage1/metrics.jsonl").unlink()
    assert _twostage("report", copy) == 0


def test_an_exported_model_is_evaluated_and_reported_as_the_run_is(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    assert _twostage("export", trained, "--to", folder) == 0
    assert (folder / "samples/reconstructions.png").is_file()
    own, exported = (json.loads((place / "evaluation.json").read_text()) for place in (trained, folder))
    rows = [row for row in own["rows"] if row["model"] == "vq-vae"]
    assert exported["rows"] == rows
    assert f"| {rows[-1]['bits_per_dim']:.4f} |" in (folder / "README.md").read_text()
    assert not any(str(trained.parent).encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert _twostage("report", folder) == 0
    (folder / "evaluation.json").unlink()
    assert _twostage("evaluate", folder, "--per-item", tmp_path / "items.csv") == 0
    with (tmp_path / "items.csv").open(newline="") as file:
        items = list(csv.DictReader(file))
    for row, name in zip(rows, dict.fromkeys(line["row"] for line in items), strict=True):
        for column, key in (("bits", "bits"), ("distortion_bits", "distortion_bits"), ("rate_bits", "rate_bits")):
            own_bits = [float(line[column]) for line in items if line["row"] == name]
            assert sum(own_bits) / len(own_bits) / 64 == pytest.approx(row[f"{key}_per_dim"], abs=1e-6)
    again = json.loads((folder / "evaluation.json").read_text())["rows"]
    for before, after in zip(rows, again, strict=True):
        assert after == before
    assert _twostage("report", folder) == 0
    assert load_run(folder).stage1.sha256 == load_run(trained).stage1.sha256
