"""A folder of colour images through every verb: autoregressive decoder, flips, label dropout, search, completion."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.data import load_dataset
from twostage.storage.checkpoint import load_checkpoint
from twostage.storage.codes import load_codes
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.png import read_image
from twostage_pipelines.runs.run import Run

RECIPE = """
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "images"
image_size = 8
horizontal_flips = true
[stage1]
downsampling = 2
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
likelihood = "logistic-mixture"
mixtures = 3
autoregressive_layers = 2
autoregressive_channels = 8
autoregressive_kernel = 3
[quantiser]
codebook_size = 8
codebooks = 2
embedding_dim = 8
gradient = "rotation"
auxiliary_weight = 0.5
[gaussian]
latent_channels = 1
[codebook_training]
steps = 60
batch_size = 16
learning_rate = 3e-3
weight_ema = 0.9
validate_every = 30
checkpoint_every = 30
[baseline_training]
steps = 60
batch_size = 16
learning_rate = 3e-3
validate_every = 30
checkpoint_every = 30
[prior]
layers = 2
channels = 12
first_kernel = 3
label_dropout = 0.2
[prior_training]
steps = 2000
batch_size = 16
learning_rate = 3e-3
patience = 2
validate_every = 10
checkpoint_every = 50
[evaluation]
iwae_samples = 2
search_items = 4
search_candidates = 3
frechet_samples = 70
"""


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _write_images(folder: Path) -> None:
    """Two classes of noisy colour ramps, 16x12 pixels, 720 in all."""
    generator = np.random.default_rng(0)
    for label, colour in (("left", (200, 80, 40)), ("right", (40, 90, 210))):
        (folder / label).mkdir(parents=True)
        for index in range(360):
            ramp = np.linspace(0.2, 1, 16) if label == "left" else np.linspace(1, 0.2, 16)
            noise = generator.normal(0, 4, (12, 16, 3))
            pixels = np.clip(ramp[None, :, None] * np.array(colour) * generator.uniform(0.6, 1.2) + noise, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{index:03d}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    _write_images(folder / "data")
    (folder / "ramps.toml").write_text(RECIPE)
    assert _twostage("train", folder / "ramps.toml", "--data.path", folder / "data", "--out", folder / "run") == 0
    return folder / "run"


def test_every_row_is_there_and_the_search_saves_bits(trained: Path) -> None:
    evaluation = json.loads((trained / "evaluation.json").read_text())
    rows = {(row["model"], row["prior"], row["search_items"], row["searched"]): row for row in evaluation["rows"]}
    whole, first, searched = (rows["vq-vae", "learned", *rest] for rest in ((None, False), (4, False), (4, True)))
    assert (evaluation["dims"], whole["alphabet"], whole["likelihood"]) == (192, 256, "logistic-mixture")
    assert searched["bits_per_dim"] <= first["bits_per_dim"]
    pairs = {(d["reference"], d["other"]): d for d in evaluation["paired_differences"]}
    saved = pairs["vq-vae (ema), learned prior, 4 items", "vq-vae (ema), learned prior, 4 items, searched"]
    assert saved["bits_per_dim"] == pytest.approx(searched["bits_per_dim"] - first["bits_per_dim"])
    assert rows["vq-vae", "uniform", None, False]["rate_bits_per_dim"] == pytest.approx(32 * 3 / 192)
    assert {score["model"] for score in evaluation["sample_scores"]} == {"vq-vae", "vae"}
    assert whole["bits_per_dim"] < 7.5  # 8 bits without a model


def test_the_prior_saw_the_codes_of_both_sides_and_stopped_early(trained: Path) -> None:
    codes = {
        split: load_codes(trained / "codes/vq-vae" / f"{split}.safetensors") for split in ("train", "train-mirrored")
    }
    assert len(codes["train"].codes) == 576
    run = Run.open(trained)
    model, dataset = run.stage1("vq-vae", torch.device("cpu")).model, load_dataset(run.recipe.data)
    mirrored = np.ascontiguousarray(dataset.train.images[..., ::-1])
    assert np.array_equal(codes["train-mirrored"].codes, model.encode(torch.from_numpy(mirrored)).numpy())
    assert np.array_equal(codes["train-mirrored"].labels, dataset.train.labels)
    for stage in ("stage1", "prior"):
        record = load_checkpoint(trained / "models/vq-vae" / stage / "best").state["record"]
        assert record["trained_labels"] == record["classes"] == ["left", "right"]
    steps = [
        json.loads(line)["step"] for line in (trained / "models/vq-vae/prior/metrics.jsonl").read_text().splitlines()
    ]
    finished = load_checkpoint(trained / f"models/vq-vae/prior/step-{max(steps):08d}").state
    assert finished["finished"]
    assert max(steps) < 2000


def test_every_verb_works_on_the_run(trained: Path, tmp_path: Path) -> None:
    photo = next((trained.parent / "data/left").iterdir())
    small = tmp_path / "small.png"
    shutil.copy(photo, small)  # 16x12 pixels: brought to size as the folder was
    assert _twostage("generate", trained, "--count", 3, "--unlabelled", "--out", tmp_path / "new") == 0
    with Image.open(tmp_path / "new/0002.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (8, 8))
    assert (
        _twostage("generate", trained, "--complete", small, "--keep-rows", 2, "--count", 2, "--out", tmp_path / "c")
        == 0
    )
    assert (tmp_path / "c/small-completed-0001.png").is_file()
    assert _twostage("reconstruct", trained, small, "--out", tmp_path / "r") == 0
    assert _twostage("encode", trained, small, "--out", tmp_path / "codes.safetensors") == 0
    run = Run.open(trained)
    fitted = read_image(photo, image_shape=(3, 8, 8), levels=256, fit="resize")
    dataset = load_dataset(run.recipe.data)
    every = [image for split in ("train", "validation", "test") for image in dataset.split(split).images]
    assert sum(np.array_equal(fitted, image) for image in every) == 1
    expected = run.stage1("vq-vae", torch.device("cpu")).model.encode(torch.from_numpy(fitted)[None])
    assert np.array_equal(load_codes(tmp_path / "codes.safetensors").codes, expected.numpy())
    assert _twostage("decode", trained, tmp_path / "codes.safetensors", "--out", tmp_path / "d") == 0
    assert (tmp_path / "d/small.png").is_file()


def test_the_same_command_again_finds_everything_done(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = trained / "config.toml"
    before = (trained / "models/vq-vae/prior/best/model.safetensors").read_bytes()
    assert _twostage("train-prior", trained) == 0
    assert "already trained" in capsys.readouterr().err
    assert (trained / "models/vq-vae/prior/best/model.safetensors").read_bytes() == before
    assert config.is_file()


def test_what_a_kill_left_of_a_finished_training_is_removed(trained: Path) -> None:
    """The last save prunes after its rename, and nothing saves there again."""
    folder = trained / "models/vq-vae/prior"
    before = sorted(folder.rglob("*"))
    half = folder / ".tmp-step-00000001-01234567"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert _twostage("train-prior", trained) == 0
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "has_bits"),
    [
        (("--stage1.likelihood", "mse", "--data.name", "digits"), False),
        (("--stage1.likelihood", "bernoulli", "--data.name", "digits", "--data.binarise", "dynamic"), True),
        (("--stage1.likelihood", "bernoulli", "--data.name", "digits", "--data.binarise", "static"), True),
    ],
)
def test_other_likelihoods_train_and_are_scored(tmp_path: Path, settings: tuple[str, ...], has_bits: bool) -> None:
    budget = [
        argument
        for section in ("codebook-training", "prior-training", "baseline-training")
        for argument in (f"--{section}.steps", 30, f"--{section}.warmup-steps", 5, f"--{section}.validate-every", 15)
    ]
    small = ("--stage1.channels", 16, "--evaluation.iwae-samples", 2)
    models = ("--models", "vq-vae", "vae")
    assert _twostage("train", "digits", *settings, *budget, *small, *models, "--out", tmp_path / "run") == 0
    rows = json.loads((tmp_path / "run/evaluation.json").read_text())["rows"]
    assert len(rows) == (5 if has_bits else 2)
    for row in rows:
        assert (row["bits_per_dim"] is not None) == has_bits
        assert row["alphabet"] == (2 if has_bits else 17)
        assert row["psnr_db"] > 0
    assert (tmp_path / "run/report.html").is_file()
    shutil.rmtree(tmp_path / "run")
