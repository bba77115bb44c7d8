"""What a folder of images or recordings holds, counted without keeping any of it: the survey behind `check-data`.

Files are found and decoded as by the loaders (`twostage.data.walk`, `inspect_image`, `decode_recording`), but one at a
time: neither pixels, samples nor the names of whole files are kept, and counts of anything stop at `MOST_KINDS` kinds,
so that the memory does not depend on how many files there are.
"""

import heapq
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from twostage.class_names import composed
from twostage.data.audio.decode import Decoded, decode_recording
from twostage.data.audio.libraries import load_soundfile
from twostage.data.audio.listing import SUFFIXES as AUDIO_SUFFIXES
from twostage.data.audio.listing import Foreign
from twostage.data.audio.part import Unreadable as UnreadableAudio
from twostage.data.audio.pattern import NamePattern
from twostage.data.audio.remarks import LOSSES, Remarks
from twostage.data.images.decode import Unreadable as UnreadableImage
from twostage.data.images.decode import inspect_image, quiet_pillow
from twostage.data.images.formats import SUFFIXES as IMAGE_SUFFIXES
from twostage.data.passed_over import PassedOver
from twostage.data.walk import LINK, SPLITS, Found, walk
from twostage.printable import counted
from twostage.progress import Progress

Kind = Literal["images", "recordings"]


SUFFIXES_OF: dict[Kind, tuple[str, ...]] = {"images": IMAGE_SUFFIXES, "recordings": AUDIO_SUFFIXES}
MOST_FAULTS = 100
"""Unusable files that are kept by name, the first in order of names; the others are counted."""
MOST_KINDS = 10_000
"""Distinct classes, sizes and so on that are told apart; those beyond are counted together."""
_SHOWN_KINDS = 10
_BATCH_FILES = 64
_MOST_THREADS = 4
# Below that, threads get in each other's way (as in `twostage.data.images.folder`).
_SMALL_FILE_BYTES = 1 << 14
_NO_SAMPLES = np.zeros(0, np.int16)


@dataclass
class Tally:
    """How often each of at most `MOST_KINDS` values came."""

    counts: Counter[str] = field(default_factory=Counter)
    others: int = 0

    def add(self, value: str) -> None:
        if value in self.counts or len(self.counts) < MOST_KINDS:
            self.counts[value] += 1
        else:
            self.others += 1

    def __str__(self) -> str:
        """`32x32 (20), 16x16 (1)`, the most frequent first, the rest counted."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{value} ({count})" for value, count in ranked[:_SHOWN_KINDS])
        beyond = sum(count for _, count in ranked[_SHOWN_KINDS:]) + self.others
        least = "at least " if self.others else ""
        return f"{shown} and {least}{len(ranked) - _SHOWN_KINDS} more kinds ({beyond})" if beyond else shown


@dataclass(frozen=True, slots=True)
class _Last:
    """A line that compares the other way round: Python's heap gives up its smallest, and the last name is to go."""

    line: str

    def __lt__(self, other: "_Last") -> bool:
        return self.line > other.line


@dataclass
class Survey:
    """What a folder holds."""

    kind: Kind
    show: Callable[[str], None] | None = None
    """Called with a line on every unusable file as it is found; None: the first ones are kept."""
    readable: int = 0
    unusable: int = 0
    links: int = 0
    links_out: int = 0
    beside: int = 0
    """Files in no sub-folder."""
    inside: bool = False
    """Whether there are files in sub-folders."""
    misnamed: Tally = field(default_factory=Tally)
    """Files whose label cannot be told or printed, by the reason."""
    classes: Tally = field(default_factory=Tally)
    """Readable files per class, by the class's literal."""
    properties: dict[str, Tally] = field(default_factory=dict)
    """What else is counted of readable files, such as `sizes`."""
    remarks: Remarks = field(default_factory=lambda: Remarks(only=LOSSES))
    """What is odd about readable recordings, with numbers."""
    foreign: Foreign = field(default_factory=Foreign)
    """Files of sound beside the recordings that are not read."""
    passed_over: PassedOver = field(default_factory=PassedOver)
    """Of images: files beside them whose names are not of images that are read."""
    _kept: list[_Last] = field(default_factory=list)

    def add_fault(self, name: str, fault: str) -> None:
        """The name is kept as a Python literal: a line break in it must not break the list."""
        self.unusable += 1
        line = f"{name!r} {fault}"
        if self.show is not None:
            self.show(line)
        elif len(self._kept) < MOST_FAULTS:
            heapq.heappush(self._kept, _Last(line))
        else:
            heapq.heappushpop(self._kept, _Last(line))

    def fault_lines(self) -> list[str]:
        """Those kept, in order."""
        return sorted(item.line for item in self._kept)

    @property
    def too_few(self) -> bool:
        """Whether a split would be empty."""
        return self.readable < len(SPLITS)

    def problems(self) -> list[str]:
        """What is wrong with the folder as a whole: clauses."""
        found = [f"{count} {self.kind} {reason}" for reason, count in self.misnamed.counts.items()]
        if self.beside and self.inside:
            way_out = ", or say with --pattern what names mean" if self.kind == "recordings" else ""
            found.append(
                f"{self.beside} {self.kind} lie beside sub-folders with others, whose names are the labels: move them "
                f"into one{way_out}"
            )
        if self.too_few:
            are = "is" if self.readable == 1 else "are"
            found.append(f"{counted(self.readable, self.kind)} {are} too few for {', '.join(SPLITS)}")
        return found


