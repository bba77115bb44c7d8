"""The training verbs: codebook, prior, baseline, and all of them in order."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.training import CodebookTask, GaussianTask
from stage1_vqvae.training_images import TrainingImages
from stage2_prior import PixelCNN
from stage2_prior.training import PriorTask
from twostage.checkpoint import verify_checkpoint
from twostage.codes import CodeFile
from twostage.config.schema import Recipe
from twostage.data import ImageDataset, load_dataset
from twostage.errors import RunError, UsageError
from twostage.progress import say
from twostage.training import Fit, Task, seed_step

from .commands import Train, TrainBaseline, TrainCodebook, TrainPrior
from .device import pick_device, use_threads
from .evaluate import evaluate_run
from .extract import MIRRORED, extract_codes
from .jobs import Job, Resume, check_jobs, make_job, record_of
from .models import build_stage1, model_spec, parameter_count, prior_architecture, stage1_architecture
from .report import write_report
from .run import Run, check_folder, is_finished


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """What every training of one command shares; made by `sit_down`, which has checked it."""

    run: Run
    dataset: ImageDataset
    device: torch.device

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe


def all_jobs(run: Run, dataset: ImageDataset) -> list[Job]:
    """Every training of the recipe in order, discrete models with their priors."""
    jobs = []
    for name in run.recipe.models:
        jobs.append(make_job(run, name, "stage1", dataset))
        if model_spec(name, run.recipe).kind == "vq-vae":
            jobs.append(make_job(run, name, "prior", dataset))
    return jobs


def sit_down(
    run: Run, dataset: ImageDataset, jobs: list[Job], *, device: str, resume: Resume, dry_run: bool
) -> Sitting | None:
    """Check everything, then write the recipe into the run folder; with `dry_run` say what would be done instead.

    Raises:
        UsageError: settings, data, device or run folder do not fit together.
    """
    check_folder(run.path)
    check_jobs(run, jobs, dataset, resume)
    where = pick_device(device)
    use_threads(run.recipe.threads)
    plan = [_plan(run, job, dataset) for job in jobs]
    if dry_run:
        counts = ", ".join(f"{len(dataset.split(s))} {s}" for s in ("train", "validation", "test"))
        say(f"{dataset.name}: {counts} images of shape {dataset.shape}, {dataset.levels} levels; device {where}")
        say("\n".join([*plan, f"would write {run.path}; nothing was done"]))
        return None
    run.write()
    return Sitting(run=run, dataset=dataset, device=where)


def _plan(run: Run, job: Job, dataset: ImageDataset) -> str:
    """One line on a job; building its model refuses sizes that do not fit."""
    spec, training = model_spec(job.model, run.recipe), job.training
    if training.batch_size > len(dataset.train):
        raise UsageError(
            f"{job.label}: a batch of {training.batch_size} is more than the {len(dataset.train)} training items"
        )
    size = ""
    if job.stage == "stage1":
        model = build_stage1(spec.kind, stage1_architecture(spec, run.recipe, dataset))
        if isinstance(model, VQVAE):
            vectors = len(dataset.train) * math.prod(model.code_shape[1:])
            if model.codebook_size > vectors:
                raise UsageError(
                    f"{job.label}: the {len(dataset.train)} training images are encoded as {vectors} vectors, fewer "
                    f"than the {model.codebook_size} codes of quantiser.codebook_size: choose a smaller one"
                )
        size = f"{parameter_count(model):,} parameters, "
    state = "done already" if is_finished(job.folder) else f"{training.steps} steps of {training.batch_size} items"
    return f"  {job.label}: {size}{state}"


def _fit(
    sitting: Sitting,
    job: Job,
    record: dict[str, Any],
    *,
    make_model: Callable[[], nn.Module],
    make_task: Callable[[Any], Task],
) -> None:
    """Train into the job's folder, or continue, or return where it is finished."""
    if is_finished(job.folder):
        if verify_checkpoint(job.folder / "best") is None:
            raise RunError(
                f"{job.label} is trained, but its best model {job.folder / 'best'} is damaged or missing: restore it "
                f"or remove {job.folder}, and run the same command again"
            )
        say(f"{job.label}: already trained in {job.folder}")
        return
    # The weights are drawn on the CPU, so that every device starts from the same ones.
    seed_step(sitting.recipe.seed, 0)
    model = make_model().to(sitting.device)
    fit = Fit(
        make_task(model),
        folder=job.folder,
        budget=job.training,
        seed=sitting.recipe.seed,
        record={**record, "model": job.model, "config": job.config},
        device=sitting.device,
    )
    result = fit.run(label=job.label)
    say(
        f"{job.label}: {result.steps} steps{' (stopped early)' if result.stopped_early else ''} in "
        f"{result.seconds:.0f} s; best validation "
        f"{fit.task.objective.replace('_', ' ')} {result.best_value:.4f} at step {result.best_step}; "
        f"saved in {job.folder}"
    )


