"""`twostage demo`: the whole path, offline: on real handwritten digits, in about a minute, or on synthetic vowels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.svm import SVC

from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL
from twostage.data.interface import Dataset
from twostage.progress import say

from ..commands.samples import Generate
from ..commands.tools import Demo
from ..generate.drawing import Drawing, draw
from ..generate.generate import run_generate
from ..generate.two_stage import open_model
from ..media.png import display_scale, grid, to_bytes, write_png
from ..modality.choose import load_data
from ..modality.pictures import Pictures
from ..runs.run import Run
from ..runs.session import prepare
from .train import all_jobs, evaluate_and_report, train_jobs

SAMPLES_PER_CLASS = 20
TEMPERATURE = 0.8
"""Sampling temperature of the demo's grid; named in its caption."""
FILES = 15
"""New items that are written as files of their own."""


def readable_share(
    samples: np.ndarray, labels: np.ndarray, pictures: Pictures, dataset: Dataset
) -> tuple[float, float]:
    """Share of pictures that a classifier reads as their label, and its accuracy on those of the real test items.

    The classifier is scikit-learn's SVM (RBF kernel of the pictures' own scale, C 10) on the training items.

    Args:
        samples: pictures `[N, C, H, W]` in levels, may be fractional.
        labels: `[N]`.
        pictures: how items of the data set are shown.
        dataset: the data set.
    """

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), -1).astype(np.float64)

    train, test = (flat(pictures.of(pictures.items(split))) for split in (dataset.train, dataset.test))
    classifier = SVC(gamma="scale", C=10.0).fit(train, dataset.train.labels)
    return float(classifier.score(flat(samples), labels)), float(classifier.score(test, dataset.test.labels))


def write_samples(run: Run, dataset: Dataset, *, device: torch.device, seed: int) -> Path:
    """Write the class-conditional grid of the main model and say how many samples a classifier reads as asked."""
    model = open_model(run, MAIN_MODEL, device)
    pictures, classes = model.modality.pictures(run.recipe, dataset), len(dataset.classes)
    count = classes * SAMPLES_PER_CLASS
    wanted = model.wanted(count)
    samples = pictures.of(draw(model, count, wanted, Drawing(temperature=TEMPERATURE, seed=seed)))
    share, real = readable_share(samples, np.array(wanted.labels), pictures, dataset)
    path = run.path / "samples" / "demo-samples.png"
    write_png(
        path,
        grid(to_bytes(samples, pictures.levels), columns=classes),
        scale=display_scale(samples.shape[-1], target=32),
    )
    say(
        f"{path}: one class a column, temperature {TEMPERATURE}; an SVM trained on the real training {pictures.item}s "
        f"reads {share:.1%} of the {count} samples as the class asked for ({real:.1%} on real test {pictures.item}s)"
    )
    return path


def run_demo(command: Demo) -> None:
    """`twostage demo`: train everything, write samples, evaluate, report."""
    recipe = replace(load_recipe("vowels" if command.audio else "digits"), seed=command.seed)
    run = Run(path=command.run, recipe=recipe)
    dataset = load_data(recipe)
    jobs = all_jobs(run, dataset)
    session = prepare(
        run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run, evaluated=True
    )
    if session is None:
        return
    train_jobs(session, jobs)
    write_samples(run, dataset, device=session.device, seed=command.seed)
    run_generate(Generate(run=run.path, count=FILES, seed=command.seed, device=command.device))
    report = evaluate_and_report(run, dataset, device=session.device)
    say(f"pictures in {command.run / 'samples'}, everything on one page in {report}")
