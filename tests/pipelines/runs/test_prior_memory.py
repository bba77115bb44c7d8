"""Priors that would not fit into memory are refused before anything is trained."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from twostage.config.load import load_recipe
from twostage.errors import UsageError
from twostage_pipelines.cli.main import main
from twostage_pipelines.modality.choose import load_data
from twostage_pipelines.runs import prior_memory
from twostage_pipelines.runs.jobs import make_job
from twostage_pipelines.runs.prior_memory import LeastMemory, check_priors_fit, least_memory
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")


def there(monkeypatch: pytest.MonkeyPatch, mebibytes: float) -> None:
    monkeypatch.setattr(prior_memory, "available_bytes", lambda _device: int(mebibytes * 2**20))


def needed(recipe: str, tmp_path: Path, **sections: object) -> LeastMemory:
    run = Run(path=tmp_path, recipe=replace(load_recipe(recipe), **sections))
    return least_memory(run, "vq-vae", load_data(run.recipe))


@pytest.mark.parametrize("verb", ["train-codebook", "train"])
@pytest.mark.parametrize(("recipe", "batch"), [("digits", 64), ("vowels", 16)])
def test_a_run_is_refused_before_its_first_stage(
    verb: str,
    recipe: str,
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [
        "--quantiser.codebook-size",
        "512",
        "--prior-training.batch-size",
        str(batch),
        "--out",
        str(tmp_path / "r"),
    ]
    flags += ["--evaluation.batch-size", "8"]
    there(monkeypatch, 5)
    assert main([verb, recipe, *flags]) == 2
    said = capsys.readouterr().err
    assert "vq-vae: its prior takes at least" in said
    assert "but 5 MiB are there: choose a smaller quantiser.codebook_size" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "r").exists()
    there(monkeypatch, 2000)
    assert main([verb, recipe, *flags, "--dry-run"]) == 0


def test_the_sentence_names_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*flags: str) -> str:
        assert (
            main(["train-codebook", "digits", "--out", str(tmp_path / "r"), "--quantiser.codebook-size", "512", *flags])
            == 2
        )
        return capsys.readouterr().err

    batch, large, few = "--prior-training.batch-size", "--evaluation.batch-size", ["--prior.layers", "2"]
    there(monkeypatch, 8)
    assert "a smaller prior_training.batch_size, or more parts" in said(batch, "256", large, "8", *few)
    assert "or a smaller evaluation.batch_size" in said(batch, "4", large, "256", *few)
    assert "or a narrower prior" in said("--prior.channels", "256")
    assert "fewer quantiser.fsq_levels" in said("--quantiser.kind", "fsq", "--quantiser.fsq-levels", "8", "8", "8")


def test_a_baseline_and_a_prior_that_has_begun_are_not_asked(
    write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(write_run())
    dataset = load_data(run.recipe)
    there(monkeypatch, 0)
    jobs = [make_job(run, "vq-vae-loss", "prior", dataset)]
    with pytest.raises(UsageError, match="its prior takes at least"):
        check_priors_fit(run, jobs, dataset, CPU)
    for model, stage in (("vae", "stage1"), ("vq-vae", "prior")):
        check_priors_fit(run, [make_job(run, model, stage, dataset)], dataset, CPU)
    monkeypatch.setattr(prior_memory, "available_bytes", lambda _device: None)  # nothing says
    check_priors_fit(run, jobs, dataset, CPU)


STEP = """
import re, torch
from pathlib import Path
from stage2_prior import PixelCNN
torch.set_num_threads(1)
small = lambda size: PixelCNN(codebook_size=size, grid=(4, 4), channels=32, layers=4, first_kernel=3)
# The most that this program held; getrusage begins with what its parent held.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
def step(prior, items):
    optimiser = torch.optim.AdamW(prior.parameters())
    for _ in range(2):
        prior.zero_grad()
        prior.log_prob(torch.zeros(items, 1, 4, 4, dtype=torch.int64)).mean().backward()
        optimiser.step()
step(small(2), 64)  # whatever torch sets up
before = peak()
step(small(16384), 64)
print(peak() - before)
"""


def test_the_estimate_is_what_a_step_takes(tmp_path: Path) -> None:
    recipe = load_recipe("digits")
    told = needed(
        "digits",
        tmp_path,
        quantiser=replace(recipe.quantiser, codebook_size=16384),
        prior=replace(recipe.prior, layers=4, channels=32, first_kernel=3, conditional=False),
        prior_training=replace(recipe.prior_training, batch_size=64, weight_ema=0.0),
        evaluation=replace(recipe.evaluation, batch_size=1),
    )
    taken = int(subprocess.run([sys.executable, "-c", STEP], check=True, capture_output=True, text=True).stdout)
    assert 0.85 * taken < told.bytes < 1.05 * taken


def test_parts_of_a_batch_need_less_and_a_weight_average_more(tmp_path: Path) -> None:
    recipe = load_recipe("digits")
    plain = needed("digits", tmp_path, prior_training=replace(recipe.prior_training, batch_size=64, weight_ema=0.0))
    parts = replace(recipe.prior_training, batch_size=64, weight_ema=0.0, accumulate=4)
    average = replace(recipe.prior_training, batch_size=64, weight_ema=0.9)
    assert needed("digits", tmp_path, prior_training=parts).step * 4 == plain.step
    assert needed("digits", tmp_path, prior_training=average).weights * 4 == plain.weights * 5
    codes = 4 * 4 * recipe.quantiser.codebook_size * recipe.quantiser.codebooks
    assert plain.step == 64 * codes * 4 * 3