def _tensor(array: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def train_stage1(sitting: Sitting, name: str) -> None:
    """Train stage one of the named model: a codebook, or a Gaussian baseline."""
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    spec = model_spec(name, recipe)
    architecture = stage1_architecture(spec, recipe, dataset)
    record = {
        "kind": spec.kind,
        "dataset": dataset.name,
        "skipped": list(dataset.skipped),
        "classes": list(dataset.classes),
        "architecture": architecture,
    }
    source = dataset.train
    train = TrainingImages(
        _tensor(source.images, device),
        horizontal_flips=recipe.data.horizontal_flips,
        intensities=None if source.intensities is None else _tensor(source.intensities, device),
        intensity_levels=dataset.intensity_levels,
    )
    validation = _tensor(dataset.validation.images, device)
    batch_size = recipe.evaluation.batch_size

    def make_task(model: VQVAE | VAE) -> Task:
        if isinstance(model, VAE):
            return GaussianTask(model, train=train, validation=validation, evaluation_batch_size=batch_size)
        return CodebookTask(
            model,
            train=train,
            validation=validation,
            kmeans=recipe.quantiser.init == "kmeans",
            evaluation_batch_size=batch_size,
            seed=recipe.seed,
        )

    _fit(
        sitting,
        make_job(sitting.run, name, "stage1", dataset),
        record,
        make_model=lambda: build_stage1(spec.kind, architecture),
        make_task=make_task,
    )


def train_prior(sitting: Sitting, name: str) -> None:
    """Extract the codes of a trained codebook and fit the prior over them.

    Raises:
        UsageError: a prior is there that was fitted to another codebook.
        RunError: the codebook is missing, unfinished or damaged.
    """
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    stage1 = sitting.run.stage1(name, device)
    model = stage1.model
    if not isinstance(model, VQVAE):
        raise UsageError(f"model {name} has no codes, so no prior; choose a vq-vae")
    job = make_job(sitting.run, name, "prior", dataset)
    earlier = record_of(job.folder)
    if earlier is not None and earlier["stage1_sha256"] != stage1.sha256:
        raise UsageError(
            f"{job.folder} holds a prior of codebook {earlier['stage1_sha256'][:12]}, but {name} was trained "
            f"again since ({stage1.sha256[:12]}): remove that folder, then run train-prior"
        )
    codes = extract_codes(sitting.run, name, stage1, dataset, device, batch_size=recipe.evaluation.batch_size)
    architecture = prior_architecture(recipe, model, len(dataset.classes))
    record = {
        "kind": "pixelcnn",
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "stage1_sha256": stage1.sha256,
        "architecture": architecture,
    }

    def condition(*files: CodeFile) -> torch.Tensor | None:
        labels = np.concatenate([file.labels for file in files])
        return _tensor(labels, device)[:, None] if architecture["classes"] else None

    def make_task(prior: PixelCNN) -> Task:
        train = [codes[split] for split in ("train", MIRRORED) if split in codes]
        validation = codes["validation"]
        return PriorTask(
            prior,
            train=_tensor(np.concatenate([file.codes for file in train]), device),
            train_condition=condition(*train),
            validation=_tensor(validation.codes, device),
            validation_condition=condition(validation),
            evaluation_batch_size=recipe.evaluation.batch_size,
        )

    _fit(sitting, job, record, make_model=lambda: PixelCNN(**architecture), make_task=make_task)


def train_all(sitting: Sitting) -> None:
    """Every model of the recipe in order, discrete ones with their priors; finished ones are skipped."""
    for job in all_jobs(sitting.run, sitting.dataset):
        (train_stage1 if job.stage == "stage1" else train_prior)(sitting, job.model)


def run_train_codebook(command: TrainCodebook) -> None:
    """`twostage train-codebook`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    jobs = [make_job(run, command.model, "stage1", dataset)]
    sitting = sit_down(run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run)
    if sitting is not None:
        train_stage1(sitting, command.model)
        say(
            f"next: twostage train-prior {run.path}"
            + ("" if command.model == "vq-vae" else f" --model {command.model}")
        )


def run_train_baseline(command: TrainBaseline) -> None:
    """`twostage train-baseline`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    jobs = [make_job(run, command.model, "stage1", dataset)]
    sitting = sit_down(run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run)
    if sitting is not None:
        train_stage1(sitting, command.model)
        say(f"next: twostage evaluate {run.path}")


def run_train_prior(command: TrainPrior) -> None:
    """`twostage train-prior`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    run.stage1(command.model, torch.device("cpu"))
    jobs = [make_job(run, command.model, "prior", dataset)]
    sitting = sit_down(run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run)
    if sitting is not None:
        train_prior(sitting, command.model)
        say(f"next: twostage generate {run.path}, or twostage evaluate {run.path}")


def run_train(command: Train) -> None:
    """`twostage train`: all models, then evaluation and report."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    jobs = all_jobs(run, dataset)
    sitting = sit_down(run, dataset, jobs, device=command.device, resume=command.resume, dry_run=command.dry_run)
    if sitting is not None:
        train_all(sitting)
        evaluate_run(run, dataset, device=sitting.device, split="test")
        write_report(run, dataset, device=sitting.device, seed=run.recipe.seed)
