"""Images are their own pictures."""

from collections.abc import Iterable, Sequence

import numpy as np

from twostage.config.schema import Recipe
from twostage.data import ImageDataset, Split
from twostage.metrics.memorisation import WithMirrored
from twostage.metrics.statistics import evenly

from .pictures import Curve, Items

WATCHED = 8
"""Images that are shown while a model trains."""
ONE_DIM = "a dimension, levels scaled to -1..1"


class ImagePictures:
    """Images of a data set as `Pictures`; what is trained on mirrored images too is compared with both."""

    item = "image"
    level = "levels"
    dim = "dim"
    rows = 10
    played = 0
    curves: tuple[Curve, ...] = (
        Curve("stage1", "distortion_bits_per_dim", "Stage one: distortion", "bits/dim"),
        Curve("stage1", "half_squared_error", "Stage one: half the squared error", ONE_DIM),
        Curve("prior", "bits_per_code", "Prior: code length given what it is conditioned on", "bits/code"),
    )

    def __init__(self, recipe: Recipe, dataset: ImageDataset) -> None:
        self._dataset, self._flips = dataset, recipe.data.horizontal_flips

    @property
    def levels(self) -> int:
        return self._dataset.levels

    def items(self, split: Split, rows: Iterable[int] | None = None) -> np.ndarray:
        return split.images if rows is None else split.images[np.fromiter(rows, np.int64)]

    def of(self, items: Items) -> np.ndarray:
        return np.asarray(items)

    def training(self) -> np.ndarray | WithMirrored:
        images_MCHW = self._dataset.train.images
        return WithMirrored(images_MCHW) if self._flips else images_MCHW

    def players(self, items: Items, captions: Sequence[str]) -> str:
        return ""

    def watched(self, split: Split, *, drawn: bool) -> Split:
        return split.take(evenly(len(split), WATCHED))

    def in_a_row(self, items: Items) -> None:
        return None

    def figure(self, rows: Sequence[Items], titles: Sequence[Sequence[str]]) -> None:
        return None
