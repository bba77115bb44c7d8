"""Sample quality: Fréchet distance in the features of a classifier trained on the run's own data, and its label check.

A model's samples (prior sample -> decoder at temperature 1, rounded to levels) are compared with the images of a split;
as many training images, compared in the same way, give the value that real images reach. Both use the same number of
images because the distance of a finite set is biased upwards, the more the fewer images there are. The classifier saw
the training images, so their own distance to a held-out split is not the least that is possible.

Class-conditional priors are asked for labels in the proportions of the training data; `label_agreement` is the share
that the classifier reads as asked, which its accuracy on real images puts into perspective.

Shapes: N samples, C x H x W image.
"""

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO
from twostage.data import ImageDataset
from twostage.metrics.frechet import FeatureGaussian, fit_gaussian, frechet_distance
from twostage.metrics.statistics import evenly
from twostage.progress import say

from ..generate.decoding import sample_vae, sample_vimco, to_levels
from ..generate.two_stage import open_model as load_image_run
from ..runs.loading import LoadedStage1
from ..runs.run import Run, is_finished
from .classifier import FEATURES, read, trained_classifier
from .rows import SampleScore


def why_not(dataset: ImageDataset, split: str, wanted: int) -> str | None:
    """Why samples cannot be scored on these data, or None if they can."""
    if len(dataset.classes) < 2:
        return f"{dataset.name} has no labels to train a classifier on"
    fewest = min(wanted, len(dataset.split(split)), len(dataset.train))
    if fewest <= FEATURES:
        return (
            f"the covariance of {FEATURES} features needs more than {FEATURES} images, but of samples, {split} and "
            f"training images the fewest are {fewest}"
        )
    return None


def score_samples(run: Run, dataset: ImageDataset, split: str, device: torch.device) -> tuple[SampleScore, ...]:
    """Score `evaluation.frechet_samples` samples of every finished model that can sample.

    Nothing is scored, and one sentence says why, where the data have no labels or too few images.

    Raises:
        RunError: a model or its prior is damaged.
    """
    wanted, batch_size = run.recipe.evaluation.frechet_samples, run.recipe.evaluation.batch_size
    if wanted == 0:
        return ()
    reason = why_not(dataset, split, wanted)
    if reason is not None:
        say(f"sample quality is left out: {reason}; set evaluation.frechet_samples to 0 to leave it out silently")
        return ()
    count = min(wanted, len(dataset.train))
    if count < wanted:
        say(f"samples scored: {count} instead of {wanted}, as many as there are training images to compare with")
    classifier = trained_classifier(run.path / "classifier", dataset, device=device, batch_size=batch_size)

    def gaussian(features_NF: np.ndarray) -> FeatureGaussian:
        return fit_gaussian([features_NF])

    held_out = dataset.split(split)
    real = read(classifier, held_out.images, device=device, batch_size=batch_size)
    target, accuracy = gaussian(real.features_NF), real.agreement(held_out.labels)
    train_images = dataset.train.images[evenly(len(dataset.train), count)]
    train = read(classifier, train_images, device=device, batch_size=batch_size)
    reference = frechet_distance(gaussian(train.features_NF), target)
    scores = []
    for name in run.trained_models():
        stage1 = run.stage1(name, device)
        if isinstance(stage1.model, Autoencoder):
            say(f"samples of {name} are not scored: it has no distribution to draw from")
            continue
        if isinstance(stage1.model, VQVAE) and not is_finished(run.prior_folder(name)):
            continue
        images, labels = draw_for_scoring(run, name, stage1, dataset, count=count, device=device)
        reading = read(classifier, images, device=device, batch_size=batch_size)
        scores.append(
            SampleScore(
                model=name,
                samples=count,
                frechet_distance=frechet_distance(gaussian(reading.features_NF), target),
                reference_distance=reference,
                label_agreement=None if labels is None else reading.agreement(labels),
                classifier_accuracy=accuracy,
            )
        )
    return tuple(scores)


def draw_for_scoring(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, *, count: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples of a model, uint8 levels `[count, C, H, W]`, and the labels asked for, None where there were none."""
    model, seed, labels = stage1.model, run.recipe.seed, None
    by_class = np.sort(dataset.train.labels)[evenly(len(dataset.train), count)]
    if isinstance(model, VQVAE):
        two_stage = load_image_run(run, name, device)
        labels = by_class if two_stage.pixelcnn.classes else None
        images = two_stage.generate(count, labels=None if labels is None else torch.from_numpy(labels), seed=seed)
    elif isinstance(model, VIMCO):
        images = sample_vimco(model, count, seed=seed, device=device)
    else:
        assert isinstance(model, VAE)
        labels = by_class if model.classes else None
        labels_N = None if labels is None else torch.from_numpy(labels)
        images = sample_vae(model, count, labels_N=labels_N, seed=seed, device=device)
    return to_levels(images.cpu().numpy(), model.levels), labels
