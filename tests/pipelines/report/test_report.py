"""The whole report, of every kind of data: its sections, and that nothing behind them is computed twice."""

import html
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from stage1_vqvae import VAE, AudioVAE
from twostage_pipelines.cli.main import main
from twostage_pipelines.evaluate import latent_diagnosis
from twostage_pipelines.report import latents
from twostage_pipelines.runs import run as runs

EVERYWHERE = ["Results", "Diagnosis", "Labels", "Continuous latents", "Training", "Recipe"]


def report(run: Path) -> str:
    """The page, written anew."""
    assert main(["report", str(run)]) == 0
    return (run / "report.html").read_text()


def parts(page: str) -> dict[str, list[str]]:
    """Sections in order, and what stands in each."""
    return {section.split("</h2>")[0]: re.findall("<h3>(.*?)</h3>", section) for section in page.split("<h2>")[1:]}


def test_one_skeleton_for_every_kind_of_data(run_of_each_kind: Path) -> None:
    (run_of_each_kind / "report.html").unlink()
    page = report(run_of_each_kind)
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    sounds = "<audio" in page
    item = "recording" if sounds else "image"
    models = ["vq-vae", "vae", "beta-vae-0.1"] if sounds else ["vq-vae", "ae", "vae", "beta-vae-0.1", "cvae", "vimco"]
    found = parts(page)
    assert [name for name in found if name in models] == models
    assert [name for name in found if name in EVERYWHERE] == [name for name in EVERYWHERE if name in found]
    assert set(EVERYWHERE) - set(found) <= {"Diagnosis"}
    shown = ["Samples", "Reconstructions", f"Nearest training {item}s"]
    for name in models:
        last = "Code usage" if name == "vq-vae" else "Latents"
        assert found[name] == [*shown, *([] if name == "vimco" else [last])]
    assert found["Results"] == (["What a code of vq-vae says, on its own"] if sounds else [])
    names = {path.stem for path in (run_of_each_kind / "samples").glob("*.png")}
    for name in models:
        assert {f"{name}-samples", f"{name}-reconstructions", f"{name}-neighbours"} <= names
    assert {"vae-latent-rates", "vae-traversals", "vae-interpolations"} <= names
    assert {"latent-scatter", "latent-training", "reconstructions-by-model", "rate-distortion"} <= names
    assert f"distance to the nearest training {item}" in page


def test_what_is_heard_stands_beside_its_original_and_every_decoder(audio_run: Path) -> None:
    page = (audio_run / "report.html").read_text()
    (section,) = [part for part in page.split("<h2>") if part.startswith("vq-vae</h2>")]
    samples, reconstructions = (
        section.split(f"<h3>{name}</h3>")[1].split("<h3>")[0] for name in ("Samples", "Reconstructions")
    )
    assert samples.count("<audio") == 2 * 8
    said = re.findall(r'aria-label="([^"]*)"', reconstructions)
    assert len(said) == 4 * 3
    assert [line.split(": ")[1] for line in said[:3]] == ["recording", "convolutional decoder", "WaveNet decoder"]
    assert "positions of 60 test items" in page
    assert "a latent is a channel, over the" in page
    assert "vae: decoded draws from the Gaussian prior, temperature 1." in page
    assert "all positions at once" in page


def test_nothing_is_loaded_encoded_or_diagnosed_twice(run_of_each_kind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Gaussian model, posteriors of every test item once; of all models, one load each."""
    encoded, loaded, diagnosed = Counter[str](), Counter[Path](), list[int]()

    def counted(kind: Any) -> None:
        own = kind.posterior

        def posterior(self: Any, first: torch.Tensor, *others: Any) -> Any:
            encoded[str(self.beta)] += len(first)
            return own(self, first, *others)

        monkeypatch.setattr(kind, "posterior", posterior)

    counted(VAE)
    counted(AudioVAE)
    load, diagnose = runs.load_model, latent_diagnosis.diagnose_posteriors

    def loading(folder: Path, *others: Any) -> Any:
        loaded[folder] += 1
        return load(folder, *others)

    def diagnosing(posteriors: Any, **settings: Any) -> Any:
        diagnosed.append(len(posteriors))
        return diagnose(posteriors, **settings)

    monkeypatch.setattr(runs, "load_model", loading)
    monkeypatch.setattr(latents, "diagnose_posteriors", diagnosing)
    report(run_of_each_kind)
    items = json.loads((run_of_each_kind / "evaluation.json").read_text())["items"]
    models = [path.name for path in (run_of_each_kind / "models").iterdir()]
    assert encoded == {"1.0": (2 if "cvae" in models else 1) * items, "0.1": items}
    assert set(loaded.values()) == {1}
    assert len(diagnosed) == sum("vae" in name and not name.startswith("vq") for name in models)


def test_a_model_trained_since_it_was_evaluated_is_refused(
    audio_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(audio_run, tmp_path / "run")
    shutil.rmtree(run / "models/vq-vae/decoder")
    assert main(["report", str(run)]) == 1
    assert "run evaluate again" in capsys.readouterr().err


def test_a_page_without_prior_says_what_brings_samples(image_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(image_run, tmp_path / "run")
    shutil.rmtree(run / "models/vq-vae/prior")
    assert main(["evaluate", str(run)]) == 0
    page = html.unescape(report(run))
    (section,) = [part for part in page.split("<h2>") if part.startswith("vq-vae</h2>")]
    assert "No finished prior: train-prior brings its samples." in section
    assert "<h3>Reconstructions</h3>" in section
    assert "<h3>Samples</h3>" not in section
