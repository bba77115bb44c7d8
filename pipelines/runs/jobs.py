"""Which trainings a run consists of, and whether a command may begin or continue them.

A training's record (in every checkpoint) holds the settings that decided its weights and the digest of its data. A
command must agree with the records of *all* trainings of the run, not only of its own: one run is one data set and one
recipe. Everything is checked before anything is written.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from twostage.config.model_names import model_spec
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data.interface import Dataset
from twostage.errors import UsageError
from twostage.progress import say
from twostage.storage.training_state import recorded_state
from twostage.training.precision import asked_precision, recorded_precision

from ..modality.choose import modality_of
from ..modality.interface import Stage, second_decoder
from .run import Run

Resume = Literal["auto", "never", "must"]
_STAGES: dict[Stage, str] = {"stage1": "stage one", "prior": "prior"}


@dataclass(frozen=True)
class Job:
    """One training of a run."""

    model: str
    stage: Stage
    folder: Path
    training: TrainingConfig
    config: dict[str, Any]
    """Settings that decide the weights; a training is only ever continued with the same."""
    what: str
    """The stage in words."""

    @property
    def label(self) -> str:
        return f"{self.model} {self.what}"


def make_job(run: Run, model: str, stage: Stage, dataset: Dataset) -> Job:
    """The job of that stage of a model under the run's recipe."""
    recipe, spec = run.recipe, model_spec(model, run.recipe)
    data = {"name": dataset.name, "sha256": dataset.sha256, "horizontal_flips": recipe.data.horizontal_flips}
    section = modality_of(recipe).sections[stage]
    settings: dict[str, Any] = {"seed": recipe.seed, "data": data, section: asdict(getattr(recipe, section))}
    training = {"prior": recipe.prior_training, "decoder": recipe.decoder_training}.get(stage)
    if training is None and spec.kind == "vq-vae":
        training = recipe.codebook_training if spec.starts_from is None else recipe.joint_training
        settings["quantiser"] = {**asdict(recipe.quantiser), "update": spec.codebook_update}
    elif training is None:
        training = recipe.baseline_training
        if spec.kind == "vimco":
            settings["quantiser"], settings["vimco"] = asdict(recipe.quantiser), asdict(recipe.vimco)
        else:
            settings["gaussian"] = {**asdict(recipe.gaussian), "beta": spec.beta}
    return Job(
        model=model,
        stage=stage,
        folder=run.path / "models" / model / stage,
        training=training,
        config={**settings, "training": deciding(training)},
        what=_STAGES.get(stage) or second_decoder(modality_of(recipe))[1],
    )


def deciding(training: TrainingConfig) -> dict[str, Any]:
    """The settings without those that cut up the work, and decide no more than how sums round, or show it."""
    return {key: value for key, value in asdict(training).items() if key not in ("accumulate", "compile", "pictures")}


_MORE_STEPS = re.compile(r"training\.steps: (\d+) -> (\d+)")
_FITTED = re.compile(r"training\.(warmup_steps|validate_every): ")
"""What a command fits to fewer steps (`cli.shortening`)."""


def _is_longer(change: str) -> bool:
    """Whether that line of `differences` is about more steps than there were."""
    steps = _MORE_STEPS.fullmatch(change)
    return steps is not None and int(steps[2]) > int(steps[1])


def _how_to_extend(job: Job, changes: Sequence[str], *, own: bool) -> str:
    """Part of a sentence: what gives the job more steps, where no more differs than these and what was fitted to them.

    `own`: whether it is a job of this command.
    """
    if not any(map(_is_longer, changes)) or not all(_is_longer(line) or _FITTED.match(line) for line in changes):
        return ""
    verb = "train-baseline" if job.stage == "stage1" else f"train-{job.stage}"
    if job.stage == "stage1" and job.model.startswith("vq-vae"):
        verb = "train-codebook"
    return "add --extend to go on to more steps, " if own else f"extend it, too ({verb} --model {job.model} --extend), "


def check_jobs(run: Run, jobs: Sequence[Job], dataset: Dataset, resume: Resume, *, extend: bool = False) -> None:
    """Whether the jobs may begin or go on in the run folder under `--resume`, with `extend` for more steps.

    Raises:
        UsageError: a training of the run was made with other settings or data (the difference is listed), or the run
            is not in the state that `resume` asks for.
        RunError: a training folder holds only damaged checkpoints.
    """
    records = {job.folder: record_of(job.folder) for job in [*jobs, *_existing(run, dataset)]}
    begun = [job for job in jobs if records[job.folder] is not None]
    if resume == "must" and not begun:
        raise UsageError(f"--resume must, but {run.path} holds no saved training of {_names(jobs)} to go on with")
    if resume == "never" and begun:
        raise UsageError(
            f"--resume never, but {run.path} already holds a training of {_names(begun)}: remove it, or choose another "
            "run folder"
        )
    own = {job.folder for job in jobs}
    for job in [*jobs, *_existing(run, dataset)]:
        record = records[job.folder]
        changes = differences(*_comparable(record, job)) if record is not None else []
        if job.folder not in own:  # trainings of one run may differ in their seeds
            changes = [line for line in changes if not line.startswith("seed: ")]
        if extend:  # one training after the other gets more steps
            changes = [line for line in changes if not _is_longer(line)]
        if changes:
            other = any(line.startswith("data.sha256: ") for line in changes)
            raise UsageError(
                f"{job.label} in {run.path} was trained with other settings ({'; '.join(changes)}): "
                f"{'name the folder of its data with --data.path, ' if other else ''}use those, "
                f"{_how_to_extend(job, changes, own=job.folder in own)}or choose another run folder"
            )


def record_of(folder: Path) -> dict[str, Any] | None:
    """Record of the newest checkpoint of a training folder, None where no training has begun.

    Raises:
        RunError: its checkpoints are damaged, or of another program.
    """
    state = recorded_state(folder, warn=say)
    return None if state is None else state["record"]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines `training.steps: 120 -> 500` for every setting that differs; digests are shortened."""
    lines: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        # a record that was read has a list where a recipe has a tuple
        before, after = (list(x) if isinstance(x, tuple) else x for x in (old.get(key), new.get(key)))
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {_short(before)} -> {_short(after)}")
    return lines


def _comparable(record: Mapping[str, Any], job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of a record and of a job, with the precision that they come to; `auto` comes to the record's."""
    before, now = _with_later_settings(record["config"]), job.config
    recorded = recorded_precision(record, folder=job.folder)
    asked = asked_precision(job.training.precision) or recorded
    return (
        {**before, "training": {**before["training"], "precision": recorded}},
        {**now, "training": {**now["training"], "precision": asked}},
    )


def _with_later_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded configuration with the settings that came after it: their defaults are what was done before them."""
    defaults = {name: own for name, own in asdict(Recipe()).items() if isinstance(own, dict) and name != "data"}
    defaults["training"] = deciding(TrainingConfig())
    return {
        name: {**defaults[name], **value} if name in defaults and isinstance(value, Mapping) else value
        for name, value in config.items()
    }


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def _names(jobs: Sequence[Job]) -> str:
    return ", ".join(job.label for job in jobs)


def _existing(run: Run, dataset: Dataset) -> list[Job]:
    """Jobs of every training folder in the run, whoever made it."""
    jobs = [
        make_job(run, name, stage, dataset) for name in run.begun_models() for stage in modality_of(run.recipe).sections
    ]
    return [job for job in jobs if job.folder.is_dir()]
