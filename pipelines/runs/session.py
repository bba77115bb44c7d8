"""A command that trains: what it shares with all its trainings, checked before anything is written, and one training.

Kinds of data differ in their models, tasks and data sets (`pipelines/modality`); when a training may begin, what its
folder holds and what is said about it is the same for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twostage.config.load import CONFIG
from twostage.config.schema import Recipe
from twostage.data.interface import Dataset
from twostage.distributed import is_first, wait_for_all
from twostage.errors import RunError, UsageError
from twostage.noise import seed_step
from twostage.printable import counted
from twostage.progress import say
from twostage.storage.checkpoint import prune, verify_checkpoint
from twostage.storage.exported import is_exported
from twostage.storage.locks import exclusive
from twostage.training.loop import CHECKPOINTS_KEPT, Fit
from twostage.training.observer import Observer
from twostage.training.precision import check_bf16
from twostage.training.task import Task

from ..commands.arguments import Log
from ..media.tensorboard import FOLDER as EVENTS
from ..media.tensorboard import load_writer
from .class_numbers import tell_untrained
from .device import pick_device, use_threads
from .extension import extend_training, extensions
from .jobs import Job, Resume, check_jobs, record_of
from .loading import Loaded
from .plan import Plan
from .prior_memory import check_priors_fit
from .run import Run, check_folder, is_finished


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """What every training of one command shares; made by `prepare`, which has checked it."""

    run: Run
    dataset: Dataset
    device: torch.device
    log: Log = "none"
    """What is logged beside the record of every training."""

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe


def prepare(
    run: Run,
    dataset: Dataset,
    jobs: list[Job],
    *,
    device: str,
    resume: Resume,
    extend: bool = False,
    dry_run: bool = False,
    forecast: bool = True,
    evaluated: bool = False,
    log: Log = "none",
) -> TrainingSession | None:
    """Check everything, say what it will take, then write the recipe into the run folder unless it is a `dry_run`.

    Args:
        run: where and with which recipe.
        dataset: what is learned from.
        jobs: the trainings in order.
        device, resume, extend, dry_run, log: of the command.
        forecast, evaluated: whether to find out what it will take, and whether an evaluation follows.

    Raises:
        UsageError: settings, data, device or run folder do not fit together.
        RunError: a folder may not be written, or what logs cannot be loaded.
    """
    if is_exported(run.path):
        raise UsageError(
            f"{run.path} was exported and holds no state that a training could go on from: train in the run that it "
            f"came from, or elsewhere with its recipe, {run.path / CONFIG}"
        )
    check_folder(run.path)
    _check_apart(run)
    check_jobs(run, jobs, dataset, resume, extend=extend)
    if log == "tensorboard":
        load_writer()
        for job in jobs:
            check_folder(job.folder / EVENTS)
    longer = extensions(run, jobs) if extend else []
    where = pick_device(device)
    use_threads(run.recipe.threads)
    for job in jobs:
        if record_of(job.folder) is None:  # one that has begun goes on, and says what it costs
            check_bf16(job.training.precision, where, what=job.label)
    check_priors_fit(run, jobs, dataset, where)
    goes_on = {each.job.folder for each in longer}
    plan = Plan(run, dataset, where, forecast=forecast, evaluated=evaluated)
    for job in jobs:
        plan.add(job, goes_on=job.folder in goes_on)
    tell_untrained(dataset)
    if dry_run or plan.measured:
        for line in [*plan.lines(), *(f"  {each.sentence}" for each in longer if dry_run)]:
            say(line)
    if dry_run:
        say(f"would write {run.path}; nothing was done")
        return None
    if is_first():
        for each in longer:
            extend_training(each)
        run.write()
    if extend:
        wait_for_all()  # the others go on from what the first has written
    return TrainingSession(run=run, dataset=dataset, device=where, log=log)


def _check_apart(run: Run) -> None:
    """Raise UsageError where the pictures and sounds that the run writes would become part of its own data."""
    data = run.recipe.data
    if data.name not in ("images", "recordings") or data.path is None:
        return
    for inside in {data.train_folder or ".", data.test_folder or data.train_folder or "."}:
        folder = Path(data.path) / inside
        if run.path.resolve().is_relative_to(folder.resolve()):
            raise UsageError(
                f"the run folder {run.path} lies in {folder}, the data that it learns from, and what it writes would "
                "be taken for data: choose another place with --out"
            )


def check_codebook_of(job: Job, stage1: Loaded[Any]) -> None:
    """Raise UsageError where the job's folder holds a training on the codes of another codebook."""
    earlier = record_of(job.folder)
    if earlier is not None and earlier["stage1_sha256"] != stage1.sha256:
        raise UsageError(
            f"{job.folder} holds a {'prior' if job.stage == 'prior' else 'decoder'} of codebook "
            f"{earlier['stage1_sha256'][:12]}, but {job.model} was trained again since ({stage1.sha256[:12]}): remove "
            f"that folder, then run train-{job.stage}"
        )


def fit(
    session: TrainingSession,
    job: Job,
    record: dict[str, Any],
    *,
    make_model: Callable[[], nn.Module],
    make_task: Callable[[Any], Task],
    make_observer: Callable[[Any], Observer | None],
) -> None:
    """Train into the job's folder, or continue, or return where it is finished."""
    if is_finished(job.folder):
        if verify_checkpoint(job.folder / "best") is None:
            raise RunError(
                f"{job.label} is trained, but its best model {job.folder / 'best'} is damaged or missing: restore it "
                f"or remove {job.folder}, and run the same command again"
            )
        if is_first():
            with exclusive(job.folder):
                prune(job.folder, keep=CHECKPOINTS_KEPT)  # a kill may have come between the last save and this
        say(f"{job.label}: already trained in {job.folder}")
        return
    # The weights are drawn on the CPU, so that every device starts from the same ones.
    seed_step(session.recipe.seed, 0)
    model = make_model().to(session.device)
    training = Fit(
        make_task(model),
        folder=job.folder,
        budget=job.training,
        seed=session.recipe.seed,
        record={**record, "model": job.model, "config": job.config},
        device=session.device,
        observer=make_observer(model),
    )
    result = training.run(label=job.label)
    say(
        f"{job.label}: {counted(result.steps, 'steps')}{' (stopped early)' if result.stopped_early else ''} in "
        f"{result.seconds:.0f} s; best validation "
        f"{training.task.objective.replace('_', ' ')} {result.best_value:.4f} at step {result.best_step}; "
        f"saved in {job.folder}"
    )
    if result.observer_seconds and result.validation_seconds:
        share = result.observer_seconds / result.validation_seconds
        say(
            f"{job.label}: pictures and logs took another {result.observer_seconds:.1f} s, {share:.0%} of the time of "
            "its validations"
        )
