"""The one training loop, in the order in which things happen.

A step is a pure function of (weights, optimiser, seed, step): the batch comes from (seed, step), and torch's generators
are re-seeded from (seed, step) before every step, so dropout and posterior noise need no saved generator state and a
resumed run is the uninterrupted one, bit for bit, on the same machine and number of threads. That is tested on the CPU;
CUDA adds some sums in no fixed order.
"""

import fcntl
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from twostage.checkpoint import Checkpoint, load_newest, prune, save_checkpoint, step_name
from twostage.config.schema import TrainingConfig
from twostage.data import batch_indices
from twostage.errors import RunError
from twostage.metrics import Metrics
from twostage.progress import Progress, say
from twostage.signals import Interrupted, SafePoint

LOG_EVERY = 25
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class StepResult:
    """What a task hands back for one batch."""

    loss: Tensor
    """Scalar to minimise."""
    metrics: Mapping[str, Tensor]
    """Scalars for the record."""
    output: object = None
    """Handed back to the task's `after_step`."""


class Task(Protocol):
    """What is trained; the loop knows no more than this."""

    items: int
    """Training items; the batch stream runs over 0..items-1."""
    objective: str
    """Name of the validation number that picks the best model; lower is better."""

    @property
    def model(self) -> nn.Module:
        """What the optimiser moves."""

    def start(self) -> None:
        """Called once before step 0 of a fresh run (k-means init)."""

    def loss(self, indices: np.ndarray) -> StepResult:
        """Loss of the training items at `indices`; must not change the model."""

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        """Called after the optimiser's step (codebook update); its numbers join the record."""

    def validate(self) -> Mapping[str, float]:
        """Numbers on validation data, `objective` among them; the model is in eval mode, fp32, no gradients."""


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    steps: int
    seconds: float
    """Wall-clock seconds of training steps and validation, over all sittings."""
    best_step: int
    best_value: float
    """Best validation value of the task's objective; `best/` holds that model."""


def learning_rate_at(budget: TrainingConfig, step: int) -> float:
    """Learning rate of the update that ends step `step` (0-based)."""
    if step < budget.warmup_steps:
        return budget.learning_rate * (step + 1) / budget.warmup_steps
    if budget.schedule == "constant":
        return budget.learning_rate
    share = (step - budget.warmup_steps) / max(1, budget.steps - budget.warmup_steps)
    return budget.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators (CPU and accelerators) from (seed, step)."""
    word = np.random.SeedSequence([seed, 1, step]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(word >> np.uint64(1)))


def make_optimiser(model: nn.Module, budget: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on the weights of linear and convolutional layers only.

    Biases, embeddings and a codebook are not decayed: pulling them to zero says nothing about smoothness.
    """
    decayed = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)  # all convolutions, transposed ones too
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": budget.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=budget.learning_rate)


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a training folder against other processes; the lock goes with the process, however it ends.

    Raises:
        RunError: another process is training there.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is training in {folder}; wait for it or stop it") from error
        yield


