"""What is said before a training begins of its time and memory, and the dial on the command line."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.config.load import load_recipe, load_run_recipe
from twostage.config.model_names import model_spec
from twostage.config.schema import Recipe
from twostage.training.live_bytes import LiveBytes
from twostage.training.loop import Fit
from twostage.training.rehearsal import Stand, count
from twostage_pipelines.cli.main import main
from twostage_pipelines.modality.choose import load_data, modality_of
from twostage_pipelines.runs import forecast
from twostage_pipelines.runs.forecast import Forecaster
from twostage_pipelines.runs.run import Run
from twostage_pipelines.runs.session import prepare
from twostage_pipelines.train.train import all_jobs, train_jobs

TRAININGS = ("codebook_training", "prior_training", "baseline_training", "decoder_training")


def tiny(name: str) -> Recipe:
    recipe = replace(load_recipe(name), threads=1, models=("vq-vae", "vae"))
    if name == "digits":
        return replace(recipe, prior=replace(recipe.prior, layers=2, channels=8))
    decoder = replace(recipe.wavenet_decoder, layers_per_block=4, channels=8, segment_samples=256)
    audio = replace(recipe.audio, channels=16, residual_channels=8, segment_samples=512)
    return replace(recipe, audio=audio, wavenet_decoder=decoder)


def foreseen(recipe: Recipe, run: Path) -> dict[str, forecast.Forecast]:
    dataset, found = load_data(recipe), dict[str, forecast.Forecast]()
    modality, where = modality_of(recipe), Run(path=run, recipe=recipe)
    forecaster = Forecaster(where, dataset, torch.device("cpu"))
    for job in all_jobs(where, dataset):
        stage1 = None
        if job.stage == "stage1":
            stage1 = modality.build(*modality.stage1(model_spec(job.model, recipe), recipe, dataset))
        each = forecaster.of(job, stage1)
        assert each is not None
        found[job.label] = each
    return found


@pytest.mark.parametrize("name", ["digits", "vowels"])
def test_every_training_has_a_time_and_a_size(name: str, tmp_path: Path) -> None:
    found = foreseen(tiny(name), tmp_path / "run")
    stages = {"digits": {"stage one", "prior"}, "vowels": {"stage one", "WaveNet decoder", "prior"}}[name]
    assert set(found) == {*(f"vq-vae {stage}" for stage in stages), "vae stage one"}
    for each in found.values():
        assert each.parameters > 0
        assert each.time.cpu_seconds > 0 < each.time.seconds
        assert each.bytes > each.parameters * 16
    assert not (tmp_path / "run").exists()


def test_more_steps_take_more_time_and_those_done_none(tmp_path: Path) -> None:
    recipe = tiny("digits")
    run, dataset = Run(path=tmp_path / "run", recipe=recipe), load_data(recipe)
    job, modality = all_jobs(run, dataset)[0], modality_of(recipe)
    stage1 = modality.build(*modality.stage1(model_spec("vq-vae", recipe), recipe, dataset))
    forecaster = Forecaster(run, dataset, torch.device("cpu"))
    whole, rest = forecaster.of(job, stage1), forecaster.of(job, stage1, done=400)
    assert whole is not None
    assert rest is not None
    assert rest.time.seconds == pytest.approx(whole.time.seconds / 3, rel=1e-6)  # of 600, with 2 of 6 validations


def test_foreseen_memory_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """What is shown is what is counted of a real step, and what is checked before it from small ones comes near."""
    recipe = replace(tiny("digits"), models=("vae",))
    wide = replace(recipe, baseline_training=replace(recipe.baseline_training, batch_size=256))
    wide = replace(wide, evaluation=replace(wide.evaluation, batch_size=8))
    run, dataset, modality = Run(path=tmp_path, recipe=wide), load_data(wide), modality_of(wide)
    (job,) = all_jobs(run, dataset)
    build = modality.stage1(model_spec("vae", wide), wide, dataset)
    forecaster = Forecaster(run, dataset, torch.device("cpu"))
    assert forecaster.of(job, modality.build(*build)) is not None
    told = next(iter(forecaster._found.values())).costs.bytes
    model = modality.build(*build)
    own = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    with LiveBytes() as live:
        fit = Fit(
            modality.stage1_task(model, wide, dataset, torch.device("cpu")),
            folder=tmp_path,
            budget=job.training,
            seed=0,
            record={},
            device=torch.device("cpu"),
        )
        fit.train_step()
        fit.train_step()
    assert told == pytest.approx(own + live.peak, rel=0.1)
    fresh = modality.build(*build)
    stand = Stand(
        model=fresh,
        task=lambda train, validation: forecaster._task(job, fresh, train, validation),
        budget=job.training,
        validation_batch=8,
        device=torch.device("cpu"),
    )
    assert count(stand, seed=0).bytes == pytest.approx(own + live.peak, rel=0.25)


def test_what_does_not_fit_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forecast, "available_bytes", lambda _: 1 << 20)
    assert main(["train", "digits", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert re.search(r"vq-vae stage one needs about .* MiB of memory for batches of 32 .*, but 1 MiB", said)
    assert "choose a smaller batch_size" in said
    assert not (tmp_path / "run").exists()


def test_a_forecast_changes_no_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rehearsal draws numbers, but the training seeds its own."""
    digests = []
    for number, foresee in enumerate((True, False)):
        recipe = tiny("digits")
        short = replace(recipe.codebook_training, steps=100, warmup_steps=10)
        recipe = replace(recipe, models=("vq-vae",), codebook_training=short)
        run, dataset = Run(path=tmp_path / str(number), recipe=recipe), load_data(recipe)
        jobs = all_jobs(run, dataset)[:1]
        session = prepare(run, dataset, jobs, device="cpu", resume="auto", forecast=foresee)
        assert session is not None
        assert ("about" in capsys.readouterr().err) == foresee
        train_jobs(session, jobs)
        digests.append(run.stage1("vq-vae", torch.device("cpu")).sha256)
    assert digests[0] == digests[1]


