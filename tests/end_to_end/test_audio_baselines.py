"""The baselines of images on sounds, from the command line to a loaded model."""

from pathlib import Path

import pytest
import torch

from stage1_vqvae import AudioAutoencoder, AudioVAE
from twostage_pipelines.cli.main import main
from twostage_pipelines.runs.run import Run

RECIPE = """
name = "tiny"
threads = 1
[data]
name = "vowels"
[audio]
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 4
speaker_channels = 4
segment_samples = 512
mixtures = 2
[quantiser]
codebook_size = 8
embedding_dim = 4
init = "random"
[gaussian]
latent_channels = 2
kl_warmup_steps = 2
free_bits = 0.1
[codebook_training]
steps = 1
batch_size = 2
[baseline_training]
steps = 4
batch_size = 4
validate_every = 4
checkpoint_every = 4
[evaluation]
batch_samples = 200000
"""


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_baselines_of_images_train_on_sounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    assert twostage("train-codebook", recipe, "--out", run) == 0
    for name, kind in (("ae", AudioAutoencoder), ("vae", AudioVAE), ("cvae", AudioVAE)):
        assert twostage("train-baseline", run, "--model", name) == 0
        model = Run.open(run).stage1(name, torch.device("cpu")).model
        assert isinstance(model, kind)
        assert model.speakers == 3
        assert model.classes == (5 if name == "cvae" else 0)
        said = (run / "models" / name / "stage1" / "metrics.jsonl").read_text()
        assert ("latent_root_mean_square" in said) == (name == "ae")
        assert ("kl_weight" in said) == (name != "ae")
        if isinstance(model, AudioVAE):
            assert (model.free_bits, model.steps_done) == (0.1, 4)
    capsys.readouterr()
    assert twostage("train-baseline", run, "--model", "vimco") == 2
    assert "vimco is a model of images, but the data are recordings" in capsys.readouterr().err
    assert not (run / "models/vimco").exists()


def test_free_bits_are_refused_for_a_batch_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = tmp_path / "tiny.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    parts = ("--baseline-training.accumulate", 2, "--models", "vae")
    assert twostage("train", recipe, "--out", run, *parts) == 2
    assert "gaussian.free_bits compares the KL of the whole batch with a limit" in capsys.readouterr().err
    assert not run.exists()
