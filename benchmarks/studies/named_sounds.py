"""Sounds that say in their names what they should sound like: what speech_classifiers.py reads.

Shapes: N recordings, S samples.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twostage.data.audio import AudioDataset, AudioSplit
from twostage.data.audio.decode import decode_recording
from twostage.data.audio.part import Unreadable
from twostage.data.audio.pattern import Fields, name_pattern
from twostage.errors import DataError
from twostage.printable import show

NOBODY = -1
"""Index of the class of a sound that cannot be read, among what was heard."""


@dataclass(frozen=True)
class Sounds:
    """Recordings and what they should sound like; None where names do not say it."""

    title: str
    recordings: tuple[np.ndarray | None, ...]
    labels: np.ndarray | None = None
    """int64 [N]."""
    speakers: np.ndarray | None = None
    """Of conversions: the source."""
    targets: np.ndarray | None = None
    """Of conversions: the speaker that they should sound like."""


def sounds_of(title: str, split: AudioSplit, dataset: AudioDataset) -> Sounds:
    """A split of the data set itself."""
    labels, speakers = split.labels if dataset.classes else None, split.speakers if dataset.speakers else None
    return Sounds(title=title, recordings=tuple(split.recordings()), labels=labels, speakers=speakers)


def read_sounds(folder: Path, patterns: Sequence[str], dataset: AudioDataset) -> Sounds:
    """The WAV files below a folder.

    Args:
        folder: where they are.
        patterns: what their names say; the first that fits a name counts. With {source} and {target} instead of
            {speaker} in all of them, the sounds are conversions.
        dataset: whose labels, speakers and rate these are.

    Raises:
        UsageError: a pattern is none.
        DataError: no files, or names that do not fit the patterns or the data set.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix.lower() == ".wav")
    if not names:
        raise DataError(f"expected WAV files in {folder}, but there are none: correct the folder")
    # Read twice where two speakers stand in a name: a pattern has one {speaker}.
    converted = all("{source}" in pattern and "{target}" in pattern for pattern in patterns)

    def read_as(speaker: str, other: str) -> list[Fields]:
        return _said(folder, names, [each.replace(speaker, "{speaker}").replace(other, "*") for each in patterns])

    said = read_as("{source}", "{target}") if converted else _said(folder, names, patterns)
    targets = None
    if converted:
        named = [fields.speaker for fields in read_as("{target}", "{source}")]
        targets = _numbers(folder, "speakers", named, dataset.speakers)
    return Sounds(
        title=str(folder),
        recordings=tuple(_decoded(folder, names, dataset.sample_rate_hz)),
        labels=_numbers(folder, "labels", [fields.label for fields in said], dataset.classes),
        speakers=_numbers(folder, "speakers", [fields.speaker for fields in said], dataset.speakers),
        targets=targets,
    )


def _said(folder: Path, names: Sequence[str], patterns: Sequence[str]) -> list[Fields]:
    """What every name says."""
    compiled = [name_pattern(pattern) for pattern in patterns]
    found = [next((fields for each in compiled if (fields := each.match(name))), None) for name in names]
    odd = [name for name, fields in zip(names, found, strict=True) if fields is None]
    if odd:
        raise DataError(
            f"expected names such as {' or '.join(patterns)} in {folder}, but {len(odd)} of {len(names)} do not match: "
            f"{show([repr(name) for name in odd])}; say with a pattern what they mean"
        )
    return [fields for fields in found if fields is not None]


def _numbers(folder: Path, what: str, values: Sequence[str | None], known: tuple[str, ...]) -> np.ndarray | None:
    """Index of every class, int64 [N]; None where there are none to tell apart or not all names say one."""
    said = [value for value in values if value is not None]
    if not known or len(said) < len(values):
        return None
    if unknown := sorted(set(said) - set(known)):
        raise DataError(
            f"expected {what} of the data set ({', '.join(known)}) in the names of {folder}, but {show(unknown)} came: "
            "say with a pattern what names mean"
        )
    return np.array([known.index(value) for value in said], dtype=np.int64)


def _decoded(folder: Path, names: Sequence[str], sample_rate_hz: int) -> list[np.ndarray | None]:
    recordings: list[np.ndarray | None] = []
    faults = []
    for name in names:
        try:
            recordings.append(decode_recording(folder / name, sample_rate_hz=sample_rate_hz).samples)
        except Unreadable as error:
            recordings.append(None)
            faults.append(f"{name!r} {error}")
    if faults:
        print(f"{len(faults)} of {len(names)} files in {folder} count as not heard: {show(faults)}", file=sys.stderr)
    return recordings
