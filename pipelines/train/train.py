"""The training verbs, for every kind of data: codebook, decoder, prior, baseline, and all of them in order."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from twostage.config.check import check_recipe
from twostage.config.dial import Asked
from twostage.config.kinds import kind_of
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.config.schema import Recipe
from twostage.data.interface import Dataset
from twostage.errors import UsageError
from twostage.progress import say

from ..commands.training import Train, TrainBaseline, TrainCodebook, TrainDecoder, TrainPrior
from ..evaluate.evaluate import evaluate_run
from ..modality.choose import load_data, modality_of
from ..modality.interface import Stage, second_decoder
from ..runs.class_numbers import trained_names
from ..runs.codes import extract_codes
from ..runs.jobs import Job, make_job
from ..runs.run import Run
from ..runs.session import TrainingSession, check_codebook_of, fit, prepare
from ..runs.start import Start, check_start, start_of
from ..watch.observer import observer_of


def all_jobs(run: Run, dataset: Dataset) -> list[Job]:
    """Every training of the recipe in order, discrete models with what follows their codes."""
    stages_of = modality_of(run.recipe).stages
    return [
        make_job(run, name, stage, dataset)
        for name in run.recipe.models
        for stage in stages_of(model_spec(name, run.recipe), run.recipe)
    ]


def train_jobs(session: TrainingSession, jobs: list[Job]) -> None:
    """Every job in order; finished ones are skipped.

    Raises:
        UsageError: a prior or decoder is there that was fitted to another codebook.
        RunError: a codebook is missing, unfinished or damaged.
    """
    for job in jobs:
        (_train_stage1 if job.stage == "stage1" else _train_follower)(session, job)


def _record(session: TrainingSession, kind: str, arguments: dict[str, Any], **more: object) -> dict[str, Any]:
    dataset = session.dataset
    return {
        "kind": kind,
        "dataset": dataset.name,
        "skipped": list(dataset.skipped),
        "classes": list(dataset.classes),
        "speakers": list(dataset.speakers),
        **trained_names(dataset),
        **modality_of(session.recipe).facts(dataset),
        "architecture": arguments,
        **more,
    }


def _train_stage1(session: TrainingSession, job: Job) -> None:
    """A codebook with its decoder, or a baseline."""
    recipe, modality = session.recipe, modality_of(session.recipe)
    kind, arguments = modality.stage1(model_spec(job.model, recipe), recipe, session.dataset)
    start = _start(session, job)
    prior = () if start is None else (start.prior.model,)
    fit(
        session,
        job,
        _record(session, kind, arguments, **({} if start is None else {"start": start.record})),
        make_model=lambda: _begun(modality.build(kind, arguments), job, start),
        make_task=lambda model: modality.stage1_task(model, recipe, session.dataset, session.device, *prior),
        make_observer=lambda model: observer_of(session, job, model),
    )


def _train_follower(session: TrainingSession, job: Job) -> None:
    """Extract the codes of a trained codebook and fit a prior, or a decoder, to them."""
    recipe, modality = session.recipe, modality_of(session.recipe)
    codebook = session.run.codebook(job.model, session.device)
    start = _start(session, job) if job.stage == "prior" else None
    check_codebook_of(job, codebook)
    codes = extract_codes(session.run, job.model, codebook, session.dataset, session.device)
    kind, arguments = modality.follower(job.stage, recipe, codebook.model, session.dataset)
    fit(
        session,
        job,
        _record(session, kind, arguments, stage1_sha256=codebook.sha256),
        make_model=lambda: _begun(modality.build(kind, arguments), job, start),
        make_task=lambda model: modality.follower_task(model, codebook.model, codes, recipe, session.dataset),
        make_observer=lambda model: observer_of(session, job, model, codebook.model),
    )


def _start(session: TrainingSession, job: Job) -> Start | None:
    """What the job goes on from, the same as before where it has begun; None of one that starts from nothing.

    Raises:
        UsageError: it was trained again since.
        RunError: it is missing, unfinished or damaged.
    """
    start = start_of(session.run, job.model, session.device)
    if start is not None:
        check_start(session.run, job, start)
    return start


def _begun(model: nn.Module, job: Job, start: Start | None) -> nn.Module:
    """The model, with the weights that its training goes on from."""
    if start is not None:
        model.load_state_dict(start.part(job.stage).model.state_dict())
    return model


OneStage = TrainCodebook | TrainDecoder | TrainPrior | TrainBaseline


def _recipe_of(command: Train | OneStage, dataset: Dataset) -> Recipe:
    """The recipe of a command, as its `--size` makes it for the data set; says what that has chosen.

    Raises:
        UsageError: there are no sizes for this kind of data, or what a flag gave does not fit the rest.
    """
    if isinstance(command, TrainDecoder | TrainPrior | TrainBaseline) or command.size is None:
        return command.recipe
    asked = Asked(recipe=command.recipe, size=command.size, given=command.given)
    dialled = modality_of(command.recipe).dial(asked, dataset)
    check_recipe(dialled.recipe, source=f"--size {command.size}")
    for line in dialled.reasons:
        say(line)
    return dialled.recipe


def _run_one(command: OneStage, stage: Stage) -> None:
    if stage not in modality_of(command.recipe).sections:
        raise UsageError(f"{command.run} is about {kind_of(command.recipe)}, whose models have no {stage} to train")
    dataset = load_data(command.recipe)
    run = Run(path=command.run, recipe=_recipe_of(command, dataset))
    if stage != "stage1":
        run.codebook(command.model, torch.device("cpu"))  # without one nothing is written
    start_of(run, command.model, torch.device("cpu"))  # nor without what it goes on from
    jobs = [make_job(run, command.model, stage, dataset)]
    session = prepare(
        run,
        dataset,
        jobs,
        device=command.device,
        resume=command.resume,
        extend=command.extend,
        dry_run=command.dry_run,
        log=command.log,
    )
    if session is not None:
        train_jobs(session, jobs)
        say(f"next: {_next(run, command.model, stage)}")


def _next(run: Run, model: str, stage: Stage) -> str:
    """The commands that a training leads to: what follows its codes, then what the whole model is for."""
    which = f"{run.path}{'' if model == MAIN_MODEL else f' --model {model}'}"
    stages = modality_of(run.recipe).stages(model_spec(model, run.recipe), run.recipe)
    # A second decoder that is no part of a model's training is asked for alone, before or behind its prior.
    later = [f"twostage train-{each} {which}" for each in stages[stages.index(stage) + 1 :]] if stage in stages else []
    if later:
        return ", ".join(later)
    evaluate = f"twostage evaluate {run.path}"
    if stage == "decoder":
        name, _ = second_decoder(modality_of(run.recipe))
        return f"twostage reconstruct {which} FILE --decoder {name}, or {evaluate}"
    return f"twostage generate {which}, or {evaluate}" if stage == "prior" else evaluate


def run_train_codebook(command: TrainCodebook) -> None:
    """`twostage train-codebook`."""
    _run_one(command, "stage1")


def run_train_decoder(command: TrainDecoder) -> None:
    """`twostage train-decoder`."""
    _run_one(command, "decoder")


def run_train_prior(command: TrainPrior) -> None:
    """`twostage train-prior`."""
    _run_one(command, "prior")


def run_train_baseline(command: TrainBaseline) -> None:
    """`twostage train-baseline`."""
    _run_one(command, "stage1")


def run_train(command: Train) -> None:
    """`twostage train`: all models, then evaluation and report."""
    dataset = load_data(command.recipe)
    run = Run(path=command.run, recipe=_recipe_of(command, dataset))
    jobs = all_jobs(run, dataset)
    session = prepare(
        run,
        dataset,
        jobs,
        device=command.device,
        resume=command.resume,
        extend=command.extend,
        dry_run=command.dry_run,
        evaluated=True,
        log=command.log,
    )
    if session is None:
        return
    train_jobs(session, jobs)
    evaluate_and_report(run, dataset, device=session.device)


def evaluate_and_report(run: Run, dataset: Any, *, device: torch.device) -> Path | None:
    """Score the run on its test set and write its report; of several processes the first does, for the others None."""
    if evaluate_run(run, dataset, device=device, split="test") is None:
        return None
    from ..report.report import write_report  # and with it matplotlib, which no other training verb needs

    return write_report(run, dataset, device=device, seed=run.recipe.seed)
