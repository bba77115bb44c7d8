"""Which recordings are for training, validation and test: fixed by names alone, whatever order files come in.

One of four rules:

- indices: the {index} of the pattern lies in stated ranges (fsdd: test 0-4, validation 5-9);
- speakers: those of the stated speakers, who are then unheard in training;
- lists: those named, one per line, in text files inside the folder (SPEECHCOMMANDS' testing_list.txt);
- digests: unless anything is stated, the tenth whose names have the lowest SHA-256 (with a seed before the name).

Where test is stated and validation is not, validation is the tenth of the remaining recordings with the lowest SHA-256.
What is not held out is for training. Nothing is dropped, and every split gets at least one recording.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from twostage.class_names import composed, number_of
from twostage.config.model_names import near_matches
from twostage.data.audio.listing import Listing, Recording
from twostage.data.walk import HELD_OUT_SHARE, SPLITS
from twostage.errors import DataError, UsageError
from twostage.printable import show
from twostage.storage.regular_file import open_regular

SPLIT_SEED = "twostage audio split 1"
_RANGE = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?")


@dataclass(frozen=True)
class SplitRule:
    """What is held out; at most one of the three kinds, and no validation without test."""

    test_indices: str | None = None
    """Ranges such as `0-4` or `0-4,17`."""
    validation_indices: str | None = None
    test_speakers: tuple[str, ...] = ()
    validation_speakers: tuple[str, ...] = ()
    test_list: str | None = None
    """A file inside the data set's folder."""
    validation_list: str | None = None

    def kind(self) -> str | None:
        """`indices`, `speakers`, `list` or None.

        Raises:
            UsageError: several kinds, or validation without test.
        """
        given = [kind for kind in ("indices", "speakers", "list") if self.held_out(kind)]
        if len(given) > 1:
            raise UsageError(
                f"expected one rule for the splits, but settings that hold out by {' and by '.join(given)} came: leave "
                "out all but one kind"
            )
        if given and "test" not in self.held_out(given[0]):
            raise UsageError(
                f"expected recordings.test_{given[0]} beside recordings.validation_{given[0]}, but it is not given: "
                "name both"
            )
        return given[0] if given else None

    def held_out(self, kind: str) -> dict[str, str | tuple[str, ...]]:
        """The settings of that kind that are given, by split."""
        settings = {split: getattr(self, f"{split}_{kind}") for split in ("test", "validation")}
        return {split: setting for split, setting in settings.items() if setting}


