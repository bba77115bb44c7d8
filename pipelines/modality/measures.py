"""What there is to measure of a kind of data beside what its models say: one small interface, one class a kind.

`evaluate` scores all models alike. What differs is what else a code must hold (lengths, labels), how near a
reconstruction comes, and what stands beside the models; `Modality.measures` gives all of it, of one split.

Shapes: N items of the split, M of them, B of a batch, R numbers of an item.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Stage1Model
from twostage.metrics.code_labels import CodeMeaning
from twostage.storage.codes import CodeFile


@dataclass(frozen=True)
class Side:
    """Bits of every item, `[N]` float64, that are neither latents nor samples."""

    length: np.ndarray
    """Number of positions, and of samples within the last one."""
    labels: np.ndarray
    """Of the label and the speaker, each where it is paid."""


@dataclass(frozen=True)
class Beside:
    """A lossless codec on the same items."""

    name: str
    """Of its line in the table."""
    alphabet: int
    """Levels of what it encodes: rows of others are lengths of another message."""
    bits_N: np.ndarray
    """`[N]`."""


@dataclass(frozen=True)
class Fault:
    """Something wrong with reconstructions."""

    name: str
    """In a word or two."""
    sentence: str
    """With the number that shows it, and what to change; without its full stop."""


class Measures(Protocol):
    """Of one split of a data set. What is measured once is kept."""

    decoder: str | None
    """What rows call the decoder of stage one, where another one may follow its codes; else None."""

    @property
    def dims(self) -> int:
        """Of an item where all are of one size, else of all items."""

    @property
    def sizes_N(self) -> np.ndarray | None:
        """Dimensions of every item; None where all are of one size."""

    @property
    def seconds(self) -> float | None:
        """Duration of all items; None of what has none."""

    def facts(self) -> dict[str, Any]:
        """What `Evaluation` says of the items themselves, by the names of its fields."""

    def beside(self) -> Beside | None:
        """What the rows are compared with beside one another."""

    def conditioned_on(self, *, label: bool, speaker: bool) -> str | None:
        """In words, what of an item a model is conditioned on; None where rows do not say it."""

    def condition(self, file: CodeFile) -> np.ndarray | None:
        """What a conditional prior is given of the items of a code file, `[N, A]`; its bits are those of `side`.

        None where the labels are marginalised instead: then they cost nothing else.
        """

    def side(self, *, label: bool, speaker: bool, ends_N: np.ndarray | None = None) -> Side | None:
        """What a code holds beside latents and samples; None where that is nothing.

        Args:
            label: whether the label is paid.
            speaker: whether the speaker is.
            ends_N: bits of the number of positions under a prior; None: those of a table of the training items.
        """

    def decoded_items(self, model: Stage1Model) -> np.ndarray:
        """Which items, `[M]`, the quality of reconstructions is measured on."""

    @property
    def numbers(self) -> int:
        """R, of every pair that `compare` is given."""

    def compare(self, batch: Batch, decoded: Tensor) -> Tensor:
        """Numbers of every item of a batch and what was decoded of it, `[R, B]`; the first says how far they are
        apart."""

    def quality(self, numbers_RM: np.ndarray, items_M: np.ndarray, model: Stage1Model) -> dict[str, Any]:
        """Fields of a row, from the numbers of some items."""

    def faults(self, row: Mapping[str, Any]) -> tuple[Fault, ...]:
        """What is wrong with the reconstructions of a row, by its fields."""

    def meaning(self, train: CodeFile, codes: CodeFile) -> CodeMeaning | None:
        """What codes say of labels and speakers, where that is measured."""
