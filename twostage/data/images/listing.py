"""Which files of a folder are images, which label each has, and which split it belongs to: all from names alone.

Files are found by suffix (`twostage.data.images.formats`, either case) at any depth (`twostage.data.walk`); all others
are counted.

Labels: the first folder below the (train or test) folder names the class, in the spelling and the order of
`twostage.class_names`. Where all images lie in one sub-folder, or in none, there is nothing to tell apart: no classes,
every label 0. Images beside sub-folders with images are refused, because no label would be right for them.

Splits follow the order of the SHA-256 of a seed and each file's name (relative, with forward slashes):
- with a train and a test folder, test is all of the latter, a tenth of the former is validation, the rest training;
- otherwise a tenth is test, a tenth validation and the rest training.
Every split gets at least one file, nothing is dropped, and the files of a split are in the order of their names. The
tenths are of the number of files, so that files added to a folder move a few of the old ones: a run belongs to the very
files that it was trained on, and another set of them is refused.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from twostage.class_names import composed, in_order
from twostage.data.images.formats import FORMATS_IN_WORDS, SUFFIXES
from twostage.data.passed_over import PassedOver
from twostage.data.walk import HELD_OUT_SHARE, SPLITS, unlisted, walk
from twostage.errors import DataError, UsageError
from twostage.printable import show

SPLIT_SEED = "twostage images split 1"


@dataclass(frozen=True)
class ImageFile:
    """One file that should be an image."""

    path: Path
    name: str
    """Relative to the data set's folder, with forward slashes."""
    split: str
    """`train`, `validation` or `test`."""
    label: int
    """Index of its class; 0 without classes."""


@dataclass(frozen=True)
class Listing:
    """Everything that the names say."""

    files: tuple[ImageFile, ...]
    """In the order of `SPLITS`, by name within each."""
    classes: tuple[str, ...]
    """At least two, or none."""
    unusable: dict[str, str]
    """Name and fault (a clause such as `is a symbolic link`) of what has the name of an image but is no file."""
    passed_over: PassedOver
    """Files whose names are not those of images that are read."""


@dataclass(frozen=True)
class _Part:
    """The images below one folder, by names relative to it."""

    folder: Path
    prefix: str
    names: tuple[str, ...]
    unusable: dict[str, str]
    passed_over: PassedOver

    def classes(self) -> set[str]:
        """Names of the sub-folders with images.

        Raises:
            DataError: other images lie beside these, or a name cannot be printed.
        """
        inside = [name for name in self.names if "/" in name]
        beside = [name for name in self.names if "/" not in name]
        if inside and beside:
            raise DataError(
                f"expected all images of {self.folder} in sub-folders, whose names are the labels, or none, but "
                f"{inside[0]!r} is in one and {beside[0]!r} is not: move the {len(beside)} images that are not into a "
                "sub-folder of their own"
            )
        found = {PurePosixPath(name).parts[0] for name in inside}
        for name in sorted(found):
            if not name.isprintable():
                raise DataError(f"expected printable names of sub-folders, but {name!r} in {self.folder} is not one")
        return {composed(name) for name in found}


def list_images(path: str, *, train_folder: str | None, test_folder: str | None) -> Listing:
    """Find, label and split the images below `path`; nothing is opened.

    Raises:
        UsageError: a sub-folder leads out of `path`, or the two overlap.
        DataError: a folder is missing, cannot be read, has too few images or labels only some.
    """
    root = Path(path)
    parts = [_find(root, folder) for folder in _sub_folders(root, train_folder, test_folder)]
    splits = [("train", "validation"), ("test",)] if len(parts) == 2 else [SPLITS]
    members = [_divide(part, wanted) for part, wanted in zip(parts, splits, strict=True)]
    found = [part.classes() for part in parts]
    if len(found) == 2 and bool(found[0]) != bool(found[1]):
        raise DataError(
            f"expected sub-folders as labels in both {parts[0].folder} and {parts[1].folder} or in neither, but only "
            f"{parts[0 if found[0] else 1].folder} has them: sort the other one's images, or flatten both"
        )
    union = in_order(set().union(*found))
    classes = union if len(union) > 1 else ()
    label_of = {name: label for label, name in enumerate(classes)}
    files = []
    for part, divided in zip(parts, members, strict=True):
        for split, names in divided.items():
            for name in names:
                label = label_of[composed(PurePosixPath(name).parts[0])] if classes else 0
                files.append(ImageFile(part.folder / name, part.prefix + name, split, label))
    unusable = {part.prefix + name: fault for part in parts for name, fault in part.unusable.items()}
    passed_over = PassedOver()
    for part in parts:
        passed_over.update(part.passed_over)
    return Listing(files=tuple(files), classes=classes, unusable=unusable, passed_over=passed_over)


