"""`twostage check-data` of arrays: what every file holds, and all that is wrong with any of them."""

from pathlib import Path

import numpy as np

from twostage.data.arrays.places import WHOLE, Part, read_parts
from twostage.data.walk import SPLITS
from twostage.errors import DataError
from twostage.printable import counted, printable, show


def check_arrays(path: Path) -> None:
    """Print what the arrays of a path are, and every fault.

    Raises:
        DataError: there are none, or something about them is not well.
    """
    found = read_parts(path)
    for part in found.parts.values():
        print(f"{part.file!r}: {_facts(part)}")
    for name, fault in sorted(found.faults.items()):
        print(f"  {name!r} {fault}")
    if found.beside:
        print(f"passed over, not being of a split: {show(list(map(repr, found.beside)))}")
    few = [
        f"{part.file!r} has {counted(len(part.images), 'images')} for {', '.join(wanted)}"
        for name, part in found.parts.items()
        if len(part.images) < len(wanted := _splits_of(name, found.parts))
    ]
    for line in few:
        print(f"  {line}")
    if wrong := len(found.faults) + len(few):
        of = printable(str(path))
        raise DataError(
            f"expected arrays of images to train on in {of}, but {counted(wrong, 'things')} in it cannot be used, as "
            "listed; repair or replace what is named"
        )


def _splits_of(name: str, parts: dict[str, Part]) -> tuple[str, ...]:
    """The splits that are made of a file."""
    if name == WHOLE:
        return SPLITS
    return SPLITS[:2] if name == "train" and "validation" not in parts else (name,)


def _facts(part: Part) -> str:
    """`1,000 images, 3x64x96 (channels x height x width), uint8, levels 0 to 255; labels 0 (500), 1 (500)`."""
    images_NCHW, shape = part.images, "x".join(map(str, part.images.shape[1:]))
    said = (
        f"{counted(len(images_NCHW), 'images')}, {shape} (channels x height x width), {images_NCHW.dtype}, levels "
        f"{images_NCHW.min()} to {images_NCHW.max()}"
    )
    if part.labels is None:
        return f"{said}; no labels"
    values, counts = np.unique(part.labels, return_counts=True)
    labels = show([f"{value} ({count})" for value, count in zip(values.tolist(), counts.tolist(), strict=True)])
    return f"{said}; labels {labels}"