def test_short_trainings_are_not_rehearsed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [f"--{section.replace('_', '-')}.steps=99" for section in TRAININGS[:3]]
    assert main(["train", "digits", *flags, "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "99 steps of 32 items\n" in said
    assert "about" not in said


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for index in range(60):
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{index:02}.png")
    return folder


def dialled(photographs: Path, run: Path, *more: str) -> int:
    flags = ["--data.path", str(photographs), "--data.image-size", "16", "--size", "small", "--out", str(run)]
    return main(["train-codebook", "images", *flags, "--codebook-training.steps", "3", *more])


def test_the_choice_is_kept_and_the_same_command_goes_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert dialled(photographs, run, "--stage1.channels", "8") == 0
    said = capsys.readouterr().err
    assert "size small: images of 16x16 as grids of 8x8 codes (downsampling 2)" in said
    kept = load_run_recipe(run)
    assert (kept.stage1.channels, kept.stage1.downsampling, kept.codebook_training.steps) == (8, 2, 3)
    assert (kept.stage1.residual_channels, kept.prior.layers, kept.quantiser.codebook_size) == (32, 6, 64)
    assert dialled(photographs, run, "--stage1.channels", "8") == 0
    assert "already trained" in capsys.readouterr().err
    assert dialled(photographs, run, "--stage1.channels", "8", "--size", "medium") == 2
    assert "quantiser.embedding_dim: 32 -> 64" in capsys.readouterr().err
    assert dialled(photographs, run) == 2
    assert "stage1.channels: 8 -> 64" in capsys.readouterr().err


def test_a_dry_run_says_what_the_dial_chose_and_what_it_costs(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert dialled(photographs, run, "--dry-run", "--codebook-training.steps", "200", "--stage1.channels", "8") == 0
    said = capsys.readouterr().err
    cost = r"about [\d.]+ (s|min|h), [\d.]+ [MG]iB"
    assert re.search(rf"vq-vae stage one: [\d,]+ parameters, 200 steps of 16 items, {cost}", said)
    assert "steps x items: codebook 200 x 16" in said
    assert not run.exists()


def test_a_training_that_is_not_finite_says_so_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    flags = ["--codebook-training.learning-rate", "1e18", "--codebook-training.warmup-steps", "0", "--out", str(run)]
    assert main(["train-codebook", "digits", *flags]) == 1
    said = capsys.readouterr().err
    assert "is not finite at step" in said
    assert f"any checkpoint in {run / 'models' / 'vq-vae' / 'stage1'}" in said
