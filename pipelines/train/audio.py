"""The training verbs for recordings: codebook, WaveNet decoder, prior, baseline, and all of them in order."""

from typing import Any

import numpy as np
import torch

from stage1_vqvae import SoundVAE, SoundVQVAE, WaveNetDecoder
from stage1_vqvae.audio.tasks import SoundCodebookTask, SoundGaussianTask
from stage1_vqvae.audio.wavenet_task import WaveNetDecoderTask
from stage2_prior import WaveNet
from stage2_prior.sequence_training import SequencePriorTask
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.data.audio import AudioDataset
from twostage.errors import UsageError
from twostage.progress import say
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from ..commands.training import Train, TrainBaseline, TrainCodebook, TrainDecoder, TrainPrior
from ..evaluate.evaluate import evaluate_run
from ..modality.audio import (
    build_stage1,
    condition_of,
    decoder_architecture,
    lengths_of,
    load_sound,
    prior_architecture,
    speakers_of,
    stage1_architecture,
)
from ..runs.audio_codes import extract_sound_codes
from ..runs.audio_models import codebook_stage1
from ..runs.class_numbers import trained_names
from ..runs.jobs import Job, Resume, make_job
from ..runs.loading import sound_parameters
from ..runs.run import Run
from ..runs.session import Sitting, check_codebook_of, fit, prepare

SoundSitting = Sitting[AudioDataset]


def all_sound_jobs(run: Run, dataset: AudioDataset) -> list[Job]:
    """Every training of the recipe in order: discrete models with their WaveNet decoders and priors."""
    jobs = []
    for name in run.recipe.models:
        jobs.append(make_job(run, name, "stage1", dataset))
        if model_spec(name, run.recipe).kind == "vq-vae":
            if run.recipe.wavenet_decoder.blocks:
                jobs.append(make_job(run, name, "decoder", dataset))
            jobs.append(make_job(run, name, "prior", dataset))
    return jobs


def sit_down_to_sound(
    run: Run,
    dataset: AudioDataset,
    jobs: list[Job],
    *,
    device: str,
    resume: Resume,
    extend: bool = False,
    dry_run: bool,
) -> SoundSitting | None:
    """`sitting.prepare` for recordings.

    Raises:
        UsageError: settings, data, device or run folder do not fit together.
    """

    def describe() -> str:
        hours = sum(dataset.durations_seconds(split).sum() for split in ("train", "validation", "test")) / 3600
        return (
            f"recordings, {hours:.2f} h at {dataset.sample_rate_hz} Hz, {len(dataset.classes)} labels, "
            f"{len(dataset.speakers)} speakers ({dataset.split_rule})"
        )

    return prepare(
        run,
        dataset,
        jobs,
        describe=describe,
        size_of=lambda job: _size(run, job, dataset),
        device=device,
        resume=resume,
        extend=extend,
        dry_run=dry_run,
    )


