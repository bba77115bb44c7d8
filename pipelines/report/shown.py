"""What a report is about: the data of a run as pictures, and its models, each loaded, encoded and decoded once.

Shapes: N test items, B of a batch, A axes of the latents of an item, M vectors of Z latents: one an item, of which a
grid is flattened, or one a position of a sequence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.batch import Asked, Batch
from twostage.metrics.statistics import evenly
from twostage.storage.atomic import write_atomic
from twostage.storage.codes import CodeFile, load_codes

from ..evaluate.posteriors import Posteriors, posteriors_of_split
from ..generate.sheets import COMPARED, Reference, Sheet
from ..generate.trained import Trained
from ..media.html import image
from ..media.png import display_scale, png
from ..modality.pictures import Items, Pictures
from ..runs.loading import Loaded
from ..runs.run import Run, is_finished

RECONSTRUCTED = 16
"""Test items whose reconstructions are shown."""


@dataclass(frozen=True)
class Picture:
    """A finished PNG of the report, with the name of its file."""

    kind: str
    data: bytes
    caption: str


@dataclass(frozen=True)
class Shown:
    """What the sections of a report share."""

    run: Run
    dataset: Any
    pictures: Pictures
    device: torch.device
    seed: int

    @cached_property
    def reconstructed(self) -> np.ndarray:
        """Rows of the test items whose reconstructions are shown."""
        return evenly(len(self.dataset.test), RECONSTRUCTED)

    @cached_property
    def originals(self) -> Items:
        """These items."""
        return self.pictures.items(self.dataset.test, self.reconstructed)

    @cached_property
    def reference(self) -> Reference:
        """What samples are compared with."""
        some = self.pictures.items(self.dataset.test, evenly(len(self.dataset.test), COMPARED))
        return Reference.of(self.pictures, self.pictures.of(some))

    @cached_property
    def _scale(self) -> int:
        return display_scale(self.pictures.of(self.originals[:1]).shape[-1])

    def keep(self, name: str, picture: Sheet | Picture | None) -> str:
        """HTML of a picture, which is also written as RUN/samples/NAME.png; of None nothing."""
        if picture is None:
            return ""
        sheet = isinstance(picture, Sheet)
        data = png(picture.picture_CHW, scale=self._scale) if isinstance(picture, Sheet) else picture.data
        target = self.run.path / "samples" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, data)
        return image(data, picture.caption, pixels=sheet)


@dataclass(frozen=True)
class Vectors:
    """Continuous latents of all test items."""

    of_items: list[Tensor]
    """`[*A]` of every item, on the CPU: means of its posterior, where it has one; zero behind the end of an item."""
    means_MZ: np.ndarray
    """float64, the same as vectors."""
    items_M: np.ndarray
    """Row of the test item that a vector is of."""
    posteriors: Posteriors | None
    """Of the vectors; None of an autoencoder."""


@dataclass(frozen=True)
class ShownModel:
    """A trained model; whatever of it is shown twice is computed once."""

    shown: Shown
    trained: Trained

    @property
    def name(self) -> str:
        """Within the run."""
        return self.trained.name

    @property
    def model(self) -> Any:
        """Stage one, a `Stage1Model`."""
        return self.trained.model

    @property
    def title(self) -> str:
        """The name, with the beta that it does not say itself."""
        return f"{self.name} (beta 1)" if self.model.latents == "gaussian" and self.model.beta == 1 else self.name

    @property
    def continuous(self) -> bool:
        """Whether its latents are no codes."""
        return self.model.latents in ("gaussian", "none")

    @property
    def prior(self) -> Loaded[Any] | None:
        """The finished prior of its codes; None without one."""
        folder = self.shown.run.prior_folder(self.name)
        return self.trained.prior if self.model.latents == "codes" and is_finished(folder) else None

    @property
    def decoder(self) -> Loaded[Any] | None:
        """The finished second decoder of its codes; None without one."""
        run = self.shown.run
        if self.model.latents != "codes" or not is_finished(run.decoder_folder(self.name)):
            return None
        return run.decoder(self.name, self.trained.stage1, self.shown.device)

    @cached_property
    def voices(self) -> dict[str, Any]:
        """What decodes its latents, by name: the model itself and, if it is trained, a second decoder."""
        if self.decoder is None:
            return {"reconstruction": self.model}
        return {said: self.trained.with_decoder(name) for name, said in self.trained.modality.decoders.items()}

    @property
    def other_pictures(self) -> dict[str, Any]:
        """Those of the voices beside the model itself whose pictures are shown like its own, where nothing is heard."""
        voices = {} if self.shown.pictures.played else self.voices
        return {said: model for said, model in voices.items() if model is not self.model}

    def named(self, label: int | None, speaker: int | None) -> str:
        """An item by its label and its speaker, each where it has one."""
        named = ((self.trained.classes, label), (self.trained.speakers, speaker))
        parts = [names[number] for names, number in named if names and number is not None]
        return " / ".join(parts) or self.shown.pictures.item

    def lengths_of(self, split: str) -> np.ndarray | None:
        """Length of every item of a split; None of items that are all of one size."""
        return self.trained.files.lengths_of(self.shown.dataset.split(split))

    def asked(self, rows: np.ndarray) -> Asked:
        """What a decoder is given beside the latents of test items, numbered from 0."""
        test, lengths_N = self.shown.dataset.test, self.lengths_of("test")
        lengths = None if lengths_N is None else torch.from_numpy(lengths_N[rows]).to(self.shown.device)
        return self.trained.asked(len(rows), test.labels[rows].tolist(), test.speakers[rows].tolist(), lengths)

    @cached_property
    def vectors(self) -> Vectors:
        """Continuous latents of all test items; the only time that these are encoded."""
        rows = np.arange(len(self.shown.dataset.test))
        ends = self._ends(self.asked(rows))
        if self.model.latents == "gaussian":
            run, stage1 = self.shown.run, self.trained.stage1
            posteriors = posteriors_of_split(run, self.name, stage1, "test", self._batches("test"), items=len(rows))
            means_MZ = posteriors.mean_NZ
            own = np.split(means_MZ, np.cumsum([end or 1 for end in ends])[:-1])
            shape = posteriors.latent_shape
            of_items = [
                torch.from_numpy(vectors.reshape(shape) if end is None else vectors.T).float()
                for vectors, end in zip(own, ends, strict=True)
            ]
        else:
            posteriors, of_items = None, self.encode("test", rows)
            means_MZ = np.concatenate(list(map(_as_vectors, of_items, ends)))
        items_M = np.repeat(rows, [end or 1 for end in ends])
        return Vectors(of_items=of_items, means_MZ=means_MZ, items_M=items_M, posteriors=posteriors)

    @cached_property
    def codes(self) -> dict[str, CodeFile]:
        """The files of its codes that evaluation left, by split."""
        files = {split: self.shown.run.codes_file(self.name, split) for split in ("validation", "test")}
        return {
            split: load_codes(path, expect_stage1_sha256=self.trained.stage1.sha256)
            for split, path in files.items()
            if path.is_file()
        }

    def encode(self, split: str, rows: np.ndarray) -> list[Tensor]:
        """Latents of items, `[*A]` each, on the CPU."""
        found: dict[int, Tensor] = {}
        for items, batch in self._batches(split, rows):
            found |= zip(items.tolist(), self.model.latents_of(batch, seed=self.shown.seed).cpu(), strict=True)
        return [found[row] for row in rows.tolist()]

    def encode_vectors(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Continuous latents of items as vectors, `[M, Z]` float64, in the order in which they are read."""
        found = list[np.ndarray]()
        for _, batch in self._batches(split, rows):
            latents = self.model.latents_of(batch, seed=self.shown.seed)
            found += map(_as_vectors, latents, self._ends(batch))
        return np.concatenate(found)

    def _ends(self, asked: Asked) -> list[int | None]:
        """Positions of the latents of every item; None of items that are no sequences."""
        if asked.lengths is None:
            return [None] * len(asked.items)
        ends: list[int | None] = self.model.positions_of(asked).tolist()
        return ends

    @cached_property
    def latents(self) -> list[Tensor]:
        """Latents of the test items whose reconstructions are shown."""
        return self._latents_at(self.shown.reconstructed)

    def _latents_at(self, rows: np.ndarray) -> list[Tensor]:
        if self.continuous:
            return [self.vectors.of_items[row] for row in rows]
        if "test" in self.codes:
            return list(torch.from_numpy(self.codes["test"].codes[rows]))
        return self.encode("test", rows)

    @cached_property
    def reconstructions(self) -> Items:
        """What the model itself makes of them."""
        return self.decode(stacked(self.latents), self.asked(self.shown.reconstructed))

    def reconstruct(self, rows: np.ndarray) -> Items:
        """What the model itself makes of some test items."""
        return self.decode(stacked(self._latents_at(rows)), self.asked(rows))

    def decode(self, latents: Tensor, asked: Asked, *, by: Any = None) -> list[np.ndarray]:
        """Items of latents, batch by batch to bound the memory.

        Args:
            latents: `[N, *A]`.
            asked: what else there is to know of them.
            by: one of the `voices`; None for the model itself.
        """
        model, files, items = by or self.model, self.trained.files, list[np.ndarray]()
        size = files.together(self.shown.run.recipe)
        for start in range(0, len(latents), size):
            rows = slice(start, start + size)
            part = part_of(asked, rows)
            decoded = model.decode_batch(latents[rows].to(self.shown.device), part, seed=self.shown.seed)
            items += files.made(decoded, part.lengths)
        return items

    def _batches(self, split: str, rows: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, Batch]]:
        items, recipe = self.shown.dataset.split(split), self.shown.run.recipe
        return self.trained.files.batches(items, self.model, recipe=recipe, device=self.shown.device, rows=rows)


def _as_vectors(latents: Tensor, positions: int | None) -> np.ndarray:
    """Latents `[*A]` of an item as float64: `[1, Z]`, or `[T, Z]` of a sequence of that many positions."""
    vectors = latents.flatten()[None] if positions is None else latents[:, :positions].T
    as_numbers: np.ndarray = vectors.double().cpu().numpy()
    return as_numbers


def part_of(asked: Asked, rows: slice) -> Asked:
    """The same of some of the items."""
    given = (asked.lengths, asked.labels, asked.speakers)
    lengths, labels, speakers = (None if each is None else each[rows] for each in given)
    return replace(asked, items=asked.items[rows], lengths=lengths, labels=labels, speakers=speakers)


def stacked(latents: Sequence[Tensor]) -> Tensor:
    """Latents of several items in one tensor, those of shorter sequences with zeros behind them."""
    longest = max(each.shape[-1] for each in latents)
    return torch.stack([F.pad(each, (0, longest - each.shape[-1])) for each in latents])