def survey_folder(
    root: Path,
    kind: Kind,
    *,
    total: int,
    pattern: NamePattern | None = None,
    ignore: tuple[str, ...] = (),
    bits: int = 8,
    show: Callable[[str], None] | None = None,
) -> Survey:
    """Read every file of one kind below `root`.

    Args:
        total: how many there are about, for the progress that is shown.
        pattern, ignore: settings of recordings.
        bits: per channel of images that are wanted.
        show: see `Survey`.
    """
    survey, real_root = Survey(kind, show, foreign=Foreign(ignore)), os.path.realpath(root)

    def usable() -> Iterator[str]:
        for found in walk(root, SUFFIXES_OF[kind], ignore):
            if found.kind == "file":
                yield found.name
            elif found.kind in ("unusable", "unlisted"):
                survey.add_fault(found.name or ".", found.fault + _whither(root, real_root, found, survey))
            elif found.kind == "other" and kind == "recordings":
                survey.foreign.add(found.name)
            elif found.kind == "other" and kind == "images":
                survey.passed_over.add(found.name)

    inspect: Callable[[Path], dict[str, str] | Decoded | str]
    inspect = partial(_inspect_image, bits=bits) if kind == "images" else _inspect_recording
    with quiet_pillow(), Progress(kind, total=total, unit="file") as progress:
        for name, outcome in _in_batches(usable(), root, inspect):
            progress.advance()
            label = _label(survey, name, pattern)
            if isinstance(outcome, str):
                survey.add_fault(name, outcome)
                continue
            survey.readable += 1
            if isinstance(outcome, Decoded):
                survey.remarks.add(name, outcome)
                outcome = _properties(outcome)
            if label is not None:
                survey.classes.add(repr(label))
            for key, value in outcome.items():
                survey.properties.setdefault(key, Tally()).add(value)
    return survey


def _label(survey: Survey, name: str, pattern: NamePattern | None) -> str | None:
    """What the name says; counts what it should not say. Speakers are counted of all files."""
    if pattern is not None:
        fields = pattern.match(name)
        if fields is None:
            survey.misnamed.add(f"do not match the pattern {pattern.text!r}")
            return None
        if fields.speaker is not None:
            survey.properties.setdefault("speakers", Tally()).add(repr(fields.speaker))
        return fields.label
    label, slash, _ = name.partition("/")
    if not slash:
        survey.beside += 1
        return None
    survey.inside = True
    if not label.isprintable():
        survey.misnamed.add("lie in sub-folders whose names cannot be printed as labels")
    return composed(label)


def _whither(root: Path, real_root: str, found: Found, survey: Survey) -> str:
    """Counts a symbolic link; says so where it leads out of the folder."""
    if found.fault != LINK:
        return ""
    survey.links += 1
    target = os.path.realpath(root / found.name)
    if target == real_root or target.startswith(real_root.rstrip("/") + "/"):
        return ""
    survey.links_out += 1
    return " out of the folder"


def _inspect_image(path: Path, *, bits: int) -> dict[str, str] | str:
    """Properties, or the fault."""
    try:
        image = inspect_image(path, bits=bits)
    except UnreadableImage as error:
        return str(error)
    except MemoryError:
        return "takes more memory than there is"
    properties = {"sizes (height x width)": f"{image.height}x{image.width}", "channels": image.mode}
    return properties | ({"conversions": "; ".join(image.remarks)} if image.remarks else {})


def _inspect_recording(path: Path) -> Decoded | str:
    """The recording without its samples, or the fault."""
    try:
        return replace(decode_recording(path), samples=_NO_SAMPLES)
    except UnreadableAudio as error:
        return str(error)
    except MemoryError:
        return "takes more memory than there is"


def _properties(sound: Decoded) -> dict[str, str]:
    seconds = sound.source_samples / sound.source.sample_rate_hz
    power = next(power for power in range(64) if seconds < 2**power)
    return {
        "rates": f"{sound.source.sample_rate_hz} Hz",
        "channels": str(sound.source.channels),
        "kinds": sound.source.kind,
        "lengths": f"{2 ** (power - 1)} to {2**power} s" if power else "below 1 s",
    }


def _in_batches(
    names: Iterator[str], root: Path, inspect: Callable[[Path], dict[str, str] | Decoded | str]
) -> Iterator[tuple[str, dict[str, str] | Decoded | str]]:
    """`(name, inspect(root / name))` in order; decoding frees the interpreter, so large files are read by threads."""
    if inspect is _inspect_recording:
        load_soundfile()  # by one thread, and its error as it is
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(_MOST_THREADS, cores)) as pool:
        while batch := list(islice(names, _BATCH_FILES)):
            paths = [root / name for name in batch]
            mapped = pool.map if cores > 1 and _bytes(paths) >= _SMALL_FILE_BYTES * len(batch) else map
            yield from zip(batch, mapped(inspect, paths), strict=True)


def _bytes(paths: list[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(OSError):  # gone meanwhile: its reading says so
            total += path.stat().st_size
    return total
