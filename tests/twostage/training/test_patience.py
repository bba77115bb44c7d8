"""Early stopping: when, what is recorded, and that an interrupted or a finished training agrees."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from twostage.config.schema import TrainingConfig
from twostage.storage.checkpoint import load_checkpoint, load_newest
from twostage.training.interrupts import Interrupted
from twostage.training.loop import Fit
from twostage.training.task import StepResult

BEST_STEPS = (4, 8, 16)


class _Scripted:
    """A line through noise; its validations have a new best after `BEST_STEPS` and one bad value after all others.

    Args:
        done: steps before this session.
        kill_step: the step of this session in which a signal comes.
    """

    objective = "error"
    items = 37

    def __init__(self, *, done: int = 0, kill_step: int | None = None) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(1, 1)
        self.done, self.kill_step, self.started, self.steps_seen = done, kill_step, 0, 0

    def start(self) -> None:
        self.started += 1

    def loss(self, indices: np.ndarray) -> StepResult:
        if self.steps_seen == self.kill_step:
            os.kill(os.getpid(), signal.SIGINT)
        self.steps_seen += 1
        x = torch.from_numpy(indices)[:, None].float() / self.items
        return StepResult(loss=(self.model(x) - torch.rand_like(x)).square().mean(), metrics={})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        return {}

    def validate(self) -> Mapping[str, float]:
        step = self.done + self.steps_seen
        return {"error": -float(step) if step in BEST_STEPS else 1e3}


def _fit(folder: Path, task: _Scripted, *, steps: int, patience: int, schedule: str = "constant") -> Fit:
    budget = TrainingConfig(
        steps=steps,
        patience=patience,
        schedule=schedule,  # type: ignore[arg-type]
        batch_size=8,
        learning_rate=1e-2,
        validate_every=4,
        checkpoint_every=5,
    )
    return Fit(task, folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu"))


def _final(folder: Path) -> tuple[dict, str]:
    """Every tensor of the newest checkpoint, and the record without wall-clock numbers."""
    newest = load_newest(folder, warn=pytest.fail)
    assert newest is not None
    return {f"{file}.{k}": v for file, tensors in newest.tensors.items() for k, v in tensors.items()}, (
        folder / "metrics.jsonl"
    ).read_text()


def test_patience_stops_after_that_many_validations_without_a_new_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = _fit(tmp_path, _Scripted(), steps=100, patience=3, schedule="cosine").run(label="x")
    assert (result.steps, result.best_step, result.best_value, result.stopped_early) == (28, 16, -16.0, True)
    assert (
        "x: stopped early after step 28 of 100: no new best in 3 validations since step 16" in capsys.readouterr().err
    )
    newest = load_newest(tmp_path, warn=pytest.fail)
    assert newest is not None
    assert (newest.state["step"], newest.state["finished"]) == (28, True)
    earlier = load_checkpoint(tmp_path / "step-00000025")
    assert earlier.state["finished"] is False
    # The schedule is that of the whole budget.
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in rows if "learning_rate" in row]
    assert row["learning_rate"] == pytest.approx(1e-2 * 0.5 * (1 + np.cos(np.pi * 24 / 100)))


def test_a_training_that_patience_ended_stays_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _fit(tmp_path, _Scripted(), steps=100, patience=3).run(label="x")
    capsys.readouterr()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    task = _Scripted()
    result = _fit(tmp_path, task, steps=100, patience=3).run(label="x")
    assert (task.steps_seen, task.started) == (0, 0)
    assert (result.steps, result.best_step, result.stopped_early) == (28, 16, True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before
    assert "stopped early" not in capsys.readouterr().err


@pytest.mark.parametrize("stop", [3, 8, 17, 24, 27])
def test_patience_counts_on_after_an_interruption(tmp_path: Path, stop: int) -> None:
    _fit(tmp_path / "whole", _Scripted(), steps=100, patience=3).run(label="x")
    with pytest.raises(Interrupted, match=f"after step {stop} of 100"):
        _fit(tmp_path / "parts", _Scripted(kill_step=stop - 1), steps=100, patience=3).run(label="x")
    result = _fit(tmp_path / "parts", _Scripted(done=stop), steps=100, patience=3).run(label="x")
    assert result.steps == 28
    whole, parts = _final(tmp_path / "whole"), _final(tmp_path / "parts")
    assert whole[1] == parts[1]
    assert all(torch.equal(whole[0][name], parts[0][name]) for name in whole[0])


def test_without_patience_or_with_enough_of_it_the_budget_is_used_up(tmp_path: Path) -> None:
    for patience in (0, 4):  # the last best comes with step 16, so step 30 is the fourth validation after it
        result = _fit(tmp_path / str(patience), _Scripted(), steps=30, patience=patience).run(label="x")
        assert (result.steps, result.stopped_early) == (30, False)
        newest = load_newest(tmp_path / str(patience), warn=pytest.fail)
        assert newest is not None
        assert newest.state["finished"] is True
