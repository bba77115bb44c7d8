"""What `evaluate` measures of images: bits/dim, diagnoses, codes as bytes and the quality of samples."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from twostage.data import ImageDataset

from ..bits.round_trip import round_trips
from ..runs.class_numbers import warn_of_untrained_labels
from ..runs.loading import LoadedStage1
from ..runs.run import Run
from .diagnosis import Diagnosing
from .differences import Scored
from .rows import Evaluation
from .sample_quality import score_samples, why_not
from .score_images import ImageRows
from .scoring import ModelScores


class ImageScoring:
    """`scoring.Scoring` of images."""

    unit = "bits/dim"

    def __init__(self, *, run: Run, dataset: ImageDataset, split: str, device: torch.device) -> None:
        self.run, self.dataset, self.split, self.device = run, dataset, split, device
        self.rows = ImageRows(run=run, dataset=dataset, split=split, device=device)
        self.diagnosing = Diagnosing(run=run, dataset=dataset, split=split, device=device)

    @property
    def dims(self) -> int:
        """Sub-pixels of an image."""
        return self.dataset.dims

    def warn(self) -> None:
        warn_of_untrained_labels(self.dataset, self.split)

    def left_out(self) -> Sequence[str]:
        wanted = self.run.recipe.evaluation.frechet_samples
        reason = why_not(self.dataset, self.split, wanted) if wanted else None
        return [] if reason is None else [f"sample quality would be left out: {reason}"]

    def scores(self, name: str, stage1: LoadedStage1) -> ModelScores:
        rows = tuple(self.rows.score(name, stage1))
        return ModelScores(rows, diagnosis=self.diagnosing.diagnose(name, stage1, rows))

    def extras(self, evaluation: Evaluation, scored: Sequence[Scored]) -> Iterator[Evaluation]:
        """Streams of codes, and scores of samples, where they are asked for."""
        if trips := round_trips(self.run, self.split, self.device):
            evaluation = replace(evaluation, coding=trips)
            yield evaluation
        if scores := score_samples(self.run, self.dataset, self.split, self.device):
            yield replace(evaluation, sample_scores=scores)
