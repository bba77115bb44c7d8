"""Autoencoder, conditional VAE and VIMCO on the real digits through the command line, with budgets of a second."""

import html
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.config.schema import DataConfig, EvaluationConfig
from twostage.data import load_dataset
from twostage_pipelines.cli.main import main
from twostage_pipelines.evaluate import ruler
from twostage_pipelines.evaluate.classifier import Reading
from twostage_pipelines.evaluate.sample_quality import score_samples
from twostage_pipelines.runs.run import Run

RECIPE = """
name = "small"
threads = 1
models = ["vq-vae", "ae", "vae", "cvae", "vimco"]
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
[quantiser]
codebook_size = 4
embedding_dim = 4
[gaussian]
latent_dim = 2
network = "mlp"
mlp_width = 48
kl_warmup_steps = 10
free_bits = 0.01
[vimco]
samples = 2
[codebook_training]
steps = 10
batch_size = 32
learning_rate = 2e-3
[baseline_training]
steps = 60
batch_size = 32
learning_rate = 5e-3
validate_every = 30
[prior]
layers = 2
channels = 8
first_kernel = 3
[prior_training]
steps = 10
batch_size = 32
[evaluation]
iwae_samples = 3
"""


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baselines")
    (folder / "small.toml").write_text(RECIPE)
    assert _twostage("train", folder / "small.toml", "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """A test image of a 7."""
    test = load_dataset(DataConfig(name="digits")).test
    path = tmp_path / "seven.png"
    image = test.images[np.flatnonzero(test.labels == 7)[0], 0]
    Image.fromarray((image.astype(np.uint16) * 255 // 16).astype(np.uint8)).save(path)
    return path


def _rows(run: Path) -> dict[tuple[str, str | None], dict[str, Any]]:
    evaluation = json.loads((run / "evaluation.json").read_text())
    return {(row["model"], row["bound"]): row for row in evaluation["rows"] if row["model"] != "vq-vae"}


def _pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def test_rows_say_what_each_model_is_scored_by(trained: Path) -> None:
    rows = _rows(trained)
    assert list(rows) == [
        ("ae", None),
        *((model, bound) for model in ("vae", "cvae") for bound in ("elbo", "iwae")),
        ("vimco", "elbo"),
        ("vimco", "multi-sample"),
    ]
    ae, cvae, vimco = rows["ae", None], rows["cvae", "elbo"], rows["vimco", "elbo"]
    assert {ae[key] for key in ae if "bits" in key or key in ("prior", "beta", "standard_error")} == {None}
    assert ae["psnr_db"] > 10  # the mean digit has 9.6
    assert (ae["kind"], cvae["kind"], vimco["kind"]) == ("ae", "cvae", "vimco")
    assert [(row["labels"], row["prior"], row["beta"]) for row in (cvae, vimco, rows["vae", "iwae"])] == [
        ("given", "gaussian", 1.0),
        ("none", "learned", None),
        ("none", "gaussian", 1.0),
    ]
    for row in (cvae, vimco):
        parts = row["distortion_bits_per_dim"] + row["rate_bits_per_dim"]
        assert row["bits_per_dim"] == pytest.approx(parts, rel=1e-6)
        assert 2 < row["bits_per_dim"] < 4.09  # what 17 levels cost
    for model, tighter in (("cvae", "iwae"), ("vimco", "multi-sample")):
        row = rows[model, tighter]
        assert row["bits_per_dim"] < rows[model, "elbo"]["bits_per_dim"]
        assert (row["rate_bits_per_dim"], row["samples_k"]) == (None, 3)
    assert 1 <= vimco["codebook_used"] <= vimco["codebook_size"] == 4
    assert rows["vae", "elbo"]["parameters"] > ae["parameters"] > vimco["parameters"] > 1000


def test_nothing_is_compared_with_bits_given_the_label(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = json.loads((trained / "evaluation.json").read_text())
    pairs = {(d["reference"], d["other"]) for d in evaluation["paired_differences"]}
    assert {reference for reference, _ in pairs} == {"vq-vae (ema), learned prior"}
    assert {"vae, ELBO", "vimco, ELBO", "vimco, 3 samples"} <= {other for _, other in pairs}
    assert not any("cvae" in other or other == "ae" for _, other in pairs)
    assert _twostage("evaluate", trained, "--split", "validation") == 0
    table, legend = capsys.readouterr().out.split("\n\n")[:2]
    first = next(row for row, line in enumerate(table.splitlines()) if line.startswith(" model, "))  # behind the title
    heading, *lines = table.splitlines()[first:]
    assert [part.strip() for part in heading.split("  ") if part][1:3] == ["total", "given label"]
    cells = {line.split("  ")[0].strip(): line.split()[-7:] for line in lines}
    assert cells["cvae, ELBO"][0] == cells["vae, ELBO"][1] == "-"
    assert float(cells["cvae, ELBO"][1]) > 2
    assert float(cells["vae, ELBO"][0]) > 2
    assert cells["ae"][:5] == ["-"] * 5
    assert "not to be compared" in legend


def test_samples_are_scored_where_there_is_a_distribution(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The classifier is replaced by the pixels and a nearest class mean, which take no training."""
    dataset = load_dataset(DataConfig(name="digits"))
    train_N64 = dataset.train.images.reshape(-1, 64)
    means_Y64 = np.stack([train_N64[dataset.train.labels == label].mean(0) for label in range(10)])

    def read_pixels(_: object, images: np.ndarray, **settings: object) -> Reading:
        assert images.dtype == np.uint8
        pixels_N64 = images.reshape(-1, 64).astype(np.float64)
        distance_NY = ((pixels_N64[:, None] - means_Y64) ** 2).sum(-1)
        return Reading(features_NF=pixels_N64, labels_N=distance_NY.argmin(1))

    monkeypatch.setattr(ruler, "trained_classifier", lambda *_, **__: None)
    monkeypatch.setattr(ruler, "load_checkpoint", lambda _: SimpleNamespace(sha256={"model.safetensors": ""}))
    monkeypatch.setattr(ruler, "read", read_pixels)
    run = Run.open(trained)
    run = replace(run, recipe=replace(run.recipe, evaluation=EvaluationConfig(frechet_samples=80)))
    scores = {score.model: score for score in score_samples(run, dataset, "test", torch.device("cpu"))}
    assert [name for name, score in scores.items() if score.frechet_distance is not None] == [
        "vq-vae", "vae", "cvae", "vimco",
    ]  # fmt: skip
    assert all(score.reconstruction_distance is not None for score in scores.values())
    assert "samples of ae are not scored" in capsys.readouterr().err
    agreement = scores["cvae"].label_agreement
    assert agreement is not None
    assert agreement > 0.2  # chance is 0.1 +- 0.034
    assert scores["vimco"].label_agreement is None


def test_cvae_generates_by_label(trained: Path, tmp_path: Path) -> None:
    for name, arguments in {"a": [], "b": [], "c": ["--seed", 1], "two": ["--label", 2]}.items():
        out = tmp_path / name
        assert _twostage("generate", trained, "--model", "cvae", "--count", 12, "--out", out, *arguments) == 0
    a, b, c, two = (_pictures(tmp_path / name) for name in ("a", "b", "c", "two"))
    assert a == b != c
    assert [name for name in a if name.endswith("-1.png")] == ["0001-1.png", "0011-1.png"]
    assert all(name.endswith("-2.png") for name in two if name != "grid.png")
    assert a["0002-2.png"] == two["0002-2.png"]
    assert a["0003-3.png"] != two["0003-2.png"]


def test_vimco_generates_from_its_table(trained: Path, tmp_path: Path) -> None:
    for name, arguments in {"a": [], "b": ["--count", 3], "mode": ["--top-k", 1]}.items():
        out = tmp_path / name
        command = ["generate", trained, "--model", "vimco", "--count", 5, "--out", out, *arguments]
        assert _twostage(*command) == 0
    a, b, mode = (_pictures(tmp_path / name) for name in ("a", "b", "mode"))
    assert [a[name] for name in b if name != "grid.png"] == [b[name] for name in b if name != "grid.png"]
    assert len({data for name, data in a.items() if name != "grid.png"}) > 1
    assert len({data for name, data in mode.items() if name != "grid.png"}) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "--model", "ae"], "no distribution over latents"),
        (["generate", "--model", "cvae", "--label", "11"], "--label must be one of"),
        (["generate", "--model", "cvae", "--unlabelled"], "a conditional VAE is given one"),
        (["generate", "--model", "cvae", "--top-k", "2"], "--top-k and --top-p choose among codes"),
        (["generate", "--model", "vae", "--label", "1"], "this VAE knows none: see cvae"),
        (["generate", "--model", "vimco", "--label", "1"], "a table of probabilities"),
        (["generate", "--model", "vimco", "--top-k", "5"], "more than the 4 codes"),
        (["reconstruct", "FILE", "--model", "cvae"], "say --label CLASS"),
        (["reconstruct", "FILE", "--model", "cvae", "--label", "ten"], "--label must be one of"),
        (["reconstruct", "FILE", "--model", "ae", "--label", "1"], "ae takes no label"),
        (["encode", "FILE", "--model", "vimco", "--out", "c.safetensors"], "no codebook"),
        (["train-prior", "--model", "vq-vae-ema"], "no finished stage one of model vq-vae-ema"),
        (["train-baseline", "--model", "vimco", "--vimco.samples", "3"], "vimco.samples: 2 -> 3"),
        (["train-baseline", "--model", "ae", "--gaussian.mlp-width", "9"], "gaussian.mlp_width: 48 -> 9"),
    ],
)
def test_wrong_use_is_told_in_a_sentence_before_anything_is_done(
    trained: Path, seven: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = [str(seven) if argument == "FILE" else argument for argument in arguments]
    before = sorted(trained.rglob("*"))
    assert _twostage(verb, trained, *rest) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert sorted(trained.rglob("*")) == before


def test_every_model_reconstructs(
    trained: Path, seven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"ae": "PSNR", "cvae": "negative ELBO in bits/dim given the label", "vimco": "negative ELBO in bits/dim:"}
    for model, words in said.items():
        label = ["--label", "7"] if model == "cvae" else []
        assert _twostage("reconstruct", trained, seven, "--model", model, "--out", tmp_path / model, *label) == 0
        assert words in capsys.readouterr().err
        assert (tmp_path / model / "seven-reconstructed.png").is_file()
    assert _twostage("reconstruct", trained, seven, "--model", "cvae", "--out", tmp_path / "1", "--label", "1") == 0
    assert _pictures(tmp_path / "1") != _pictures(tmp_path / "cvae")


def test_report_shows_every_model_and_says_what_its_samples_are(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert "ae: decoded draws from a Gaussian fitted to the latents of training images" in page
    assert "cvae: decoded draws from the Gaussian prior, one class a column" in page
    assert "vimco: decoded draws from its factorised prior" in page
    assert "not to be compared with the totals" in page
    names = {path.name for path in (trained / "samples").glob("*.png")}
    assert {
        f"{model}-{kind}.png" for model in ("ae", "cvae", "vimco") for kind in ("samples", "reconstructions")
    } <= names


def test_report_pictures_continuous_latents(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    for words in (
        "Continuous latents",
        "Latents of 300 test items",
        "Decoded random latents",
        "Total is at beta = 1. That of cvae (beta 1) is given the label",
        "cvae, given the label 5: left the decoded latents",
    ):
        assert words in page
    names = {path.stem for path in (trained / "samples").glob("*.png")}
    assert {"latent-scatter", "latent-draws", "reconstructions-by-model", "latent-training"} <= names
    both = {"traversals", "interpolations", "manifold"}
    for model, kinds in {"ae": both, "vae": both | {"latent-rates", "correlations"}}.items():
        assert {f"{model}-{kind}" for kind in kinds} <= names
    assert "ae-latent-rates" not in names  # it has none


def test_diagnosis_says_what_is_wrong_with_every_model(trained: Path, copy: Path) -> None:
    """The same numbers in evaluation.json, the report, and from an evaluation of its own."""
    found = {d["model"]: d for d in json.loads((trained / "evaluation.json").read_text())["diagnoses"]}
    assert list(found) == ["vq-vae", "ae", "vae", "cvae", "vimco"]
    page = (trained / "report.html").read_text()
    for diagnosis in found.values():
        assert html.escape(" ".join(diagnosis["sentences"])) in page
    vae, codes = found["vae"]["numbers"], found["vq-vae"]["numbers"]
    assert len(vae["kl_nats"]) == 2
    elbo = next(row for row in _rows(trained).values() if (row["model"], row["bound"]) == ("vae", "elbo"))
    assert vae["rate_nats"] / np.log(2) / 64 == pytest.approx(elbo["rate_bits_per_dim"], rel=1e-5)
    learned = next(
        row
        for row in json.loads((trained / "evaluation.json").read_text())["rows"]
        if row["model"] == "vq-vae" and row["prior"] == "learned"
    )
    assert np.sum(codes["bits_by_position"]) / 64 == pytest.approx(learned["rate_bits_per_dim"], rel=1e-5)
    assert codes["limiting_stage"] in found["vq-vae"]["sentences"][0].lower()
    shutil.rmtree(copy / "models/vq-vae/prior")
    assert _twostage("evaluate", copy) == 0
    found = {d["model"]: d for d in json.loads((copy / "evaluation.json").read_text())["diagnoses"]}
    assert found["vq-vae"]["verdict"] in ("no prior", "codebook collapsed")


def test_without_bits_codes_have_a_price_all_the_same(tmp_path: Path) -> None:
    """Trained on squared error there is no distortion in bits to weigh them against, but a prior there is."""
    text = RECIPE.replace('"ae", "vae", "cvae", "vimco"', '"vimco"').replace("[stage1]", '[stage1]\nlikelihood = "mse"')
    (tmp_path / "squared.toml").write_text(text)
    assert _twostage("train", tmp_path / "squared.toml", "--out", tmp_path / "run") == 0
    found = {d["model"]: d for d in json.loads((tmp_path / "run/evaluation.json").read_text())["diagnoses"]}
    assert list(found) == ["vq-vae", "vimco"]
    assert found["vq-vae"]["verdict"] != "no prior"
    assert any("under the learned prior" in sentence for sentence in found["vq-vae"]["sentences"])
    assert (tmp_path / "run/samples/vq-vae-code-costs.png").is_file()
    assert "of 4 codes are used" in " ".join(found["vimco"]["sentences"])
    assert "rate_bits" not in found["vimco"]["numbers"]


def test_a_large_kl_weight_and_a_short_training_are_diagnosed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = ((10, 3.0), (45, 2.6), (60, 2.5))
    falling = [json.dumps({"step": step, "validation_loss_bits_per_dim": bits}) for step, bits in numbers]
    (copy / "models/vae/stage1/metrics.jsonl").write_text("\n".join(falling))
    assert _twostage("train-baseline", copy, "--model", "beta-vae-50") == 0
    assert _twostage("evaluate", copy) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "beta-vae-50: The posterior is collapsed: 0 of 2 latents are active" in text
    assert "It is undertrained: its validation number decreased by 3.8% over the last quarter" in text


def test_cvae_needs_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, recipe = tmp_path / "images", tmp_path / "plain.toml"
    images.mkdir()
    for index in range(60):
        level = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(level).save(images / f"{index}.png")
    head = RECIPE.replace('name = "digits"', f'name = "images"\npath = "{images}"\nimage_size = 8\ncolour = "grey"')
    recipe.write_text(head.replace("batch_size = 32", "batch_size = 8"))
    assert _twostage("train", recipe, "--out", tmp_path / "run") == 2
    assert "images has no labels: choose vae" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
