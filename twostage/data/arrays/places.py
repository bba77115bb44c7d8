"""Which arrays a path names: one file that is to be split, or a folder with a file for every split.

- `FILE.npz` holds the arrays `images` and, where there are labels, `labels`.
- `FILE.npy` holds the images; labels lie beside it in `FILE_labels.npy`.
- A folder holds such a file of either kind for `train` and `test` and, unless a part of the training images is to be
  held out, for `validation`: `train.npz`, or `train.npy` with `train_labels.npy`.

Every file is read before anything is said, so that one error can name all that are faulty.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from twostage.data.arrays.kinds import as_images, as_labels, check_images, check_labels
from twostage.data.arrays.npy import Unreadable, read_array, read_file
from twostage.errors import DataError

ENDS = (".npy", ".npz")
WHOLE = "images"
"""What the only part of a single file is called."""
PARTS = ("train", "validation", "test")
_LABELS_END = "_labels.npy"


@dataclass(frozen=True)
class Part:
    """Images of one file, with their labels."""

    file: str
    """Its name."""
    images: np.ndarray
    """`[N, C, H, W]`, whole numbers of 8 or 16 bits from 0."""
    labels: np.ndarray | None
    """int64 `[N]`, 0 to 2147483647."""


@dataclass
class Parts:
    """What was found."""

    parts: dict[str, Part] = field(default_factory=dict)
    """By split, or `WHOLE`."""
    faults: dict[str, str] = field(default_factory=dict)
    """A clause on every file that cannot be used, by its name."""
    beside: tuple[str, ...] = ()
    """Other files of arrays in the folder."""


def is_arrays(path: Path) -> bool:
    """Whether a path is a file of arrays, or a folder that has one for training."""
    if path.is_file():
        return path.suffix.lower() in ENDS
    return any((path / f"train{end}").exists() for end in ENDS)


def read_parts(path: Path) -> Parts:
    """Read every array that the path names.

    Raises:
        DataError: there is no such path, or none of the files that a folder must have.
    """
    found = Parts()
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"expected a file or folder of arrays, but {path} is not there: correct data.path")
        _add(found, WHOLE, path)
        return found
    named = {part: [path / f"{part}{end}" for end in ENDS if (path / f"{part}{end}").exists()] for part in PARTS}
    own = {file for files in named.values() for file in files} | {path / f"{part}{_LABELS_END}" for part in PARTS}
    others = sorted(file.name for file in path.iterdir() if file.suffix.lower() in ENDS and file not in own)
    missing = [part for part in ("train", "test") if not named[part]]
    if missing:
        raise DataError(
            f"expected {' and '.join(f'{part}.npy or {part}.npz' for part in missing)} in {path}, but "
            f"{'it is' if len(missing) == 1 else 'they are'} not there: add "
            f"{'it' if len(missing) == 1 else 'them'}, or name a single file with data.path, which is then split"
        )
    for part, files in named.items():
        if len(files) > 1:
            found.faults[files[1].name] = f"stands beside {files[0].name}: keep one of them"
        elif files:
            _add(found, part, files[0])
    found.beside = tuple(others)
    _compare(found)
    return found


def _add(found: Parts, name: str, path: Path) -> None:
    """Read one file and its labels."""
    beside = path.with_name(f"{path.stem}{_LABELS_END}")
    try:
        arrays = read_file(path, {"": check_images, "images": check_images, "labels": check_labels})
        if "" not in arrays and "images" not in arrays:
            raise Unreadable("has no array 'images'")
        images = as_images(arrays["" if "" in arrays else "images"])
        labels = as_labels(arrays["labels"], len(images)) if "labels" in arrays else None
    except Unreadable as error:
        found.faults[path.name] = str(error)
        return
    if "" in arrays and beside.exists():
        try:
            labels = as_labels(read_array(beside, check_labels), len(images))
        except Unreadable as error:
            found.faults[beside.name] = str(error)
    found.parts[name] = Part(path.name, images, labels)


def _compare(found: Parts) -> None:
    """Count as faults the parts that do not go with the first: images of one shape, labels in all or in none."""
    parts = list(found.parts.values())
    for part in parts[1:]:
        own, first = (each.images.shape[1:] for each in (part, parts[0]))
        if own != first:
            found.faults[part.file] = f"has images of the shape {own}, but {parts[0].file} of {first}"
        elif not found.faults and (part.labels is None) != (parts[0].labels is None):
            has, others = ("no", "some") if part.labels is None else ("some", "none")
            found.faults[part.file] = f"has {has} labels, but {parts[0].file} has {others}"
