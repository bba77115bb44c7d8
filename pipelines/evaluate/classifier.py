"""A small convolutional classifier of a run's own training data: the ruler for sample quality.

It reads the pictures that show the items (`Modality.pictures`) and tells their labels or, where the data have none, in
which way they were turned (`turns`). Its 64 penultimate outputs, before their ReLU, are the features in which
`sample_quality` compares samples with real items. They know this data set and nothing else, so a distance in them is
never called FID, whose features come from ImageNet, and compares models of one data set only.

The seed and the budget are fixed, whatever the recipe's seed: two runs on the same data are measured with the same
ruler. It is trained once per run, into RUN/classifier/, by the loop that trains everything else, and kept there with
the digest of its data; where that or anything else that decides its weights does not match, it is trained again.

Shapes: N items, B items of a batch, C x H x W picture, F features, Y classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.images.networks import image_tensor, normalise
from twostage.config.schema import TrainingConfig
from twostage.data.interface import Dataset
from twostage.errors import RunError
from twostage.noise import seed_step
from twostage.progress import say
from twostage.storage.atomic import remove_directory
from twostage.storage.checkpoint import load_checkpoint, load_newest, verify_checkpoint
from twostage.training.loop import Fit
from twostage.training.task import StepResult

from ..modality.pictures import Pictures
from ..runs.jobs import deciding
from ..runs.run import is_finished
from .turns import TurnsTask, ways

FEATURES = 64
SEED = 0
BATCH_SIZE = 64
EPOCHS = 15
MOST_STEPS = 1500
"""On one CPU core: 20 s for MNIST (98.9 % on validation images), 4 s for the 8x8 digits, which take 304 steps."""


class Classifier(nn.Module):
    """Convolutions down to an 8x8 grid or less, one more to at most 4x4, 64 features, linear.

    Args:
        image_shape: (C, H, W).
        levels: size of the alphabet.
        classes: Y, at least 2.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], levels: int, classes: int) -> None:
        super().__init__()
        self.levels = levels
        channels, height, width = image_shape
        layers: list[nn.Module] = []

        def add(out: int, *, kernel: int, stride: int) -> None:
            nonlocal channels, height, width
            # Group normalisation: as quick to train as batch normalisation here, and the same in training and use.
            layers.extend([nn.Conv2d(channels, out, kernel, stride, kernel // 2), nn.GroupNorm(8, out), nn.ReLU()])
            channels, height, width = out, -(-height // stride), -(-width // stride)

        shrinks = max(height, width) > 8
        add(32, kernel=5 if shrinks else 3, stride=2 if shrinks else 1)
        add(64, kernel=3, stride=2 if max(height, width) > 8 else 1)
        while max(height, width) > 4:
            add(64, kernel=3, stride=2)
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, FEATURES))
        self.head = nn.Linear(FEATURES, classes)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """`[B, 64]` of pictures in integer levels."""
        features_BF: Tensor = self.trunk(normalise(x_BCHW, self.levels))
        return features_BF

    def logits(self, features_BF: Tensor) -> Tensor:
        """`[B, Y]` of features."""
        logits_BY: Tensor = self.head(F.relu(features_BF))
        return logits_BY

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits `[B, Y]` of pictures in integer levels."""
        return self.logits(self.features(x_BCHW))


def has_labels(dataset: Dataset) -> bool:
    """Whether there are labels to tell."""
    return len(dataset.classes) >= 2


@dataclass(frozen=True)
class Reading:
    """What the classifier makes of a set of pictures."""

    features_NF: np.ndarray
    """float32."""
    labels_N: np.ndarray
    """Most probable class of each, int64."""

    def agreement(self, labels_N: np.ndarray) -> float:
        """Share of them that are read as these labels."""
        return float((self.labels_N == labels_N).mean())


@torch.no_grad()
def read(model: Classifier, pictures_NCHW: np.ndarray, *, device: torch.device, batch_size: int) -> Reading:
    """Features and labels of pictures in integer levels."""
    features, labels = [], []
    for start in range(0, len(pictures_NCHW), batch_size):
        x_BCHW = image_tensor(pictures_NCHW[start : start + batch_size]).to(device)
        features_BF = model.features(x_BCHW)
        features.append(features_BF.cpu().numpy())
        labels.append(model.logits(features_BF).argmax(1).cpu().numpy())
    return Reading(features_NF=np.concatenate(features), labels_N=np.concatenate(labels))


class ClassifierTask:
    """Cross-entropy on training pictures and their labels; the best model has the lowest on validation ones."""

    objective = "cross_entropy_nats"

    def __init__(
        self,
        model: Classifier,
        *,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        device: torch.device,
        evaluation_batch_size: int,
    ) -> None:
        self.model, self.items = model, len(train[0])
        (self.pictures, self.labels), self.validation = (
            (image_tensor(pictures).to(device), torch.from_numpy(labels).to(device))
            for pictures, labels in (train, validation)
        )
        self.evaluation_batch_size = evaluation_batch_size

    def start(self) -> None:
        """Nothing to prepare."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Mean cross-entropy of the training items at `indices`."""
        rows = torch.from_numpy(indices).to(self.pictures.device)
        logits_BY, labels_B = self.model(self.pictures[rows]), self.labels[rows]
        accuracy = (logits_BY.detach().argmax(1) == labels_B).float().mean()
        return StepResult(loss=F.cross_entropy(logits_BY, labels_B), metrics={"accuracy": accuracy})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Nothing to update."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Cross-entropy and accuracy on all validation pictures."""
        nats, right, items = 0.0, 0, len(self.validation[0])
        batches = (part.split(self.evaluation_batch_size) for part in self.validation)
        for x_BCHW, labels_B in zip(*batches, strict=True):
            logits_BY = self.model(x_BCHW)
            nats += F.cross_entropy(logits_BY, labels_B, reduction="sum").item()
            right += int((logits_BY.argmax(1) == labels_B).sum())
        return {"cross_entropy_nats": nats / items, "accuracy": right / items}


def budget(items: int) -> TrainingConfig:
    """What the classifier of so many training items is trained for."""
    steps = min(MOST_STEPS, math.ceil(EPOCHS * items / BATCH_SIZE))
    return TrainingConfig(
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=2e-3,
        warmup_steps=min(20, steps),
        schedule="cosine",
        weight_decay=1e-2,
        validate_every=max(1, steps // 5),
        checkpoint_every=500,
    )


def trained_classifier(
    folder: Path, dataset: Dataset, pictures: Pictures, *, device: torch.device, batch_size: int
) -> Classifier:
    """The classifier kept in `folder`, in eval mode; trained first where there is none that belongs to the data.

    Args:
        folder: where its training lives.
        dataset: training and validation items; with fewer than two classes, it tells how they were turned.
        pictures: how they are shown.
        device: where it computes.
        batch_size: items per forward pass of validation.

    Raises:
        RunError: the training diverged or the disk refused.
    """
    shape = pictures.of(pictures.items(dataset.train, [0])).shape[1:]
    labelled = has_labels(dataset)
    architecture: dict[str, Any] = {
        "image_shape": shape,
        "levels": pictures.levels,
        "classes": len(dataset.classes) if labelled else ways(shape),
    }
    training = budget(len(dataset.train))
    config = {
        "seed": SEED,
        "data": {"name": dataset.name, "sha256": dataset.sha256},
        "architecture": {**architecture, "image_shape": list(shape)},
        "training": deciding(training),
    }
    if folder.is_dir() and not _belongs(folder, config):
        say(f"the classifier in {folder} is damaged or of other data and is trained again")
        remove_directory(folder)
    # The weights are drawn on the CPU, so that every device starts from the same ones.
    seed_step(SEED, 0)
    model = Classifier(**architecture).to(device)
    if not is_finished(folder):
        parts = [(pictures.of(pictures.items(part)), part.labels) for part in (dataset.train, dataset.validation)]
        task: ClassifierTask | TurnsTask
        if labelled:
            task = ClassifierTask(
                model, train=parts[0], validation=parts[1], device=device, evaluation_batch_size=batch_size
            )
        else:
            shown = [shown for shown, _ in parts]
            task = TurnsTask(
                model, train=shown[0], validation=shown[1], device=device, evaluation_batch_size=batch_size
            )
        record = {"kind": "classifier", "dataset": dataset.name, "classes": list(dataset.classes), "config": config}
        fit = Fit(task, folder=folder, budget=training, seed=SEED, record=record, device=device)
        fit.run(label=f"classifier of {dataset.name}")
    best = load_checkpoint(folder / "best")
    model.load_state_dict(best.tensors["model"])
    what = "reads" if labelled else "tells the turn of"
    accuracy = best.state["validation"]["accuracy"]
    say(f"classifier of {dataset.name}: {what} {accuracy:.1%} of the validation items right")
    return model.eval()


def _belongs(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the folder is empty or holds a whole training, finished or not, with exactly these settings and data."""
    try:
        newest, finished = load_newest(folder, warn=say), is_finished(folder)
    except RunError:
        return False
    if finished and verify_checkpoint(folder / "best") is None:
        return False
    return newest is None or newest.state["record"].get("config") == config
