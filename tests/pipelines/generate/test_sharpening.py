"""How new items are drawn where nobody says so: as was chosen for exactly these weights, or as the model is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.errors import RunError, UsageError
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.generate.nearest import write_nearest
from twostage_pipelines.generate.sharpening import PLAIN, Choice, Sharpening, Tried
from twostage_pipelines.generate.two_stage import TwoStage
from twostage_pipelines.runs.run import Run

WriteRun = Callable[..., Path]
SHARP = Sharpening(temperature=0.7, top_p=0.9, guidance=2.0)


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _chosen(model: TwoStage, setting: Sharpening) -> Choice:
    return Choice(
        chosen=setting,
        distance=3.0,
        plain_distance=4.5,
        noise=0.5,
        item="image",
        items=200,
        samples=100,
        features="labels",
        ruler_sha256="a",
        stage1_sha256=model.stage1.sha256,
        prior_sha256=model.prior.sha256 if model.model.latents == "codes" else None,
        tried=(Tried(PLAIN, (4.25, 4.5)), Tried(setting, (3.25, 3.0))),
    )


def _keep(run: Path, setting: Sharpening, name: str = "vq-vae") -> Choice:
    choice = _chosen(load_run(run, model=name), setting)
    choice.write(run / "models" / name / "sampling.json")
    return choice


def test_a_choice_is_read_as_it_was_written(write_run: WriteRun) -> None:
    run = write_run(label_dropout=0.1)
    choice = _keep(run, SHARP)
    path = run / "models/vq-vae/sampling.json"
    assert Choice.read(path) == choice
    assert choice.words == (
        "temperature 0.7, top-p 0.9, guidance 2 (chosen on validation images: Fréchet distance 3 against 4.5 with "
        "nothing sharpened)"
    )
    for damage in (b"{", b"[]", json.dumps({**json.loads(path.read_text()), "schema_version": 9}).encode()):
        path.write_bytes(damage)
        with pytest.raises(RunError, match="run evaluate, which chooses again"):
            load_run(run).generate(2)


def test_what_was_chosen_is_how_items_are_drawn(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(label_dropout=0.1)
    plain = load_run(run).sample_codes(6, temperature=1.0)
    assert torch.equal(load_run(run).sample_codes(6), plain)  # nothing was chosen yet
    assert _twostage("generate", run, "--count", 6, "--out", tmp_path / "before") == 0
    assert capsys.readouterr().err.endswith("; temperature 1\n")

    _keep(run, SHARP)
    model = load_run(run)
    sharp = model.sample_codes(6, temperature=0.7, top_p=0.9, guidance=2.0)
    assert not torch.equal(sharp, plain)
    assert torch.equal(model.sample_codes(6), sharp)
    assert torch.equal(model.generate(6), model.generate(6, temperature=0.7, top_p=0.9, guidance=2.0))
    assert _twostage("generate", run, "--count", 6, "--out", tmp_path / "after") == 0
    assert "temperature 0.7, top-p 0.9, guidance 2 (chosen on validation images" in capsys.readouterr().err
    assert (tmp_path / "after/0000-class_0.png").read_bytes() != (tmp_path / "before/0000-class_0.png").read_bytes()

    # Whoever asks for one of them asks for all of them.
    assert torch.equal(model.sample_codes(6, temperature=1.0), plain)
    assert torch.equal(model.sample_codes(6, top_p=1.0), plain)
    top_k = model.sample_codes(6, top_k=3)
    assert torch.equal(top_k, model.sample_codes(6, top_k=3, temperature=1.0, top_p=1.0, guidance=1.0))
    assert _twostage("generate", run, "--count", 6, "--temperature", 1, "--out", tmp_path / "again") == 0
    assert (tmp_path / "again/grid.png").read_bytes() == (tmp_path / "before/grid.png").read_bytes()

    # Without a label there is nothing that guidance could strengthen.
    free = model.sample_codes(6, labels=None)
    assert torch.equal(free, model.sample_codes(6, labels=None, temperature=0.7, top_p=0.9))


def test_a_choice_for_other_weights_does_not_hold(write_run: WriteRun) -> None:
    run = write_run(label_dropout=0.1)
    plain, choice = load_run(run).sample_codes(4), _chosen(load_run(run), SHARP)
    for other in (replace(choice, prior_sha256="b"), replace(choice, stage1_sha256="b")):
        other.write(run / "models/vq-vae/sampling.json")
        assert torch.equal(load_run(run).sample_codes(4), plain)


def test_a_vae_has_a_temperature_of_its_own(write_run: WriteRun) -> None:
    run = write_run()
    _keep(run, Sharpening(temperature=0.5), "vae")
    model = load_run(run, model="vae")
    assert torch.equal(model.generate(4), model.generate(4, temperature=0.5))
    assert not torch.equal(model.generate(4), model.generate(4, temperature=1.0))


def test_guidance_is_asked_for_and_refused(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(label_dropout=0.1)
    out = ("--out", tmp_path / "out")
    assert _twostage("generate", run, "--count", 3, "--guidance", 3, *out) == 0
    assert capsys.readouterr().err.endswith("; temperature 1, guidance 3\n")
    completion = ("--complete", pictures[0], "--keep-rows", 2, "--count", 2, "--guidance", 3, *out)
    assert _twostage("generate", run, *completion, "--label", "class 1") == 0
    capsys.readouterr()
    for arguments in (("--unlabelled", "--guidance", 3, *out), completion):
        assert _twostage("generate", run, *arguments) == 2
        assert "strengthens the label that is asked for, but none is" in capsys.readouterr().err
    assert _twostage("generate", run, "--guidance", -1) == 2
    assert "--guidance must be at least 0" in capsys.readouterr().err
    assert _twostage("generate", run, "--guidance", 3, "--model", "vae") == 2
    assert "model vae has no learned prior" in capsys.readouterr().err
    for settings, said in (
        ({}, "run train-prior with --prior.label-dropout 0.1"),
        ({"classes": 0}, "this prior knows none"),
    ):
        other = write_run(name=f"run{len(settings)}", **settings)
        assert _twostage("generate", other, "--guidance", 3) == 2
        assert said in capsys.readouterr().err
        with pytest.raises(UsageError, match="--guidance strengthens a label"):
            load_run(other).generate(2, guidance=3.0)


def test_sounds_are_guided_by_label_and_speaker(write_audio_run: Callable[..., Path]) -> None:
    """Its prior has no label dropout: what it says names the section of sound."""
    with pytest.raises(UsageError, match=r"--wavenet-prior\.label-dropout 0\.1"):
        load_run(write_audio_run()).generate(2, guidance=2.0)


def test_samples_beside_their_nearest_training_images(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(DataConfig(name="digits"))
    monkeypatch.setattr(Run, "check_data", lambda *_: None)  # a run of random weights says nothing of its data
    run = write_run()
    assert _twostage("generate", run, "--count", 20, "--nearest") == 0
    said = capsys.readouterr().err
    assert f"{run}/samples/nearest.png: vq-vae: in each strip a sample, left" in said
    with Image.open(run / "samples/nearest.png") as picture:
        assert picture.size[0] > 4 * 4 * 8
    # A training image has itself for its nearest, at no distance.
    model = load_run(run)
    caption = write_nearest(tmp_path / "own.png", model, list(dataset.train.images[:5]))
    assert "The nearest are 0, 0, 0, 0, 0 levels away" in caption
    assert "5 of the samples are copies" in caption
    # A later call that writes none leaves no old one behind.
    assert _twostage("generate", run, "--count", 2) == 0
    assert not (run / "samples/nearest.png").exists()
