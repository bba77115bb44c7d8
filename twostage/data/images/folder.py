"""Any folder of images as a data set.

Names decide which files, labels and splits there are (`twostage.data.images.listing`), contents how a file is read
(`twostage.data.images.decode`). Every file is read before anything is said, so that one error names all that is wrong.
A file that is left out (`skip_unreadable`) leaves its split and moves no other file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np

from twostage.config.image_size import in_pixels
from twostage.data.images.dataset import ImageDataset, Split
from twostage.data.images.decode import Fit, Unreadable, WrongSize, decode_image, quiet_pillow
from twostage.data.images.formats import FORMATS_IN_WORDS
from twostage.data.images.listing import ImageFile, Listing, list_images
from twostage.data.left_out import left_out
from twostage.data.reading import mapper
from twostage.data.repeated import tell_repeated
from twostage.errors import DataError, UsageError
from twostage.printable import show
from twostage.progress import Progress, say

# Below that, opening a file takes longer than decoding it (which frees the interpreter), and threads only get in each
# other's way.
_SMALL_FILE_BYTES = 1 << 14
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True)
class _Outcome:
    """What became of one file."""

    remarks: tuple[str, ...] = ()
    fault: str | None = None
    """Why it could not be read, as a clause."""
    wrong_size: tuple[int, int] | None = None
    """(height, width) that does not fit."""


_FINE = _Outcome()  # one for all files of which there is nothing to say


def load_folder(
    path: str | None,
    *,
    size: tuple[int, int],
    fit: Fit,
    colour: Literal["rgb", "grey"],
    bits: Literal[8, 16],
    train_folder: str | None,
    test_folder: str | None,
    skip_unreadable: int,
) -> ImageDataset:
    """The images below `path` as `[N, C, *size]`: uint8, levels 0..255, or uint16, levels 0..65535, for 16 bits.

    Args:
        path: the folder.
        size: (height, width) in pixels.
        fit: how images come to that size.
        colour: C = 3 or C = 1.
        bits: per channel.
        train_folder: sub-folder of `path` with the training and validation images; None: all of `path`.
        test_folder: sub-folder of `path` with the test images; None: a tenth of the images.
        skip_unreadable: how many unreadable files may be left out.

    Raises:
        UsageError: no folder is named, the sub-folders overlap or lead out of it, or 16 bits of colour are wanted.
        DataError: the folder or images are missing, unreadable, of a wrong size, too few, or labelled only in part.
    """
    if path is None:
        raise UsageError(
            f"the data set images needs a folder of {FORMATS_IN_WORDS} files: name it with --data.path FOLDER, or as "
            "path under [data] in the recipe"
        )
    if bits == 16 and colour != "grey":
        raise UsageError("16 bits are read of grey images, but data.bits is 16 and data.colour rgb: set it to grey")
    listing = list_images(path, train_folder=train_folder, test_folder=test_folder)
    if len(listing.passed_over):
        say(
            f"passed over {len(listing.passed_over)} files in {path} that do not have names of images that are read: "
            f"{listing.passed_over}{listing.passed_over.advice}"
        )
    files, shape = listing.files, (3 if colour == "rgb" else 1, *size)
    images_NCHW = _allocate(len(files), shape, np.uint8 if bits == 8 else np.uint16)
    outcomes = _read(files, images_NCHW, fit)
    skipped = _check_readable(path, listing, outcomes, skip_unreadable)
    _check_sizes(path, files, outcomes, fit, size)
    _tell_conversions(files, outcomes)
    if not {name.lower() for name in listing.classes} - _SPLIT_NAMES and listing.classes:
        say(
            f"the sub-folders {', '.join(listing.classes)} of {path} were taken for labels; if they are splits, name "
            "them with --data.train-folder and --data.test-folder"
        )
    splits = _make_splits(path, files, outcomes, images_NCHW)
    tell_repeated(
        splits["train"].images,
        {"validation": splits["validation"].images, "test": splits["test"].images},
        kind="images",
        alike="pixel for pixel",
    )
    return ImageDataset(
        name="images",
        levels=1 << bits,
        classes=listing.classes,
        skipped=skipped,
        **splits,
    )


class _Splits(TypedDict):
    train: Split
    validation: Split
    test: Split


def _make_splits(
    path: str, files: Sequence[ImageFile], outcomes: Sequence[_Outcome], images_NCHW: np.ndarray
) -> _Splits:
    """The readable images split by split; the files come in that order."""

    def make(name: str) -> Split:
        rows = [row for row, file in enumerate(files) if file.split == name]
        kept = [row for row in rows if outcomes[row].fault is None]
        if not kept:
            raise DataError(
                f"expected a readable image for {name}, but all {len(rows)} in {path} were left out: add some"
            )
        # Gaps are closed by moving images up: a slice of the one block, and never a second one.
        for target, row in enumerate(kept, start=rows[0]):
            if target != row:
                images_NCHW[target] = images_NCHW[row]
        images = images_NCHW[rows[0] : rows[0] + len(kept)]
        labels_N = np.array([files[row].label for row in kept], dtype=np.int64)
        return Split(images=images, labels=labels_N, names=tuple(files[row].name for row in kept))

    return {"train": make("train"), "validation": make("validation"), "test": make("test")}


def _allocate(count: int, shape: tuple[int, int, int], dtype: type[np.unsignedinteger]) -> np.ndarray:
    try:
        return np.empty((count, *shape), dtype=dtype)
    except MemoryError as error:
        size = count * math.prod(shape) * np.dtype(dtype).itemsize / 2**30
        raise DataError(
            f"expected the images to fit into memory, but {count} of {in_pixels(*shape[1:])} take {size:.1f} GiB: "
            "set a smaller data.image_size or use fewer images"
        ) from error


def _worth_threads(files: Sequence[ImageFile]) -> bool:
    """Whether the files, by a sample of them, are large enough."""
    sample = files[:: max(1, len(files) // 64)]
    sizes = [file.path.stat().st_size for file in sample if file.path.is_file()]
    return sum(sizes) >= _SMALL_FILE_BYTES * len(sample)


def _read(files: Sequence[ImageFile], images_NCHW: np.ndarray, fit: Fit) -> list[_Outcome]:
    def read(file: ImageFile, pixels_CHW: np.ndarray) -> _Outcome:
        try:
            remarks = decode_image(file.path, pixels_CHW, fit=fit)
            return _Outcome(remarks=remarks) if remarks else _FINE
        except Unreadable as error:
            return _Outcome(fault=str(error))
        except WrongSize as error:
            return _Outcome(wrong_size=error.size)

    outcomes: list[_Outcome] = []
    with (
        quiet_pillow(),
        Progress("images", total=len(files), unit="file") as progress,
        mapper(threaded=_worth_threads(files)) as mapped,
    ):
        for outcome in mapped(read, files, images_NCHW):
            outcomes.append(outcome)
            progress.advance()
    return outcomes


def _check_readable(path: str, listing: Listing, outcomes: Sequence[_Outcome], most: int) -> tuple[str, ...]:
    """Names of what is left out."""
    faults = dict(listing.unusable)
    for file, outcome in zip(listing.files, outcomes, strict=True):
        if outcome.fault is not None:
            faults[file.name] = outcome.fault
    total = len(listing.files) + len(listing.unusable)
    return left_out("images", path, faults, total=total, most=most)


def _check_sizes(
    path: str, files: Sequence[ImageFile], outcomes: Sequence[_Outcome], fit: Fit, size: tuple[int, int]
) -> None:
    read = sorted((file.name, outcome) for file, outcome in zip(files, outcomes, strict=True) if outcome.fault is None)
    wrong = [(name, outcome.wrong_size) for name, outcome in read if outcome.wrong_size is not None]
    if not wrong:
        return
    if fit == "crop":
        named = show([f"{name!r} with {found[0]}x{found[1]}" for name, found in wrong])
        raise DataError(
            f"expected images of at least {in_pixels(*size)} to crop, but {len(wrong)} of {len(files)} "
            f"in {path} are smaller: {named}; set data.fit to resize or a smaller data.image_size, or remove them"
        )
    name, found = wrong[0]
    other = next(((n, o.wrong_size or size) for n, o in read if o.wrong_size != found), None)
    if other is None:
        height, width = found
        raise DataError(
            f"expected images of {in_pixels(*size)}, but those in {path} have {in_pixels(*found)}: set data.fit to "
            f"resize or crop, or data.image_size to {height if height == width else f'{height}x{width}'}"
        )
    raise DataError(
        f"expected images of {in_pixels(*size)} only, but {path} has mixed sizes: {name!r} with "
        f"{in_pixels(*found)} and {other[0]!r} with {in_pixels(*other[1])}; set data.fit to resize or crop"
    )


def _tell_conversions(files: Sequence[ImageFile], outcomes: Sequence[_Outcome]) -> None:
    converted: dict[str, list[str]] = {}
    for file, outcome in zip(files, outcomes, strict=True):
        for remark in outcome.remarks:
            converted.setdefault(remark, []).append(file.name)
    for remark, names in converted.items():
        say(f"{len(names)} of {len(files)} images: {remark} (first: {names[0]!r})")