def _size(run: Run, job: Job, dataset: AudioDataset) -> str:
    """Parameters, where stage one is not needed to know them; building a model refuses sizes that do not fit."""
    if job.stage != "stage1":
        return ""
    spec = model_spec(job.model, run.recipe)
    model = build_stage1(f"sound-{spec.kind}", stage1_architecture(spec, run.recipe, dataset))
    if isinstance(model, SoundVQVAE):
        prior_architecture(run.recipe, model, dataset)
        vectors = int((-(-dataset.train.lengths // model.stride)).sum())
        if model.codebook_size > vectors:
            raise UsageError(
                f"{job.label}: the {len(dataset.train)} training recordings are encoded as {vectors} vectors, fewer "
                f"than the {model.codebook_size} codes of quantiser.codebook_size: choose a smaller one"
            )
    return f"{sound_parameters(model):,} parameters"


def _record(kind: str, dataset: AudioDataset, architecture: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "kind": kind,
        "dataset": dataset.name,
        "skipped": list(dataset.skipped),
        "classes": list(dataset.classes),
        "speakers": list(dataset.speakers),
        **trained_names(dataset),
        "sample_rate_hz": dataset.sample_rate_hz,
        "split_rule": dataset.split_rule,
        "architecture": architecture,
        **more,
    }


def train_sound_stage1(sitting: SoundSitting, name: str) -> None:
    """Train stage one of the named model: a codebook with its convolutional decoder, or a Gaussian baseline."""
    recipe, dataset = sitting.recipe, sitting.dataset
    spec = model_spec(name, recipe)
    architecture = stage1_architecture(spec, recipe, dataset)
    kind = f"sound-{spec.kind}"

    def make_task(model: SoundVQVAE | SoundVAE) -> Task:
        common: dict[str, Any] = {
            "train": dataset.train,
            "validation": dataset.validation,
            "sample_rate_hz": dataset.sample_rate_hz,
            "segment_samples": recipe.sound.segment_samples,
            "batch_samples": recipe.evaluation.batch_samples,
        }
        if isinstance(model, SoundVAE):
            return SoundGaussianTask(model, **common)
        return SoundCodebookTask(model, **common, kmeans=recipe.quantiser.init == "kmeans", seed=recipe.seed)

    fit(
        sitting,
        make_job(sitting.run, name, "stage1", dataset),
        _record(kind, dataset, architecture),
        make_model=lambda: build_stage1(kind, architecture),
        make_task=make_task,
    )


def train_sound_decoder(sitting: SoundSitting, name: str) -> None:
    """Fit a WaveNet decoder to the codes of a trained codebook.

    Raises:
        UsageError: a decoder is there that was fitted to another codebook.
        RunError: the codebook is missing, unfinished or damaged.
    """
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    stage1 = codebook_stage1(sitting.run, name, device)
    job = make_job(sitting.run, name, "decoder", dataset)
    check_codebook_of(job, stage1)
    codes = extract_sound_codes(sitting.run, name, stage1, dataset, device)
    architecture = decoder_architecture(recipe, stage1.model)

    def make_task(decoder: WaveNetDecoder) -> Task:
        return WaveNetDecoderTask(
            decoder,
            vqvae=stage1.model,
            train=dataset.train,
            train_codes=codes["train"].codes,
            validation=dataset.validation,
            validation_codes=codes["validation"].codes,
            segment_samples=recipe.wavenet_decoder.segment_samples,
            batch_samples=recipe.evaluation.batch_samples,
        )

    fit(
        sitting,
        job,
        _record("wavenet-decoder", dataset, architecture, stage1_sha256=stage1.sha256),
        make_model=lambda: WaveNetDecoder(**architecture),
        make_task=make_task,
    )


def train_sound_prior(sitting: SoundSitting, name: str) -> None:
    """Extract the codes of a trained codebook and fit the prior over them.

    Raises:
        UsageError: a prior is there that was fitted to another codebook.
        RunError: the codebook is missing, unfinished or damaged.
    """
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    stage1 = codebook_stage1(sitting.run, name, device)
    job = make_job(sitting.run, name, "prior", dataset)
    check_codebook_of(job, stage1)
    codes = extract_sound_codes(sitting.run, name, stage1, dataset, device)
    architecture = prior_architecture(recipe, stage1.model, dataset)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    def condition(file: CodeFile) -> torch.Tensor | None:
        if not architecture["classes"]:
            return None
        return tensor(condition_of(file.labels, speakers_of(file), (len(dataset.classes), len(dataset.speakers))))

    def make_task(prior: WaveNet) -> Task:
        train, validation = codes["train"], codes["validation"]
        return SequencePriorTask(
            prior,
            train=tensor(train.codes),
            train_lengths=tensor(lengths_of(train)),
            train_condition=condition(train),
            validation=tensor(validation.codes),
            validation_lengths=tensor(lengths_of(validation)),
            validation_condition=condition(validation),
            evaluation_batch_size=recipe.evaluation.batch_size,
        )

    fit(
        sitting,
        job,
        _record("wavenet", dataset, architecture, stage1_sha256=stage1.sha256),
        make_model=lambda: WaveNet(**architecture),
        make_task=make_task,
    )


_TRAIN = {"stage1": train_sound_stage1, "decoder": train_sound_decoder, "prior": train_sound_prior}


def train_all_sound(sitting: SoundSitting, jobs: list[Job]) -> None:
    """Every job in order; finished ones are skipped."""
    for job in jobs:
        _TRAIN[job.stage](sitting, job.model)


def _run_one(
    command: TrainCodebook | TrainDecoder | TrainPrior | TrainBaseline, stage: Any, *, path: Any, then: str
) -> None:
    run, dataset = Run(path=path, recipe=command.recipe), load_sound(command.recipe)
    if stage != "stage1":
        codebook_stage1(run, command.model, torch.device("cpu"))
    jobs = [make_job(run, command.model, stage, dataset)]
    sitting = sit_down_to_sound(
        run, dataset, jobs, device=command.device, resume=command.resume, extend=command.extend, dry_run=command.dry_run
    )
    if sitting is not None:
        train_all_sound(sitting, jobs)
        say(f"next: {then}")


def _named(model: str) -> str:
    """What the next command must be told of the model."""
    return "" if model == MAIN_MODEL else f" --model {model}"


def run_train_codebook(command: TrainCodebook) -> None:
    """`twostage train-codebook`."""
    model = _named(command.model)
    then = (
        f"twostage train-decoder {command.run}{model} for the better sound, twostage train-prior {command.run}{model}"
    )
    _run_one(command, "stage1", path=command.run, then=then)


def run_train_decoder(command: TrainDecoder) -> None:
    """`twostage train-decoder`."""
    _run_one(command, "decoder", path=command.run, then=f"twostage train-prior {command.run}{_named(command.model)}")


def run_train_prior(command: TrainPrior) -> None:
    """`twostage train-prior`."""
    then = f"twostage generate {command.run}{_named(command.model)}, or twostage evaluate {command.run}"
    _run_one(command, "prior", path=command.run, then=then)


def run_train_baseline(command: TrainBaseline) -> None:
    """`twostage train-baseline`."""
    _run_one(command, "stage1", path=command.run, then=f"twostage evaluate {command.run}")


def run_train(command: Train) -> None:
    """`twostage train`: all models, then evaluation and report."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_sound(command.recipe)
    jobs = all_sound_jobs(run, dataset)
    sitting = sit_down_to_sound(
        run, dataset, jobs, device=command.device, resume=command.resume, extend=command.extend, dry_run=command.dry_run
    )
    if sitting is not None:
        train_all_sound(sitting, jobs)
        if evaluate_run(run, dataset, device=sitting.device, split="test") is not None:
            from ..report.audio import write_sound_report  # and with it matplotlib, which no other training verb needs

            write_sound_report(run, dataset, device=sitting.device, seed=run.recipe.seed)
