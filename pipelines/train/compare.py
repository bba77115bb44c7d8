"""`twostage compare`: the models of a recipe, trained with equal budgets and seed by seed, in one table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twostage.data import ImageDataset, load_dataset
from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.training.record import training_decrease

from ..commands.compare import Compare
from ..evaluate.differences import Scored, reference_of
from ..evaluate.evaluate import score_run
from ..evaluate.rows import Diagnosis
from ..runs.device import pick_device
from ..runs.jobs import Resume, check_jobs
from ..runs.run import Run, check_folder
from ..runs.session import prepare
from .comparison import Comparison, compared_row, print_comparison
from .train import all_jobs, train_jobs

SPLIT = "test"


def _runs(command: Compare) -> list[Run]:
    """The run of every seed."""
    return [
        Run(path=command.folder / f"seed-{seed}", recipe=replace(command.recipe, seed=seed))
        for seed in command.seed_numbers
    ]


def _resume_of(command: Compare, runs: Sequence[Run]) -> dict[Path, Resume]:
    """`must` asks for one begun seed: the others may be fresh, as a comparison goes through them in order."""
    begun = [run.path for run in runs if run.begun_models()]
    if command.resume != "must" or not begun:
        return {run.path: command.resume for run in runs}
    return {run.path: "must" if run.path in begun else "auto" for run in runs}


def _falls(run: Run, scored: Scored) -> list[float | None]:
    """How far the trainings behind a row were from rest."""
    folders = [run.stage1_folder(scored.row.model)]
    if scored.row.kind == "vq-vae" and scored.row.prior == "learned":
        folders.append(run.prior_folder(scored.row.model))
    return [training_decrease(folder) for folder in folders]


def compare_runs(
    runs: Sequence[Run],
    dataset: ImageDataset,
    found: Sequence[Sequence[Scored]],
    diagnoses: Sequence[Sequence[Diagnosis]] = (),
) -> Comparison:
    """Rows of all seeds as one.

    Args:
        runs: of every seed, with the same recipe but for it.
        dataset: of all of them.
        found: rows of each run on the test set; of models that the recipe does not name they are left out.
        diagnoses: of the models of each run.
    """
    recipe = runs[0].recipe
    by_name = [
        {s.row.name: s for s in scored if s.row.model in recipe.models and s.row.search_items is None}
        for scored in found
    ]
    reference = reference_of(list(by_name[0].values()))
    references = None if reference is None else [rows[reference.row.name] for rows in by_name]
    compared = []
    for name in by_name[0]:
        seeds = [rows[name] for rows in by_name]
        falls = [fall for run, scored in zip(runs, seeds, strict=True) for fall in _falls(run, scored)]
        verdicts = [d.verdict for own in diagnoses for d in own if d.model == seeds[0].row.model]
        compared.append(compared_row(seeds, references, falls, verdicts))
    return Comparison(
        recipe=recipe.name,
        dataset=dataset.name,
        split=SPLIT,
        items=len(dataset.split(SPLIT)),
        dims=dataset.dims,
        likelihood=recipe.stage1.likelihood,
        alphabet=dataset.levels,
        seeds=tuple(run.recipe.seed for run in runs),
        budget_steps=recipe.codebook_training.steps + recipe.prior_training.steps,
        reference=None if reference is None else reference.row.name,
        rows=tuple(compared),
    )


def run_compare(command: Compare) -> None:
    """`twostage compare`."""
    dataset, runs = load_dataset(command.recipe.data), _runs(command)
    check_folder(command.folder)
    resume = _resume_of(command, runs)
    for run in runs:  # all before the first is written
        check_jobs(run, all_jobs(run, dataset), dataset, resume[run.path])
    device = pick_device(command.device)
    found: list[Sequence[Scored]] = []
    diagnoses: list[Sequence[Diagnosis]] = []
    sessions = [
        prepare(
            run,
            dataset,
            all_jobs(run, dataset),
            device=command.device,
            resume=resume[run.path],
            dry_run=command.dry_run,
        )
        for run in runs
    ]
    for session in sessions:
        if session is None:
            continue
        say(f"seed {session.recipe.seed}: {', '.join(session.recipe.models)}")
        train_jobs(session, all_jobs(session.run, dataset))
        scores = score_run(session.run, dataset, device=device, split=SPLIT)
        assert scores is not None  # this verb is the work of one process
        evaluation, scored = scores
        found.append(scored)
        diagnoses.append(evaluation.diagnoses)
    if command.dry_run:
        return
    _write(compare_runs(runs, dataset, found, diagnoses), command.folder)


def _write(comparison: Comparison, folder: Path) -> None:
    """comparison.json and the picture, and the table on stdout."""
    comparison.write(folder / "comparison.json")
    picture = comparison.picture()
    if picture is not None:
        write_atomic(folder / "rate-distortion.png", picture)
    print_comparison(comparison)
    say(f"written: {folder / 'comparison.json'}" + ("" if picture is None else f", {folder / 'rate-distortion.png'}"))
