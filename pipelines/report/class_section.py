"""The report's list of labels and speakers: the number of each, by which `--label` may ask for it, and its items."""

from collections.abc import Sequence

import numpy as np

from twostage.data.interface import Dataset
from twostage.data.walk import SPLITS

from ..media.html import table
from ..runs.class_numbers import Kind

_OPEN = 20
"""Longer lists are folded."""


def class_section(dataset: Dataset) -> str:
    """Names, numbers and items of every label, and speaker, of a data set; empty where there are none."""
    parts = [dataset.split(name) for name in SPLITS]
    return _listed("labels", dataset.classes, [part.labels for part in parts]) + _listed(
        "speakers", dataset.speakers, [part.speakers for part in parts]
    )


def _listed(kind: Kind, names: Sequence[str], numbers: Sequence[np.ndarray]) -> str:
    if not names:
        return ""
    counts = [np.bincount(numbers_N, minlength=len(names)) for numbers_N in numbers]
    rows = [[name, str(row), *(f"{count_Y[row]:,}" for count_Y in counts)] for row, name in enumerate(names)]
    listed = table([kind[:-1], "number", "training items", "validation items", "test items"], rows)
    title = f"{len(names):,} {kind}"
    if len(names) > _OPEN:
        return f"<h2>{kind.title()}</h2><details><summary>{title}</summary>{listed}</details>"
    return f"<h2>{kind.title()}</h2>{listed}"
