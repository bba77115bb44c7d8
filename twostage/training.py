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
from contextlib import contextmanager, nullcontext
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
from twostage.optimiser import learning_rate_at, load_optimiser, make_optimiser, optimiser_tensors
from twostage.progress import Progress, say
from twostage.signals import Interrupted, SafePoint
from twostage.weight_average import WeightAverage

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
    """Name of the validation number that picks the best model and ends an impatient run; lower is better."""

    @property
    def model(self) -> nn.Module:
        """What the optimiser moves, and what `validate` measures: with a weight average, it holds that meanwhile."""

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
    stopped_early: bool
    """Whether patience ended it before the last step of its budget."""


def seed_step(seed: int, step: int) -> None:
    """Seed torch's generators (CPU and accelerators) from (seed, step)."""
    word = np.random.SeedSequence([seed, 1, step]).generate_state(1, np.uint64)[0]
    number = int(word >> np.uint64(1))
    # torch.manual_seed formats a stack trace for every accelerator that is not in use: 0.2 ms a step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


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
        self.average = WeightAverage(task.model, decay=budget.weight_ema) if budget.weight_ema else None
        self.step, self.seconds = 0, 0.0
        self.best_step, self.best_value = -1, math.inf
        self.latest_validation: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        """Whether the budget is used up, or the last `patience` validations brought no new best.

        Only the last validation of all can lie off the grid of `validate_every`, so the steps tell how many there were.
        """
        every, patience = self.budget.validate_every, self.budget.patience
        without_best = self.step // every - max(self.best_step, 0) // every
        return self.step >= self.budget.steps or 0 < patience <= without_best

    def _state(self, metrics_bytes: int) -> dict[str, Any]:
        return {
            "step": self.step,
            "finished": self.finished,
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
        load_optimiser(self.optimiser, checkpoint.tensors["optimiser"])
        if self.average is not None:
            self.average.load(checkpoint.tensors["average"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best_step = state["best_step"]
        self.best_value = math.inf if state["best_value"] is None else state["best_value"]
        return int(state["metrics_bytes"])

    def save(self, metrics: Metrics) -> None:
        """Write the complete training state as `step-XXXXXXXX/`."""
        tensors = {"model": self.task.model.state_dict(), "optimiser": optimiser_tensors(self.optimiser)}
        if self.average is not None:
            tensors["average"] = self.average.tensors()
        save_checkpoint(self.folder / step_name(self.step), tensors=tensors, state=self._state(metrics.sync()))
        prune(self.folder, keep=CHECKPOINTS_KEPT)

    def validate(self, metrics: Metrics) -> None:
        """Measure on validation data and keep the model in `best/` if it is the best so far."""
        self.task.model.eval()
        with self.average.in_place() if self.average is not None else nullcontext():
            with torch.no_grad():
                self.latest_validation = dict(self.task.validate())
            value = self.latest_validation[self.task.objective]
            if not math.isfinite(value):
                raise RunError(
                    f"the validation number {self.task.objective} is {value} after step {self.step}; the best model so "
                    f"far stays in {self.folder}: lower the learning rate"
                )
            if value < self.best_value:
                self.best_step, self.best_value = self.step, value
                save_checkpoint(
                    self.folder / "best",
                    tensors={"model": self.task.model.state_dict()},
                    state={**self._state(0), "validation": self.latest_validation},
                )
        self.task.model.train()
        metrics.write({"step": self.step, **{f"validation_{k}": v for k, v in self.latest_validation.items()}})

    def train_step(self) -> dict[str, float]:
        """One optimiser step, in order: seed, batch, loss, gradients, checks, step, codebook, weight average."""
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
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        numbers = {name: float(value) for name, value in result.metrics.items()}
        return {"loss": loss, "gradient_norm": gradient_norm, "learning_rate": learning_rate, **numbers, **extra}

    def run(self, *, label: str) -> FitResult:
        """Train to the end of the budget or of the patience, from wherever the folder stands."""
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
                if checkpoint is not None and not self.finished:
                    say(f"{label}: going on from step {self.step}")
                if checkpoint is None:
                    seed_step(self.seed, 0)
                    self.task.start()
                self._loop(label, metrics, safe_point, progress)
        finally:
            metrics.close()
        return FitResult(
            steps=self.step,
            seconds=self.seconds,
            best_step=self.best_step,
            best_value=self.best_value,
            stopped_early=self.step < self.budget.steps,
        )

    def _loop(self, label: str, metrics: Metrics, safe_point: SafePoint, progress: Progress) -> None:
        shown: Callable[[float], str] = "{:.4f}".format
        while not self.finished:
            started = time.perf_counter()
            numbers = self.train_step()
            last = self.step == self.budget.steps
            # A revival is an event: between two lines of the record it would be lost.
            if self.step % LOG_EVERY == 0 or last or numbers.get("revived"):
                metrics.write({"step": self.step, **numbers})
                progress.advance(0, {"loss": shown(numbers["loss"])})
            if self.step % self.budget.validate_every == 0 or last:
                self.validate(metrics)
                progress.advance(0, {self.task.objective: shown(self.latest_validation[self.task.objective])})
            self.seconds += time.perf_counter() - started
            progress.advance(1)
            if self.step % self.budget.checkpoint_every == 0 or self.finished or safe_point.received is not None:
                self.save(metrics)
            if safe_point.received is not None:
                raise Interrupted(
                    f"stopped by a signal after step {self.step} of {self.budget.steps}; the state is saved in "
                    f"{self.folder}: run the same command again to go on",
                    signal_number=safe_point.received,
                )
            if self.finished and not last:
                say(
                    f"{label}: stopped early after step {self.step} of {self.budget.steps}: no new best in "
                    f"{self.budget.patience} validations since step {self.best_step}"
                )
