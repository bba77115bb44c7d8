"""Tasks of the baselines in the training loop: resume, labels beside their images, validation numbers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.baseline_tasks import AutoencoderTask, VIMCOTask
from stage1_vqvae.images.tasks import GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vae import VAE
from stage1_vqvae.images.vimco import VIMCO
from twostage.config.schema import TrainingConfig
from twostage.errors import UsageError
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_checkpoint
from twostage.training.loop import Fit
from twostage.training.task import Task

SIZES: dict[str, Any] = {"image_shape": (1, 4, 4), "levels": 4, "downsampling": 2, "channels": 8, "head_channels": 6}
IMAGES = torch.randint(0, 4, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(20) // 2 % 3


def _gaussian(**settings: Any) -> GaussianTask:
    model = VAE(**SIZES, latent_dim=2, classes=3, **settings)
    return GaussianTask(
        model,
        train=TrainingImages(IMAGES),
        validation=IMAGES[:7],
        evaluation_batch_size=3,
        train_labels=LABELS,
        validation_labels=LABELS[:7],
    )


def _autoencoder(**settings: Any) -> AutoencoderTask:
    model = Autoencoder(**{**SIZES, **settings}, latent_dim=2)
    return AutoencoderTask(model, train=TrainingImages(IMAGES), validation=IMAGES[:7], evaluation_batch_size=3)


def _vimco(**settings: Any) -> VIMCOTask:
    model = VIMCO(**{**SIZES, **settings}, embedding_dim=4, codebook_size=5, samples=3)
    return VIMCOTask(model, train=TrainingImages(IMAGES), validation=IMAGES[:7], evaluation_batch_size=3)


TASKS: dict[str, Callable[[], Task]] = {
    "annealed cvae": lambda: _gaussian(kl_warmup_steps=10, free_bits=0.1),
    "autoencoder": _autoencoder,
    "vimco": _vimco,
}


def _run(make: Callable[[], Task], folder: Path, steps: int) -> None:
    seed_step(0, 0)
    budget = TrainingConfig(
        steps=steps, batch_size=6, learning_rate=3e-3, weight_ema=0.8, validate_every=4, checkpoint_every=100
    )
    Fit(make(), folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu")).run(label="test")


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_training_is_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    _run(TASKS[name], tmp_path / "whole", 12)
    for steps in (4, 12):
        _run(TASKS[name], tmp_path / "parts", steps)
    whole, parts = (load_checkpoint(tmp_path / part / "step-00000012").sha256 for part in ("whole", "parts"))
    assert whole["model.safetensors"] == parts["model.safetensors"]
    assert whole["optimiser.safetensors"] == parts["optimiser.safetensors"]


def test_labels_go_with_their_images() -> None:
    task = _gaussian()
    indices = np.array([4, 0, 11, 5])
    torch.manual_seed(1)
    found = task.loss(indices).loss
    torch.manual_seed(1)
    torch.testing.assert_close(found, task.model(IMAGES[indices], torch.tensor([2, 0, 2, 2])).loss)
    bounds = task.model.bounds(IMAGES[:7], LABELS[:7], samples=1, seed=0)
    assert task.validate()["bits_per_dim"] == pytest.approx(-bounds.elbo.mean().item() / (16 * math.log(2)), rel=1e-5)


def test_labels_and_classes_go_together() -> None:
    images = TrainingImages(IMAGES)
    with pytest.raises(UsageError, match="expected 20 labels from 0 to 2, int64, got none"):
        GaussianTask(VAE(**SIZES, classes=3), train=images, validation=IMAGES, evaluation_batch_size=9)
    with pytest.raises(UsageError, match="takes no labels"):
        GaussianTask(VAE(**SIZES), train=images, validation=IMAGES, evaluation_batch_size=9, train_labels=LABELS)


def test_validation_numbers_are_means_over_all_items() -> None:
    vimco, autoencoder = _vimco(), _autoencoder()
    bounds = vimco.model.bounds(IMAGES[:7], samples=3, seed=0)
    numbers, scale = vimco.validate(), 16 * math.log(2)
    assert numbers["bits_per_dim"] == pytest.approx(-bounds.multi_sample.mean().item() / scale, rel=1e-5)
    split = numbers["distortion_bits_per_dim"] + numbers["rate_bits_per_dim"]
    assert split == pytest.approx(-bounds.elbo.mean().item() / scale, rel=1e-5)
    assert numbers["bits_per_dim"] < split
    codes = vimco.model.sample_codes(IMAGES[:7], seed=0)
    assert numbers["used"] == len(codes.unique())
    z = autoencoder.model.encode(IMAGES[:7])
    numbers = autoencoder.validate()
    distortion = -autoencoder.model.log_prob(IMAGES[:7], z).mean().item() / scale
    assert numbers["distortion_bits_per_dim"] == pytest.approx(distortion, rel=1e-5)
    assert numbers["latent_root_mean_square"] == pytest.approx(z.pow(2).mean().sqrt().item(), rel=1e-5)


@pytest.mark.parametrize("make", [_vimco, _autoencoder])
def test_squared_error_is_never_called_bits(make: Callable[..., Task]) -> None:
    task = make(likelihood="mse")
    names = {*task.loss(np.arange(4)).metrics, *task.validate()}
    assert task.objective in names
    assert not {"bits_per_dim", "distortion_bits_per_dim"} & names
