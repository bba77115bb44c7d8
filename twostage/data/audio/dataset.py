"""A data set of recordings: 16-bit samples of one rate, labels, speakers and three fixed splits.

Recordings have different lengths. A split keeps them end to end in one flat array, because a hundred thousand small
arrays cost more in headers than in samples, and because a flat array may as well be a map of a file. Samples stay
int16 until a model turns them into levels (`x + 32768`, or mu-law), so that every likelihood is a mass function over a
stated alphabet.

Shapes: N recordings, S samples of all recordings of a split.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from twostage.errors import UsageError


@dataclass(frozen=True)
class AudioSplit:
    """One part of a data set."""

    samples: np.ndarray
    """int16 [S], mono; one recording after the other, without gaps."""
    offsets: np.ndarray
    """int64 [N + 1], increasing from 0 to S: recording i is samples[offsets[i]:offsets[i + 1]], at least one sample."""
    labels: np.ndarray
    """int64 [N], values 0..len(classes)-1; all 0 without classes."""
    speakers: np.ndarray
    """int64 [N], values 0..len(speakers)-1; all 0 without speakers."""
    names: tuple[str, ...]
    """N names: paths relative to the data set's folder, with forward slashes."""

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.labels) == len(self.speakers) == len(self.offsets) - 1:
            raise ValueError(
                "expected as many names, labels and speakers as recordings, but "
                f"{len(self.names)}, {len(self.labels)}, {len(self.speakers)} and {len(self.offsets) - 1} came"
            )
        whole = self.offsets[0] == 0 and self.offsets[-1] == len(self.samples)
        if self.samples.dtype != np.int16 or not whole or not (np.diff(self.offsets) > 0).all():
            raise ValueError("expected int16 samples and offsets that increase from 0 to their number")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> np.ndarray:
        """Samples per recording, int64 [N]."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> "AudioSplit":
        """The recordings of these numbers."""
        return AudioSplit(
            samples=np.concatenate([self.recording(index) for index in rows]),
            offsets=np.concatenate([[0], np.cumsum(self.lengths[rows])]),
            labels=self.labels[rows],
            speakers=self.speakers[rows],
            names=tuple(self.names[index] for index in rows),
        )

    def recording(self, index: int) -> np.ndarray:
        """The samples of one recording, int16; a view."""
        return self.samples[self.offsets[index] : self.offsets[index + 1]]

    def recordings(self) -> Iterator[np.ndarray]:
        """The samples of every recording in order; views."""
        return (self.recording(index) for index in range(len(self)))


@dataclass(frozen=True)
class AudioDataset:
    """A named data set with its rate and its splits."""

    name: str
    sample_rate_hz: int
    classes: tuple[str, ...]
    """Printable class names, label i means classes[i]; empty where there is nothing to tell apart."""
    speakers: tuple[str, ...]
    """Printable names of speakers, like `classes`."""
    train: AudioSplit
    validation: AudioSplit
    test: AudioSplit
    split_rule: str
    """What decided on the splits, for the record."""
    skipped: tuple[str, ...] = ()
    """Files of a folder that were left out as unreadable, by name."""
    clipped_samples: int = 0
    """Samples of all splits that lay beyond 16 bits and were brought to the limit."""

    @cached_property
    def sha256(self) -> str:
        """Digest of rate, names of classes and speakers, and all splits but their file names: what a model is tied
        to."""
        digest = hashlib.sha256(repr((self.sample_rate_hz, self.classes, self.speakers)).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(repr((len(part), len(part.samples))).encode())
            for array, kind in (
                (part.samples, "<i2"),
                (part.offsets, "<i8"),
                (part.labels, "<i8"),
                (part.speakers, "<i8"),
            ):
                digest.update(np.ascontiguousarray(array, dtype=kind).data)
        return digest.hexdigest()

    def split(self, name: str) -> AudioSplit:
        """The split called `train`, `validation` or `test`; any other name is a UsageError."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise UsageError(f"expected the split train, validation or test, but {name!r} came")
        return splits[name]

    def durations_seconds(self, name: str) -> np.ndarray:
        """Duration of every recording of the split of that name, float64 [N]."""
        return self.split(name).lengths / self.sample_rate_hz
