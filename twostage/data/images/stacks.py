"""Arrays in .npy and .npz files as a data set of images.

A folder says its splits (`twostage.data.arrays.places`). Of a single file, and of a folder without validation images,
a tenth of the images is held out for every missing split, by the order of the SHA-256 of a seed and their numbers, as
folders of images are by their names.

The alphabet is 0..levels-1: as asked for, else 256 levels of 8-bit unsigned numbers and, of wider or signed ones, the
least power of two above the largest training level. Classes are the labels that occur, in the order of their numbers.

Shapes: N images, C channels, H rows, W columns.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from twostage.data.arrays.places import WHOLE, Part, read_parts
from twostage.data.images.dataset import ImageDataset, Split, level_type
from twostage.data.repeated import tell_repeated
from twostage.data.walk import HELD_OUT_SHARE, SPLITS
from twostage.errors import DataError, UsageError
from twostage.printable import show
from twostage.progress import say

SPLIT_SEED = "twostage arrays split 1"


def load_arrays(path: str | None, *, levels: int) -> ImageDataset:
    """The images of a file or folder of arrays: `[N, C, H, W]`, uint8 up to 256 levels, else uint16.

    Args:
        path: the file or folder.
        levels: size of the alphabet; 0: see above.

    Raises:
        UsageError: no path is named, or one level is asked for.
        DataError: a file is missing, unreadable or not of such arrays, or a level is outside of the alphabet; all
            faulty files are named.
    """
    if path is None:
        raise UsageError(
            "the data set arrays needs an .npy or .npz file, or a folder of these: name it with --data.path, or as "
            "path under [data] in the recipe"
        )
    if levels == 1:
        raise UsageError("data.levels must be 0 or at least 2, but is 1: one level has nothing to model")
    found = read_parts(Path(path))
    if found.beside:
        say(f"passed over {len(found.beside)} other files of arrays in {path}: {show(list(map(repr, found.beside)))}")
    _check(path, found.faults)
    splits = _split(found.parts, path)
    alphabet = levels or _least_alphabet(splits["train"][0])
    _check(path, _outside(found.parts, alphabet, asked=bool(levels)))
    classes = np.unique(np.concatenate([labels_N for _, labels_N in splits.values()]))
    made = {
        name: Split(
            images=np.ascontiguousarray(images_NCHW, dtype=level_type(alphabet)),
            labels=np.searchsorted(classes, labels_N),
        )
        for name, (images_NCHW, labels_N) in splits.items()
    }
    tell_repeated(
        made["train"].images,
        {name: made[name].images for name in SPLITS[1:]},
        kind="images",
        alike="level for level",
    )
    named = tuple(map(str, classes.tolist())) if len(classes) > 1 else ()
    train, validation, test = (made[name] for name in SPLITS)
    return ImageDataset(name="arrays", levels=alphabet, classes=named, train=train, validation=validation, test=test)


_Pair = tuple[np.ndarray, np.ndarray]
"""Images and labels."""


def _split(parts: Mapping[str, Part], path: str) -> dict[str, _Pair]:
    """Images and labels of every split; labels are 0 without any."""
    pairs = {
        name: (part.images, np.zeros(len(part.images), np.int64) if part.labels is None else part.labels)
        for name, part in parts.items()
    }
    if WHOLE in pairs:
        return _held_out(pairs[WHOLE], SPLITS, parts[WHOLE].file)
    if "validation" not in pairs:
        pairs |= _held_out(pairs["train"], SPLITS[:2], parts["train"].file)
    return {name: pairs[name] for name in SPLITS}


def _held_out(pair: _Pair, wanted: tuple[str, ...], file: str) -> dict[str, _Pair]:
    """Every split wanted, in the order of the images; the first one gets what the others leave."""
    total = len(pair[0])
    if total < len(wanted):
        raise DataError(
            f"expected at least {len(wanted)} images in {file}, one for each of {', '.join(wanted)}, but it has "
            f"{total}: add images"
        )
    ranked = sorted(range(total), key=lambda row: hashlib.sha256(f"{SPLIT_SEED} {row}".encode()).digest())
    held_out, rows = max(1, total // HELD_OUT_SHARE), dict[str, list[int]]()
    for split in wanted[:0:-1]:
        rows[split], ranked = sorted(ranked[:held_out]), ranked[held_out:]
    rows[wanted[0]] = sorted(ranked)
    return {split: (pair[0][rows[split]], pair[1][rows[split]]) for split in wanted}


def _least_alphabet(train_NCHW: np.ndarray) -> int:
    """256 of 8-bit unsigned levels, else the least power of two above the largest, at least 2."""
    return 256 if train_NCHW.dtype == np.uint8 else max(2, 1 << int(train_NCHW.max()).bit_length())


def _outside(parts: Mapping[str, Part], alphabet: int, *, asked: bool) -> dict[str, str]:
    """A clause on every file with levels outside of the alphabet."""
    whose = "that data.levels admits" if asked else "of the training images: set data.levels"
    largest = {part.file: int(part.images.max()) for part in parts.values()}
    return {
        file: f"has levels up to {most}, outside of the {alphabet} levels {whose}"
        for file, most in largest.items()
        if most >= alphabet
    }


def _check(path: str, faults: Mapping[str, str]) -> None:
    """Raise DataError where there are faults, with the names of all files that have them."""
    if faults:
        named = show([f"{name!r} {fault}" for name, fault in sorted(faults.items())])
        raise DataError(f"expected arrays of images in {path}, but {named}; repair or replace what is named")
