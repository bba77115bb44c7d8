"""The run folder: one data set and recipe, its models, codes, samples and results.

RUN/config.toml                    complete, resolved recipe
RUN/models/NAME/stage1/            step-XXXXXXXX/, best/, metrics.jsonl
RUN/models/NAME/STAGE/pictures/    what it made of a few items at its validations, as pictures and sounds
RUN/models/NAME/prior/             the same, discrete models only
RUN/models/NAME/decoder/           the same, a second decoder of the codes: a WaveNet of sound, or of pictures
RUN/models/NAME/sampling.json      how new items are drawn, chosen on validation items
RUN/codes/NAME/SPLIT.safetensors
RUN/samples/, RUN/decoded/, RUN/evaluation.json, RUN/report.html

An exported folder (`twostage.storage.exported`) is one too, without states of trainings, metrics and codes.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from twostage.config.load import CONFIG, dump_run_recipe, load_run_recipe
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.config.schema import Recipe
from twostage.data.interface import Dataset
from twostage.errors import RunError, UsageError
from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.storage.codes import CodeFile, load_codes
from twostage.storage.exported import check_exported, is_exported
from twostage.storage.manifest import MANIFEST
from twostage.storage.training_state import is_finished, recorded_state

from ..modality.choose import modality_of
from .loading import Loaded, check_made_for, load_model

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """An existing run folder and the recipe written in it."""

    path: Path
    recipe: Recipe
    _loaded: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run.

        Raises:
            UsageError: the folder is no run folder.
            RunError: its config.toml is damaged, or it was exported and is not whole.
        """
        check_exported(path)
        return cls(path=path, recipe=load_run_recipe(path))

    def write(self) -> None:
        """Write the resolved recipe into the run folder, made if need be; callers check first (`jobs.check_jobs`).

        The seed stays that of the run's first command: a training begun with another has it in its own record.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        path, recipe = self.path / CONFIG, self.recipe
        if path.is_file():
            recipe = replace(recipe, seed=load_run_recipe(self.path).seed)
        write_atomic(path, dump_run_recipe(recipe).encode())

    def keep_data_place(self) -> None:
        """Write where the data are into config.toml, if it says another place; they were found to be the same data.

        What was exported keeps no place: it is for other machines, too.
        """
        if is_exported(self.path):
            return
        stored, path = load_run_recipe(self.path), self.recipe.data.path
        if path != stored.data.path:
            moved = replace(stored, data=replace(stored.data, path=path))
            write_atomic(self.path / CONFIG, dump_run_recipe(moved).encode())
            say(f"{self.path / CONFIG}: the data are in {path} from now on")

    def stage1_folder(self, model: str) -> Path:
        return self.path / "models" / model / "stage1"

    def prior_folder(self, model: str) -> Path:
        return self.path / "models" / model / "prior"

    def decoder_folder(self, model: str) -> Path:
        return self.path / "models" / model / "decoder"

    def sampling_file(self, model: str) -> Path:
        return self.path / "models" / model / "sampling.json"

    def codes_file(self, model: str, split: str) -> Path:
        return self.path / "codes" / model / f"{split}.safetensors"

    def begun_models(self) -> list[str]:
        """Names of the models that have a stage-one folder: the recipe's order, then any others by name."""
        folder = self.path / "models"
        names = [p.name for p in folder.iterdir() if self.stage1_folder(p.name).is_dir()] if folder.is_dir() else []
        order = {name: index for index, name in enumerate(self.recipe.models)}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    def model_or_main(self, name: str) -> str:
        """The model of that name; without one the main one, or the only one of a folder that has no main one."""
        begun = self.begun_models()
        return name or (begun[0] if len(begun) == 1 else MAIN_MODEL)

    def trained_models(self) -> list[str]:
        """Those of `begun_models` whose stage one is finished."""
        return [name for name in self.begun_models() if is_finished(self.stage1_folder(name))]

    def check_data(self, stage1: Loaded[Any], dataset: Dataset) -> None:
        """Raise RunError unless the data set is the one that the model was trained on."""
        trained_on = stage1.record["config"]["data"]
        if trained_on["sha256"] != dataset.sha256:
            raise RunError(
                f"{self.path} was trained on {trained_on['name']} data with digest {trained_on['sha256'][:12]}, but "
                f"data.path now holds data with digest {dataset.sha256[:12]}: put the old files back, or name the "
                "folder that they were moved to with --data.path"
            )

    def stage1(self, model: str, device: torch.device) -> Loaded[Any]:
        """The trained stage one of a model.

        Raises:
            RunError: it is missing, unfinished or damaged.
        """
        folder = self.stage1_folder(model)
        if not is_finished(folder):
            codebook = model.startswith("vq-vae")
            verb = f"train-codebook RECIPE --out {self.path}" if codebook else f"train-baseline {self.path}"
            trained = ", ".join(self.trained_models()) or "none"
            raise RunError(
                f"{self.path} holds no finished stage one of model {model} (finished: {trained}); run {verb} "
                f"--model {model} first"
            )
        return self._load(folder, device)

    def codebook(self, model: str, device: torch.device) -> Loaded[Any]:
        """The same of a model whose codes a prior or a decoder can follow.

        Raises:
            UsageError: the model has none.
            RunError: it is missing, unfinished or damaged.
        """
        if model_spec(model, self.recipe).kind != "vq-vae":
            raise UsageError(f"model {model} has no codes that a prior or a decoder could follow; choose a vq-vae")
        return self.stage1(model, device)

    def prior(self, model: str, stage1: Loaded[Any], device: torch.device) -> Loaded[Any]:
        """The trained prior of a model.

        Raises:
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        return self._follower("prior", model, stage1, device)

    def decoder(self, model: str, stage1: Loaded[Any], device: torch.device) -> Loaded[Any]:
        """The trained decoder on the codes of a model, beside the one of stage one.

        Raises:
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        return self._follower("decoder", model, stage1, device)

    def _follower(self, what: str, model: str, stage1: Loaded[Any], device: torch.device) -> Loaded[Any]:
        folder = self.path / "models" / model / what
        if not is_finished(folder):
            raise RunError(f"{self.path} holds no finished {what} of model {model}; run train-{what} {self.path} first")
        follower = self._load(folder, device)
        check_made_for(follower, stage1, what)
        return follower

    def codes(self, model: str, split: str, *, stage1_sha256: str, remedy: str = "make them again") -> CodeFile:
        """The stored codes of a split, read once per command.

        Args:
            model, split: whose codes.
            stage1_sha256: of the weights that made them.
            remedy: what to do where they are refused.

        Raises:
            RunError: they are missing, damaged, or of another codebook.
        """
        path = self.codes_file(model, split)
        key = (path, stage1_sha256, _stamp(path))
        if key not in self._loaded:
            self._loaded[key] = load_codes(path, expect_stage1_sha256=stage1_sha256, remedy=remedy)
        found: CodeFile = self._loaded[key]
        return found

    def once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made once per command: of that model's weights, say, whose digest is part of the key."""
        if key not in self._loaded:
            self._loaded[key] = make()
        found: T = self._loaded[key]
        return found

    def _load(self, folder: Path, device: torch.device) -> Loaded[Any]:
        """The best model of a training folder, once per command: the same weights are not read and built again."""
        key = (folder, device, _stamp(folder / "best" / MANIFEST))
        if key not in self._loaded:
            modality = modality_of(self.recipe)
            self._loaded[key] = load_model(
                folder, device, lambda record: modality.build(record["kind"], record["architecture"])
            )
        found: Loaded[Any] = self._loaded[key]
        return found


