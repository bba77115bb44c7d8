"""`twostage evaluate`: one table and one JSON file with the bits of every model of a run, whatever it is about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from twostage.data.interface import Dataset
from twostage.distributed import leave
from twostage.errors import RunError
from twostage.metrics.code_labels import CodeMeaning
from twostage.progress import say

from ..bits.round_trip import round_trips
from ..commands.results import Evaluate
from ..modality.choose import load_data, modality_of
from ..runs.class_numbers import warn_of_untrained_labels, warn_of_untrained_speakers
from ..runs.codes import extract_codes
from ..runs.device import pick_device, use_threads
from ..runs.loading import Loaded
from ..runs.run import Run, check_folder
from .diagnosis import Diagnosing
from .differences import Scored, difference, paired_differences
from .items import write_items
from .row_writer import RowWriter
from .rows import Diagnosis, Evaluation
from .sample_quality import score_samples, why_not
from .score import score_model
from .tables import print_evaluation


@dataclass(frozen=True)
class ModelScores:
    """What was found of one model."""

    rows: tuple[Scored, ...]
    diagnosis: Diagnosis | None = None
    meaning: CodeMeaning | None = None
    """What its codes say of labels and speakers."""


def scores_of(writer: RowWriter, name: str, stage1: Loaded[Any]) -> ModelScores:
    """Every row of a model, and what else there is to say of it.

    Raises:
        RunError: its prior or decoder is damaged or belongs to another codebook.
    """
    run, dataset, split, device = writer.run, writer.dataset, writer.split, writer.device
    rows, meaning = tuple(score_model(writer, name, stage1)), None
    diagnosis = Diagnosing(writer).diagnose(name, stage1, rows)
    if stage1.model.latents == "codes":
        files = extract_codes(run, name, stage1, dataset, device)
        meaning = writer.measures.meaning(files["train"], files[split])
    return ModelScores(rows, diagnosis, meaning)


def score_run(
    run: Run, dataset: Dataset, *, device: torch.device, split: str
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
        raise RunError(f"{run.path} holds no finished model; run train-codebook or train with --out {run.path} first")
    for name in sorted(set(run.begun_models()) - set(names)):
        say(f"{name} is not finished and is left out")
    writer, found = RowWriter(run, dataset, split, device), dict[str, ModelScores]()
    for name in names:
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        found[name] = scores_of(writer, name, stage1)
    if not leave():
        return None
    scored = tuple(row for each in found.values() for row in each.rows)
    files = modality_of(run.recipe).files
    evaluation = Evaluation(
        recipe=run.recipe.name,
        dataset=dataset.name,
        split=split,
        items=len(dataset.split(split)),
        dims=writer.measures.dims,
        unit=files.unit,
        item=files.source,
        seed=run.recipe.seed,
        rows=tuple(each.row for each in scored),
        paired_differences=paired_differences(scored),
        diagnoses=tuple(each.diagnosis for each in found.values() if each.diagnosis is not None),
        meanings={name: each.meaning for name, each in found.items() if each.meaning is not None},
    )
    path = evaluation_file(run, split)
    evaluation.write(path)  # the bits are kept whatever happens to the rest
    for more in extras(writer, evaluation, scored):
        evaluation = more
        evaluation.write(path)
    return evaluation, scored


def extras(writer: RowWriter, evaluation: Evaluation, scored: Sequence[Scored]) -> Iterator[Evaluation]:
    """The evaluation with what is not about rows, once more after each part of it. It is the work of one process."""
    run, beside = writer.run, writer.measures.beside()
    if beside is not None:
        own = (s for s in scored if s.row.alphabet == beside.alphabet and s.row.labels != "given")
        also = tuple(difference(s, beside.name, beside.bits_N) for s in own if s.bits_N is not None)
        both = evaluation.paired_differences + also
        evaluation = replace(evaluation, **writer.measures.facts(), paired_differences=both)
        yield evaluation
    if trips := round_trips(run, writer.split, writer.device):
        evaluation = replace(evaluation, coding=trips)
        yield evaluation
    if scores := score_samples(run, writer.dataset, writer.split, writer.device):
        yield replace(evaluation, sample_scores=scores)


def evaluation_file(run: Run, split: str) -> Path:
    """Where the evaluation on a split is written."""
    return run.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")


def evaluate_run(
    run: Run, dataset: Dataset, *, device: torch.device, split: str, per_item: Path | None = None
) -> Evaluation | None:
    """`score_run`, with warnings before and the table on stdout after; and the bits of every item in a file `per_item`.

    Raises:
        RunError: as there.
    """
    warn_of_untrained_labels(dataset, split)
    warn_of_untrained_speakers(dataset, split)
    scores = score_run(run, dataset, device=device, split=split)
    if scores is None:
        return None
    evaluation, scored = scores
    print_evaluation(evaluation)
    if per_item is not None:
        write_items(per_item, run, dataset, split, scored, dims=evaluation.dims)
    say(f"written: {evaluation_file(run, split)}")
    return evaluation


def run_evaluate(command: Evaluate) -> None:
    """`twostage evaluate`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_data(command.recipe)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.per_item is not None:
        check_folder(command.per_item.absolute().parent)
    if command.dry_run:
        names, wanted = run.trained_models(), run.recipe.evaluation.frechet_samples
        for name in names:
            run.check_data(run.stage1(name, device), dataset)
        reason = why_not(dataset, command.split, wanted) if wanted else None
        if reason is not None:
            say(f"sample quality would be left out: {reason}")
        items = len(dataset.split(command.split))
        say(f"would score {', '.join(names) or 'no model'} on {items} {command.split} items; nothing was done")
        return
    if evaluate_run(run, dataset, device=device, split=command.split, per_item=command.per_item) is not None:
        run.keep_data_place()
