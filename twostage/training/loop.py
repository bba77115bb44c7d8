"""The one training loop, in the order in which things happen.

A step is a pure function of (weights, optimiser, seed, step): the batch comes from (seed, step), and torch's generators
are re-seeded from (seed, step) before every step, so dropout and posterior noise need no saved generator state and a
resumed run is the uninterrupted one, bit for bit, on the same machine and number of threads and processes. That is
tested on the CPU; CUDA adds some sums in no fixed order.

Several processes (`twostage.distributed`) each hold the whole state and take the same steps with it, since they see the
same summed gradients; each computes its part of every batch, and the first of them writes.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from twostage.config.schema import TrainingConfig
from twostage.distributed import check_same, copy_module_from_first, is_first, of_every_rank, wait_for_all, world_size
from twostage.errors import RunError
from twostage.noise import seed_step
from twostage.progress import Progress, say
from twostage.storage.checkpoint import Checkpoint, load_newest, prune, save_checkpoint, step_name
from twostage.storage.locks import exclusive
from twostage.storage.training_state import RESUMED, check_state
from twostage.training.compiling import as_written, compiled
from twostage.training.finite import NotFinite, check_savable
from twostage.training.gradients import batch_gradient, batch_noise, check_parts
from twostage.training.interrupts import Interrupted, SafePoint
from twostage.training.observer import Observed, Observer
from twostage.training.optimiser import learning_rate_at, load_optimiser, make_optimiser, optimiser_tensors
from twostage.training.precision import bf16_on, chosen_precision, kept_precision
from twostage.training.record import Metrics, tell_differences
from twostage.training.task import StepResult, Task
from twostage.training.time_left import TimeLeft
from twostage.training.weight_average import WeightAverage

__all__ = ["Fit", "FitResult", "StepResult", "Task", "exclusive", "seed_step"]

LOG_EVERY = 25
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True)
class FitResult:
    """A finished training."""

    steps: int
    seconds: float
    """Wall-clock seconds of training steps and validation, over all sessions, without those of an observer."""
    best_step: int
    best_value: float
    """Best validation value of the task's objective; `best/` holds that model."""
    stopped_early: bool
    """Whether patience ended it before the last step of its budget."""
    validation_seconds: float
    observer_seconds: float
    """Of this session, each without the other."""


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
        observer: Observer | None = None,
    ) -> None:
        self.task, self.folder, self.seed, self.device = task, folder, seed, device
        self.observed, self.validation_seconds = Observed(observer), 0.0
        self.asked_precision = budget.precision
        self.budget = budget = replace(budget, precision=chosen_precision(budget.precision, device))
        self.record = {
            **record,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "device": device.type,
            "processes": world_size(),
            "accumulate": budget.accumulate,
            "compile": budget.compile,
            "precision": budget.precision,
        }
        check_parts(budget)
        self.optimiser = make_optimiser(task.model, budget)
        self.average = WeightAverage(task.model, decay=budget.weight_ema) if budget.weight_ema else None
        self.step, self.seconds = 0, 0.0
        self.best_step, self.best_value = -1, math.inf
        self.latest_validation: dict[str, float] = {}
        self.left = TimeLeft(budget)
        self.safe_point = SafePoint()
        self.signal: int | None = None
        """A signal to any process, known to all of them; with one process `safe_point` knows it earlier."""

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
        """Continue from a checkpoint; returns the length that metrics.jsonl is cut back to.

        Raises:
            RunError: it is not of this training.
        """
        state = checkpoint.state
        check_state(state, self.folder, *RESUMED)
        tell_differences(state["record"], self.record, self.folder)
        kept = kept_precision(state["record"], self.asked_precision, self.device, folder=self.folder)
        self.budget, self.record["precision"] = replace(self.budget, precision=kept), kept
        try:
            self.task.model.load_state_dict(checkpoint.tensors["model"])
            load_optimiser(self.optimiser, checkpoint.tensors["optimiser"])
            if self.average is not None:
                self.average.load(checkpoint.tensors["average"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise RunError(
                f"the tensors in {checkpoint.path} are not those of this training, so another program or version wrote "
                "them: use that version, or move the folder away and train again"
            ) from error
        self.step, self.seconds = state["step"], state["seconds"]
        self.best_step = state["best_step"]
        self.best_value = math.inf if state["best_value"] is None else state["best_value"]
        return int(state["metrics_bytes"])

    def save(self, metrics: Metrics) -> None:
        """Write the complete training state as `step-XXXXXXXX/`; of several processes the first does.

        Raises:
            RunError: something in it is not finite, or the disk refused.
        """
        tensors = {"model": self.task.model.state_dict(), "optimiser": optimiser_tensors(self.optimiser)}
        if self.average is not None:
            tensors["average"] = self.average.tensors()
        check_savable(tensors, step=self.step, folder=self.folder)
        if not is_first():
            return
        save_checkpoint(self.folder / step_name(self.step), tensors=tensors, state=self._state(metrics.sync()))
        prune(self.folder, keep=CHECKPOINTS_KEPT)

    def validate(self, metrics: Metrics) -> None:
        """Measure on validation data, keep the model in `best/` if it is the best so far, and let the observer look."""
        self.task.model.eval()
        with self.average.in_place() if self.average is not None else nullcontext():
            with torch.no_grad(), as_written() if self.budget.compile else nullcontext():
                self.latest_validation = dict(self.task.validate())
            value = self.latest_validation[self.task.objective]
            if not math.isfinite(value):
                raise RunError(
                    f"the validation number {self.task.objective} is {value} after step {self.step}; the best model so "
                    f"far stays in {self.folder}: lower the learning rate"
                )
            if value < self.best_value:
                tensors = {"model": self.task.model.state_dict()}
                check_savable(tensors, step=self.step, folder=self.folder)
                self.best_step, self.best_value = self.step, value
                if is_first():
                    save_checkpoint(
                        self.folder / "best",
                        tensors=tensors,
                        state={**self._state(0), "validation": self.latest_validation},
                    )
            with as_written() if self.budget.compile else nullcontext():
                self.observed.validated(self.step, self.latest_validation)
        self.task.model.train()
        metrics.write({"step": self.step, **{f"validation_{k}": v for k, v in self.latest_validation.items()}})

    def train_step(self) -> dict[str, float]:
        """One optimiser step, in order: batch, loss, gradients, checks, step, codebook, weight average."""
        learning_rate = learning_rate_at(self.budget, self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        with batch_noise(self.budget, self.seed, self.step, items=self.task.items) as noise:
            try:
                batch = batch_gradient(
                    self.task,
                    noise,
                    budget=self.budget,
                    seed=self.seed,
                    step=self.step,
                    device=self.device,
                    received=lambda: self.safe_point.received,
                )
            except NotFinite as error:  # before the optimiser or the codebook has seen it
                raise RunError(
                    f"{error}; any checkpoint in {self.folder} is from before: lower the learning rate or the clip norm"
                ) from error
            self.optimiser.step()
            extra = self.task.after_step(batch.result, self.optimiser)
        if self.average is not None:
            self.average.update(self.step)
        self.step += 1
        self.signal = batch.signal
        numbers = {name: float(value) for name, value in batch.result.metrics.items()}
        norm = batch.gradient_norm
        return {"loss": batch.loss, "gradient_norm": norm, "learning_rate": learning_rate, **numbers, **extra}

    def run(self, *, label: str) -> FitResult:
        """Train to the end of the budget or of the patience, from wherever the folder stands."""
        if not is_first():
            return self._run(label)
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder):
            return self._run(label)

    def _run(self, label: str) -> FitResult:
        checkpoint = load_newest(self.folder, warn=say)
        found = None if checkpoint is None else checkpoint.sha256
        record = {key: value for key, value in self.record.items() if key != "threads"}
        check_same(json.dumps([found, record], sort_keys=True), what=f"the settings, data or checkpoints of {label}")
        size = 0 if checkpoint is None else self.restore(checkpoint)
        self.task.model.train()
        metrics = Metrics(self.folder / "metrics.jsonl" if is_first() else None, size=size)
        try:
            bar = Progress(label, total=self.budget.steps, done=self.step, left=self.left.shown)
            with self.safe_point, bar as progress:
                if checkpoint is not None and not self.finished:
                    say(f"{label}: going on from step {self.step}")
                if checkpoint is None and self.asked_precision == "auto":
                    say(f"{label}: trains in {self.budget.precision}; {bf16_on(self.device)}")
                if checkpoint is None:
                    copy_module_from_first(self.task.model)
                    seed_step(self.seed, 0)
                    self.task.start()
                self.observed.begin(self.step)
                with compiled(self.task.model) if self.budget.compile else nullcontext():
                    self._loop(label, metrics, progress)
        finally:
            metrics.close()
            self.observed.close()
        wait_for_all()  # what the first process has written is there for the others
        return FitResult(
            steps=self.step,
            seconds=self.seconds,
            best_step=self.best_step,
            best_value=self.best_value,
            stopped_early=self.step < self.budget.steps,
            validation_seconds=self.validation_seconds,
            observer_seconds=self.observed.seconds,
        )

    def _loop(self, label: str, metrics: Metrics, progress: Progress) -> None:
        shown: Callable[[float], str] = "{:.4f}".format
        while not self.finished:
            started, observed = time.perf_counter(), self.observed.seconds
            numbers = self.train_step()
            last = self.step == self.budget.steps
            self.left.spent("step", time.perf_counter() - started)
            # A revival is an event: between two lines of the record it would be lost.
            if self.step % LOG_EVERY == 0 or last or numbers.get("revived"):
                metrics.write({"step": self.step, **numbers})
                self.observed.trained(self.step, numbers)
                progress.advance(0, {"loss": shown(numbers["loss"])})
            if self.step % self.budget.validate_every == 0 or last:
                began, before = time.perf_counter(), self.observed.seconds
                self.validate(metrics)
                spent = time.perf_counter() - began
                self.validation_seconds += spent - (self.observed.seconds - before)
                self.left.spent("validation", spent)
                progress.advance(0, {self.task.objective: shown(self.latest_validation[self.task.objective])})
            self.seconds += time.perf_counter() - started - (self.observed.seconds - observed)
            progress.advance(1)
            received = self._signal()
            if self.step % self.budget.checkpoint_every == 0 or self.finished or received is not None:
                began = time.perf_counter()
                self.save(metrics)
                self.left.spent("save", time.perf_counter() - began)
            if received is not None:
                wait_for_all()  # a process that ends brings the others to an end, which must not meet a save
                raise Interrupted(
                    f"stopped by a signal after step {self.step} of {self.budget.steps}; the state is saved in "
                    f"{self.folder}: run the same command again to go on",
                    signal_number=received,
                )
            if self.finished and not last:
                say(
                    f"{label}: stopped early after step {self.step} of {self.budget.steps}: no new best in "
                    f"{self.budget.patience} validations since step {self.best_step}"
                )

    def _signal(self) -> int | None:
        """The signal that ends the training after this step, the same in every process."""
        if world_size() == 1:
            return self.safe_point.received
        # One that came since the gradients crossed waits for the next step, where there is one.
        return self.signal if not self.finished else int(max(of_every_rank(self.safe_point.received or 0))) or None
