"""What every data set offers, whatever its items are."""

from typing import Protocol

import numpy as np


class DataSplit(Protocol):
    """Items of one split, whatever they are."""

    @property
    def labels(self) -> np.ndarray:
        """int64 `[N]`; all 0 without classes."""

    @property
    def speakers(self) -> np.ndarray:
        """int64 `[N]`; all 0 without speakers."""

    @property
    def names(self) -> tuple[str, ...]:
        """N names of the items, such as paths in their folder; empty where they have none."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> "DataSplit":
        """The items of these numbers."""


class Dataset(Protocol):
    """A data set with three fixed splits, as verbs see it."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, by number; empty without labels."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers, by number; empty without speakers."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """Files that were left out as unreadable."""

    @property
    def sha256(self) -> str:
        """Digest of everything that a model depends on."""

    @property
    def train(self) -> DataSplit: ...

    @property
    def validation(self) -> DataSplit: ...

    @property
    def test(self) -> DataSplit: ...

    def split(self, name: str) -> DataSplit:
        """The one called train, validation or test; any other name is a UsageError."""
