"""The training verbs: codebook, prior, baseline, and all of them in order."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.training import CodebookTask, GaussianTask
from stage2_prior import PixelCNN
from stage2_prior.training import PriorTask
from twostage.codes import CodeFile
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data import ImageDataset, load_dataset
from twostage.errors import UsageError
from twostage.progress import say
from twostage.training import Budget, Fit, FitResult, Task, seed_step

from .commands import Train, TrainBaseline, TrainCodebook, TrainPrior
from .device import pick_device, use_threads
from .extract import extract_codes
from .models import build_stage1, model_spec, prior_architecture, stage1_architecture
from .run import Resume, Run, check_resume, is_finished


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """What every training of one command shares."""

    run: Run
    dataset: ImageDataset
    device: torch.device
    resume: Resume

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe


def _fit(
    sitting: Sitting,
    folder: Path,
    *,
    label: str,
    training: TrainingConfig,
    record: dict[str, Any],
    make_model: Callable[[], nn.Module],
    make_task: Callable[[Any], Task],
) -> FitResult | None:
    """Train into `folder`, or continue, or return None where it is finished."""
    record["config"]["training"] = asdict(training)
    continued = check_resume(folder, record["config"], sitting.resume)
    if continued and is_finished(folder):
        say(f"{label}: already trained in {folder}")
        return None
    # The weights are drawn on the CPU, so that every device starts from the same ones.
    seed_step(sitting.recipe.seed, 0)
    model = make_model().to(sitting.device)
    fit = Fit(
        make_task(model),
        folder=folder,
        budget=Budget(**asdict(training)),
        seed=sitting.recipe.seed,
        record=record,
        device=sitting.device,
    )
    result = fit.run(label=label)
    say(
        f"{label}: {result.steps} steps in {result.seconds:.0f} s; best validation "
        f"{fit.task.objective.replace('_', ' ')} {result.best_value:.4f} at step {result.best_step}, saved in {folder}"
    )
    return result


def _tensor(array: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _stage1_config(name: str, recipe: Recipe) -> dict[str, Any]:
    """Settings that decide the weights of a stage-one model; a resumed training must have the same."""
    spec = model_spec(name, recipe)
    bottleneck = (
        {"quantiser": {**asdict(recipe.quantiser), "update": spec.codebook_update}}
        if spec.kind == "vq-vae"
        else {"gaussian": {**asdict(recipe.gaussian), "beta": spec.beta}}
    )
    return {"seed": recipe.seed, "data": {"name": recipe.data.name}, "stage1": asdict(recipe.stage1), **bottleneck}


def train_stage1(sitting: Sitting, name: str) -> None:
    """Train stage one of the named model: a codebook, or a Gaussian baseline."""
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    spec = model_spec(name, recipe)
    architecture = stage1_architecture(spec, recipe, dataset)
    record = {
        "kind": spec.kind,
        "model": name,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "architecture": architecture,
        "config": _stage1_config(name, recipe),
    }
    train, validation = _tensor(dataset.train.images, device), _tensor(dataset.validation.images, device)
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
        sitting.run.stage1_folder(name),
        label=f"{name} stage one",
        training=recipe.codebook_training if spec.kind == "vq-vae" else recipe.baseline_training,
        record=record,
        make_model=lambda: build_stage1(spec.kind, architecture),
        make_task=make_task,
    )


def train_prior(sitting: Sitting, name: str) -> None:
    """Extract the codes of a trained codebook and fit the prior over them."""
    recipe, dataset, device = sitting.recipe, sitting.dataset, sitting.device
    stage1 = sitting.run.stage1(name, device)
    if not isinstance(stage1.model, VQVAE):
        raise UsageError(f"model {name} has no codes, so no prior; choose a vq-vae")
    codes = extract_codes(sitting.run, name, stage1, dataset, device, batch_size=recipe.evaluation.batch_size)
    architecture = prior_architecture(recipe, stage1.model, len(dataset.classes))
    record = {
        "kind": "pixelcnn",
        "model": name,
        "dataset": dataset.name,
        "classes": list(dataset.classes),
        "stage1_sha256": stage1.sha256,
        "architecture": architecture,
        "config": {"seed": recipe.seed, "codebook": stage1.sha256, "prior": asdict(recipe.prior)},
    }

    def condition(file: CodeFile) -> torch.Tensor | None:
        return _tensor(file.labels, device)[:, None] if architecture["classes"] else None

    def make_task(model: PixelCNN) -> Task:
        train, validation = codes["train"], codes["validation"]
        return PriorTask(
            model,
            train=_tensor(train.codes, device).long(),
            train_condition=condition(train),
            validation=_tensor(validation.codes, device).long(),
            validation_condition=condition(validation),
            evaluation_batch_size=recipe.evaluation.batch_size,
        )

    _fit(
        sitting,
        sitting.run.prior_folder(name),
        label=f"{name} prior",
        training=recipe.prior_training,
        record=record,
        make_model=lambda: PixelCNN(**architecture),
        make_task=make_task,
    )


def _continue_run(path: Path, recipe: Recipe) -> Run:
    """Adopt the command's settings into an existing run; trainings that are already there check theirs themselves."""
    run = Run.open(path)
    return run if run.recipe == recipe else Run.create(path, recipe)


