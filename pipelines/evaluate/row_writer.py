"""One row of `evaluate`, whatever its model and its data: bits of every item, and the fields that follow from them.

Shapes: N items of the split, M of them, G codebooks, T the axes of the codes.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_vqvae.interface import Stage1Model
from twostage.config.model_names import model_spec
from twostage.data.interface import Dataset
from twostage.distributed import world_size
from twostage.grids import Grids
from twostage.metrics.codebook_usage import codebook_usage
from twostage.metrics.statistics import mean_and_error

from ..bits.distortion import Batches, reconstruction_numbers
from ..modality.choose import modality_of
from ..modality.measures import Measures, Side
from ..runs.loading import Loaded, parameter_count
from ..runs.run import Run, training_cost
from .differences import Scored
from .rows import Row

Fields = dict[str, Any]
"""Of a row, by name."""
EXTREMES = 8
"""Best and worst reconstructions that a row names."""


@dataclass(frozen=True)
class Trained:
    """A part of a model, and where it was trained."""

    loaded: Loaded[Any]
    folder: Path

    @property
    def model(self) -> Any:
        return self.loaded.model


def costs_of(*parts: Trained) -> Fields:
    """Size and training of all parts together."""
    costs = [training_cost(part.folder) for part in parts]
    return {
        "parameters": sum(parameter_count(part.model) for part in parts),
        "steps": sum(cost.steps for cost in costs),
        "train_seconds": sum(cost.seconds for cost in costs),
    }


def usage_of(
    codes: np.ndarray, lengths_N: np.ndarray | None, codebook_size: int, *, grids: Grids | None = None
) -> Fields:
    """How codes `[N, G, *T]` use their codebooks; what lies behind the end of an item does not count."""
    usage = codebook_usage(codes, codebook_size=codebook_size, lengths_N=lengths_N, grids=grids)
    return {
        "codebook_perplexity": usage.perplexity,
        "codebook_used": usage.used,
        "codebook_size": usage.size,
    }


@dataclass(frozen=True)
class Rate:
    """One way of paying for the latents of every item; bits `[N]`."""

    prior: str
    bits_N: np.ndarray
    ends_N: np.ndarray | None = None
    """Of the number of positions; None where the prior does not say it."""
    conditional: bool = False
    """Whether the prior is conditioned on labels and speakers."""
    by_position: np.ndarray | None = None
    """As of `Scored`."""


@dataclass(frozen=True)
class RowWriter:
    """What the rows of one evaluation share."""

    run: Run
    dataset: Dataset
    split: str
    device: torch.device

    @cached_property
    def measures(self) -> Measures:
        """What there is to measure of the split."""
        return modality_of(self.run.recipe).measures(self.run.recipe, self.dataset, self.split)

    def batches(
        self, model: Stage1Model, rows_M: np.ndarray | None = None, *, copies: int = 1, drawn: bool = False
    ) -> Batches:
        """The items, or some of them by number from the least on, which are then numbered anew from 0.

        Args:
            model: that is given them.
            rows_M: the items; None: all.
            copies: of every item side by side, for which there must be room.
            drawn: whether they are drawn part by part: as many recordings as can be at once, which takes as long as
                one of them.
        """
        recipe, sizes_N = self.run.recipe, self.measures.sizes_N
        settings = replace(recipe.evaluation, batch_size=max(1, recipe.evaluation.batch_size // copies))
        if drawn and sizes_N is not None:
            sizes_M = sizes_N if rows_M is None else sizes_N[rows_M]
            settings = replace(settings, batch_samples=-(-len(sizes_M) // world_size()) * int(sizes_M.max()))
        files, data = modality_of(recipe).files, self.dataset.split(self.split)
        recipe = replace(recipe, evaluation=settings)
        for numbers_B, batch in files.batches(data, model, recipe=recipe, device=self.device, rows=rows_M):
            places_B = numbers_B if rows_M is None else np.searchsorted(rows_M, numbers_B)
            yield places_B, replace(batch, items=torch.from_numpy(places_B))

    def shared(self, name: str, stage1: Trained) -> Fields:
        """Fields of all rows of a model under its own decoder."""
        model: Stage1Model = stage1.model
        return {
            "model": name,
            "kind": model_spec(name, self.run.recipe).kind,
            "decoder": self.measures.decoder,
            "likelihood": stage1.loaded.record["architecture"]["likelihood"],
            "alphabet": model.levels,
            "beta": model.beta,
            "labels": "given" if model.classes else "none",
            "stage1_sha256": stage1.loaded.sha256,
            "distortion_given": self.measures.conditioned_on(label=model.classes > 0, speaker=model.speakers > 0),
        }

    def quality(
        self, model: Stage1Model, *, codes: np.ndarray | None = None, rows_M: np.ndarray | None = None
    ) -> Fields:
        """How near reconstructions come.

        Args:
            model: that reconstructs.
            codes: of the items; None: what the model says stands for them.
            rows_M: the items; None: all of the split, of which those are decoded that the kind of data says.
        """
        if rows_M is None:
            rows_M = self.measures.decoded_items(model)
            codes = None if codes is None else codes[rows_M]
        whole = len(rows_M) == len(self.dataset.split(self.split))
        numbers_RM = reconstruction_numbers(
            model,
            self.batches(model, None if whole else rows_M, drawn=model.autoregressive) if len(rows_M) else (),
            self.measures.compare,
            numbers=self.measures.numbers,
            items=len(rows_M),
            seed=self.run.recipe.seed,
            codes=codes,
        )
        nearest_M = rows_M[np.argsort(numbers_RM[0], kind="stable")]
        extremes = {
            "nearest_items": tuple(nearest_M[:EXTREMES].tolist()),
            "farthest_items": tuple(nearest_M[::-1][:EXTREMES].tolist()),
        }
        return extremes | self.measures.quality(numbers_RM, rows_M, model)

    def scored(
        self,
        model: Stage1Model,
        rate: Rate,
        distortion_N: np.ndarray | None,
        fields: Fields,
        *,
        partner: Scored | None = None,
    ) -> Scored:
        """A row with bits.

        Args:
            model: that decodes.
            rate: of the latents; where the bits do not split, all there are.
            distortion_N: bits of the items given their latents; None where the bits do not split.
            fields: of the row, beside those that follow from the bits.
            partner: see `Scored`.
        """
        conditional, sizes_N = rate.conditional, self.measures.sizes_N
        side = self.measures.side(label=conditional, speaker=conditional or model.speakers > 0, ends_N=rate.ends_N)
        code_N = rate.bits_N if side is None else rate.bits_N + side.length + side.labels
        total_N = code_N if distortion_N is None else code_N + distortion_N
        bits_per_dim, error = mean_and_error(self._comparable(total_N), sizes_N)
        seconds = self.measures.seconds if model.latents == "codes" else None
        own: Fields = {
            "prior": rate.prior,
            "bits_per_dim": bits_per_dim,
            "standard_error": error,
            "distortion_bits_per_dim": self.mean(distortion_N),
            "rate_bits_per_dim": None if distortion_N is None else self.mean(rate.bits_N),
            "length_bits_per_dim": None if side is None else self.mean(side.length),
            "label_bits_per_dim": None if side is None else self.mean(side.labels),
            "labels": "given" if model.classes else _labels(side, conditional=conditional),
            "code_bits_per_second": None if seconds is None else float(code_N.sum() / seconds),
            "rate_given": self.measures.conditioned_on(label=conditional, speaker=conditional),
        }
        row = Row(**{**fields, **own})
        return Scored(
            row,
            self._comparable(total_N),
            sizes_N,
            bits_by_position=rate.by_position,
            distortion_N=None if distortion_N is None else self._comparable(distortion_N),
            rate_N=None if distortion_N is None else self._comparable(rate.bits_N),
            partner=partner,
        )

    def mean(self, bits_N: np.ndarray | None) -> float | None:
        """Bits/dim of all items; None of none."""
        return None if bits_N is None else mean_and_error(self._comparable(bits_N), self.measures.sizes_N)[0]

    def _comparable(self, bits_N: np.ndarray) -> np.ndarray:
        """Bits as `Scored` holds them."""
        return bits_N / self.measures.dims if self.measures.sizes_N is None else bits_N


def _labels(side: Side | None, *, conditional: bool) -> str:
    """Who pays for labels, of a model that is not given them."""
    if side is None:
        return "marginalised" if conditional else "none"
    return "paid" if side.labels.any() else "none"
