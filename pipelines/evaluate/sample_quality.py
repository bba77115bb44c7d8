"""Quality of samples and reconstructions: Fréchet distance in the features of a classifier trained on the run's own
data, and its label check.

A model's samples (latents from its prior, by its own decoder at temperature 1) are compared with the items of a split,
as the pictures that show them (`Modality.pictures`): images are their own, recordings spectrograms. As many training
items, compared in the same way, give the value that real items reach. Both use the same number of items because the
distance of a finite set is biased upwards, the more the fewer there are. The classifier saw the training items, so
their own distance to a held-out split is not the least that is possible.

Reconstructions are compared with the very items that they are of, so that exact ones have a distance of 0. That takes
no prior: beside the distance of samples it says how much of that the decoder alone is to blame for.

What draws from a class is asked for the labels of as many training items, spread over all classes, and what does not
say itself how long an item is, for their lengths. `label_agreement` is the share that the classifier reads as asked,
which its accuracy on real items puts into perspective.

Shapes: N samples, C x H x W picture.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stage1_vqvae.interface import Stage1Model
from twostage.data.interface import Dataset
from twostage.metrics.frechet import FeatureGaussian, fit_gaussian, frechet_distance
from twostage.metrics.statistics import evenly
from twostage.progress import say

from ..generate.asked import wanted_from
from ..generate.drawing import Drawing, draw, source_of
from ..generate.trained import Trained
from ..modality.choose import modality_of
from ..modality.pictures import Pictures, to_levels
from ..runs.loading import Loaded
from ..runs.run import Run, is_finished
from .classifier import FEATURES, read, trained_classifier
from .row_writer import RowWriter
from .rows import SampleScore


def why_not(dataset: Dataset, split: str, wanted: int) -> str | None:
    """Why samples cannot be scored on these data, or None if they can."""
    if len(dataset.classes) < 2:
        return f"{dataset.name} has no labels to train a classifier on"
    fewest = min(wanted, len(dataset.split(split)), len(dataset.train))
    if fewest <= FEATURES:
        return (
            f"the covariance of {FEATURES} features needs more than {FEATURES} items, but of samples, {split} and "
            f"training items the fewest are {fewest}"
        )
    return None


def score_samples(run: Run, dataset: Dataset, split: str, device: torch.device) -> tuple[SampleScore, ...]:
    """Score `evaluation.frechet_samples` reconstructions of every finished model and as many samples, if it has any.

    Nothing is scored, and one sentence says why, where the data have no labels or too few items.

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
    count, pictures = min(wanted, len(dataset.train)), modality_of(run.recipe).pictures(run.recipe, dataset)
    if count < wanted:
        say(f"samples scored: {count} instead of {wanted}, as many as there are training items to compare with")
    classifier = trained_classifier(run.path / "classifier", dataset, pictures, device=device, batch_size=batch_size)

    def gaussian(features_NF: np.ndarray) -> FeatureGaussian:
        return fit_gaussian([features_NF])

    held_out = dataset.split(split)
    real = read(classifier, pictures.of(pictures.items(held_out)), device=device, batch_size=batch_size)
    target, accuracy = gaussian(real.features_NF), real.agreement(held_out.labels)
    training = pictures.of(pictures.items(dataset.train, evenly(len(dataset.train), count)))
    train = read(classifier, training, device=device, batch_size=batch_size)
    reference = frechet_distance(gaussian(train.features_NF), target)
    writer, rows_M = RowWriter(run, dataset, split, device), evenly(len(held_out), count)
    originals, scores = gaussian(real.features_NF[rows_M]), []
    trained_models = [Trained(run, name, run.stage1(name, device), device) for name in run.trained_models()]
    for trained, decoder in [(each, decoder) for each in trained_models for decoder in scored_decoders(each)]:
        name, stage1 = trained.name, trained.stage1
        own = decoder == next(iter(trained.modality.decoders))
        made = reconstruct_for_scoring(writer, trained.with_decoder(decoder), pictures, rows_M)
        again = read(classifier, made, device=device, batch_size=batch_size)
        score = SampleScore(
            model=name if own else f"{name}, {trained.modality.decoders[decoder]}",
            samples=0,
            frechet_distance=None,
            reference_distance=reference,
            label_agreement=None,
            classifier_accuracy=accuracy,
            reconstructions=len(rows_M),
            reconstruction_distance=frechet_distance(gaussian(again.features_NF), originals),
        )
        if can_sample(run, name, stage1):
            drawn, labels = draw_for_scoring(trained, dataset, pictures, decoder=decoder, count=count)
            reading = read(classifier, drawn, device=device, batch_size=batch_size)
            score = replace(
                score,
                samples=count,
                frechet_distance=frechet_distance(gaussian(reading.features_NF), target),
                label_agreement=None if labels is None else reading.agreement(labels),
            )
        scores.append(score)
    return tuple(scores)


def scored_decoders(trained: Trained) -> list[str]:
    """The decoder of stage one and, if it is trained, a second one that does not draw sample after sample."""
    own, *others = trained.modality.decoders
    follows = trained.model.latents == "codes" and is_finished(trained.run.decoder_folder(trained.name))
    return [own, *(name for name in others if follows and not trained.with_decoder(name).autoregressive)]


def can_sample(run: Run, name: str, stage1: Loaded[Any]) -> bool:
    """Whether a model has something to draw from; of what never has, a line says so."""
    if stage1.model.latents == "none":
        say(f"samples of {name} are not scored: it has no distribution to draw from")
        return False
    return stage1.model.latents != "codes" or is_finished(run.prior_folder(name))


@torch.no_grad()
def reconstruct_for_scoring(
    writer: RowWriter, model: Stage1Model, pictures: Pictures, rows_M: np.ndarray
) -> np.ndarray:
    """Pictures of what a model makes of some items of the split, uint8 `[M, C, H, W]`, in any order."""
    files, seed, made = modality_of(writer.run.recipe).files, writer.run.recipe.seed, list[np.ndarray]()
    for _, batch in writer.batches(model, rows_M, drawn=model.autoregressive):
        decoded = model.decode_batch(model.latents_of(batch, seed=seed), batch, seed=seed)
        made += files.made(decoded, batch.lengths)
    return to_levels(np.asarray(pictures.of(made)), pictures.levels)


def draw_for_scoring(
    trained: Trained, dataset: Dataset, pictures: Pictures, *, decoder: str, count: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures of samples, uint8 or uint16 `[count, C, H, W]`, and the labels asked for; None where there were none."""
    source, lengths_M = source_of(trained), trained.files.lengths_of(dataset.train)
    rows_N = np.argsort(dataset.train.labels, kind="stable")[evenly(len(dataset.train), count)]
    labels = dataset.train.labels[rows_N] if source.knows_labels else None
    wanted = wanted_from(count, source, labels="in turn" if labels is None else labels.tolist())
    seed = trained.run.recipe.seed
    how = Drawing(seed=seed, decoder=decoder, lengths=None if lengths_M is None else lengths_M[rows_N])
    items = draw(trained, count, wanted, how)
    return to_levels(np.asarray(pictures.of(items)), pictures.levels), labels
