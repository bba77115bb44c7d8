"""Rows of `evaluate`: every way of scoring one trained model, with the bits of every item behind each.

A model of codes has a row for each of its decoders under each prior: uniform (log2 K a code), unigram (smoothed
frequencies of the training codes) and learned. A model with a distribution over its latents has two bounds, and one
without has the quality of its reconstructions alone. What differs between kinds of data, `Measures` say.

Shapes: N items of the split, M of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stage1_vqvae.interface import Codec, Stage1Model
from stage2_prior import Prior
from twostage.metrics.statistics import evenly
from twostage.progress import following, say
from twostage.storage.codes import CodeFile

from ..bits.code_search import search_codes
from ..bits.distortion import bound_bits, distortion_bits, drawn_codes, swapped_codes
from ..bits.rate import label_frequencies, learned_rate, uniform_bits, unigram_bits
from ..modality.choose import modality_of
from ..modality.interface import second_decoder
from ..runs.codes import extract_codes
from ..runs.loading import Loaded
from ..runs.run import is_finished
from .differences import Scored
from .row_writer import Fields, Rate, RowWriter, Trained, costs_of, usage_of
from .rows import Row


def score_model(writer: RowWriter, name: str, stage1: Loaded[Any]) -> Iterator[Scored]:
    """All rows of a trained model."""
    trained = Trained(stage1, writer.run.stage1_folder(name))
    if stage1.model.latents == "codes":
        files = extract_codes(writer.run, name, stage1, writer.dataset, writer.device)
        return CodeRows(writer, name, trained, files).rows()
    return _without_codes(writer, name, trained)


def _without_codes(writer: RowWriter, name: str, stage1: Trained) -> Iterator[Scored]:
    """ELBO and the tighter bound of several samples; a single row without bits of a model that has none."""
    model: Stage1Model = stage1.model
    seed, samples = writer.run.recipe.seed, writer.run.recipe.evaluation.iwae_samples
    items = len(writer.dataset.split(writer.split))
    fields = {**writer.shared(name, stage1), **writer.quality(model), **costs_of(stage1)}
    if model.latents == "table":
        codes = drawn_codes(stage1.model, writer.batches(model), items=items, seed=seed)
        fields |= usage_of(codes, None, stage1.model.codebook_size)
    prior = {"gaussian": "gaussian", "table": "learned"}.get(model.latents)
    if prior is None or not model.likelihood_is_discrete:
        yield Scored(row=Row(**fields, prior=prior), bits_N=None)
        return
    bits = bound_bits(model, writer.batches(model), items=items, samples=samples, seed=seed)
    fields["samples_k"] = samples
    yield writer.scored(model, Rate(prior, bits.rate), bits.distortion, {**fields, "bound": "elbo"})
    tighter = "iwae" if model.latents == "gaussian" else "multi-sample"
    yield writer.scored(model, Rate(prior, bits.tighter), None, {**fields, "bound": tighter})


@dataclass(frozen=True)
class Part:
    """A decoder or a prior of codes, and what it takes beside the other."""

    trained: tuple[Trained, ...]
    fields: Fields
    """Of its rows."""


@dataclass(frozen=True)
class CodeRows:
    """Rows of one model of codes."""

    writer: RowWriter
    name: str
    stage1: Trained
    files: Mapping[str, CodeFile]

    @property
    def file(self) -> CodeFile:
        """Codes of the split."""
        return self.files[self.writer.split]

    def rows(self) -> Iterator[Scored]:
        """A row for every decoder and prior, and two of searched codes where they are asked for."""
        model = self.stage1.model
        rates = self._rates() if model.likelihood_is_discrete else []
        for codec, decoder in self._decoders():
            distortion_N, measured = self._decoded(codec, self.file.codes)
            shared = {**decoder.fields, **measured, "codebook_update": model.update_rule}
            if distortion_N is None:
                yield Scored(row=Row(**shared, **costs_of(*decoder.trained)), bits_N=None)
                continue
            for rate, prior in rates:
                fields = {**shared, **prior.fields, **costs_of(*decoder.trained, *prior.trained), "bound": "two-part"}
                yield self.writer.scored(codec, rate, distortion_N, fields)
                if rate.prior == "learned" and self.writer.run.recipe.evaluation.search_items:
                    yield from self._searched(rate, distortion_N, prior.trained[0].model, fields)

    def _decoders(self) -> list[tuple[Codec, Part]]:
        """The codebook with its own decoder, and with a second one that is finished."""
        run, shared = self.writer.run, self.writer.shared(self.name, self.stage1)
        found: list[tuple[Codec, Part]] = [(self.stage1.model, Part((self.stage1,), shared))]
        folder = run.decoder_folder(self.name)
        if is_finished(folder):
            second = run.decoder(self.name, self.stage1.loaded, self.writer.device)
            progress = following("drawn reconstructions", unit="sample")
            modality = modality_of(run.recipe)
            codec = modality.with_decoder(self.stage1.model, second.model, progress)
            name, _ = second_decoder(modality)
            own = {
                "decoder": name,
                # One without bits has none of its own.
                "likelihood": second.record["architecture"].get("likelihood", shared["likelihood"]),
                "alphabet": codec.levels,
                "decoder_sha256": second.sha256,
            }
            found.append((codec, Part((self.stage1, Trained(second, folder)), {**shared, **own})))
        return found

    def _decoded(
        self, codec: Codec, codes: np.ndarray, rows_M: np.ndarray | None = None
    ) -> tuple[np.ndarray | None, Fields]:
        """Bits `[M]` of items given their codes, all of the split unless `rows_M` says which; and fields of rows.

        None in the place of bits of a decoder without any.
        """
        lengths_N, writer = self.file.lengths, self.writer
        fields = usage_of(codes, lengths_N, codec.codebook_size, grids=self.file.header.grids)
        fields |= writer.quality(codec, codes=codes, rows_M=rows_M)
        if not codec.likelihood_is_discrete:
            return None, fields
        label = f"{self.name} distortion" + (", second decoder" if codec is not self.stage1.model else "")
        batches, swapped = writer.batches(codec, rows_M), swapped_codes(codes, lengths_N)
        own_M, swapped_M = distortion_bits(codec, batches, codes, swapped, label=label)
        if len(codes) > 1:
            fields["swapped_distortion_bits_per_dim"] = writer.mean(swapped_M)
        return own_M, fields

    def _rates(self) -> list[tuple[Rate, Part]]:
        """Under the uniform, the unigram and, where it is finished, the learned prior."""
        run, file, train, model = self.writer.run, self.file, self.files["train"], self.stage1.model
        uniform_N = uniform_bits(file.codes, model.codebook_size, file.lengths)
        unigram_N = unigram_bits(
            file.codes, train.codes, model.codebook_size, file.lengths, train.lengths, grids=file.header.grids
        )
        found = [self._paid(Rate("uniform", uniform_N)), self._paid(Rate("unigram", unigram_N))]
        folder = run.prior_folder(self.name)
        if not is_finished(folder):
            say(f"{self.name} has no finished prior; run train-prior {run.path} --model {self.name} for its row")
            return found
        prior = run.prior(self.name, self.stage1.loaded, self.writer.device)
        rate = self._learned(prior.model, file.codes, by_position=True)
        return [*found, self._paid(rate, Trained(prior, folder), prior_sha256=prior.sha256)]

    def _learned(self, prior: Prior, codes: np.ndarray, *, by_position: bool = False) -> Rate:
        """The rate of codes of the split, all or some of a grid, under a prior."""
        writer, condition = self.writer, self.writer.measures.condition(self.file) if prior.classes else None
        rate = learned_rate(
            prior,
            codes,
            self.file.lengths,
            condition=condition,
            frequencies=label_frequencies(prior, self.files["train"].labels) if condition is None else None,
            by_position=by_position,
            device=writer.device,
            batch_size=writer.run.recipe.evaluation.batch_size,
        )
        ends_N = rate.end_bits if prior.has_end else None
        return Rate("learned", rate.bits, ends_N, bool(prior.classes), rate.by_position)

    def _paid(self, rate: Rate, *trained: Trained, **fields: Any) -> tuple[Rate, Part]:
        """A rate with what its prior takes, and its fields of a row."""
        lengths_N = self.file.lengths
        if lengths_N is not None:  # of grids it says no more than the rate
            fields["bits_per_code"] = float(rate.bits_N.sum() / (lengths_N.sum() * self.file.codes.shape[1]))
        return rate, Part(trained, fields)

    def _searched(self, rate: Rate, distortion_N: np.ndarray, prior: Any, fields: Fields) -> Iterator[Scored]:
        """Some items once more: with the encoder's codes, and with codes searched for fewer bits."""
        writer, model, settings = self.writer, self.stage1.model, self.writer.run.recipe.evaluation
        rows_M = evenly(len(self.file.codes), settings.search_items)
        own = self.file.codes[rows_M]
        fields = {**fields, "search_items": len(rows_M)}
        before = replace(rate, bits_N=rate.bits_N[rows_M], by_position=None)
        measured = self._decoded(model, own, rows_M)[1]
        partner = writer.scored(model, before, distortion_N[rows_M], fields | measured)
        yield partner
        found = search_codes(
            model,
            prior,
            writer.batches(model, rows_M, copies=settings.search_candidates - 1),
            items=len(rows_M),
            train_labels=self.files["train"].labels,
            candidates=settings.search_candidates,
            sweeps=settings.search_sweeps,
        )
        distortion_M, measured = self._decoded(model, found, rows_M)
        fields = {**fields, **measured, "searched": True}
        yield writer.scored(model, self._learned(prior, found), distortion_M, fields, partner=partner)
