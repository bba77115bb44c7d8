"""The modality of a recipe: the one place that knows how many kinds of data there are."""

from twostage.config.schema import Recipe
from twostage.data.interface import Dataset

from .interface import Modality


def modality_of(recipe: Recipe) -> Modality:
    """The kind of data that a recipe is about; the networks of the others are not imported."""
    if recipe.is_audio:
        from .audio import Audio

        return Audio()
    from .images import Images

    return Images()


def load_data(recipe: Recipe) -> Dataset:
    """Read the recipe's data set into memory.

    Raises:
        UsageError, DataError, RunError: as `Modality.load` says.
    """
    dataset: Dataset = modality_of(recipe).load(recipe)
    return dataset
