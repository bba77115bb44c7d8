"""`twostage evaluate`: one table and one JSON file with the bits of every model of a run, whatever it is about."""

from pathlib import Path
from typing import cast

import torch

from twostage.data import ImageDataset
from twostage.data.audio import AudioDataset
from twostage.data.interface import Dataset
from twostage.distributed import leave
from twostage.errors import RunError
from twostage.progress import say

from ..commands.results import Evaluate
from ..modality.choose import load_data
from ..runs.device import pick_device, use_threads
from ..runs.run import Run
from .differences import Scored, paired_differences
from .rows import Evaluation
from .scoring import Scoring
from .tables import print_evaluation


def scoring_of(run: Run, dataset: Dataset, *, split: str, device: torch.device) -> Scoring:
    """The scoring of the kind of data that a run is about."""
    if isinstance(dataset, ImageDataset):
        from .images import ImageScoring

        return ImageScoring(run=run, dataset=dataset, split=split, device=device)
    from .audio import AudioScoring

    return AudioScoring(run=run, dataset=cast(AudioDataset, dataset), split=split, device=device)


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
        raise RunError(f"{run.path} holds no finished model; run train-codebook or train first")
    for name in sorted(set(run.begun_models()) - set(names)):
        say(f"{name} is not finished and is left out")
    scoring, found = scoring_of(run, dataset, split=split, device=device), {}
    for name in names:
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        found[name] = scoring.scores(name, stage1)
    if not leave():
        return None
    scored = tuple(row for each in found.values() for row in each.rows)
    evaluation = Evaluation(
        recipe=run.recipe.name,
        dataset=dataset.name,
        split=split,
        items=len(dataset.split(split)),
        dims=scoring.dims,
        unit=scoring.unit,
        seed=run.recipe.seed,
        rows=tuple(each.row for each in scored),
        paired_differences=paired_differences(scored),
        diagnoses=tuple(each.diagnosis for each in found.values() if each.diagnosis is not None),
        meanings={name: each.meaning for name, each in found.items() if each.meaning is not None},
    )
    path = evaluation_file(run, split)
    evaluation.write(path)  # the bits are kept whatever happens to the rest
    for more in scoring.extras(evaluation, scored):
        evaluation = more
        evaluation.write(path)
    return evaluation, scored


def evaluation_file(run: Run, split: str) -> Path:
    """Where the evaluation on a split is written."""
    return run.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")


def evaluate_run(run: Run, dataset: Dataset, *, device: torch.device, split: str) -> Evaluation | None:
    """`score_run`, with warnings before and the table on stdout after.

    Raises:
        RunError: as there.
    """
    scoring_of(run, dataset, split=split, device=device).warn()
    scores = score_run(run, dataset, device=device, split=split)
    if scores is None:
        return None
    evaluation, _ = scores
    print_evaluation(evaluation)
    say(f"written: {evaluation_file(run, split)}")
    return evaluation


def run_evaluate(command: Evaluate) -> None:
    """`twostage evaluate`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_data(command.recipe)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        scoring, names = scoring_of(run, dataset, split=command.split, device=device), run.trained_models()
        for name in names:
            run.check_data(run.stage1(name, device), dataset)
        for reason in scoring.left_out():
            say(reason)
        items = len(dataset.split(command.split))
        say(f"would score {', '.join(names) or 'no model'} on {items} {command.split} items; nothing was done")
        return
    if evaluate_run(run, dataset, device=device, split=command.split) is not None:
        run.keep_data_place()
