"""What `evaluate` says of a model beyond its bits: what its latents hold, what codes cost, which stage limits it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.autoencoder import Autoencoder
from twostage.codebook_usage import codebook_usage, collapse_of
from twostage.codes import CodeFile
from twostage.data import ImageDataset
from twostage.metrics import read_metrics, validation_fall

from .code_diagnosis import PriorDiagnosis, StageFacts, diagnose_prior, limiting_stage
from .extract import extract_codes
from .models import LoadedStage1
from .posterior import Posteriors, collect_posteriors, diagnose_posteriors
from .results import Diagnosis, Row
from .run import Run, is_finished
from .sample_quality import evenly

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


@dataclass(frozen=True, kw_only=True)
class Diagnosing:
    """What the diagnoses of one evaluation share."""

    run: Run
    dataset: ImageDataset
    split: str
    device: torch.device

    def diagnose(self, name: str, stage1: LoadedStage1, rows: Sequence[Row]) -> Diagnosis | None:
        """What is right or wrong with a trained model; None where there is nothing to go by.

        Args:
            name: of the model.
            stage1: its first stage.
            rows: its rows of this evaluation.
        """
        model = stage1.model
        if isinstance(model, VQVAE):
            return self._two_stages(name, stage1, model, rows)
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
            return Diagnosis(name, found.verdict, (found.sentence, found.entanglement), found.record())
        if isinstance(model, Autoencoder):
            return Diagnosis(
                name, "no prior", ("It has no distribution over latents: what it draws is a guess at one.",), {}
            )
        return None

    def _two_stages(self, name: str, stage1: LoadedStage1, model: VQVAE, rows: Sequence[Row]) -> Diagnosis:
        run, batch_size = self.run, self.run.recipe.evaluation.batch_size
        files = extract_codes(run, name, stage1, self.dataset, self.device, batch_size=batch_size)
        usage = codebook_usage(files[self.split].codes, codebook_size=model.codebook_size)
        collapse = collapse_of(usage)
        of_codes = (
            f"{usage.used} of {usage.codebook_size * len(usage.codebooks)} codes are used on these items, "
            f"with a perplexity of {usage.perplexity:.1f}."
        )
        learned = next((r for r in rows if r.prior == "learned" and r.search_items is None), None)
        if learned is None or not is_finished(run.prior_folder(name)):
            return Diagnosis(name, "codebook collapsed" if collapse else "no prior", (of_codes,), {})
        prior = self._priced(name, stage1, files)
        assert learned.distortion_bits_per_dim is not None
        assert learned.rate_bits_per_dim is not None
        verdict = limiting_stage(
            StageFacts(
                distortion_bits_per_dim=learned.distortion_bits_per_dim,
                rate_bits_per_dim=learned.rate_bits_per_dim,
                swapped_distortion_bits_per_dim=learned.swapped_distortion_bits_per_dim,
                usage=usage,
                prior=prior,
                stage1_fall=validation_fall(read_metrics(run.stage1_folder(name) / "metrics.jsonl")),
                prior_fall=validation_fall(read_metrics(run.prior_folder(name) / "metrics.jsonl")),
            )
        )
        numbers = {**prior.record(), "dead_codes": usage.dead, "limiting_stage": verdict.stage}
        return Diagnosis(name, verdict.cause, (verdict.sentence, of_codes, prior.sentence), numbers)

    def _priced(self, name: str, stage1: LoadedStage1, files: dict[str, CodeFile]) -> PriorDiagnosis:
        held_out, train = files[self.split].codes, files["train"]
        chosen: np.ndarray = held_out[evenly(len(held_out), PRICED_ITEMS)]
        return diagnose_prior(
            self.run.prior(name, stage1, self.device).model,
            chosen,
            train.codes,
            train.labels,
            device=self.device,
            batch_size=self.run.recipe.evaluation.batch_size,
        )
