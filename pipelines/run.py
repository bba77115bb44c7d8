"""The run folder: one data set and recipe, its models, codes, samples and results.

RUN/config.toml                    complete, resolved recipe
RUN/models/NAME/stage1/            step-XXXXXXXX/, best/, metrics.jsonl
RUN/models/NAME/prior/             the same, discrete models only
RUN/models/NAME/decoder/           the same, a WaveNet decoder of sound
RUN/codes/NAME/SPLIT.safetensors
RUN/samples/, RUN/decoded/, RUN/evaluation.json, RUN/report.html
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from stage1_vqvae import VQVAE
from stage2_prior import PixelCNN, sample
from twostage.atomic import write_atomic
from twostage.config.load import CONFIG, dump_run_recipe, load_run_recipe, user_path
from twostage.config.schema import Recipe
from twostage.errors import RunError, UsageError
from twostage.progress import say
from twostage.training_state import recorded_state

from .class_numbers import check_trained, trained_numbers
from .datasets import AnyDataset
from .drawing import decode_in_batches
from .models import MAIN_MODEL, Loaded, LoadedPrior, LoadedStage1, load_prior, load_stage1

if TYPE_CHECKING:
    from .sound.two_stage import TwoStageSound


@dataclass(frozen=True)
class Run:
    """An existing run folder and the recipe written in it."""

    path: Path
    recipe: Recipe

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run.

        Raises:
            UsageError: the folder is no run folder.
            RunError: its config.toml is damaged.
        """
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
        """Write where the data are into config.toml, if it says another place; they were found to be the same data."""
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

    def codes_file(self, model: str, split: str) -> Path:
        return self.path / "codes" / model / f"{split}.safetensors"

    def begun_models(self) -> list[str]:
        """Names of the models that have a stage-one folder: the recipe's order, then any others by name."""
        folder = self.path / "models"
        names = [p.name for p in folder.iterdir() if self.stage1_folder(p.name).is_dir()] if folder.is_dir() else []
        order = {name: index for index, name in enumerate(self.recipe.models)}
        return sorted(names, key=lambda name: (order.get(name, len(order)), name))

    def trained_models(self) -> list[str]:
        """Those of `begun_models` whose stage one is finished."""
        return [name for name in self.begun_models() if is_finished(self.stage1_folder(name))]

    def check_data(self, stage1: Loaded[Any], dataset: AnyDataset) -> None:
        """Raise RunError unless the data set is the one that the model was trained on."""
        trained_on = stage1.record["config"]["data"]
        if trained_on["sha256"] != dataset.sha256:
            raise RunError(
                f"{self.path} was trained on {trained_on['name']} data with digest {trained_on['sha256'][:12]}, but "
                f"data.path now holds data with digest {dataset.sha256[:12]}: put the old files back, or name the "
                "folder that they were moved to with --data.path"
            )

    def stage1(self, model: str, device: torch.device) -> LoadedStage1:
        """The trained stage one of a model.

        Raises:
            RunError: it is missing, unfinished or damaged.
        """
        folder = self.stage1_folder(model)
        if not is_finished(folder):
            verb = "train-codebook" if model.startswith("vq-vae") else "train-baseline"
            trained = ", ".join(self.trained_models()) or "none"
            raise RunError(
                f"{self.path} holds no finished stage one of model {model} (finished: {trained}); run {verb} first"
            )
        return load_stage1(folder, device)

    def prior(self, model: str, stage1: LoadedStage1, device: torch.device) -> LoadedPrior:
        """The trained prior of a model.

        Raises:
            RunError: it is missing, unfinished, damaged, or belongs to another codebook.
        """
        folder = self.prior_folder(model)
        if not is_finished(folder):
            raise RunError(f"{self.path} holds no finished prior of model {model}; run train-prior {self.path} first")
        return load_prior(folder, stage1, device)


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


def is_finished(folder: Path) -> bool:
    """Whether the training of a folder came to its end: the last step of its budget, or of its patience.

    Raises:
        RunError: its checkpoints are damaged, or of another program.
    """
    state = recorded_state(folder, warn=say)
    if state is None:
        return False
    # Trainings from before there was patience do not say so themselves.
    return bool(state.get("finished", state["step"] >= state["record"]["config"]["training"]["steps"]))


@dataclass(frozen=True)
class TrainingCost:
    """What a finished training took."""

    steps: int
    seconds: float
    """Wall-clock seconds of steps and validations, over all sittings."""


def training_cost(folder: Path) -> TrainingCost:
    """Steps and seconds of a training folder.

    Raises:
        RunError: it holds no checkpoint.
    """
    state = recorded_state(folder, "seconds", warn=say)
    if state is None:
        raise RunError(f"{folder} holds no checkpoint; train this model first")
    return TrainingCost(steps=state["step"], seconds=state["seconds"])


