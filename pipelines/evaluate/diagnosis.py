"""What `evaluate` says of a model beyond its bits: what its latents hold, what codes cost, which stage limits it.

A model says what kind of latents it has (`Stage1Model.latents`), and each kind is diagnosed in one way, whatever the
data are.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from twostage.metrics.codebook_usage import CodebookUsage, codebook_usage, collapse_of
from twostage.metrics.statistics import evenly
from twostage.storage.codes import CodeFile
from twostage.training.record import training_decrease

from ..bits.distortion import drawn_codes
from ..modality.choose import modality_of
from ..modality.files import Files
from ..runs.codes import extract_codes
from ..runs.loading import Loaded
from ..runs.run import Run, is_finished
from .code_diagnosis import PriorDiagnosis, diagnose_prior, items_of
from .differences import Scored
from .latent_diagnosis import COLLAPSED_BITS, diagnose_posteriors
from .posteriors import posteriors_of_split
from .row_writer import RowWriter
from .rows import Diagnosis
from .verdict import StageFacts, limiting_stage, undertrained_reason

PRICED_ITEMS = 1000
"""Most items, spread over the split, and as many training items, whose codes are priced position by position."""


@dataclass(frozen=True)
class Diagnosing:
    """Diagnoses of the models whose rows are written."""

    writer: RowWriter

    @property
    def run(self) -> Run:
        return self.writer.run

    def diagnose(self, name: str, stage1: Loaded[Any], scored: Sequence[Scored]) -> Diagnosis | None:
        """What is right or wrong with a trained model; None where there is nothing to go by.

        Args:
            name: of the model.
            stage1: its first stage.
            scored: its rows of this evaluation.
        """
        kinds = {"codes": self._codes, "gaussian": self._gaussian, "table": self._table, "none": self._none}
        found = kinds[stage1.model.latents](name, stage1, scored)
        faults = self.writer.measures.faults(asdict(scored[0].row)) if scored else ()
        if not faults:
            return found
        found = found or Diagnosis(name, faults[0].name, (), {})
        sentences = (*found.sentences, *(f"{fault.sentence}." for fault in faults))
        return replace(found, sentences=sentences, faults=tuple(fault.name for fault in faults))

    @property
    def _items(self) -> int:
        return len(self.writer.dataset.split(self.writer.split))

    @property
    def _files(self) -> Files:
        """What the data and their bits are called."""
        return modality_of(self.run.recipe).files

    def _undertrained(self, name: str) -> tuple[str, ...]:
        """A sentence where a single training ended before it came to rest."""
        reason = undertrained_reason(training_decrease(self.run.stage1_folder(name)))
        return () if reason is None else (f"It is undertrained: {reason}.",)

    def _used(self, usage: CodebookUsage) -> str:
        by_level = [
            f" In {single.name} {single.used} of {usage.codebook_size}, with {single.perplexity:.1f}."
            for single in (usage.codebooks if usage.levels else ())
        ]
        return (
            f"{usage.used} of {usage.size} codes are used on these {self._files.source}s, with a perplexity of "
            f"{usage.perplexity:.1f}." + "".join(by_level)
        )

    def _gaussian(self, name: str, stage1: Loaded[Any], scored: Sequence[Scored]) -> Diagnosis | None:
        """What the latents hold, and whether the decoder does without them."""
        batches = self.writer.batches(stage1.model)
        posteriors = posteriors_of_split(self.run, name, stage1, self.writer.split, batches, items=self._items)
        if len(posteriors) < 2:
            return None
        found = diagnose_posteriors(posteriors, seed=self.run.recipe.seed)
        # Of fewer than two active latents there is nothing to depend on one another.
        entangled = (found.entanglement,) if found.active_units > 1 else ()
        sentences = (found.sentence, *self._undertrained(name), *entangled)
        return Diagnosis(name, found.verdict, sentences, found.record())

    def _none(self, name: str, stage1: Loaded[Any], scored: Sequence[Scored]) -> Diagnosis:
        guess = "It has no distribution over latents: what it draws is a guess at one."
        return Diagnosis(name, "no prior", (guess, *self._undertrained(name)), {})

    def _table(self, name: str, stage1: Loaded[Any], scored: Sequence[Scored]) -> Diagnosis:
        """Whether its codes are used, and whether they tell anything of an item."""
        model, seed = stage1.model, self.run.recipe.seed
        codes = drawn_codes(model, self.writer.batches(model), items=self._items, seed=seed)
        usage = codebook_usage(codes, codebook_size=model.codebook_size)
        collapse = collapse_of(usage)
        verdict, sentence = "in use", self._used(usage)
        if collapse is not None:
            verdict, sentence = "codebook collapsed", f"The codebook has collapsed: {collapse}."
        elbo = next((s.row for s in scored if s.row.bound == "elbo"), None)
        if elbo is None or elbo.rate_bits_per_dim is None:
            return Diagnosis(name, verdict, (sentence, *self._undertrained(name)), {"dead_codes": usage.dead})
        rate_bits = elbo.rate_bits_per_dim * model.dims
        told = f"The rate is {rate_bits:.2f} bits an item."
        if rate_bits < COLLAPSED_BITS:
            verdict = "collapsed"
            told = f"The posterior is collapsed: the rate is {rate_bits:.2f} bits an item."
        ordered = (told, sentence) if verdict == "collapsed" else (sentence, told)
        sentences = (*ordered, *self._undertrained(name))
        return Diagnosis(name, verdict, sentences, {"dead_codes": usage.dead, "rate_bits": rate_bits})

    def _codes(self, name: str, stage1: Loaded[Any], scored: Sequence[Scored]) -> Diagnosis:
        """Whether the codes are used, what they cost, and which stage limits the result."""
        run, model = self.run, stage1.model
        files = extract_codes(run, name, stage1, self.writer.dataset, self.writer.device)
        file = files[self.writer.split]
        usage = codebook_usage(
            file.codes, codebook_size=model.codebook_size, lengths_N=file.lengths, grids=file.header.grids
        )
        collapse, of_codes = collapse_of(usage), self._used(usage)
        if not is_finished(run.prior_folder(name)):
            if collapse is not None:
                of_codes = f"The codebook has collapsed: {collapse}."
            sentences = (of_codes, *self._undertrained(name))
            return Diagnosis(name, "codebook collapsed" if collapse else "no prior", sentences, {})
        # A decoder that was trained on the codes has the last word. No row of a model trained on squared error, whose
        # codes cost bits all the same.
        learned = [s for s in scored if s.row.prior == "learned" and s.row.search_items is None]
        last = max(learned, key=lambda s: s.row.decoder_sha256 is not None, default=None)
        prior = self._priced(name, stage1, files, None if last is None else last.bits_by_position)
        facts = self._facts(name, model, last, usage, prior)
        verdict = limiting_stage(facts)
        numbers = {
            **prior.record(),
            "dead_codes": usage.dead,
            "limiting_stage": None if verdict is None else verdict.stage,
        }
        given = "" if last is None or last.row.rate_given in (None, "nothing") else last.row.rate_given
        costs = prior.sentence(self._files.source, given=given)
        if verdict is None:
            nothing = "Nothing is found wrong with either stage; without bits of distortion their shares are not known."
            return Diagnosis(name, "no bits", (nothing, of_codes, costs), numbers)
        # A collapse says how many codes are used by itself.
        used = () if verdict.cause == "codebook collapsed" else (of_codes,)
        return Diagnosis(name, verdict.cause, (verdict.sentence, *used, costs), numbers)

    def _facts(
        self, name: str, model: Any, last: Scored | None, usage: CodebookUsage, prior: PriorDiagnosis
    ) -> StageFacts:
        """What the verdict is read from; `last` is the row that it is about."""
        run, row = self.run, None if last is None else last.row
        second = row is not None and row.decoder_sha256 is not None
        return StageFacts(
            distortion_bits_per_dim=None if row is None else row.distortion_bits_per_dim,
            rate_bits_per_dim=None if row is None else row.rate_bits_per_dim,
            autoregressive=second or model.autoregressive,
            swapped_distortion_bits_per_dim=None if row is None else row.swapped_distortion_bits_per_dim,
            usage=usage,
            prior=prior,
            stage1_decrease=training_decrease(run.stage1_folder(name)),
            prior_decrease=training_decrease(run.prior_folder(name)),
            second_decoder=second,
            decoder_decrease=training_decrease(run.decoder_folder(name)) if second else None,
            unit=self._files.unit,
            item=self._files.source,
        )

    def _priced(
        self, name: str, stage1: Loaded[Any], files: dict[str, CodeFile], bits_by_position: np.ndarray | None
    ) -> PriorDiagnosis:
        """`bits_by_position` of all items, where the scores have them already."""
        held_out = files[self.writer.split]
        chosen = evenly(len(held_out.codes), PRICED_ITEMS)
        return diagnose_prior(
            self.run.prior(name, stage1, self.writer.device).model,
            items_of(held_out, chosen),
            files["train"],
            self.writer.measures.condition,
            device=self.writer.device,
            batch_size=self.run.recipe.evaluation.batch_size,
            bits_by_position=None if bits_by_position is None else bits_by_position[chosen],
        )
