"""How the items of a kind of data are shown: each as a picture of one size, and what else there is to see or to hear.

Sheets of samples, reconstructions, nearest training items and traversals are made of these pictures in the same way for
every kind of data; a classifier that compares samples with real items reads them too. `Modality.pictures` gives those
of a data set, on which sizes and scales depend.

Shapes: N items, C x H x W picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from twostage.data.images.dataset import level_type
from twostage.errors import RunError
from twostage.metrics.memorisation import WithMirrored

Stage = Literal["stage1", "decoder", "prior"]
"""A training of a model; all but the first follow a finished codebook and see nothing but its codes."""
Items = Sequence[np.ndarray] | np.ndarray
"""Items of one kind of data, such as images `[C, H, W]` in levels, also as one array, or recordings `[S]`, int16."""


@dataclass(frozen=True)
class Curve:
    """A number of a training's record, with the batches it was measured on and with that on validation data beside."""

    stage: Stage
    key: str
    """In the rows of `metrics.jsonl`; `validation_KEY` on validation data."""
    title: str
    unit: str


@dataclass(frozen=True)
class Heard:
    """Something to hear."""

    samples: np.ndarray
    """int16 [S]."""
    rate_hz: int


class Pictures(Protocol):
    """How items of a data set are shown."""

    item: str
    """What an item is called: `image` or `recording`."""
    level: str
    """What the levels of the pictures are levels of, for distances between them: `levels` of the data themselves, or
    of what stands for them."""
    dim: str
    """What numbers of a training's record are per: `dim` or `sample`."""
    rows: int
    """Rows of a sheet of samples, which has a class a column: fewer of items that take long to make."""
    played: int
    """Most of a model's samples that are played; 0 where there is nothing to hear."""
    curves: tuple[Curve, ...]
    """What the records of trainings are drawn by; those that no record has are left out."""

    @property
    def levels(self) -> int:
        """Size of the alphabet of the pictures."""

    def items(self, split: Any, rows: Iterable[int] | None = None) -> Items:
        """The items of a split, or those of some rows in that order."""

    def of(self, items: Items) -> np.ndarray:
        """A picture of every item, `[N, C, H, W]` in levels 0..levels-1: uint8 or uint16, or fp32 of mean images.

        An item has the same picture whatever stands beside it, so that distances between pictures mean something.
        """

    def training(self) -> np.ndarray | WithMirrored:
        """Pictures `[M, C, H, W]`, uint8 or uint16, of everything that the models were trained on."""

    def players(self, items: Items, captions: Sequence[str]) -> str:
        """HTML that plays the items; empty where there is nothing to hear."""

    def watched(self, split: Any, *, drawn: bool) -> Any:
        """A few items of a split, the same each time, as a split: what is shown of a model while it trains.

        Of recordings no more than their beginnings, and less where a decoder draws sample after sample (`drawn`).
        """

    def in_a_row(self, items: Items) -> "Heard | None":
        """The items one after the other with pauses between; None where there is nothing to hear."""

    def figure(self, rows: Sequence[Items], titles: Sequence[Sequence[str]]) -> bytes | None:
        """A larger PNG of few items in rows and columns, with axes, where that shows more than their pictures do."""


def to_levels(pictures_NCHW: np.ndarray, levels: int) -> np.ndarray:
    """Mean images rounded to the nearest level, uint8 or, of more than 256 levels, uint16.

    Raises:
        RunError: a pixel is not finite.
    """
    if not np.isfinite(pictures_NCHW).all():
        raise RunError("the decoder made pixels that are not finite: its training diverged, train the model again")
    return np.rint(np.clip(pictures_NCHW, 0, levels - 1)).astype(level_type(levels))