Labels = int | Sequence[int] | Tensor | Literal["in turn"] | None
"""One label, one for each item, those with training items in turn, or None: no label, for a prior trained with label
dropout."""


@dataclass(frozen=True)
class TwoStageModel:
    """A trained codebook with its prior, ready to use; what `load_run` returns."""

    run: Run
    stage1: LoadedStage1
    prior: LoadedPrior
    device: torch.device

    @property
    def vqvae(self) -> VQVAE:
        assert isinstance(self.stage1.model, VQVAE)
        return self.stage1.model

    @property
    def pixelcnn(self) -> PixelCNN:
        return self.prior.model

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels, by index."""
        return tuple(self.stage1.record["classes"])

    def generate(
        self,
        count: int,
        *,
        labels: Labels = "in turn",
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Tensor:
        """Prior sample -> decoder: images `[count, C, H, W]` in levels, fp32, as `decode` makes them.

        Args:
            labels: one label, or `count` of them; "in turn" for those with training items one after another; None for
                no label, which a prior with classes takes only after label dropout.
            temperature, top_k, top_p, seed: see `stage2_prior.sample`.

        Raises:
            UsageError: the labels do not fit the count or the prior, or one has no training item.
        """
        codes = self.sample_codes(count, labels=labels, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return self.decode(codes, seed=seed)

    def decode(self, codes_BGHW: Tensor, *, seed: int = 0) -> Tensor:
        """Images `[B, C, H, W]` in levels of codes: mean images, or samples from an autoregressive decoder."""
        return decode_in_batches(self.vqvae, codes_BGHW, batch_size=self.run.recipe.evaluation.batch_size, seed=seed)

    def _condition(self, count: int, labels: Labels) -> Tensor | None:
        """`[count, 1]`, or None for no label.

        Raises:
            UsageError: the labels do not fit the count or the prior, or one has no training item.
        """
        if not self.pixelcnn.classes:
            if labels is None or isinstance(labels, str):
                return None
            raise UsageError("expected no labels, because this prior knows none: leave them out")
        if labels is None:
            if self.pixelcnn.condition_optional:
                return None
            raise UsageError(
                "expected labels, because this prior was trained with labels only: give them, or train one with "
                "prior.label_dropout above 0"
            )
        classes = self.pixelcnn.classes[0]
        if isinstance(labels, str) and labels != "in turn":
            raise UsageError(f"expected labels as numbers, None or 'in turn', got {labels!r}")
        trained = trained_numbers(self.prior.record, "labels")
        in_turn = [trained[item % len(trained)] for item in range(count)] if isinstance(labels, str) else labels
        wanted = torch.as_tensor(in_turn)
        if wanted.ndim == 0:
            wanted = wanted.expand(count)
        if wanted.shape != (count,) or wanted.is_floating_point():
            raise UsageError(f"expected one label or {count} of them, got shape {tuple(wanted.shape)}, {wanted.dtype}")
        if not 0 <= int(wanted.min()) <= int(wanted.max()) < classes:
            raise UsageError(f"expected labels 0 to {classes - 1}, got {int(wanted.min())} to {int(wanted.max())}")
        check_trained(wanted.tolist(), self.classes, trained, what="labels")
        return wanted.long().to(self.device)[:, None]

    def sample_codes(
        self,
        count: int,
        *,
        labels: Labels = "in turn",
        known: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Codes `[count, G, h, w]` from the prior; arguments as in `generate` and `stage2_prior.sample`."""
        if count < 1:
            raise UsageError(f"expected a count of at least 1, got {count}")
        return sample(
            self.pixelcnn,
            count=count,
            condition=self._condition(count, labels),
            known=known,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            progress=progress,
            device=self.device,
        )


def load_run(
    path: str | Path, *, model: str | None = None, device: str | torch.device = "cpu"
) -> "TwoStageModel | TwoStageSound":
    """Load a trained codebook and its prior from a run folder.

    Args:
        path: the run folder.
        model: name of a discrete model of the run; the main one by default.
        device: where the networks live.

    Returns:
        A `TwoStageModel` of a run on images; of a run on recordings a `TwoStageSound`, which looks for its prior and
        its WaveNet decoder when it needs them.

    Raises:
        UsageError: the model is continuous.
        RunError: something is missing, unfinished, damaged or does not belong together.
    """
    run, where, name = Run.open(user_path(str(path))), torch.device(device), model or MAIN_MODEL
    if not run.recipe.is_sound:
        return load_image_run(run, name, where)
    from .sound.two_stage import load_sound_run

    return load_sound_run(run, name, where)


def load_image_run(run: Run, name: str, device: torch.device) -> TwoStageModel:
    """`load_run` of an open run on images."""
    stage1 = run.stage1(name, device)
    if not isinstance(stage1.model, VQVAE):
        raise UsageError(f"model {name} has no codes and no learned prior; choose a vq-vae")
    return TwoStageModel(run=run, stage1=stage1, prior=run.prior(name, stage1, device), device=device)
