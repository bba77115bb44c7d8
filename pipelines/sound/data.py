"""The recordings of a recipe."""

from dataclasses import asdict

from twostage.audio import AudioDataset, load_recordings, load_synthetic_vowels
from twostage.audio.splits import SplitRule
from twostage.config.schema import Recipe
from twostage.errors import UsageError


def load_sound(recipe: Recipe) -> AudioDataset:
    """Read the recipe's recordings into memory.

    Raises:
        UsageError: the settings do not fit together.
        DataError: a file is missing or damaged.
        RunError: soundfile cannot be loaded.
    """
    if recipe.data.name == "vowels":
        if recipe.data.path is not None:
            raise UsageError(
                f"the data set vowels is built in and reads no folder, but data.path is {recipe.data.path!r}: leave it "
                "out or set data.name to recordings"
            )
        return load_synthetic_vowels()
    settings = asdict(recipe.recordings)
    rule = {key: settings.pop(key) for key in tuple(settings) if key.startswith(("test_", "validation_"))}
    return load_recordings(
        recipe.data.path, **settings, split_rule=SplitRule(**rule), skip_unreadable=recipe.data.skip_unreadable
    )
