"""New items beside the training items that come nearest to them, for `generate --nearest`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from twostage.metrics.statistics import evenly

from ..media.png import display_scale, write_png
from ..modality.choose import load_data
from ..modality.pictures import to_levels
from .sheets import COMPARED, Reference, neighbour_sheet
from .trained import Trained

NEAREST = "nearest.png"
"""Name of the sheet's file."""


def write_nearest(path: Path, trained: Trained, items: Sequence[np.ndarray]) -> str:
    """Write the sheet of items drawn by a model, as the report has it, and return its caption.

    At most `COMPARED` items are looked up.

    Raises:
        DataError: the data cannot be read.
        RunError: they are not those that the model was trained on.
    """
    recipe = trained.run.recipe
    dataset = load_data(recipe)
    trained.run.check_data(trained.stage1, dataset)
    pictures = trained.modality.pictures(recipe, dataset)
    some = pictures.items(dataset.test, evenly(len(dataset.test), COMPARED))
    samples_NCHW = to_levels(np.asarray(pictures.of(items[:COMPARED])), pictures.levels)
    sheet = neighbour_sheet(trained.name, samples_NCHW, Reference.of(pictures, pictures.of(some)))
    write_png(path, sheet.picture_CHW, scale=display_scale(samples_NCHW.shape[-1]))
    return sheet.caption