def _plan(recipe: Recipe, dataset: ImageDataset, path: Path, names: tuple[str, ...], what: str) -> None:
    """Answer --dry-run: what would be done, and where."""
    counts = ", ".join(f"{len(dataset.split(s).images)} {s}" for s in ("train", "validation", "test"))
    say(f"{what} of {', '.join(names)} on {dataset.name} ({counts} images of shape {dataset.shape})")
    for name in names:
        spec = model_spec(name, recipe)
        model = build_stage1(spec.kind, stage1_architecture(spec, recipe, dataset))
        training = recipe.codebook_training if spec.kind == "vq-vae" else recipe.baseline_training
        parameters = sum(p.numel() for p in model.parameters())
        say(f"  {name}: {parameters:,} parameters, {training.steps} steps of {training.batch_size} items")
    epochs = recipe.codebook_training.steps * recipe.codebook_training.batch_size / len(dataset.train.images)
    say(f"  a codebook sees the training data {math.ceil(epochs)} times; would write {path}; nothing was done")


def _open_sitting(run: Run, dataset: ImageDataset, device: str, resume: Resume) -> Sitting:
    use_threads(run.recipe.threads)
    return Sitting(run=run, dataset=dataset, device=pick_device(device), resume=resume)


def run_train_codebook(command: TrainCodebook) -> None:
    """`twostage train-codebook`."""
    recipe, name = command.recipe, command.model
    dataset = load_dataset(recipe.data)
    check_resume(_stage1_folder(command.run, name), _full_stage1_config(name, recipe), command.resume)
    if command.dry_run:
        return _plan(recipe, dataset, command.run, (name,), "would train stage one")
    sitting = _open_sitting(Run.create(command.run, recipe), dataset, command.device, command.resume)
    train_stage1(sitting, name)
    say(f"next: twostage train-prior {command.run}" + ("" if name == "vq-vae" else f" --model {name}"))


def run_train_baseline(command: TrainBaseline) -> None:
    """`twostage train-baseline`."""
    recipe, name = command.recipe, command.model
    dataset = load_dataset(recipe.data)
    Run.open(command.run)
    check_resume(_stage1_folder(command.run, name), _full_stage1_config(name, recipe), command.resume)
    if command.dry_run:
        return _plan(recipe, dataset, command.run, (name,), "would train")
    sitting = _open_sitting(_continue_run(command.run, recipe), dataset, command.device, command.resume)
    train_stage1(sitting, name)
    say(f"next: twostage evaluate {command.run}")


def run_train_prior(command: TrainPrior) -> None:
    """`twostage train-prior`."""
    recipe, name = command.recipe, command.model
    dataset = load_dataset(recipe.data)
    run = Run.open(command.run)
    if command.dry_run:
        run.stage1(name, torch.device("cpu"))
        training = recipe.prior_training
        say(
            f"would extract the codes of {name} and fit {recipe.prior.layers} layers for {training.steps} steps of "
            f"{training.batch_size}; would write {run.prior_folder(name)}; nothing was done"
        )
        return
    sitting = _open_sitting(_continue_run(command.run, recipe), dataset, command.device, command.resume)
    train_prior(sitting, name)
    say(f"next: twostage generate {command.run} or twostage evaluate {command.run}")


def train_all(sitting: Sitting) -> None:
    """Every model of the recipe in order, discrete ones with their priors; finished ones are skipped."""
    for name in sitting.recipe.models:
        train_stage1(sitting, name)
        if model_spec(name, sitting.recipe).kind == "vq-vae":
            train_prior(sitting, name)


def run_train(command: Train) -> None:
    """`twostage train`: all models, then evaluation and report."""
    from .evaluate import evaluate_run
    from .report import write_report

    recipe = command.recipe
    dataset = load_dataset(recipe.data)
    for name in recipe.models:
        check_resume(_stage1_folder(command.run, name), _full_stage1_config(name, recipe), command.resume)
    if command.dry_run:
        return _plan(recipe, dataset, command.run, recipe.models, "would train")
    sitting = _open_sitting(Run.create(command.run, recipe), dataset, command.device, command.resume)
    train_all(sitting)
    evaluate_run(sitting.run, dataset, device=sitting.device, split="test")
    write_report(sitting.run, dataset, device=sitting.device, seed=recipe.seed)


def _stage1_folder(path: Path, name: str) -> Path:
    return path / "models" / name / "stage1"


def _full_stage1_config(name: str, recipe: Recipe) -> dict[str, Any]:
    spec = model_spec(name, recipe)
    training = recipe.codebook_training if spec.kind == "vq-vae" else recipe.baseline_training
    return {**_stage1_config(name, recipe), "training": asdict(training)}
