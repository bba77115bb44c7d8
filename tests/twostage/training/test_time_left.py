"""What is left of a training is told as it will turn out, validations and saves included."""

import io
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from twostage.config.schema import TrainingConfig
from twostage.progress import Progress
from twostage.training import loop as training
from twostage.training.loop import Fit
from twostage.training.task import StepResult
from twostage.training.time_left import TimeLeft


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Slow:
    """A task whose steps take 1 s and whose validations take 40 s of a clock that nothing else moves."""

    objective, items = "error", 4

    def __init__(self, clock: _Clock) -> None:
        self.clock, self.model = clock, nn.Linear(1, 1)

    def start(self) -> None:
        pass

    def loss(self, indices: np.ndarray) -> StepResult:
        self.clock.now += 1.0
        return StepResult(loss=self.model(torch.ones(len(indices), 1)).pow(2).mean(), metrics={})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        return {}

    def validate(self) -> Mapping[str, float]:
        self.clock.now += 40.0
        return {"error": 1.0}


@pytest.mark.parametrize("steps", [30, 33])
def test_from_the_first_validation_on_the_rest_is_told_to_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    clock, told = _Clock(), []
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=clock))
    fit = Fit(
        _Slow(clock),
        folder=tmp_path,
        budget=TrainingConfig(steps=steps, batch_size=2, validate_every=10, checkpoint_every=10),
        seed=0,
        record={"config": {"training": {"steps": steps}}},
        device=torch.device("cpu"),
    )
    spent = fit.left.spent

    def watching(what: str, seconds: float) -> None:
        spent(what, seconds)
        if what == "step":  # told before the step's own validation, which then has still to come
            told.append((fit.step, clock.now, fit.left.seconds(fit.step), fit.left.shown(fit.step)))

    monkeypatch.setattr(fit.left, "spent", watching)
    fit.run(label="slow")
    end = clock.now
    assert end == steps + 40.0 * -(-steps // 10)
    before, after = [each for each in told if each[0] <= 10], [each for each in told if each[0] > 10]
    for step, now, seconds, shown in after:
        due = 40.0 if step % 10 == 0 or step == steps else 0.0
        assert seconds == pytest.approx(end - now - due)
        assert not shown.startswith(">")
    # Nobody knows yet what a validation takes: at least the steps will be needed.
    assert all(shown.startswith(">") and seconds == steps - step for step, _, seconds, shown in before)


def test_a_slow_first_step_is_forgotten() -> None:
    left = TimeLeft(TrainingConfig(steps=1000, validate_every=1000))
    assert left.shown(0) == "?"
    left.spent("step", 60.0)
    for _ in range(299):
        left.spent("step", 0.1)
    assert left.seconds(300) == pytest.approx(700 * 0.1, rel=0.05)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [_Terminal, io.StringIO])
def test_bar_and_lines_show_the_time_that_is_told(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr("twostage.progress.PLAIN_LINE_SECONDS", 0.0)
    with Progress("work", total=4, left=lambda done: f"{4 - done}:23:45") as progress:
        for _ in range(4):
            progress.advance(1, {"loss": "1.5"})
    text = shown.getvalue()
    expected = (
        r"4/4 \[\d\d:\d\d<0:23:45, .*loss=1.5" if stream is _Terminal else r"work: 3/4 .*, 1:23:45 left, loss 1.5"
    )
    assert re.search(expected, text), text
