"""An image data set: integer levels, labels and three fixed splits.

Images stay integers (uint8, 0..levels-1) until a model normalises them, so that every likelihood is a mass function
over a stated alphabet and no level is lost to rounding. Test data gives the final number only; whatever is chosen (best
step, codebook size, temperature) is chosen on validation data.

Shape suffixes: N items, C channels, H rows, W columns.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from twostage.config.schema import DataConfig
from twostage.errors import UsageError


@dataclass(frozen=True)
class Split:
    """One part of a data set."""

    images: np.ndarray
    """uint8 [N, C, H, W], values 0..levels-1."""
    labels: np.ndarray
    """int64 [N], values 0..len(classes)-1."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class ImageDataset:
    """A named data set with its alphabet and its splits."""

    name: str
    levels: int
    """Size of the alphabet: a sub-pixel is one of 0..levels-1."""
    classes: tuple[str, ...]
    """Printable class names; label i means classes[i]."""
    train: Split
    validation: Split
    test: Split

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
        """Digest of alphabet, classes, images and labels of all splits: what a trained model is tied to."""
        digest = hashlib.sha256(repr((self.levels, self.classes)).encode())
        for part in (self.train, self.validation, self.test):
            digest.update(repr((part.images.shape, part.images.dtype.str, part.labels.shape)).encode())
            digest.update(part.images.tobytes())
            digest.update(part.labels.tobytes())
        return digest.hexdigest()

    def split(self, name: str) -> Split:
        """The split called `train`, `validation` or `test`; any other name is a UsageError."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        if name not in splits:
            raise UsageError(f"expected the split train, validation or test, but {name!r} came")
        return splits[name]


def load_dataset(config: DataConfig) -> ImageDataset:
    """Read the configured data set into memory.

    Raises:
        UsageError: the settings do not fit together (no folder for `mnist`, a folder for `digits`).
        DataError: a file is missing, damaged or not what its name says.
    """
    # Readers are imported here because scikit-learn alone takes a second or two.
    if config.name == "digits":
        if config.path is not None:
            raise UsageError(
                f"the data set digits is built in and reads no folder, but data.path is {config.path!r}: "
                "leave data.path out or set data.name to mnist"
            )
        from twostage.data.digits import load_digits

        return load_digits()
    from twostage.data.idx import load_mnist

    return load_mnist(config.path)
