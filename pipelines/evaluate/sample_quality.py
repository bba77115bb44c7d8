"""Quality of samples and reconstructions: Fréchet distance in the features of a network trained on the run's own data
(`ruler`), and its label check.

A model's samples (latents from its prior, by its own decoder, nothing sharpened) are compared with the items of a
split, as the pictures that show them (`Modality.pictures`): images are their own, recordings spectrograms. Beside them
stand samples drawn as was chosen on validation items (`sharpening_choice`), where that is another way. As many training
items, compared in the same way, give the value that real items reach. All use the same number of items because the
distance of a finite set is biased upwards, the more the fewer there are. The network saw the training items, so their
own distance to a held-out split is not the least that is possible.

Reconstructions are compared with the very items that they are of, so that exact ones have a distance of 0. That takes
no prior: beside the distance of samples it says how much of that the decoder alone is to blame for.

What draws from a class is asked for the labels of as many training items, spread over all classes, and what does not
say itself how long an item is, for their lengths. `label_agreement` is the share that the classifier reads as asked,
which its accuracy on real items puts into perspective.

Shapes: N samples, C x H x W picture.
"""

from dataclasses import asdict, dataclass, replace
from functools import cached_property
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
from ..generate.sharpening import PLAIN, Choice, Sharpening
from ..generate.trained import Trained
from ..modality.choose import modality_of
from ..modality.pictures import Pictures, to_levels
from ..runs.loading import Loaded
from ..runs.run import Run, is_finished
from .classifier import FEATURES, Reading
from .row_writer import RowWriter
from .rows import SampleScore
from .ruler import Ruler, gaussian, ruler_of
from .sharpening_choice import SAMPLES, choose


def why_not(dataset: Dataset, split: str, wanted: int) -> str | None:
    """Why samples cannot be scored on these data, or None if they can."""
    fewest = min(wanted, len(dataset.split(split)), len(dataset.train))
    if fewest <= FEATURES:
        return (
            f"the covariance of {FEATURES} features needs more than {FEATURES} items, but of samples, {split} and "
            f"training items the fewest are {fewest}"
        )
    return None


def score_samples(run: Run, dataset: Dataset, split: str, device: torch.device) -> tuple[SampleScore, ...]:
    """Score `evaluation.frechet_samples` reconstructions of every finished model and as many samples, if it has any.

    How a model is best sampled is chosen first, once for its weights. Nothing is scored, and one sentence says why,
    where there are too few items.

    Raises:
        RunError: a model or its prior is damaged.
    """
    wanted = run.recipe.evaluation.frechet_samples
    if wanted == 0:
        return ()
    reason = why_not(dataset, split, wanted)
    if reason is not None:
        say(f"sample quality is left out: {reason}; set evaluation.frechet_samples to 0 to leave it out silently")
        return ()
    count = min(wanted, len(dataset.train))
    if count < wanted:
        say(f"samples scored: {count} instead of {wanted}, as many as there are training items to compare with")
    return _Scoring(run, dataset, split, device, count).scores()


