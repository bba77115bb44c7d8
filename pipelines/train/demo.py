"""`twostage demo`: the whole path on real handwritten digits, offline, in about a minute on two cores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC

from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL
from twostage.data import ImageDataset
from twostage.progress import say

from ..commands.samples import Generate
from ..commands.tools import Demo
from ..generate.generate import run_generate
from ..generate.two_stage import open_model
from ..media.png import display_scale, grid, to_bytes, write_png
from ..modality.choose import load_data
from ..runs.run import Run
from ..runs.session import prepare
from .train import all_jobs, evaluate_and_report, train_jobs

SAMPLES_PER_CLASS = 20
TEMPERATURE = 0.8
"""Sampling temperature of the demo's grid; named in its caption."""


def readable_share(images: np.ndarray, labels: np.ndarray, dataset: ImageDataset) -> tuple[float, float]:
    """Share of images that a classifier reads as their label, and its accuracy on the real test images.

    The classifier is scikit-learn's SVM (RBF kernel, gamma 0.001 per squared level, C 10) on the training images.

    Args:
        images: `[N, C, H, W]` in levels, may be fractional.
        labels: `[N]`.
    """

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), -1).astype(np.float64)

    classifier = SVC(gamma=0.001, C=10.0).fit(flat(dataset.train.images), dataset.train.labels)
    real = classifier.score(flat(dataset.test.images), dataset.test.labels)
    return float(classifier.score(flat(images), labels)), float(real)


def write_samples(run: Run, dataset: ImageDataset, *, device: torch.device, seed: int) -> Path:
    """Write the class-conditional grid of the main model and say how many samples a classifier reads as asked."""
    model = open_model(run, MAIN_MODEL, device)
    classes = len(dataset.classes)
    labels = torch.arange(classes * SAMPLES_PER_CLASS) % classes
    images = model.generate(len(labels), labels=labels, temperature=TEMPERATURE, seed=seed).cpu().numpy()
    share, real = readable_share(images, labels.numpy(), dataset)
    path = run.path / "samples" / "demo-samples.png"
    write_png(
        path, grid(to_bytes(images, dataset.levels), columns=classes), scale=display_scale(dataset.shape[-1], target=32)
    )
    say(
        f"{path}: one class a column, temperature {TEMPERATURE}; an SVM trained on the real training digits reads "
        f"{share:.1%} of the {len(labels)} samples as the digit asked for ({real:.1%} on real test digits)"
    )
    return path


def run_demo(command: Demo) -> None:
    """`twostage demo`: train everything, write samples, evaluate, report."""
    recipe = replace(load_recipe("vowels" if command.audio else "digits"), seed=command.seed)
    run = Run(path=command.run, recipe=recipe)
    dataset = load_data(recipe)
    jobs = all_jobs(run, dataset)
    session = prepare(run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run)
    if session is None:
        return
    train_jobs(session, jobs)
    if isinstance(dataset, ImageDataset):
        write_samples(run, dataset, device=session.device, seed=command.seed)
    else:
        run_generate(Generate(run=run.path, count=15, seed=command.seed, device=command.device))
    report = evaluate_and_report(run, dataset, device=session.device)
    say(f"pictures in {command.run / 'samples'}, everything on one page in {report}")
