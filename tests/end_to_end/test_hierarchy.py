"""A hierarchy of code grids through every verb: trainings, evaluation, samples, completion, code files, report."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.errors import RunError
from twostage.grids import split_levels
from twostage.storage.codes import load_codes
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.png import read_image
from twostage_pipelines.runs.run import Run

GRIDS = ((2, 2), (4, 4))
RECIPE = """
name = "levels"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "digits"
[stage1]
downsampling = 2
hierarchy = 2
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
likelihood = "hurdle"
autoregressive_layers = 1
autoregressive_channels = 4
[quantiser]
codebook_size = 8
codebooks = 2
embedding_dim = 8
auxiliary_weight = 0.5
[gaussian]
latent_channels = 1
[codebook_training]
steps = 60
batch_size = 16
learning_rate = 3e-3
weight_ema = 0.9
precision = "auto"
validate_every = 30
checkpoint_every = 30
[baseline_training]
steps = 5
batch_size = 16
[prior]
layers = 2
channels = 12
first_kernel = 3
label_dropout = 0.2
[prior_training]
steps = 60
batch_size = 16
learning_rate = 3e-3
validate_every = 30
checkpoint_every = 30
[evaluation]
iwae_samples = 2
search_items = 2
search_candidates = 2
coded_items = 20
"""


def twostage(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hierarchy")
    (folder / "levels.toml").write_text(RECIPE)
    twostage("train", folder / "levels.toml", "--out", folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def digit(run: Path) -> Path:
    pixels = load_dataset(DataConfig(name="digits")).test.images[0, 0]
    Image.fromarray((pixels.astype(np.uint16) * 255 // 16).astype(np.uint8)).save(run.parent / "digit.png")
    return run.parent / "digit.png"


def test_codes_of_all_levels_lie_in_one_file(run: Path) -> None:
    codes = load_codes(run / "codes" / "vq-vae" / "test.safetensors")
    assert codes.header.grids == GRIDS
    assert codes.codes.shape == (300, 2, 4 + 16)
    model = load_run(run).vqvae
    images = torch.from_numpy(load_dataset(DataConfig(name="digits")).test.images[:5])
    assert np.array_equal(model.encode(images).numpy(), codes.codes[:5])


def test_the_table_pays_for_all_levels(run: Path, found: dict[str, Any]) -> None:
    rows = {row["prior"]: row for row in found["rows"] if row["model"] == "vq-vae" and row["search_items"] is None}
    assert rows["uniform"]["rate_bits_per_dim"] == pytest.approx(2 * 20 * 3 / 64)
    files = [load_codes(run / "codes" / "vq-vae" / f"{split}.safetensors").codes for split in ("train", "test")]
    bits = 0.0
    for train, test in zip(*(split_levels(codes, GRIDS) for codes in files), strict=True):
        for group in range(2):
            counts = np.bincount(train[:, group].ravel(), minlength=8) + 1
            bits -= np.log2(counts / counts.sum())[test[:, group]].sum() / 300
    assert rows["unigram"]["rate_bits_per_dim"] == pytest.approx(bits / 64)
    learned = rows["learned"]
    assert learned["rate_bits_per_dim"] < rows["unigram"]["rate_bits_per_dim"]
    assert learned["bits_per_dim"] == pytest.approx(learned["distortion_bits_per_dim"] + learned["rate_bits_per_dim"])
    assert learned["codebook_size"] == 2 * 2 * 8
    assert learned["swapped_distortion_bits_per_dim"] > learned["distortion_bits_per_dim"]
    assert {row["searched"] for row in found["rows"] if row["search_items"] == 2} == {True, False}


def test_codes_of_all_levels_come_back_from_bytes(found: dict[str, Any]) -> None:
    (trip,) = found["coding"]
    assert trip["identical"]
    assert abs(trip["bits_written"] - trip["bits_reported"]) <= 0.001 * trip["bits_reported"] + 64


def test_the_diagnosis_tells_levels_apart(run: Path, found: dict[str, Any]) -> None:
    (diagnosis,) = (each for each in found["diagnoses"] if each["model"] == "vq-vae")
    numbers, said = diagnosis["numbers"], " ".join(diagnosis["sentences"])
    assert numbers["grids"] == "2x2+4x4"
    rates = [sum(numbers["bits_by_position"][part]) for part in (slice(0, 4), slice(4, 20))]
    assert f"Level 1 (2x2): {rates[0] / 8:.3f} bits a code, {rates[0]:.1f} an item." in said
    assert f"Level 2 (4x4): {rates[1] / 32:.3f} bits a code, {rates[1]:.1f} an item." in said
    (learned,) = (row for row in found["rows"] if row["prior"] == "learned" and row["search_items"] is None)
    assert sum(rates) / 64 == pytest.approx(learned["rate_bits_per_dim"], rel=1e-5)
    report = (run / "report.html").read_text()
    assert report.count('alt="Usage on the validation set."') == 4


def test_records_of_both_trainings_name_the_levels(run: Path) -> None:
    for stage, names in (("stage1", {"perplexity", "used"}), ("prior", {"bits_per_code"})):
        lines = (run / "models" / "vq-vae" / stage / "metrics.jsonl").read_text().splitlines()
        last = json.loads(lines[-1])
        assert {f"validation_{name}_{grid}" for name in names for grid in ("2x2", "4x4")} <= last.keys()


def test_samples_and_their_seed(run: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        twostage("generate", run, "--count", 4, "--label", 3, "--seed", 5, "--out", tmp_path / name)
    first, second = (sorted((tmp_path / name).glob("0*.png")) for name in ("first", "second"))
    assert len(first) == 4
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    model = load_run(run)
    codes = model.sample_codes(4, labels="3", seed=5)
    assert codes.shape == (4, 2, 20)
    drawn = model.decode(codes, seed=5)
    pixels = [read_image(path, image_shape=(1, 8, 8), levels=17, fit="exact") for path in first]
    assert np.array_equal(np.stack(pixels), drawn.numpy().round().astype(np.uint8))


def test_completion_keeps_the_rows_under_the_coarse_ones(
    run: Path, digit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twostage("generate", run, "--complete", digit, "--keep-rows", 1, "--count", 3, "--out", tmp_path / "new")
    said = capsys.readouterr().err
    assert "keeping 1 of 2 rows of the coarsest codes (2x2+4x4)" in said
    assert "4 of 8 image rows" in said
    assert len(list((tmp_path / "new").glob("digit-completed-*.png"))) == 3
    model = load_run(run)
    own = model.encode(model.files.read(digit, model.record, model.run.recipe)).codes
    command = type("Asked", (), {"keep_rows": 1, "complete": digit})
    kept = model.files.kept(command, torch.from_numpy(own), np.zeros((1, 8, 8)), model.vqvae, model.record)
    assert kept.mask.nonzero()[:, 0].tolist() == [0, 1, *range(4, 12)]
    drawn = model.sample_codes(
        6, labels=None, known=kept.codes.expand(6, -1, -1), known_mask=kept.mask, temperature=2.0
    )
    assert torch.equal(drawn[:, :, kept.mask], torch.from_numpy(own)[:, :, kept.mask].expand(6, -1, -1))
    assert len(torch.unique(drawn[:, :, ~kept.mask], dim=0)) > 1
    assert main(["generate", str(run), "--complete", str(digit), "--keep-rows", "2"]) == 2
    assert "--keep-rows must be less than the 2 rows of the coarsest codes" in capsys.readouterr().err


def test_files_go_through_codes_and_back(run: Path, digit: Path, tmp_path: Path) -> None:
    twostage("encode", run, digit, "--out", tmp_path / "c.safetensors")
    codes = load_codes(tmp_path / "c.safetensors")
    assert codes.header.grids == GRIDS
    assert np.array_equal(codes.codes[0], load_codes(run / "codes" / "vq-vae" / "test.safetensors").codes[0])
    twostage("decode", run, tmp_path / "c.safetensors", "--out", tmp_path / "back")
    twostage("reconstruct", run, digit, "--out", tmp_path / "rec")
    back, rec = (tmp_path / "back" / "digit.png"), (tmp_path / "rec" / "digit-reconstructed.png")
    assert back.read_bytes() == rec.read_bytes()
    model = load_run(run)
    read = model.files.read(digit, model.record, model.run.recipe)
    assert torch.equal(model.reconstruct(read), model.decode(codes))


def test_codes_of_other_grids_are_refused(run: Path, digit: Path, tmp_path: Path) -> None:
    """Of as many positions: by their grids, not by their number."""
    model = load_run(run)
    codes = model.encode(model.files.read(digit, model.record, model.run.recipe))
    other = replace(codes, header=replace(codes.header, grids=((1, 4), (4, 4))))
    with pytest.raises(RunError, match="expected codes that fit model vq-vae"):
        model.decode(other)


def test_a_begun_training_goes_on_and_another_depth_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-codebook", str(run.parent / "levels.toml"), "--out", str(run), "--stage1.hierarchy", "1"]) == 2
    assert "stage1.hierarchy" in capsys.readouterr().err
    twostage("train-codebook", run.parent / "levels.toml", "--out", run)
    assert Run.open(run).recipe.stage1.hierarchy == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--stage1.hierarchy", "3"), "a hierarchy of 3 levels halves the 4x4 grid of codes 2 times, but 2x2 does not"),
        (("--stage1.hierarchy", "2147483647"), "choose at most 2 levels, or less downsampling"),
        (("--stage1.hierarchy", "0"), "stage1.hierarchy must be at least 1"),
        (("--quantiser.codebook-size", "65536"), "are encoded as 5188 vectors, fewer than the 65536 codes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    arguments: tuple[str, str], sentence: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = run.parent / "levels.toml"
    assert main(["train", str(recipe), "--out", str(tmp_path / "new"), *arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()


def test_sound_has_no_such_hierarchy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-codebook", "vowels", "--out", str(tmp_path / "new"), "--stage1.hierarchy", "2"]) == 2
    assert "stage1.hierarchy is a setting of images" in capsys.readouterr().err


def test_three_levels_on_larger_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for index in range(60):
        pixels = rng.integers(0, 256, (2, 2, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{index}.png")
    recipe = RECIPE.replace('name = "digits"', 'name = "images"\nimage_size = 32\nhorizontal_flips = true')
    recipe = recipe.replace("hierarchy = 2", "hierarchy = 3").replace("hurdle", "categorical")
    recipe = recipe.replace("downsampling = 2", "downsampling = 4").replace("steps = 60", "steps = 4")
    recipe = recipe.replace("validate_every = 30", "validate_every = 4").replace("label_dropout = 0.2", "")
    recipe = recipe.replace('models = ["vq-vae", "vae"]', 'models = ["vq-vae"]').replace("search_items = 2", "")
    (tmp_path / "three.toml").write_text(recipe)
    run = tmp_path / "run"
    twostage("train", tmp_path / "three.toml", "--data.path", tmp_path / "data", "--out", run)
    assert load_codes(run / "codes" / "vq-vae" / "train-mirrored.safetensors").header.grids == ((2, 2), (4, 4), (8, 8))
    twostage("generate", run, "--count", 2, "--out", tmp_path / "new")
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    uniform = next(row for row in rows if row["prior"] == "uniform")
    assert uniform["rate_bits_per_dim"] == pytest.approx(2 * 84 * math.log2(8) / 3072)
