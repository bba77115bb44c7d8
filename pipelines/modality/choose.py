"""Images or recordings: the data set of a recipe, whichever it is about."""

from twostage.config.schema import Recipe
from twostage.data import load_dataset

from .interface import AnyDataset


def load_data(recipe: Recipe) -> AnyDataset:
    """Read the recipe's data set into memory.

    Raises:
        UsageError: the settings do not fit together.
        DataError: a file is missing, damaged or not what its name says, or cannot be downloaded.
        RunError: a library that sound needs cannot be loaded.
    """
    if not recipe.is_sound:
        return load_dataset(recipe.data)
    from .audio import load_sound

    return load_sound(recipe)