class Fit:
    """State of one training; `run` does the work."""

    def __init__(
        self,
        task: Task,
        *,
        folder: Path,
        budget: TrainingConfig,
        seed: int,
        record: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.task, self.folder, self.budget, self.seed, self.device = task, folder, budget, seed, device
        self.record = {**record, "seed": seed, "threads": torch.get_num_threads(), "device": device.type}
        self.optimiser = make_optimiser(task.model, budget)
        self.step, self.seconds = 0, 0.0
        self.best_step, self.best_value = -1, math.inf
        self.latest_validation: dict[str, float] = {}

    def _state(self, metrics_bytes: int) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "best_step": self.best_step,
            "best_value": None if math.isinf(self.best_value) else self.best_value,
            "metrics_bytes": metrics_bytes,
            "record": self.record,
        }

    def restore(self, checkpoint: Checkpoint) -> int:
        """Continue from a checkpoint; returns the length that metrics.jsonl is cut back to."""
        state = checkpoint.state
        for what in ("threads", "device"):
            if state["record"][what] != self.record[what]:
                say(
                    f"warning: {self.folder} was trained with {what} {state['record'][what]} and goes on with "
                    f"{self.record[what]}; the result will differ in the last bits"
                )
        self.task.model.load_state_dict(checkpoint.tensors["model"])
        _load_optimiser(self.optimiser, checkpoint.tensors["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best_step = state["best_step"]
        self.best_value = math.inf if state["best_value"] is None else state["best_value"]
        return int(state["metrics_bytes"])

    def save(self, metrics: Metrics) -> None:
        """Write the complete training state as `step-XXXXXXXX/`."""
        save_checkpoint(
            self.folder / step_name(self.step),
            tensors={"model": self.task.model.state_dict(), "optimiser": _optimiser_tensors(self.optimiser)},
            state=self._state(metrics.sync()),
        )
        prune(self.folder, keep=CHECKPOINTS_KEPT)

    def validate(self, metrics: Metrics) -> None:
        """Measure on validation data and keep the model in `best/` if it is the best so far."""
        self.task.model.eval()
        with torch.no_grad():
            self.latest_validation = dict(self.task.validate())
        self.task.model.train()
        metrics.write({"step": self.step, **{f"validation_{k}": v for k, v in self.latest_validation.items()}})
        value = self.latest_validation[self.task.objective]
        if value < self.best_value:
            self.best_step, self.best_value = self.step, value
            save_checkpoint(
                self.folder / "best",
                tensors={"model": self.task.model.state_dict()},
                state={**self._state(0), "validation": self.latest_validation},
            )

    def train_step(self) -> dict[str, float]:
        """One optimiser step, in order: seed, batch, loss, gradients, checks, step, codebook."""
        seed_step(self.seed, self.step)
        indices = batch_indices(
            seed=self.seed, step=self.step, batch_size=self.budget.batch_size, items=self.task.items
        )
        learning_rate = learning_rate_at(self.budget, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.budget.precision == "bf16"):
            result = self.task.loss(indices)
        self.optimiser.zero_grad(set_to_none=True)
        result.loss.backward()
        limit = self.budget.clip_norm or math.inf
        gradient_norm = nn.utils.clip_grad_norm_(self.task.model.parameters(), limit).item()
        loss = result.loss.item()
        # Stop before the optimiser or the codebook sees a non-finite number.
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise RunError(
                f"the {what} is not finite at step {self.step} (loss {loss}, gradient norm {gradient_norm}) and went "
                f"no further; any checkpoint in {self.folder} is from before: lower the learning rate or the clip norm"
            )
        self.optimiser.step()
        extra = self.task.after_step(result, self.optimiser)
        self.step += 1
        numbers = {name: float(value) for name, value in result.metrics.items()}
        return {"loss": loss, "gradient_norm": gradient_norm, "learning_rate": learning_rate, **numbers, **extra}

    def run(self, *, label: str) -> FitResult:
        """Train to the end of the budget, from wherever the folder stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder):
            return self._run(label)

    def _run(self, label: str) -> FitResult:
        checkpoint = load_newest(self.folder, warn=say)
        size = 0 if checkpoint is None else self.restore(checkpoint)
        self.task.model.train()
        metrics = Metrics(self.folder / "metrics.jsonl", size=size)
        try:
            with SafePoint() as safe_point, Progress(label, total=self.budget.steps, done=self.step) as progress:
                if checkpoint is not None and self.step < self.budget.steps:
                    say(f"{label}: going on from step {self.step}")
                if checkpoint is None:
                    seed_step(self.seed, 0)
                    self.task.start()
                self._loop(metrics, safe_point, progress)
        finally:
            metrics.close()
        return FitResult(steps=self.step, seconds=self.seconds, best_step=self.best_step, best_value=self.best_value)

    def _loop(self, metrics: Metrics, safe_point: SafePoint, progress: Progress) -> None:
        shown: Callable[[float], str] = "{:.4f}".format
        while self.step < self.budget.steps:
            started = time.perf_counter()
            numbers = self.train_step()
            last = self.step == self.budget.steps
            if self.step % LOG_EVERY == 0 or last:
                metrics.write({"step": self.step, **numbers})
            if self.step % self.budget.validate_every == 0 or last:
                self.validate(metrics)
            self.seconds += time.perf_counter() - started
            if self.step % LOG_EVERY == 0 or last:
                progress.advance(0, {"loss": shown(numbers["loss"])})
            if self.latest_validation:
                progress.advance(0, {self.task.objective: shown(self.latest_validation[self.task.objective])})
            progress.advance(1)
            if self.step % self.budget.checkpoint_every == 0 or last or safe_point.received is not None:
                self.save(metrics)
            if safe_point.received is not None:
                raise Interrupted(
                    f"stopped by a signal after step {self.step} of {self.budget.steps}; the state is saved in "
                    f"{self.folder}: run the same command again to go on",
                    signal_number=safe_point.received,
                )