def _stamp(path: Path) -> tuple[int, int] | None:
    """Tells one file from another that took its place; None without a file, which a loader then says."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def check_folder(path: Path) -> None:
    """Whether a folder can be written, as far as can be known before.

    Raises:
        UsageError: a file stands in its way.
        RunError: the permissions do not allow it.
    """
    for place in (path, *path.parents):
        if place.exists() or place.is_symlink():
            if not place.is_dir():
                raise UsageError(f"{place} is a file, but a folder is needed to write {path}: choose another place")
            if not os.access(place, os.W_OK | os.X_OK):
                raise RunError(f"{place} may not be written: change its permissions or choose another place")
            return


def steps_done(folder: Path) -> int:
    """Steps of a training folder, 0 where none has begun.

    Raises:
        RunError: its checkpoints are damaged, or of another program.
    """
    state = recorded_state(folder, warn=say)
    return 0 if state is None else int(state["step"])


@dataclass(frozen=True)
class TrainingCost:
    """What a finished training took."""

    steps: int
    seconds: float
    """Wall-clock seconds of steps and validations, over all sessions."""


def training_cost(folder: Path) -> TrainingCost:
    """Steps and seconds of a training folder, and of the model that it went on from.

    Raises:
        RunError: it holds no checkpoint.
    """
    state = recorded_state(folder, "seconds", warn=say)
    if state is None:
        raise RunError(f"{folder} holds no checkpoint; train this model first")
    before = state["record"].get("start") or {"steps": 0, "seconds": 0.0}
    return TrainingCost(steps=state["step"] + before["steps"], seconds=state["seconds"] + before["seconds"])
