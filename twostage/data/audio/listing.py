"""Which files of a folder are recordings, and what their names say about label, speaker and number; nothing is opened.

Files are found by suffix (`SUFFIXES`, either case) at any depth, but for those that match one of the shell patterns of
`ignore` (`twostage.data.walk`). Files of sound that no library here decodes (`FOREIGN_SUFFIXES`) are counted, so that
nobody takes a part of a folder for the whole.

With a pattern (`twostage.data.audio.pattern`) every file must match it. Without one the first sub-folder names the
label, as for images. Fewer than two labels, or speakers, are none: there is nothing to tell apart. Spelling and order
of names are those of `twostage.class_names`.
"""

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from twostage.class_names import composed, in_order
from twostage.data.audio.pattern import Fields, name_pattern
from twostage.data.walk import unlisted, walk
from twostage.errors import DataError
from twostage.printable import show

SUFFIXES = (
    *(".wav", ".wave", ".w64", ".rf64", ".bwf", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".sph", ".nist"),
)
FOREIGN_SUFFIXES = (
    *(".m4a", ".m4b", ".aac", ".alac", ".3ga", ".wma", ".amr", ".awb", ".ape", ".wv", ".tta", ".mpc", ".mp2", ".spx"),
    *(".ac3", ".eac3", ".dts", ".mka", ".weba", ".ra", ".dsf", ".dff", ".shn", ".voc", ".sd2", ".8svx", ".gsm", ".pcm"),
)
"""Of files of sound that are not read."""


@dataclass(frozen=True)
class Recording:
    """One file that should be a recording."""

    path: Path
    name: str
    """Relative to the data set's folder, with forward slashes."""
    label: int
    """Index of its class; 0 without classes."""
    speaker: int
    """Index of its speaker; 0 without speakers."""
    index: int | None
    """The pattern's {index}."""


@dataclass
class Foreign:
    """Counts files of sound that are not read, by suffix."""

    ignore: tuple[str, ...] = ()
    """Shell patterns of names to pass over."""
    counts: Counter[str] = field(default_factory=Counter)
    first: str = ""

    def add(self, name: str) -> None:
        """Count the file if its suffix is one of `FOREIGN_SUFFIXES` and its name is not passed over."""
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in FOREIGN_SUFFIXES and not any(fnmatchcase(name, shell) for shell in self.ignore):
            self.first = min(self.first or name, name)
            self.counts[suffix] += 1

    def __str__(self) -> str:
        """`3 files of sound of kinds that are not read: .m4a (2), .wma (1), the first of them 'a.m4a'`."""
        shown = ", ".join(f"{suffix} ({count})" for suffix, count in self.counts.most_common())
        return f"{self.counts.total()} files of sound of kinds that are not read: {shown}, first {self.first!r}"


@dataclass(frozen=True)
class Listing:
    """Everything that the names say."""

    recordings: tuple[Recording, ...]
    """By name, at least one."""
    classes: tuple[str, ...]
    """At least two, or none."""
    speakers: tuple[str, ...]
    """At least two, or none."""
    unusable: dict[str, str]
    """Name and fault (a clause such as `is a symbolic link`) of what has the name of a recording but is no file."""
    ignored: frozenset[str]
    """Names that `ignore` passed over."""
    foreign: Foreign = field(default_factory=Foreign)
    """Files of sound beside them that are not read."""


def list_recordings(path: str, *, pattern: str | None, ignore: tuple[str, ...]) -> Listing:
    """Find the recordings below `path` and read their names.

    Raises:
        UsageError: the pattern is none.
        DataError: the folder is missing or cannot be read, has no recordings, or names that do not fit.
    """
    root = Path(path)
    compiled = None if pattern is None else name_pattern(pattern)
    names, unusable, ignored, foreign = _find(root, ignore)
    if compiled is None:
        fields = _by_folder(root, names)
    else:
        matched = {name: compiled.match(name) for name in names}
        odd = [name for name, found in matched.items() if found is None]
        if odd:
            raise DataError(
                f"expected names such as {pattern} in {root}, but {len(odd)} of {len(names)} files do not match: "
                f"{show([repr(name) for name in odd])}; correct recordings.pattern, rename them, or pass them "
                "over with recordings.ignore"
            )
        fields = {name: found for name, found in matched.items() if found is not None}
    classes = _at_least_two({found.label for found in fields.values()})
    speakers = _at_least_two({found.speaker for found in fields.values()})
    label, speaker = ({value: row for row, value in enumerate(values)} for values in (classes, speakers))
    recordings = tuple(
        Recording(root / name, name, label.get(found.label or "", 0), speaker.get(found.speaker or "", 0), found.index)
        for name, found in fields.items()
    )
    return Listing(recordings, classes, speakers, unusable, ignored, foreign)


def _at_least_two(values: set[str | None]) -> tuple[str, ...]:
    found = in_order(value for value in values if value is not None)
    return found if len(found) > 1 else ()


def _by_folder(root: Path, names: list[str]) -> dict[str, Fields]:
    """The first sub-folder as the label."""
    inside = [name for name in names if "/" in name]
    beside = [name for name in names if "/" not in name]
    if inside and beside:
        raise DataError(
            f"expected all recordings of {root} in sub-folders, whose names are the labels, or none, but {inside[0]!r} "
            f"is in one and {beside[0]!r} is not: move the {len(beside)} that are not, or say with "
            "recordings.pattern what names mean"
        )
    labels = {name: PurePosixPath(name).parts[0] for name in inside}
    for label in sorted(set(labels.values())):
        if not label.isprintable():
            raise DataError(f"expected printable names of sub-folders, but {label!r} in {root} is not one")
    return {name: Fields(label=composed(labels[name]) if name in labels else None) for name in names}


def _find(root: Path, ignore: tuple[str, ...]) -> tuple[list[str], dict[str, str], frozenset[str], Foreign]:
    """Names of files, in order, of what is no file, with its fault, of what is ignored, and what is not read."""
    if not root.is_dir():
        raise DataError(
            f"expected a folder with recordings, but {root} is {'a file' if root.exists() else 'not there'}: "
            "correct data.path"
        )
    names: list[str] = []
    unusable: dict[str, str] = {}
    ignored: set[str] = set()
    others, foreign = 0, Foreign(ignore)
    for found in walk(root, SUFFIXES, ignore):
        if found.kind == "unlisted":
            raise unlisted(root, found)
        if found.kind == "file":
            names.append(found.name)
        elif found.kind == "ignored":
            ignored.add(found.name)
        elif found.kind == "unusable":
            unusable[found.name] = found.fault
        else:
            others += 1
            foreign.add(found.name)
    if not names:
        beside = f" besides {show([f'{n!r} ({f})' for n, f in sorted(unusable.items())])}" if unusable else ""
        if foreign.counts:
            beside += f" besides {foreign}"
        raise DataError(
            f"expected recordings in {root}, but it has no file whose name ends in {', '.join(SUFFIXES[:-1])} or "
            f"{SUFFIXES[-1]}{beside} ({others} others, {len(ignored)} passed over by recordings.ignore): "
            f"{'convert them to FLAC or WAV, or ' if foreign.counts else ''}correct data.path"
        )
    return sorted(names), dict(sorted(unusable.items())), frozenset(ignored), foreign
