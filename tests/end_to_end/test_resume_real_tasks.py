"""Resume, bit for bit, of the tasks that are really trained: every source of randomness, every running state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, VQVAE, HierarchicalVQVAE, PictureDecoder
from stage1_vqvae.images.picture_task import PictureDecoderTask
from stage1_vqvae.images.tasks import CodebookTask, GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.priced import Priced
from stage2_prior import HierarchicalPrior, PixelCNN
from stage2_prior.prices import FrozenPrior
from stage2_prior.training import PriorTask
from twostage.config.schema import TrainingConfig
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_checkpoint
from twostage.training.interrupts import Interrupted
from twostage.training.loop import Fit
from twostage.training.task import StepResult, Task

STEPS = 12
BUDGET = TrainingConfig(
    steps=STEPS,
    batch_size=6,
    learning_rate=3e-3,
    warmup_steps=3,
    schedule="cosine",
    weight_decay=1e-2,
    weight_ema=0.8,
    patience=50,
    precision="bf16",
    validate_every=4,
    checkpoint_every=100,
)
STAGE1 = {
    "image_shape": (1, 8, 8),
    "levels": 2,
    "likelihood": "bernoulli",
    "downsampling": 2,
    "channels": 8,
    "residual_channels": 4,
    "head_channels": 6,
    "autoregressive_layers": 2,
    "autoregressive_channels": 4,
    "auxiliary_weight": 0.5,
}


def _images() -> tuple[TrainingImages, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    intensities = torch.randint(0, 17, (20, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = (intensities > 8).to(torch.uint8)
    train = TrainingImages(images, horizontal_flips=True, intensities=intensities, intensity_levels=17)
    return train, images[:7]


LEARNED = {"codebook_size": 24, "codebooks": 2, "gradient": "rotation", "decay": 0.7, "revival_threshold": 0.5}


def _codebook(**settings: Any) -> Task:
    train, validation = _images()
    kind = HierarchicalVQVAE if "hierarchy" in settings else VQVAE
    model = kind(**STAGE1, embedding_dim=4, **settings)
    return CodebookTask(model, train=train, validation=validation, kmeans=False, evaluation_batch_size=4, seed=0)


def _priced() -> Task:
    train, validation = _images()
    model = HierarchicalVQVAE(**STAGE1, **LEARNED, embedding_dim=4, update="ema", hierarchy=2)
    prior = HierarchicalPrior(**{**PRIOR, "codebook_size": 24}, grids=((2, 2), (4, 4)))
    labels = torch.arange(20)[:, None] % 3
    priced = Priced(FrozenPrior(prior), train_condition=labels, validation_condition=labels[:7])
    common: dict[str, Any] = {"train": train, "validation": validation, "evaluation_batch_size": 4, "seed": 0}
    return CodebookTask(model, **common, kmeans=False, priced=priced)


def _gaussian() -> Task:
    train, validation = _images()
    return GaussianTask(VAE(**STAGE1, latent_channels=2), train=train, validation=validation, evaluation_batch_size=4)


PRIOR: dict[str, Any] = {"codebook_size": 5, "codebooks": 2, "classes": (3,), "channels": 6, "layers": 2}
PRIOR |= {"dropout": 0.3, "label_dropout": 0.4}


def _prior(make: Callable[[], PixelCNN | HierarchicalPrior]) -> Task:
    model, generator = make(), torch.Generator().manual_seed(2)
    codes = torch.randint(0, 5, (20, *model.code_shape), generator=generator)
    labels = torch.randint(0, 3, (20, 1), generator=generator)
    return PriorTask(
        model,
        train=codes,
        train_condition=labels,
        validation=codes[:5],
        validation_condition=labels[:5],
        evaluation_batch_size=3,
    )


def _pictures() -> Task:
    """With a discriminator whose verdict counts from the second step on, between the two interruptions."""
    train, validation = _images()
    codec = VQVAE(**STAGE1, embedding_dim=4, codebook_size=8)
    model = PictureDecoder(
        image_shape=(1, 8, 8), levels=2, in_channels=4, downsampling=2, channels=6, residual_blocks=1,
        residual_channels=4, head_channels=4, discriminator_channels=4,
    )  # fmt: skip
    codes = codec.eval().encode(train.images), codec.encode(train.images.flip(-1))
    return PictureDecoderTask(
        model,
        codec=codec,
        train=train.images,
        train_codes=torch.cat(codes),
        validation=validation,
        validation_codes=codes[0][:7],
        feature_weight=0.5,
        adversarial_weight=1.0,
        adversarial_start=3,
        evaluation_batch_size=4,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "picture decoder": _pictures,
    "ema codebook": lambda: _codebook(**LEARNED, update="ema"),
    "loss codebook": lambda: _codebook(**LEARNED, update="loss"),
    "paid codes": lambda: _codebook(**LEARNED, rate_weight=0.1),
    "residual": lambda: _codebook(**LEARNED, quantiser="residual", quantiser_dropout=0.7),
    "cosine": lambda: _codebook(**LEARNED, quantiser="cosine", code_dim=3),
    "priced codes": _priced,
    "mapped vectors": lambda: _codebook(quantiser="simvq", codebook_size=16),
    "finite scalars": lambda: _codebook(quantiser="fsq", fsq_levels=(4, 3)),
    "hierarchy": lambda: _codebook(**LEARNED, quantiser="residual", quantiser_dropout=0.7, hierarchy=2),
    "gaussian": _gaussian,
    "prior": lambda: _prior(lambda: PixelCNN(**PRIOR, grid=(3, 3))),
    "prior of a hierarchy": lambda: _prior(lambda: HierarchicalPrior(**PRIOR, grids=((2, 2), (4, 4)))),
}


class _Stopped:
    """The task, with a signal to its own process in the step of that number."""

    def __init__(self, task: Task, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
        import os
        import signal

        loss, seen = task.loss, iter(range(STEPS))

        def stopping(indices: np.ndarray) -> StepResult:
            if next(seen) == stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return loss(indices)

        monkeypatch.setattr(task, "loss", stopping)


def _fit(make: Callable[[], Task], folder: Path) -> tuple[Task, Fit]:
    seed_step(0, 0)
    task = make()
    return task, Fit(task, folder=folder, budget=BUDGET, seed=3, record={}, device=torch.device("cpu"))


@pytest.mark.parametrize("name", TASKS)
def test_two_interruptions_change_no_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = _fit(TASKS[name], tmp_path / "whole")
    whole.run(label="whole")
    for stop_at in (2, 3):  # after step 3, then four steps on: between validations and right after one
        task, fit = _fit(TASKS[name], tmp_path / "parts")
        _Stopped(task, stop_at, monkeypatch)
        with pytest.raises(Interrupted):
            fit.run(label="part")
    _fit(TASKS[name], tmp_path / "parts")[1].run(label="rest")
    last = f"step-{STEPS:08d}"
    for checkpoint in (last, "best"):
        digests = [load_checkpoint(tmp_path / folder / checkpoint).sha256 for folder in ("whole", "parts")]
        for file in digests[0]:
            if file.endswith(".safetensors"):
                assert digests[0][file] == digests[1][file], (checkpoint, file)
    records = [(tmp_path / folder / "metrics.jsonl").read_bytes() for folder in ("whole", "parts")]
    assert records[0] == records[1]
