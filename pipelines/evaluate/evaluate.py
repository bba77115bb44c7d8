"""`twostage evaluate`: one table and one JSON file with the bits/dim of every model of a run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stage1_vqvae import VQVAE
from twostage.data import ImageDataset, load_dataset
from twostage.distributed import leave
from twostage.errors import RunError
from twostage.metrics.statistics import standard_error
from twostage.progress import say

from ..bits.round_trip import check_round_trip
from ..commands.results import Evaluate
from ..runs.class_numbers import warn_of_untrained_labels
from ..runs.device import pick_device, use_threads
from ..runs.run import Run, is_finished
from .diagnosis import Diagnosing
from .rows import Diagnosis, Evaluation, PairedDifference
from .sample_quality import score_samples, why_not
from .score_images import Scored, Scoring
from .tables import print_evaluation


def reference_of(scored: Sequence[Scored]) -> Scored | None:
    """The row that others are compared with: the first VQ-VAE with a learned prior, on all items."""
    learned = (s for s in scored if s.row.kind == "vq-vae" and s.row.prior == "learned")
    return next((s for s in learned if s.row.search_items is None), None)


def _paired(scored: list[Scored]) -> tuple[PairedDifference, ...]:
    """Every row against its partner: the same items before a search, else the reference.

    Bits given the label are compared with nothing.
    """
    reference = reference_of(scored)
    differences = []
    for other in scored:
        if other.row.labels == "given":
            continue
        partner = other.partner or (reference if other.row.search_items is None else None)
        if partner is None or partner is other or other.bits is None or partner.bits is None:
            continue
        delta_N = other.bits.total - partner.bits.total
        differences.append(
            PairedDifference(
                reference=partner.row.name,
                other=other.row.name,
                bits_per_dim=float(delta_N.mean()),
                standard_error=standard_error(delta_N),
            )
        )
    return tuple(differences)


def score_run(
    run: Run, dataset: ImageDataset, *, device: torch.device, split: str
) -> tuple[Evaluation, tuple[Scored, ...]] | None:
    """Score every finished model of a run and write evaluation.json; with the bits of every item behind the rows.

    Several processes score together; then the first goes on alone, outside their group, and for the others this ends
    with None.

    Raises:
        RunError: no model is finished, one is damaged, was trained on other data, or its prior belongs to another
            codebook.
    """
    names = run.trained_models()
    if not names:
        raise RunError(f"{run.path} holds no finished model; run train-codebook or train first")
    for name in sorted(set(run.begun_models()) - set(names)):
        say(f"{name} is not finished and is left out")
    scoring = Scoring(run=run, dataset=dataset, split=split, device=device)
    scored: list[Scored] = []
    coded: list[str] = []
    diagnoses: list[Diagnosis | None] = []
    diagnosing = Diagnosing(run=run, dataset=dataset, split=split, device=device)
    for name in names:
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        own = tuple(scoring.score(name, stage1))
        scored += own
        diagnoses.append(diagnosing.diagnose(name, stage1, own))
        if isinstance(stage1.model, VQVAE) and is_finished(run.prior_folder(name)):
            coded.append(name)
    if not leave():
        return None
    evaluation = Evaluation(
        recipe=run.recipe.name,
        dataset=dataset.name,
        split=split,
        items=len(dataset.split(split)),
        dims=dataset.dims,
        seed=run.recipe.seed,
        rows=tuple(s.row for s in scored),
        paired_differences=_paired(scored),
        diagnoses=tuple(found for found in diagnoses if found is not None),
    )
    path = evaluation_file(run, split)
    evaluation.write(path)  # the bits are kept whatever happens to the streams and the samples
    if items := run.recipe.evaluation.coded_items:
        evaluation = replace(
            evaluation, coding=tuple(check_round_trip(run, name, split, items, device) for name in coded)
        )
        evaluation.write(path)
    scores = score_samples(run, dataset, split, device)
    if scores:
        evaluation = replace(evaluation, sample_scores=scores)
        evaluation.write(path)
    return evaluation, tuple(scored)


def evaluation_file(run: Run, split: str) -> Path:
    """Where the evaluation on a split is written."""
    return run.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")


def evaluate_run(run: Run, dataset: ImageDataset, *, device: torch.device, split: str) -> Evaluation | None:
    """`score_run`, and the table on stdout.

    Raises:
        RunError: as there.
    """
    warn_of_untrained_labels(dataset, split)
    scores = score_run(run, dataset, device=device, split=split)
    if scores is None:
        return None
    evaluation, _ = scores
    print_evaluation(evaluation)
    say(f"written: {evaluation_file(run, split)}")
    return evaluation


def run_evaluate(command: Evaluate) -> None:
    """`twostage evaluate`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        names = run.trained_models()
        for name in names:
            run.check_data(run.stage1(name, device), dataset)
        wanted = run.recipe.evaluation.frechet_samples
        reason = why_not(dataset, command.split, wanted) if wanted else None
        if reason is not None:
            say(f"sample quality would be left out: {reason}")
        items = len(dataset.split(command.split))
        say(f"would score {', '.join(names) or 'no model'} on {items} {command.split} items; nothing was done")
        return
    if evaluate_run(run, dataset, device=device, split=command.split) is not None:
        run.keep_data_place()
