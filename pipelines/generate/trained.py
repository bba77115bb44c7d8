"""A trained model of a run with all that belongs to it, in arrays: what goes in, what its decoders make of latents.

Shapes: N items, G codebooks, T the axes of the codes of an item, A of its latents.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Asked
from twostage.config.quantiser import QUANTISERS
from twostage.errors import UsageError
from twostage.progress import Progress

from ..modality.choose import modality_of
from ..modality.encoding import encode_split
from ..modality.files import Files
from ..modality.interface import Modality
from ..runs.loading import Loaded
from ..runs.run import Run
from .asked import speakers_known


@dataclass(frozen=True)
class Trained:
    """A trained model, with its prior and its second decoder if they are trained: each is loaded when first needed."""

    run: Run
    name: str
    """Of the model within the run."""
    stage1: Loaded[Any]
    device: torch.device

    @property
    def model(self) -> Any:
        """Stage one."""
        return self.stage1.model

    @property
    def record(self) -> dict[str, Any]:
        """Of the training of stage one."""
        return self.stage1.record

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, by number."""
        return tuple(self.record["classes"])

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers, by number, held-out ones included."""
        return speakers_known(self.record)

    @cached_property
    def modality(self) -> Modality:
        """The kind of data."""
        return modality_of(self.run.recipe)

    @property
    def files(self) -> Files:
        """How its items come and go."""
        return self.modality.files

    @cached_property
    def prior(self) -> Loaded[Any]:
        """The trained prior.

        Raises:
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        return self.run.prior(self.name, self.stage1, self.device)

    @cached_property
    def _second(self) -> Any:
        return self.run.decoder(self.name, self.stage1, self.device).model

    def with_decoder(self, decoder: str, progress: Callable[[int, int], None] | None = None) -> Any:
        """The model with the decoder of that name; `progress` is that of a second decoder.

        Raises:
            UsageError: there is no such decoder.
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        own, *others = self.modality.decoders
        if decoder == own:
            return self.model
        if decoder not in others:
            raise UsageError(f"expected the decoder {' or '.join([own, *others])}, got {decoder!r}")
        if self.model.latents != "codes":
            raise UsageError(f"model {self.name} has no codes for a {decoder} decoder, but its own decoder only")
        return self.modality.with_decoder(self.model, self._second, progress)

    def check_levels(self, levels: int | None) -> None:
        """Raise UsageError where the codes of this model do not have so many levels; None asks for all there are."""
        if levels is None:
            return
        kind = self.run.recipe.quantiser.kind
        if self.model.latents != "codes" or not QUANTISERS[kind].levels:
            what = f"quantiser.kind {kind}" if self.model.latents == "codes" else "no codes"
            raise UsageError(
                f"levels {levels} decodes the first levels of codes alone, but model {self.name} with {what} has no "
                "levels: leave it out"
            )
        if not 1 <= levels <= self.model.codebooks:
            raise UsageError(
                f"expected levels from 1 to {self.model.codebooks}, as many as model {self.name} has, got {levels}"
            )

    def asked(self, count: int, labels: Sequence[int], speakers: Sequence[int], lengths: Tensor | None = None) -> Asked:
        """What a decoder is given of items, on the device; no labels or speakers: there are none."""
        labels_N, speakers_N = (torch.tensor(each, device=self.device) if each else None for each in (labels, speakers))
        return Asked(items=torch.arange(count), lengths=lengths, labels=labels_N, speakers=speakers_N)

    @torch.no_grad()
    def decoded(self, latents: Tensor, asked: Asked, *, decoder: str, seed: int) -> list[np.ndarray]:
        """Items of latents `[N, *A]`, some at a time to bound the memory; item i of a draw depends on (seed, i)."""
        items: list[np.ndarray] = []
        self.with_decoder(decoder)  # refuses what there is not
        count, together = len(latents), self.files.together(self.run.recipe)
        with Progress(self.modality.decoders[decoder], total=count, unit=self.files.item) as bar:

            def advance(before: int, size: int, done: int, of: int) -> None:
                bar.advance(before + done * size // of - bar.done)

            for start in range(0, count, together):
                part = _rows(asked, slice(start, start + together))
                size = len(part.items)
                model = self.with_decoder(decoder, partial(advance, start, size))
                decoded = model.decode_batch(latents[start : start + size], part, seed=seed)
                items += self.files.made(decoded, part.lengths)
                advance(start, size, 1, 1)
        return items

    def decoded_codes(
        self,
        codes_NGT: np.ndarray,
        lengths_N: np.ndarray | None,
        speakers: Sequence[int],
        *,
        decoder: str,
        seed: int,
        levels: int | None = None,
    ) -> list[np.ndarray]:
        """Items of codes; of items that have lengths, all as long as the codes where none are given.

        Raises:
            UsageError: the model has no codes, or not so many levels.
        """
        if self.model.latents != "codes":
            raise UsageError(f"model {self.name} has no codebook and so no codes to decode; choose a vq-vae")
        self.check_levels(levels)
        codes = torch.from_numpy(codes_NGT[:, :levels]).to(self.device)
        count = len(codes)
        lengths = None if lengths_N is None else torch.from_numpy(lengths_N).to(self.device)
        if lengths is None and self.files.have_lengths:
            lengths = self.files.length_after(torch.full((count,), codes.shape[-1], device=self.device), self.model)
        return self.decoded(codes, self.asked(count, (), speakers, lengths), decoder=decoder, seed=seed)

    @torch.no_grad()
    def passed(self, split: Any, *, decoder: str, seed: int, levels: int | None = None) -> list[np.ndarray]:
        """What comes of the items of a split, with their labels, in the voices of its speakers.

        Raises:
            UsageError: the codes of the model do not have so many levels.
        """
        self.check_levels(levels)
        recipe, model = self.run.recipe, self.with_decoder(decoder)
        if model.latents == "codes":
            codes, _ = encode_split(self.files, self.model, split, label="codes", recipe=recipe, device=self.device)
            speakers = split.speakers.tolist() if model.speakers else ()
            lengths_N = self.files.lengths_of(split)
            return self.decoded_codes(codes, lengths_N, speakers, decoder=decoder, seed=seed, levels=levels)
        items: dict[int, np.ndarray] = {}
        for items_B, batch in self.files.batches(split, model, recipe=recipe, device=self.device):
            decoded = model.decode_batch(model.latents_of(batch, seed=seed), batch, seed=seed)
            items |= zip(items_B.tolist(), self.files.made(decoded, batch.lengths), strict=True)
        return [items[item] for item in range(len(split))]

    @torch.no_grad()
    def bits(
        self, split: Any, *, decoder: str, samples: int, seed: int, levels: int | None = None
    ) -> np.ndarray | None:
        """Bits per dimension of every item, float64 `[N]`: minus the ELBO from `samples` draws, or, of codes, the
        distortion given them, or their first levels; None of a model without bits."""
        model = self.with_decoder(decoder)
        if model.latents == "none" or not model.likelihood_is_discrete:
            return None
        bits_N = np.zeros(len(split))
        for items_B, batch in self.files.batches(split, model, recipe=self.run.recipe, device=self.device):
            if levels is None:
                score = model.score(batch, samples=samples, seed=seed)
                nats_B = score.distortion if score.rate is None else score.distortion + score.rate
            else:
                codes_BGT = model.latents_of(batch, seed=seed)[:, :levels]
                nats_B = -model.log_prob_batch(batch, codes_BGT)
            bits_N[items_B] = (nats_B.double().cpu() / model.dims_of(batch).cpu()).numpy() / math.log(2)
        return bits_N


def _rows(asked: Asked, rows: slice) -> Asked:
    lengths, labels, speakers = (
        None if each is None else each[rows] for each in (asked.lengths, asked.labels, asked.speakers)
    )
    return replace(asked, items=asked.items[rows], lengths=lengths, labels=labels, speakers=speakers)
