"""How single items of a kind of data are named, read, batched, written and shown: what the verbs on files ask.

Verbs that make, encode, decode or pass on items are written once, in terms of this. An item is an array: `[C, H, W]` of
an image, integer levels or a decoder's mean ones in fp32; int16 `[S]` of a recording. `record` is that of the model's
training, which knows the size or the rate of its items.

Shapes: N items, B items of a batch, S the axes of an item.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Batch
from twostage.config.schema import Recipe
from twostage.grids import Grids
from twostage.storage.codes import CodeFile

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Items that are written and shown."""

    stems: Sequence[str]
    """Names of their files without suffix."""
    items: Sequence[np.ndarray]
    originals: Sequence[np.ndarray] = ()
    """What they are shown beside: nothing, one for each, or one for all."""
    titles: Sequence[tuple[str, ...]] = ()
    """Of their pictures: of the original, where there is one, and of the item; none for items without pictures."""
    overview: str
    """Name without suffix of a picture of all."""
    columns: int = 0
    """Of that picture; 0: about as many as rows."""


@dataclass(frozen=True)
class Kept:
    """Codes of an item that its completion keeps."""

    codes: Tensor
    """`[1, G, n, ...]`, the first rows (positions) of its codes, or under a mask all of them."""
    mask: Tensor | None
    """bool `[P]`, the positions that are kept, of a hierarchy; None where they come first."""
    said: str
    """What they are, in words."""


class Files(Protocol):
    """Items of one kind of data as files and arrays. Splits and models in the signatures are those of this kind."""

    item: str
    """What one item that was made is called."""
    source: str
    """What one item that was given is called."""
    count: int
    """New items unless a number is asked for."""
    unit: str
    """What bits are said in: `bits/dim`."""
    apart: str
    """What bits of an item leave out, the end of a phrase."""
    one_overview: bool
    """Whether there is one picture of all items, rather than one of each."""
    have_lengths: bool
    """Whether items differ in length."""

    def suffixes(self, record: Record) -> tuple[str, ...]:
        """Of the files written of an item: of the item itself, and of its picture where it always has one."""

    def prefix_of(self, model: str) -> str:
        """What the names of new items of a model begin with, before their number."""

    def batches(
        self, split: Any, model: Any, *, recipe: Recipe, device: torch.device, rows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """This process's share of the items of a split, or of some rows of it, in the batches that models are given.

        Yields:
            Numbers of the items in the split, int64 `[B]`, and the items with them, on the device.
        """

    def read(self, path: Path, record: Record, recipe: Recipe) -> np.ndarray:
        """The item in a file, read as those of a folder that is trained on; DataError where it holds none that fits."""

    def arrays(self, given: object, record: Record, rate_hz: int | None) -> list[np.ndarray]:
        """Items that a program holds, one or several, of the model's own rate unless `rate_hz` says another.

        Raises:
            UsageError: they are no items that fit.
        """

    def split_of(self, items: Sequence[np.ndarray], labels: Sequence[int] = (), speakers: Sequence[int] = ()) -> Any:
        """Items as a split; labels and speakers are 0 where none are given."""

    def speakers_in(self, paths: Sequence[Path], recipe: Recipe, speakers: tuple[str, ...]) -> list[int | None]:
        """Number of the speaker that the name of every file says; None where it says none of them."""

    def together(self, recipe: Recipe) -> int:
        """Items that are decoded side by side."""

    def lengths_of(self, split: Any) -> np.ndarray | None:
        """Length of every item of a split, `[N]`; None of items that are all of one size."""

    def grids_of(self, split: Any, model: Any) -> Grids:
        """Grid of every level of the codes of a split, coarsest first; of sequences as long as its longest item needs
        it."""

    def length_of(self, seconds: float, model: Any, record: Record, most: int | None, *, flag: str) -> int:
        """Length in whole codes of what lasts so long; UsageError, with that `flag`, for more than `most` codes."""

    def length_after(self, positions: Tensor, model: Any) -> Tensor:
        """Length of items of so many positions of codes, `[N]`."""

    def kept(self, command: Any, codes: Tensor, item: np.ndarray, model: Any, record: Record) -> Kept:
        """What the completion of an item keeps of its codes `[1, G, *T]`.

        UsageError where they are more than can be kept.
        """

    def check_codes(self, codes: CodeFile, model: Any, record: Record, *, name: str, source: str, remedy: str) -> None:
        """Raise RunError where codes, called `source`, do not fit the model `name` or say too little of their items.

        The sentence ends with the `remedy`.
        """

    def made(self, decoded: Tensor, lengths: Tensor | None) -> list[np.ndarray]:
        """Items of what `Stage1Model.decode_batch` gave, `[B, *S]`; RunError where a waveform is not finite."""

    def handed(
        self, items: Sequence[np.ndarray], record: Record, labels: Sequence[int], speakers: Sequence[int]
    ) -> Any:
        """Items as a program gets them; of what labels and speakers, where they have them."""

    def difference(self, own: np.ndarray, made: np.ndarray, record: Record) -> str:
        """How far an item is from its reconstruction, in words."""

    def write(self, folder: Path, shown: Shown, record: Record, *, what: str) -> str:
        """Write items and their pictures into a folder, made if need be, and say so: `what` they are and where."""
