"""What a report is about: the data of a run as pictures, and its models, each loaded, encoded and decoded once.

Shapes: N test items, B of a batch, A axes of the latents of an item, M vectors of Z latents: one an item, of which a
grid is flattened, or one a position of a sequence.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import WithDecoder
from stage1_vqvae.gaussian import GaussianPosterior
from stage1_vqvae.interface import Asked, Batch, Stage1Model
from twostage.metrics.statistics import evenly
from twostage.storage.atomic import write_atomic
from twostage.storage.codes import CodeFile, load_codes

from ..evaluate.latent_diagnosis import Posteriors
from ..generate.sheets import COMPARED, Reference, Sheet
from ..media.html import image
from ..media.png import display_scale, png
from ..modality.files import batches
from ..modality.pictures import Items, Pictures
from ..runs.loading import Loaded
from ..runs.run import Run, is_finished
from .asked import asked_for, part_of, stacked

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

    def named(self, label: int | None, speaker: int | None) -> str:
        """An item by its label and its speaker, each where it has one."""
        parts = [self.dataset.classes[label]] if self.dataset.classes and label is not None else []
        parts += [self.dataset.speakers[speaker]] if self.dataset.speakers and speaker is not None else []
        return " / ".join(parts) or self.pictures.item


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
    name: str
    stage1: Loaded[Any]

    @property
    def model(self) -> Any:
        """Stage one, a `Stage1Model`."""
        return self.stage1.model

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
        if self.model.latents != "codes" or not is_finished(self.shown.run.prior_folder(self.name)):
            return None
        return self.shown.run.prior(self.name, self.stage1, self.shown.device)

    @property
    def decoder(self) -> Loaded[Any] | None:
        """The finished second decoder of its codes; None without one."""
        if self.model.latents != "codes" or not is_finished(self.shown.run.decoder_folder(self.name)):
            return None
        return self.shown.run.decoder(self.name, self.stage1, self.shown.device)

    @cached_property
    def voices(self) -> dict[str, Stage1Model]:
        """What decodes its latents, by name: the model itself and, if it is trained, a second decoder."""
        second = self.decoder
        if second is None:
            return {"reconstruction": self.model}
        return {"convolutional decoder": self.model, "WaveNet decoder": WithDecoder(self.model, second.model)}

    def asked(self, rows: np.ndarray) -> Asked:
        """What a decoder is given beside the latents of test items, numbered from 0."""
        test, device = self.shown.dataset.test, self.shown.device
        lengths = getattr(test, "lengths", None)
        return asked_for(
            len(rows),
            labels=test.labels[rows],
            speakers=test.speakers[rows],
            lengths=None if lengths is None else lengths[rows],
            device=device,
        )

    @cached_property
    def vectors(self) -> Vectors:
        """Continuous latents of all test items; the only time that these are encoded."""
        of_items: dict[int, Tensor] = {}
        means, log_variances = dict[int, np.ndarray](), dict[int, np.ndarray]()
        for places, batch in self._batches("test"):
            posterior = posterior_of(self.model, batch)
            ends = self.model.positions_of(batch).tolist() if batch.lengths is not None else [None] * len(batch)
            for row, (place, end) in enumerate(zip(places.tolist(), ends, strict=True)):
                of_items[place] = posterior.mean[row].float().cpu()
                means[place] = _as_vectors(posterior.mean[row], end)
                log_variances[place] = _as_vectors(posterior.log_variance[row], end)
        order = range(len(of_items))
        means_MZ = np.concatenate([means[row] for row in order])
        log_variances_MZ = np.concatenate([log_variances[row] for row in order])
        posteriors = Posteriors(means_MZ, log_variances_MZ, means_MZ.shape[1:])
        return Vectors(
            of_items=[of_items[row] for row in order],
            means_MZ=means_MZ,
            items_M=np.repeat(order, [len(means[row]) for row in order]),
            posteriors=posteriors if self.model.latents == "gaussian" else None,
        )

    @cached_property
    def codes(self) -> dict[str, CodeFile]:
        """The files of its codes that evaluation left, by split; those of an earlier codebook are no longer there."""
        files = {split: self.shown.run.codes_file(self.name, split) for split in ("validation", "test")}
        return {
            split: load_codes(path, expect_stage1_sha256=self.stage1.sha256)
            for split, path in files.items()
            if path.is_file()
        }

    def encode(self, split: str, rows: np.ndarray) -> list[Tensor]:
        """Latents of items, `[*A]` each, on the CPU."""
        found: dict[int, Tensor] = {}
        for places, batch in self._batches(split, rows):
            latents = self.model.latents_of(batch, seed=self.shown.seed).cpu()
            found |= dict(zip(places.tolist(), latents, strict=True))
        return [found[place] for place in range(len(rows))]

    @cached_property
    def latents(self) -> list[Tensor]:
        """Latents of the test items whose reconstructions are shown."""
        rows = self.shown.reconstructed
        if self.continuous:
            return [self.vectors.of_items[row] for row in rows]
        if "test" in self.codes:
            return list(torch.from_numpy(self.codes["test"].codes[rows]))
        return self.encode("test", rows)

    @cached_property
    def reconstructions(self) -> Items:
        """What the model itself makes of them."""
        return self.decode(stacked(self.latents), self.asked(self.shown.reconstructed))

    def decode(self, latents: Tensor, asked: Asked, *, by: Stage1Model | None = None) -> list[np.ndarray]:
        """Items of latents, batch by batch to bound the memory.

        Args:
            latents: `[N, *A]`.
            asked: what else there is to know of them.
            by: one of the `voices`; None for the model itself.
        """
        settings, model, items = self.shown.run.recipe.evaluation, by or self.model, list[np.ndarray]()
        size = settings.batch_size
        if asked.lengths is not None:
            size = max(1, settings.batch_samples // int(asked.lengths.max()))
        for start in range(0, len(latents), size):
            rows = slice(start, start + size)
            part = part_of(asked, rows)
            decoded = model.decode_batch(latents[rows].to(self.shown.device), part, seed=self.shown.seed)
            items += self.shown.pictures.made(decoded, part.lengths)
        return items

    def _batches(self, split: str, rows: np.ndarray | None = None) -> Any:
        recipe, items = self.shown.run.recipe, self.shown.dataset.split(split)
        return batches(items, self.model, recipe=recipe, device=self.shown.device, rows=rows)


@torch.no_grad()
def posterior_of(model: Any, batch: Batch) -> GaussianPosterior:
    """q(z|x) of a batch; of an autoencoder, whose latents have none, a point with a variance that means nothing."""
    if model.latents == "none":
        mean = model.latents_of(batch, seed=0)
        return GaussianPosterior(mean=mean, log_variance=torch.zeros_like(mean))
    given = (batch.x, model.labels_of(batch)) if batch.lengths is None else model.sounds_of(batch)
    found: GaussianPosterior = model.posterior(*given)
    return found


def _as_vectors(latents: Tensor, positions: int | None) -> np.ndarray:
    """Latents `[*A]` of an item as float64: `[1, Z]`, or `[T, Z]` of a sequence of that many positions."""
    vectors = latents.flatten()[None] if positions is None else latents[:, :positions].T
    as_numbers: np.ndarray = vectors.double().cpu().numpy()
    return as_numbers
