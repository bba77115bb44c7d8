"""An image data set: integer levels, labels and three fixed splits.

Images stay integers (uint8, or uint16 of more than 256 levels; 0..levels-1) until a model normalises them, so that
every likelihood is a mass function over a stated alphabet and no level is lost to rounding. Test data gives the final
number only; whatever is chosen (best step, codebook size, temperature) is chosen on validation data.

Shape suffixes: N items, C channels, H rows, W columns.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from twostage.errors import UsageError


def level_type(levels: int) -> type[np.uint8] | type[np.uint16]:
    """What images of so many levels, at most 65536, are held in."""
    return np.uint8 if levels <= 256 else np.uint16


@dataclass(frozen=True)
class Split:
    """One part of a data set."""

    images: np.ndarray
    """uint8 or uint16 [N, C, H, W], values 0..levels-1."""
    labels: np.ndarray
    """int64 [N], values 0..len(classes)-1; all 0 without classes."""
    intensities: np.ndarray | None = None
    """uint8 or uint16 [N, C, H, W], the levels behind dynamically binarised training images; None everywhere else."""
    names: tuple[str, ...] = ()
    """N paths in the folder of the images, with forward slashes; empty of images that are no files."""

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Split":
        """The images of these numbers."""
        intensities = None if self.intensities is None else self.intensities[rows]
        names = tuple(self.names[row] for row in rows) if self.names else ()
        return Split(self.images[rows], self.labels[rows], intensities, names)

    @property
    def speakers(self) -> np.ndarray:
        """int64 [N], all 0: nobody speaks in an image."""
        return np.zeros_like(self.labels)


@dataclass(frozen=True)
class ImageDataset:
    """A named data set with its alphabet and its splits."""

    name: str
    levels: int
    """Size of the alphabet: a sub-pixel is one of 0..levels-1."""
    classes: tuple[str, ...]
    """Printable class names, label i means classes[i]; empty where there is nothing to tell apart."""
    train: Split
    validation: Split
    test: Split
    intensity_levels: int | None = None
    """Alphabet of `train.intensities`; None where there are none."""
    skipped: tuple[str, ...] = ()
    """Files of a folder that were left out as unreadable, by name."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Empty: nobody speaks in an image."""
        return ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def dims(self) -> int:
        """Sub-pixels per image, C*H*W: the D of bits/dim."""
        channels, height, width = self.shape
        return channels * height * width

    @cached_property
    def sha256(self) -> str:
        """Digest of alphabet, classes, images (intensities too) and labels of all splits: what a model is tied to."""
        digest = hashlib.sha256(repr((self.levels, self.classes)).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(repr((part.images.shape, part.images.dtype.str, part.labels.shape)).encode())
            # Arrays that lie in memory in their own order are read where they are.
            digest.update(np.ascontiguousarray(part.images).data)
            digest.update(np.ascontiguousarray(part.labels).data)
        if self.train.intensities is not None:
            digest.update(repr((self.intensity_levels, self.train.intensities.shape)).encode())
            digest.update(np.ascontiguousarray(self.train.intensities).data)
        return digest.hexdigest()

    def split(self, name: str) -> Split:
        """The split called `train`, `validation` or `test`; any other name is a UsageError."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise UsageError(f"expected the split train, validation or test, but {name!r} came")
        return splits[name]
