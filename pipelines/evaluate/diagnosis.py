"""What `evaluate` says of a model beyond its bits: what its latents hold, what codes cost, which stage limits it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO
from twostage.data import ImageDataset
from twostage.metrics.codebook_usage import CodebookUsage, codebook_usage, collapse_of
from twostage.metrics.statistics import evenly
from twostage.storage.codes import CodeFile
from twostage.training.record import UNDERTRAINED_DECREASE, training_decrease

from ..bits.distortion import drawn_codes
from ..modality.choose import modality_of
from ..runs.codes import extract_codes
from ..runs.loading import LoadedStage1
from ..runs.run import Run, is_finished
from .code_diagnosis import PriorDiagnosis, StageFacts, diagnose_prior, limiting_stage
from .differences import Scored
from .latent_diagnosis import COLLAPSED_BITS, Posteriors, collect_posteriors, diagnose_posteriors
from .rows import Diagnosis, Row

PRICED_ITEMS = 1000
"""Most items, spread over the split, and as many training items, whose codes are priced position by position."""


def posteriors_of(
    model: VAE, dataset: ImageDataset, split: str, *, device: torch.device, batch_size: int
) -> Posteriors:
    """q(z|x) of every item of a split, q(z|x, y) of a conditional model."""
    items = dataset.split(split)

    def posterior_of(rows: slice) -> Any:
        labels_B = torch.from_numpy(items.labels[rows]).to(device) if model.classes else None
        return model.posterior(torch.from_numpy(items.images[rows]).to(device), labels_B)

    return collect_posteriors(posterior_of, len(items), batch_size=batch_size)


def _used(usage: CodebookUsage) -> str:
    return (
        f"{usage.used} of {usage.codebook_size * len(usage.codebooks)} codes are used on these items, "
        f"with a perplexity of {usage.perplexity:.1f}."
    )


@dataclass(frozen=True, kw_only=True)
class Diagnosing:
    """What the diagnoses of one evaluation share."""

    run: Run
    dataset: ImageDataset
    split: str
    device: torch.device

    def diagnose(self, name: str, stage1: LoadedStage1, scored: Sequence[Scored]) -> Diagnosis | None:
        """What is right or wrong with a trained model; None where there is nothing to go by.

        Args:
            name: of the model.
            stage1: its first stage.
            scored: its rows of this evaluation.
        """
        model = stage1.model
        if isinstance(model, VQVAE):
            return self._two_stages(name, stage1, model, scored)
        if isinstance(model, VAE) and len(self.dataset.split(self.split)) > 1:
            found = diagnose_posteriors(
                posteriors_of(
                    model,
                    self.dataset,
                    self.split,
                    device=self.device,
                    batch_size=self.run.recipe.evaluation.batch_size,
                ),
                seed=self.run.recipe.seed,
            )
            # Of fewer than two active latents there is nothing to depend on one another.
            entangled = (found.entanglement,) if found.active_units > 1 else ()
            sentences = (found.sentence, *self._undertrained(name), *entangled)
            return Diagnosis(name, found.verdict, sentences, found.record())
        if isinstance(model, VIMCO):
            return self._drawn_codes(name, model, [s.row for s in scored])
        if isinstance(model, Autoencoder):
            guess = "It has no distribution over latents: what it draws is a guess at one."
            return Diagnosis(name, "no prior", (guess, *self._undertrained(name)), {})
        return None

    def _undertrained(self, name: str) -> tuple[str, ...]:
        """A sentence where a single training ended before it came to rest."""
        fall = training_decrease(self.run.stage1_folder(name))
        if fall is None or fall <= UNDERTRAINED_DECREASE:
            return ()
        return (
            f"It is undertrained: its validation number fell by {fall:.1%} over the last quarter of its steps; train "
            "it longer.",
        )

    def _drawn_codes(self, name: str, model: VIMCO, rows: Sequence[Row]) -> Diagnosis:
        """Of VIMCO: whether its codes are used, and whether they tell anything of an image."""
        items, recipe = self.dataset.split(self.split), self.run.recipe
        batches = modality_of(recipe).files.batches(items, model, recipe=recipe, device=self.device)
        codes = drawn_codes(model, batches, items=len(items), seed=recipe.seed)
        usage = codebook_usage(codes, codebook_size=model.codebook_size)
        collapse = collapse_of(usage)
        verdict, sentence = "in use", _used(usage)
        if collapse is not None:
            verdict = "codebook collapsed"
            sentence = f"The codebook has collapsed: {collapse}."
        elbo = next((row for row in rows if row.bound == "elbo"), None)
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

    def _two_stages(self, name: str, stage1: LoadedStage1, model: VQVAE, scored: Sequence[Scored]) -> Diagnosis:
        run = self.run
        files = extract_codes(run, name, stage1, self.dataset, self.device)
        usage = codebook_usage(files[self.split].codes, codebook_size=model.codebook_size)
        collapse = collapse_of(usage)
        of_codes = _used(usage)
        if not is_finished(run.prior_folder(name)):
            if collapse is not None:
                of_codes = f"The codebook has collapsed: {collapse}."
            sentences = (of_codes, *self._undertrained(name))
            return Diagnosis(name, "codebook collapsed" if collapse else "no prior", sentences, {})
        # None of a model trained on squared error, whose codes have a price all the same.
        of_all = next((s for s in scored if s.row.prior == "learned" and s.row.search_items is None), None)
        prior = self._priced(name, stage1, files, None if of_all is None else of_all.bits_by_position)
        learned = None if of_all is None else of_all.row
        rate = prior.bits_hw.sum() / model.dims if learned is None else learned.rate_bits_per_dim
        assert rate is not None
        verdict = limiting_stage(
            StageFacts(
                distortion_bits_per_dim=None if learned is None else learned.distortion_bits_per_dim,
                rate_bits_per_dim=float(rate),
                autoregressive=model.autoregressive,
                swapped_distortion_bits_per_dim=None if learned is None else learned.swapped_distortion_bits_per_dim,
                usage=usage,
                prior=prior,
                stage1_decrease=training_decrease(run.stage1_folder(name)),
                prior_decrease=training_decrease(run.prior_folder(name)),
            )
        )
        numbers = {
            **prior.record(),
            "dead_codes": usage.dead,
            "limiting_stage": None if verdict is None else verdict.stage,
        }
        if verdict is None:
            nothing = "Nothing is found wrong with either stage; without bits of distortion their shares are not known."
            return Diagnosis(name, "no bits", (nothing, of_codes, prior.sentence), numbers)
        return Diagnosis(name, verdict.cause, (verdict.sentence, of_codes, prior.sentence), numbers)

    def _priced(
        self, name: str, stage1: LoadedStage1, files: dict[str, CodeFile], bits_by_position: np.ndarray | None
    ) -> PriorDiagnosis:
        """`bits_by_position` of all items, where the scores have them already."""
        held_out, train = files[self.split].codes, files["train"]
        chosen = evenly(len(held_out), PRICED_ITEMS)
        return diagnose_prior(
            self.run.prior(name, stage1, self.device).model,
            held_out[chosen],
            train.codes,
            train.labels,
            device=self.device,
            batch_size=self.run.recipe.evaluation.batch_size,
            bits_by_position=None if bits_by_position is None else bits_by_position[chosen],
        )