@dataclass(frozen=True)
class _Scoring:
    """What the scores of all models share."""

    run: Run
    dataset: Dataset
    split: str
    device: torch.device
    count: int

    @cached_property
    def pictures(self) -> Pictures:
        return modality_of(self.run.recipe).pictures(self.run.recipe, self.dataset)

    @cached_property
    def ruler(self) -> Ruler:
        return ruler_of(self.run, self.dataset, self.pictures, self.device)

    def scores(self) -> tuple[SampleScore, ...]:
        """Of every finished model."""
        held_out, shown = self.dataset.split(self.split), self._shown(self.split)
        real = self.ruler.read(shown)
        training = self.pictures.of(
            self.pictures.items(self.dataset.train, evenly(len(self.dataset.train), self.count))
        )
        common = {
            "reference_distance": frechet_distance(gaussian(self.ruler.read(training)), gaussian(real)),
            "classifier_accuracy": self.ruler.accuracy(shown, real, held_out.labels),
            "features": self.ruler.learned,
        }
        models = [self._trained(name) for name in self.run.trained_models()]
        return tuple(self._score(each, decoder, real, common) for each in models for decoder in scored_decoders(each))

    def _trained(self, name: str) -> Trained:
        return Trained(self.run, name, self.run.stage1(name, self.device), self.device)

    def _shown(self, split: str) -> np.ndarray:
        return self.pictures.of(self.pictures.items(self.dataset.split(split)))

    def _score(self, trained: Trained, decoder: str, real: Reading, common: dict[str, Any]) -> SampleScore:
        name, rows_M = trained.name, evenly(len(real.labels_N), self.count)
        own, *_ = trained.modality.decoders
        writer = RowWriter(self.run, self.dataset, self.split, self.device)
        again = self.ruler.read(reconstruct_for_scoring(writer, trained.with_decoder(decoder), self.pictures, rows_M))
        originals = fit_gaussian([real.features_NF[rows_M]])
        score = SampleScore(
            model=name if decoder == own else f"{name}, {trained.modality.decoders[decoder]}",
            samples=0,
            frechet_distance=None,
            label_agreement=None,
            reconstructions=len(rows_M),
            reconstruction_distance=frechet_distance(gaussian(again), originals),
            **common,
        )
        if not can_sample(self.run, name, trained.stage1):
            return score
        target, plain = gaussian(real), self._drawn(trained, decoder, PLAIN, self.count, seed=self.run.recipe.seed)
        score = replace(
            score,
            samples=self.count,
            frechet_distance=frechet_distance(plain.features, target),
            label_agreement=plain.agreement,
        )
        choice = self._choice(trained)
        if choice is None or choice.chosen == PLAIN:
            return score
        chosen = self._drawn(trained, decoder, choice.chosen, self.count, seed=self.run.recipe.seed)
        return replace(
            score,
            chosen=choice.chosen.words,
            chosen_distance=frechet_distance(chosen.features, target),
            chosen_agreement=chosen.agreement,
        )

    @cached_property
    def _validation(self) -> FeatureGaussian:
        return gaussian(self.ruler.read(self._shown("validation")))

    def _choice(self, trained: Trained) -> Choice | None:
        """How the model is best sampled, by the decoder of stage one; None, and a sentence, where there are too few
        validation items."""
        own, *_ = trained.modality.decoders
        samples, seed = min(self.count, SAMPLES), self.run.recipe.seed
        reason = why_not(self.dataset, "validation", samples)
        if reason is not None:
            say(f"how {trained.name} is best sampled is not chosen: {reason}")
            return None
        return choose(
            trained,
            self.ruler,
            self._validation,
            # Other seeds than that of the score, so that it is one of samples that nothing was chosen by.
            lambda setting, further: (
                self._drawn(trained, own, setting, samples, seed=(seed + 1 + further) % 2**64).features
            ),
            items=len(self.dataset.validation),
            samples=samples,
        )

    def _drawn(self, trained: Trained, decoder: str, setting: Sharpening, count: int, *, seed: int) -> "_Drawn":
        how = Drawing(**asdict(setting), decoder=decoder, seed=seed)
        shown, labels = draw_for_scoring(trained, self.dataset, self.pictures, how, count=count)
        reading = self.ruler.read(shown)
        said = None if labels is None or self.ruler.learned != "labels" else reading.agreement(labels)
        return _Drawn(gaussian(reading), said)


@dataclass(frozen=True)
class _Drawn:
    """Samples as the ruler sees them."""

    features: FeatureGaussian
    agreement: float | None
    """Share that is read as the label asked for; None where none was, or where the ruler knows none."""


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
    trained: Trained, dataset: Dataset, pictures: Pictures, how: Drawing, *, count: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures of samples, uint8 or uint16 `[count, C, H, W]`, and the labels asked for; None where there were none."""
    source, lengths_M = source_of(trained), trained.files.lengths_of(dataset.train)
    rows_N = np.argsort(dataset.train.labels, kind="stable")[evenly(len(dataset.train), count)]
    labels = dataset.train.labels[rows_N] if source.knows_labels else None
    wanted = wanted_from(count, source, labels="in turn" if labels is None else labels.tolist())
    items = draw(trained, count, wanted, replace(how, lengths=None if lengths_M is None else lengths_M[rows_N]))
    return to_levels(np.asarray(pictures.of(items)), pictures.levels), labels
