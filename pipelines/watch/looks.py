"""What is looked at in a model that is being trained: the same items, under the same noise, at every validation.

Stage one and a second decoder are shown fixed validation items; a prior draws samples with fixed noise, which are to be
what a few training items are (label, speaker, length), through the decoder of stage one. Nothing crosses between
processes here: the first of them looks alone.

Shapes: N items, B items of a batch, G codebooks, T the axes of the codes of an item, P positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from stage1_vqvae.batch import Asked, Batch
from stage2_prior import sample
from twostage.config.schema import Recipe
from twostage.data.interface import Dataset
from twostage.metrics.statistics import evenly

from ..modality.choose import modality_of
from ..modality.files import Files
from ..modality.pictures import Items

SEED = 0
"""Of samples, and of decoders that draw."""
COUNTED = 64
"""Validation items whose codes are counted."""


class Look(Protocol):
    """Something to look at again and again."""

    originals: Items | None
    """What the items are shown beside; None of samples."""

    def items(self) -> Items:
        """What the model makes now."""


@dataclass(frozen=True)
class Stand:
    """What every look needs of a training."""

    recipe: Recipe
    dataset: Dataset
    device: torch.device

    @property
    def files(self) -> Files:
        return modality_of(self.recipe).files

    def batch(self, split: Any, model: Any) -> tuple[np.ndarray, Batch]:
        """All items of a small split in one batch: their numbers in its order, int64 `[B]`, and the items."""
        # So large that there is no second batch, which would be another process's.
        evaluation = replace(self.recipe.evaluation, batch_size=len(split), batch_samples=1 << 40)
        recipe = replace(self.recipe, evaluation=evaluation)
        (found,) = self.files.batches(split, model, recipe=recipe, device=self.device)
        return found


class Reconstructions:
    """Validation items, and what a model makes of them."""

    def __init__(self, stand: Stand, model: Any) -> None:
        pictures = modality_of(stand.recipe).pictures(stand.recipe, stand.dataset)
        split = pictures.watched(stand.dataset.validation, drawn=model.autoregressive)
        items_B, self._batch = stand.batch(split, model)
        self.originals: Items | None = pictures.items(split, items_B)
        self._model, self._files = model, stand.files

    def items(self) -> Items:
        latents = self._model.latents_of(self._batch, seed=SEED)
        decoded = self._model.decode_batch(latents, self._batch, seed=SEED)
        return self._files.made(decoded, self._batch.lengths)


class Samples:
    """New items of a prior, through the decoder of a codebook."""

    originals: Items | None = None

    def __init__(self, stand: Stand, prior: Any, codebook: Any) -> None:
        dataset = stand.dataset
        pictures = modality_of(stand.recipe).pictures(stand.recipe, dataset)
        split = pictures.watched(dataset.train, drawn=codebook.autoregressive)
        self._prior, self._codebook, self._files, self._device = prior, codebook, stand.files, stand.device
        told = ((dataset.classes, split.labels), (dataset.speakers, split.speakers))
        columns = [torch.from_numpy(numbers_N) for names, numbers_N in told if names]
        self._condition = torch.stack(columns, 1).to(stand.device) if prior.classes and columns else None
        lengths_N = stand.files.lengths_of(split)
        lengths = None if lengths_N is None else torch.from_numpy(lengths_N).to(stand.device)
        speakers = torch.from_numpy(split.speakers).to(stand.device) if codebook.speakers else None
        self._asked = Asked(items=torch.arange(len(split)), lengths=lengths, speakers=speakers)

    def items(self) -> Items:
        asked, length = self._asked, None
        if asked.lengths is not None:
            length = int(self._codebook.positions_of(asked).max())
        drawn = sample(
            self._prior,
            count=len(asked.items),
            condition=self._condition,
            length=length,
            seed=SEED,
            device=self._device,
        )
        if drawn.lengths is not None:
            asked = replace(asked, lengths=self._files.length_after(drawn.lengths, self._codebook))
        decoded = self._codebook.decode_batch(drawn.codes, asked, seed=SEED)
        return self._files.made(decoded, asked.lengths)


class Codes:
    """The codes of validation items, by codebook."""

    def __init__(self, stand: Stand, model: Any) -> None:
        validation = stand.dataset.validation
        split = validation.take(evenly(len(validation), COUNTED))
        self._model, (_, self._batch) = model, stand.batch(split, model)
        self.codebook_size: int = model.codebook_size

    def by_codebook(self) -> Sequence[np.ndarray]:
        """Codes of all items and positions, `[M]` of each codebook."""
        codes_BGP = self._model.latents_of(self._batch, seed=SEED).flatten(2).cpu()
        ends_B = self._model.positions_of(self._batch).tolist()
        real = torch.cat([codes_GP[:, :end] for codes_GP, end in zip(codes_BGP, ends_B, strict=True)], 1)
        return list(real.numpy())
