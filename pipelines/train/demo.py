"""`twostage demo`: the whole path on real handwritten digits, offline, in about a minute on two cores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC

from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL
from twostage.data import ImageDataset, load_dataset
from twostage.progress import say

from ..commands.samples import Generate
from ..commands.tools import Demo
from ..evaluate.evaluate import evaluate_run
from ..generate.audio import run_generate
from ..generate.two_stage import load_image_run
from ..media.png import display_scale, grid, to_bytes, write_png
from ..modality.audio import load_sound
from ..report.audio import write_sound_report
from ..report.report import write_report
from ..runs.run import Run
from .audio import all_sound_jobs, sit_down_to_sound, train_all_sound
from .train import all_jobs, sit_down, train_all

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
    model = load_image_run(run, MAIN_MODEL, device)
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
    """`twostage demo`."""
    if command.audio:
        run_sound_demo(command)
        return
    recipe = replace(load_recipe("digits"), seed=command.seed)
    dataset = load_dataset(recipe.data)
    run = Run(path=command.run, recipe=recipe)
    jobs = all_jobs(run, dataset)
    sitting = sit_down(run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run)
    if sitting is None:
        return
    train_all(sitting)
    evaluate_run(run, dataset, device=sitting.device, split="test")
    write_samples(run, dataset, device=sitting.device, seed=command.seed)
    report = write_report(run, dataset, device=sitting.device, seed=command.seed)
    say(f"pictures in {command.run / 'samples'}, everything on one page in {report}")


def run_sound_demo(command: Demo) -> None:
    """Train, evaluate, generate, report."""
    recipe = replace(load_recipe("vowels"), seed=command.seed)
    dataset = load_sound(recipe)
    run = Run(path=command.run, recipe=recipe)
    jobs = all_sound_jobs(run, dataset)
    sitting = sit_down_to_sound(
        run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run
    )
    if sitting is None:
        return
    train_all_sound(sitting, jobs)
    evaluate_run(run, dataset, device=sitting.device, split="test")
    run_generate(Generate(run=run.path, count=15, seed=command.seed, device=command.device))
    write_sound_report(run, dataset, device=sitting.device, seed=command.seed)
