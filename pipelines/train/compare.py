"""`twostage compare`: the models of a recipe, trained with equal budgets and seed by seed, in one table."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.training.record import training_decrease

from ..commands.compare import Compare, budget_of
from ..evaluate.differences import Scored, reference_of
from ..evaluate.evaluate import score_run
from ..evaluate.rows import Evaluation
from ..modality.choose import load_data
from ..runs.device import pick_device
from ..runs.jobs import Resume, check_jobs
from ..runs.run import Run, check_folder
from ..runs.session import prepare
from .comparison import Comparison, compared_row
from .comparison_table import print_comparison
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


def _decreases(run: Run, scored: Scored) -> list[float | None]:
    """How far the trainings behind a row were from rest."""
    row = scored.row
    folders = [run.stage1_folder(row.model)]
    folders += [run.decoder_folder(row.model)] if row.decoder_sha256 is not None else []
    folders += [run.prior_folder(row.model)] if row.prior_sha256 is not None else []
    return [training_decrease(folder) for folder in folders]


def compare_runs(runs: Sequence[Run], found: Sequence[tuple[Evaluation, Sequence[Scored]]]) -> Comparison:
    """Rows of all seeds as one.

    Args:
        runs: of every seed, with the same recipe but for it.
        found: evaluation of each run on the test set, with its rows; of models that the recipe does not name they are
            left out.
    """
    recipe, first = runs[0].recipe, found[0][0]
    by_name = [
        {s.row.name: s for s in scored if s.row.model in recipe.models and s.row.search_items is None}
        for _, scored in found
    ]
    reference = reference_of(list(by_name[0].values()))
    references = None if reference is None else [rows[reference.row.name] for rows in by_name]
    compared = []
    for name, scored in by_name[0].items():
        seeds = [rows[name] for rows in by_name]
        decreases = [share for run, own in zip(runs, seeds, strict=True) for share in _decreases(run, own)]
        diagnoses = (d for evaluation, _ in found for d in evaluation.diagnoses)
        verdicts = [d.verdict for d in diagnoses if d.model == scored.row.model]
        compared.append(compared_row(seeds, references, decreases, verdicts))
    shown = next(iter(by_name[0].values())) if reference is None else reference
    return Comparison(
        recipe=recipe.name,
        dataset=first.dataset,
        split=first.split,
        items=first.items,
        dims=first.dims,
        unit=first.unit,
        subject=first.title,
        likelihood=shown.row.likelihood,
        alphabet=shown.row.alphabet,
        seeds=tuple(run.recipe.seed for run in runs),
        budget_steps=recipe.codebook_model_steps,
        budget_of=budget_of(recipe),
        flac=first.flac,
        reference=None if reference is None else reference.row.name,
        rows=tuple(compared),
    )


def run_compare(command: Compare) -> None:
    """`twostage compare`."""
    dataset, runs = load_data(command.recipe), _runs(command)
    check_folder(command.folder)
    resume = _resume_of(command, runs)
    for run in runs:  # all before the first is written
        check_jobs(run, all_jobs(run, dataset), dataset, resume[run.path])
    device = pick_device(command.device)
    found: list[tuple[Evaluation, Sequence[Scored]]] = []
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
        found.append(scores)
    if command.dry_run:
        return
    _write(compare_runs(runs, found), command.folder)


def _write(comparison: Comparison, folder: Path) -> None:
    """comparison.json and the picture, and the table on stdout."""
    comparison.write(folder / "comparison.json")
    picture = comparison.picture()
    if picture is not None:
        write_atomic(folder / "rate-distortion.png", picture)
    print_comparison(comparison)
    say(f"written: {folder / 'comparison.json'}" + ("" if picture is None else f", {folder / 'rate-distortion.png'}"))