def split_recordings(root: Path, listing: Listing, rule: SplitRule) -> tuple[dict[str, list[Recording]], str]:
    """The recordings of every split (in the order of `SPLITS`, by name within each), and what decided, in words.

    Raises:
        UsageError: rules that contradict each other, or name what cannot be.
        DataError: a split is empty, or a list does not fit the folder.
    """
    kind = rule.kind()
    settings = {} if kind is None else rule.held_out(kind)
    chosen = {split: _chosen(root, listing, str(kind), split, setting) for split, setting in settings.items()}
    both = sorted(chosen.get("test", set()) & chosen.get("validation", set()))
    if both:
        raise UsageError(
            f"expected recordings.test_{kind} and recordings.validation_{kind} apart, but {len(both)} recordings are "
            f"in both: {show([repr(name) for name in both])}; test recordings must not choose anything"
        )
    held_out = set().union(*chosen.values())
    rest = sorted((item.name for item in listing.recordings if item.name not in held_out), key=_rank)
    share = max(1, len(rest) // HELD_OUT_SHARE)
    for split in ("test", "validation"):
        if split not in chosen:
            chosen[split], rest = set(rest[:share]), rest[share:]
    chosen["train"] = set(rest)
    parts = {split: [item for item in listing.recordings if item.name in chosen[split]] for split in SPLITS}
    for split, part in parts.items():
        if not part:
            raise DataError(
                f"expected at least one recording for each of {', '.join(SPLITS)}, but none of the "
                f"{len(listing.recordings)} in {root} is left for {split}: hold out others or add recordings"
            )
    return parts, _in_words(kind, settings)


def _in_words(kind: str | None, settings: dict[str, str | tuple[str, ...]]) -> str:
    stated = []
    for split in ("test", "validation"):
        setting = settings.get(split)
        if setting is None:
            stated.append(f"{split}: a tenth by SHA-256 of names")
        else:
            stated.append(f"{split}: {kind} {setting if isinstance(setting, str) else ', '.join(setting)}")
    return "; ".join(stated)


def _chosen(root: Path, listing: Listing, kind: str, split: str, setting: str | tuple[str, ...]) -> set[str]:
    """Names of what the setting holds out, at least one."""
    key = f"recordings.{split}_{kind}"
    if isinstance(setting, tuple):
        names = _by_speakers(root, listing, key, setting)
    elif kind == "list":
        names = _by_list(root, listing, key, setting)
    else:
        names = _by_indices(listing, key, setting)
    if not names:
        raise DataError(f"expected recordings for {split}, but {key} {setting!r} names none of those in {root}")
    return names


def _by_indices(listing: Listing, key: str, setting: str) -> set[str]:
    ranges = []
    for part in setting.split(","):
        found = _RANGE.fullmatch(part.strip())
        if found is None or int(found[1]) > int(found[2] or found[1]):
            raise UsageError(f"expected ranges of numbers such as 0-4 or 0-4,17 as {key}, but {setting!r} came")
        ranges.append(range(int(found[1]), int(found[2] or found[1]) + 1))
    if any(recording.index is None for recording in listing.recordings):
        raise UsageError(
            f"expected {{index}} in recordings.pattern, by which {key} holds recordings out, but it has none"
        )
    return {item.name for item in listing.recordings if any(item.index in numbers for numbers in ranges)}


def _by_speakers(root: Path, listing: Listing, key: str, wanted: Iterable[str]) -> set[str]:
    if not listing.speakers:
        raise DataError(
            f"expected at least 2 speakers to split by them, but {root} has fewer: name {{speaker}} in "
            f"recordings.pattern, or leave {key} out"
        )
    rows = {speaker: number_of(speaker, listing.speakers) for speaker in wanted}
    unknown = sorted(speaker for speaker, row in rows.items() if row is None)
    if unknown:
        near = "".join(near_matches(speaker, listing.speakers) for speaker in unknown)
        raise UsageError(
            f"expected speakers of {root} as {key} ({show(list(listing.speakers))}), but "
            f"{', '.join(map(repr, unknown))} came: correct the names{'.' if near else ''}{near}"
        )
    return {item.name for item in listing.recordings if item.speaker in rows.values()}


def _by_list(root: Path, listing: Listing, key: str, setting: str) -> set[str]:
    path = root / setting
    outside = Path(setting).is_absolute() or ".." in Path(setting).parts
    if outside or path.is_symlink() or not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"expected {key} to be a file inside {root}, but {setting!r} came: name one there")
    try:
        with open_regular(path) as file:
            lines: Sequence[str] = file.read().decode("utf-8").splitlines()
    except OSError as error:
        raise DataError(f"expected a list of names at {path}, but it could not be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"expected a list of names at {path}, but it is no UTF-8 text: correct {key}") from error
    named = {composed(line.strip().removeprefix("./")) for line in lines} - {""}
    there = [item.name for item in listing.recordings if composed(item.name) in named]
    # What is ignored or unreadable may be named: the list was made for all.
    missing = sorted(named - {composed(name) for name in (*there, *listing.ignored, *listing.unusable)})
    if missing:
        raise DataError(
            f"expected the recordings that {path} names in {root}, but {len(missing)} of {len(named)} are not there: "
            f"{show([repr(name) for name in missing])}; fetch the missing ones or correct {key}"
        )
    return set(there)


def _rank(name: str) -> bytes:
    """A fixed pseudo-random key; names that are not UTF-8 keep their bytes."""
    return hashlib.sha256(f"{SPLIT_SEED} {name}".encode(errors="surrogateescape")).digest()
