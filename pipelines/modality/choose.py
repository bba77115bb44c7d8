"""The modality of a recipe: the one place that knows how many kinds of data there are. Without torch."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from twostage.config.kinds import kind_of
from twostage.config.schema import Recipe
from twostage.data.interface import Dataset

if TYPE_CHECKING:
    from .interface import Modality


def _images() -> "Modality":
    from .images import Images

    return Images()


def _audio() -> "Modality":
    from .audio import Audio

    return Audio()


MODALITIES: dict[str, "Callable[[], Modality]"] = {"images": _images, "recordings": _audio}
"""Maker of every kind of data, by its name in `twostage.config.kinds.KINDS`."""


def modality_of(recipe: Recipe) -> "Modality":
    """The kind of data that a recipe is about; the networks of the others are not imported."""
    return MODALITIES[kind_of(recipe)]()


def load_data(recipe: Recipe) -> Dataset:
    """Read the recipe's data set into memory.

    Raises:
        UsageError, DataError, RunError: as `Modality.load` says.
    """
    dataset: Dataset = modality_of(recipe).load(recipe)
    return dataset
