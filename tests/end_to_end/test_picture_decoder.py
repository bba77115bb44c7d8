"""The picture decoder through every verb: its training on finished codes, its pictures, and bits it leaves alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.errors import RunError, UsageError
from twostage.storage.checkpoint import load_checkpoint
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.evaluate import classifier

RECIPE = """
name = "eyes"
threads = 1
models = ["vq-vae"]
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 8
likelihood = "hurdle"
[quantiser]
kind = "residual"
codebook_size = 8
codebooks = 2
embedding_dim = 8
[codebook_training]
steps = 40
batch_size = 16
learning_rate = 3e-3
validate_every = 40
[prior]
layers = 2
channels = 8
[prior_training]
steps = 5
batch_size = 16
[picture_decoder]
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 8
adversarial_start = 4
discriminator_channels = 4
[decoder_training]
steps = 20
batch_size = 16
learning_rate = 3e-3
weight_ema = 0.5
validate_every = 10
[evaluation]
frechet_samples = 70
"""
BITS = ("bits_per_dim", "distortion_bits_per_dim", "rate_bits_per_dim", "psnr_db", "sharpness", "parameters", "steps")


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "evaluation.json").read_text())["rows"]
    return rows


@pytest.fixture(scope="module", autouse=True)
def _short_classifier() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "EPOCHS", 1)
        yield


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained and evaluated as ever."""
    folder = tmp_path_factory.mktemp("eyes")
    (folder / "recipe.toml").write_text(RECIPE)
    run = folder / "run"
    assert main(["train-codebook", str(folder / "recipe.toml"), "--out", str(run)]) == 0
    assert main(["train-prior", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def run(without: Path) -> Path:
    """The same with a picture decoder, evaluated again, with its report."""
    run = without.parent / "with"
    shutil.copytree(without, run)
    assert main(["train-decoder", str(run)]) == 0
    assert main(["evaluate", str(run)]) == 0
    assert main(["report", str(run)]) == 0
    return run


def test_rows_of_bits_are_those_without_it(without: Path, run: Path) -> None:
    before, after = rows_of(without), rows_of(run)
    own, pictures = [row for row in after if row["decoder"] is None], [row for row in after if row["decoder"]]
    assert [[row[key] for key in BITS] for row in own] == [[row[key] for key in BITS] for row in before]
    (row,) = pictures
    assert row["decoder"] == "picture"
    assert row["bits_per_dim"] is None
    assert row["prior"] is None
    assert row["psnr_db"] not in [None, own[0]["psnr_db"]]
    assert row["sharpness"] != own[0]["sharpness"]
    assert row["steps"] == 60


def test_evaluation_and_report_show_both_decoders(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {score["model"]: score for score in json.loads((run / "evaluation.json").read_text())["sample_scores"]}
    assert set(scores) == {"vq-vae", "vq-vae, picture decoder"}
    assert scores["vq-vae, picture decoder"]["reconstruction_distance"] != scores["vq-vae"]["reconstruction_distance"]
    report = (run / "report.html").read_text()
    assert "for bits the likelihood decoder, for eyes the picture decoder" in report
    assert "the same samples by the picture decoder" in report
    assert "then those of the picture decoder" in report
    assert {"vq-vae-samples.png", "vq-vae-samples-picture-decoder.png"} <= {p.name for p in (run / "samples").iterdir()}
    assert main(["evaluate", str(run), "--split", "validation"]) == 0
    assert "vq-vae, picture decoder" in capsys.readouterr().out


def test_verbs_decode_with_either(run: Path, tmp_path: Path) -> None:
    image = load_dataset(DataConfig(name="digits")).test.images[0, 0]
    Image.fromarray((image * 15).astype(np.uint8)).save(tmp_path / "digit.png")
    codes = tmp_path / "codes.safetensors"
    assert main(["encode", str(run), str(tmp_path / "digit.png"), "--out", str(codes)]) == 0
    verbs = {
        "reconstruct": [str(tmp_path / "digit.png")],
        "decode": [str(codes)],
        "generate": ["--count", "2", "--label", "3"],
    }
    for verb, given in verbs.items():
        found = []
        for decoder in ("convolutional", "picture"):
            out = tmp_path / f"{verb}-{decoder}"
            assert main([verb, str(run), *given, "--decoder", decoder, "--out", str(out)]) == 0
            found.append({path.name: path.read_bytes() for path in out.iterdir()})
        assert found[0].keys() == found[1].keys()
        assert found[0] != found[1]


def test_a_program_asks_for_it_by_name(run: Path) -> None:
    model, images = load_run(run), load_dataset(DataConfig(name="digits")).test.images[:3]
    made = model.reconstruct(images, decoder="picture")
    assert made.shape == (3, 1, 8, 8)
    again = model.decode(model.encode(images), decoder="picture")
    assert np.array_equal(made, again)
    assert not np.array_equal(made, model.reconstruct(images, decoder="picture", levels=1))
    with pytest.raises(UsageError, match="expected the decoder convolutional or picture, got 'wavenet'"):
        model.reconstruct(images, decoder="wavenet")


def test_without_one_a_sentence_says_how_to_get_it(without: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunError, match="holds no finished decoder of model vq-vae; run train-decoder"):
        load_run(without).generate(1, decoder="picture")
    late = ["--picture-decoder.adversarial-start", "20"]
    assert main(["train-decoder", str(without), *late]) == 2
    assert "adversarial-start must be less than the 20 steps of the training" in capsys.readouterr().err
    assert main(["train-decoder", str(without), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "vq-vae picture decoder" in said
    assert not (without / "models/vq-vae/decoder").exists()


def test_more_steps_go_on_from_the_last_one(without: Path, run: Path, tmp_path: Path) -> None:
    """With a constant learning rate, bit for bit, the discriminator and its moments included."""
    shorter = tmp_path / "shorter"
    shutil.copytree(without, shorter)
    assert main(["train-decoder", str(shorter), "--decoder-training.steps", "10"]) == 0
    assert main(["train-decoder", str(shorter), "--decoder-training.steps", "20", "--extend"]) == 0
    digests = [load_checkpoint(each / "models/vq-vae/decoder/step-00000020").sha256 for each in (run, shorter)]
    for file in ("model.safetensors", "optimiser.safetensors", "average.safetensors"):
        assert digests[0][file] == digests[1][file]


def test_a_longer_codebook_would_lose_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = run.parent / "recipe.toml"
    longer = ["--out", str(run), "--codebook-training.steps", "50", "--extend"]
    assert main(["train-codebook", str(recipe), *longer]) == 2
    assert "has a prior and a decoder on its codes" in capsys.readouterr().err