def _sub_folders(root: Path, train_folder: str | None, test_folder: str | None) -> list[str]:
    """The folders to read, relative to `root`: one, or the two that must not overlap."""
    if test_folder is not None and train_folder is None:
        raise UsageError("expected data.train_folder beside data.test_folder, but it is not given: name both")
    named = {"data.train_folder": train_folder, "data.test_folder": test_folder}
    folders = {key: folder for key, folder in named.items() if folder is not None}
    for key, folder in folders.items():
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise UsageError(f"expected {key} to be a folder inside {root}, but {folder!r} came: name a sub-folder")
        if not (root / folder).resolve().is_relative_to(root.resolve()):
            raise UsageError(
                f"expected {key} to be a folder inside {root}, but {folder!r} leads out of it by a symbolic link: make "
                "the folder that it leads to, or one above both, the data.path"
            )
    if len(folders) == 2:
        train, test = ((root / folder).resolve() for folder in folders.values())
        if train.is_relative_to(test) or test.is_relative_to(train):
            raise UsageError(
                f"expected data.train_folder and data.test_folder apart, but {train_folder!r} and {test_folder!r} "
                "share images: test images must not be trained on"
            )
    return list(folders.values()) or ["."]


def _find(root: Path, sub_folder: str) -> _Part:
    folder = root / sub_folder
    if not folder.is_dir():
        raise DataError(
            f"expected a folder with images, but {folder} is {'a file' if folder.exists() else 'not there'}: "
            "correct data.path, data.train_folder or data.test_folder"
        )
    names, unusable, passed_over = [], {}, PassedOver()
    for found in walk(folder, SUFFIXES):
        if found.kind == "unlisted":
            raise unlisted(folder, found)
        if found.kind == "file":
            names.append(found.name)
        elif found.kind == "unusable":
            unusable[found.name] = found.fault
        else:
            passed_over.add(found.name)
    if not names and not unusable:
        beside = f" ({passed_over})" if len(passed_over) else ""
        raise DataError(
            f"expected {FORMATS_IN_WORDS} images in {folder}, but none of its {len(passed_over)} files{beside} has a "
            f"name that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}: correct data.path{passed_over.advice}"
        )
    prefix = "" if Path(sub_folder) == Path() else f"{Path(sub_folder).as_posix()}/"
    return _Part(
        folder=folder,
        prefix=prefix,
        names=tuple(sorted(names)),
        unusable=dict(sorted(unusable.items())),
        passed_over=passed_over,
    )


def _divide(part: _Part, wanted: tuple[str, ...]) -> dict[str, list[str]]:
    """The names of every wanted split, the first one last to choose: it gets what is not held out."""
    total = len(part.names)
    if total < len(wanted):
        unusable = f" besides {show([f'{n!r} ({f})' for n, f in part.unusable.items()])}" if part.unusable else ""
        raise DataError(
            f"expected at least {len(wanted)} images in {part.folder}, one for each of {', '.join(wanted)}, but it has "
            f"{total}{unusable}: add images"
        )
    ranked = sorted(part.names, key=_rank)
    held_out = max(1, total // HELD_OUT_SHARE)
    divided: dict[str, list[str]] = {}
    for split in wanted[:0:-1]:
        divided[split], ranked = sorted(ranked[:held_out]), ranked[held_out:]
    divided[wanted[0]] = sorted(ranked)
    return {split: divided[split] for split in wanted}


def _rank(name: str) -> bytes:
    """A fixed pseudo-random key; names that are not UTF-8 keep their bytes."""
    return hashlib.sha256(f"{SPLIT_SEED} {name}".encode(errors="surrogateescape")).digest()
