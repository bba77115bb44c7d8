"""Labels and speakers by number: what a name that was given means, and which of them a model has met in training.

A label or a speaker may have no training item: held out by a rule, only in the test folder, or drawn for other splits
with all its items. What a model is given of such a one is an embedding that no training has moved. So it is named when
a training begins, left out where all take turns, and refused where it is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from twostage.class_names import number_of, place_of
from twostage.config.model_names import near_matches
from twostage.data.interface import Dataset
from twostage.errors import UsageError
from twostage.printable import show
from twostage.progress import say

Kind = Literal["labels", "speakers"]


def class_number(name: str, classes: Sequence[str], *, flag: str) -> int:
    """Number of the class of that name, or that number where no class has a number as its name.

    Raises:
        UsageError: there is no such class.
    """
    number = number_of(name, classes)
    if number is None:
        number = place_of(name, classes)
    if number is not None:
        return number
    if not classes:
        raise UsageError(
            f"{flag} {name} names a label, but this model knows none, since its data have no labels or it is "
            "conditioned on none: leave the flag out"
        )
    or_place = f", or its number from 0 to {len(classes) - 1}" if place_of("0", classes) is not None else ""
    raise UsageError(
        f"{flag} must be one of {show(list(classes))}{or_place}, but is {name!r}.{near_matches(name, classes)}"
    )


def trained_names(dataset: Dataset) -> dict[str, list[str]]:
    """What a training's record says of its data: names of the labels, and speakers, that have a training item."""
    columns = {
        "trained_labels": (dataset.classes, dataset.train.labels),
        "trained_speakers": (dataset.speakers, dataset.train.speakers),
    }
    return {key: [names[row] for row in np.unique(rows)] if names else [] for key, (names, rows) in columns.items()}


def trained_numbers(record: Mapping[str, Any], kind: Kind) -> list[int]:
    """Numbers of the labels, or speakers, that a model has met in training, by its record."""
    names = record.get("classes" if kind == "labels" else "speakers", ())
    met = set(record[f"trained_{kind}"]) if names else set()
    return [number for number, name in enumerate(names) if name in met]


def check_trained(numbers: Sequence[int], classes: Sequence[str], trained: Sequence[int], *, what: str) -> None:
    """Raise UsageError where a model is asked for labels that it has not met in training; `what` names the argument."""
    strange = sorted(set(numbers) - set(trained))
    if strange:
        raise UsageError(
            f"{what} must be one with training items, {show([classes[number] for number in trained])}, but "
            f"{show([classes[number] for number in strange])} has none and the model has never met it"
        )


def labels_of(count: int, *, label: str | None, record: Mapping[str, Any], conditioned: bool = True) -> list[int]:
    """Label of every item: the one asked for, or those with training items in turn; empty without labels.

    Args:
        count: of items.
        label: name or number of the one asked for.
        record: of the model that is conditioned on the labels.
        conditioned: whether it is conditioned on any.

    Raises:
        UsageError: the model has no such label, or has not met it in training.
    """
    classes = tuple(record["classes"]) if conditioned else ()
    trained = trained_numbers(record, "labels") if conditioned else []
    if label is None:
        return [trained[index % len(trained)] for index in range(count)] if trained else []
    number = class_number(label, classes, flag="--label")
    check_trained([number], classes, trained, what="--label")
    return [number] * count


def tell_untrained(dataset: Dataset) -> None:
    """Say, one line each, which labels and which speakers of the data have no training item."""
    train = dataset.train
    for kind, names, rows in (
        ("labels", dataset.classes, train.labels),
        ("speakers", dataset.speakers, train.speakers),
    ):
        missing = [name for name in names if name not in {names[row] for row in np.unique(rows)}]
        if missing:
            say(
                f"warning: {kind} without a training item, {len(missing)} of {len(names)}: {show(missing)}; generate "
                "refuses them and leaves them out where all take turns"
            )


def warn_of_untrained_labels(dataset: Dataset, split: str) -> None:
    """Say which labels of a split have no training item: what is conditioned on them has never met them."""
    strange = set(dataset.split(split).labels.tolist()) - set(dataset.train.labels.tolist())
    if dataset.classes and strange:
        say(
            f"warning: the {split} items have labels without a training item "
            f"({show([dataset.classes[row] for row in sorted(strange)])}): a model conditioned on the label scores "
            "worse on them than on labels it has met"
        )


def warn_of_untrained_speakers(dataset: Dataset, split: str) -> None:
    """Say which speakers no training recording has: their distortions are those of a voice that was never trained."""
    unheard = set(dataset.split(split).speakers.tolist()) - set(dataset.train.speakers.tolist())
    if dataset.speakers and unheard:
        say(
            f"warning: speakers of the {split} recordings that are held out of training, {len(unheard)} "
            f"({show([dataset.speakers[row] for row in sorted(unheard)])}): their voices are embeddings that no "
            "training has moved, so that models conditioned on the speaker score worse than on voices they know"
        )
