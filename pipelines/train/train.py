"""The training verbs: codebook, prior, baseline, and all of them in order."""

import math

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage2_prior import PixelCNN
from stage2_prior.training import PriorTask
from twostage.config.model_names import model_spec
from twostage.data import ImageDataset, load_dataset
from twostage.distributed import world_size
from twostage.errors import UsageError
from twostage.progress import say
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from ..commands.training import Train, TrainBaseline, TrainCodebook, TrainPrior
from ..evaluate.evaluate import evaluate_run
from ..modality.images import _stage1_task, _tensor, build_stage1, prior_architecture, stage1_architecture
from ..runs.class_numbers import trained_names
from ..runs.codes import MIRRORED, extract_codes
from ..runs.jobs import Job, Resume, make_job
from ..runs.loading import parameter_count
from ..runs.run import Run
from ..runs.session import Sitting, check_codebook_of, fit, prepare

ImageSitting = Sitting[ImageDataset]


def all_jobs(run: Run, dataset: ImageDataset) -> list[Job]:
    """Every training of the recipe in order, discrete models with their priors."""
    jobs = []
    for name in run.recipe.models:
        jobs.append(make_job(run, name, "stage1", dataset))
        if model_spec(name, run.recipe).kind == "vq-vae":
            jobs.append(make_job(run, name, "prior", dataset))
    return jobs


def sit_down(
    run: Run,
    dataset: ImageDataset,
    jobs: list[Job],
    *,
    device: str,
    resume: Resume,
    extend: bool = False,
    dry_run: bool,
) -> ImageSitting | None:
    """`sitting.prepare` for images.

    Raises:
        UsageError: settings, data, device or run folder do not fit together.
    """

    def size_of(job: Job) -> str:
        return _size(run, job, dataset) if job.stage == "stage1" else ""

    return prepare(
        run,
        dataset,
        jobs,
        describe=lambda: f"images of shape {dataset.shape}, {dataset.levels} levels",
        size_of=size_of,
        device=device,
        resume=resume,
        extend=extend,
        dry_run=dry_run,
    )


def _size(run: Run, job: Job, dataset: ImageDataset) -> str:
    """Parameters of stage one; building it refuses sizes that do not fit."""
    spec = model_spec(job.model, run.recipe)
    model = build_stage1(spec.kind, stage1_architecture(spec, run.recipe, dataset))
    if isinstance(model, VQVAE):
        vectors = len(dataset.train) * math.prod(model.code_shape[1:])
        if model.codebook_size > vectors:
            raise UsageError(
                f"{job.label}: the {len(dataset.train)} training images are encoded as {vectors} vectors, fewer "
                f"than the {model.codebook_size} codes of quantiser.codebook_size: choose a smaller one"
            )
    if isinstance(model, VAE) and model.free_bits and world_size() * job.training.accumulate > 1:
        raise UsageError(
            f"{job.label}: gaussian.free_bits compares the KL of the whole batch with a limit, which no part of it "
            "knows: train with one process and without accumulate, or with gaussian.free_bits 0"
        )
    return f"{parameter_count(model):,} parameters"


def train_stage1(sitting: ImageSitting, name: str) -> None:
    """Train stage one of the named model: a codebook, or a baseline."""
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    spec = model_spec(name, recipe)
    architecture = stage1_architecture(spec, recipe, dataset)
    record = {
        "kind": spec.kind,
        "dataset": dataset.name,
        "skipped": list(dataset.skipped),
        "classes": list(dataset.classes),
        **trained_names(dataset),
        "architecture": architecture,
    }
    fit(
        sitting,
        make_job(sitting.run, name, "stage1", dataset),
        record,
        make_model=lambda: build_stage1(spec.kind, architecture),
        make_task=lambda model: _stage1_task(model, recipe, dataset, device),
    )


def train_prior(sitting: ImageSitting, name: str) -> None:
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
    check_codebook_of(job, stage1)
    codes = extract_codes(sitting.run, name, stage1, dataset, device, batch_size=recipe.evaluation.batch_size)
    architecture = prior_architecture(recipe, model, len(dataset.classes))
    record = {
        "kind": "pixelcnn",
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        **trained_names(dataset),
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

    fit(sitting, job, record, make_model=lambda: PixelCNN(**architecture), make_task=make_task)


def train_all(sitting: ImageSitting) -> None:
    """Every model of the recipe in order, discrete ones with their priors; finished ones are skipped."""
    for job in all_jobs(sitting.run, sitting.dataset):
        (train_stage1 if job.stage == "stage1" else train_prior)(sitting, job.model)


def run_train_codebook(command: TrainCodebook) -> None:
    """`twostage train-codebook`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    jobs = [make_job(run, command.model, "stage1", dataset)]
    sitting = sit_down(
        run, dataset, jobs, device=command.device, resume=command.resume, extend=command.extend, dry_run=command.dry_run
    )
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
    sitting = sit_down(
        run, dataset, jobs, device=command.device, resume=command.resume, extend=command.extend, dry_run=command.dry_run
    )
    if sitting is not None:
        train_stage1(sitting, command.model)
        say(f"next: twostage evaluate {run.path}")


def run_train_prior(command: TrainPrior) -> None:
    """`twostage train-prior`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    run.stage1(command.model, torch.device("cpu"))
    jobs = [make_job(run, command.model, "prior", dataset)]
    sitting = sit_down(
        run, dataset, jobs, device=command.device, resume=command.resume, extend=command.extend, dry_run=command.dry_run
    )
    if sitting is not None:
        train_prior(sitting, command.model)
        say(f"next: twostage generate {run.path}, or twostage evaluate {run.path}")


def run_train(command: Train) -> None:
    """`twostage train`: all models, then evaluation and report."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    jobs = all_jobs(run, dataset)
    sitting = sit_down(
        run, dataset, jobs, device=command.device, resume=command.resume, extend=command.extend, dry_run=command.dry_run
    )
    if sitting is not None:
        train_all(sitting)
        if evaluate_run(run, dataset, device=sitting.device, split="test") is not None:
            from ..report.report import write_report  # and with it matplotlib, which no other training verb needs

            write_report(run, dataset, device=sitting.device, seed=run.recipe.seed)
