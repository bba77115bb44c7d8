"""What looks on at a training leaves it as it is, bit for bit, and is told everything once."""

import random
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from twostage.config.schema import TrainingConfig
from twostage.storage.checkpoint import load_checkpoint, load_newest
from twostage.training.loop import Fit
from twostage.training.observer import Observed
from twostage.training.task import StepResult


class _Task:
    """Dropout, so that the weights hang on the random numbers of every step."""

    items, objective = 20, "error"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.x = torch.randn(20, 3, generator=torch.Generator().manual_seed(5))

    def start(self) -> None:
        """Nothing."""

    def loss(self, indices: np.ndarray) -> StepResult:
        return StepResult(loss=(self.model(self.x[indices]) - 1).pow(2).mean(), metrics={})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        return {"noise": float(torch.rand(()))}

    def validate(self) -> Mapping[str, float]:
        return {"error": (self.model(self.x) - 1).pow(2).mean().item()}


class _Drawer:
    """Draws, computes and dawdles; remembers what it was told."""

    def __init__(self, task: _Task) -> None:
        self.task, self.told = task, list[tuple[str, int]]()

    def _work(self, what: str, step: int) -> None:
        self.told.append((what, step))
        torch.manual_seed(99)
        self.task.model(torch.randn(5, 3))

    def begin(self, step: int) -> None:
        self._work("begin", step)

    def trained(self, step: int, numbers: Mapping[str, float]) -> None:
        assert "loss" in numbers
        self._work("trained", step)

    def validated(self, step: int, numbers: Mapping[str, float]) -> None:
        assert set(numbers) == {"error"}
        assert not self.task.model.training
        assert not torch.is_grad_enabled()
        assert self.task.validate() == numbers  # with the weight average in its place
        self._work("validated", step)
        time.sleep(0.05)

    def close(self) -> None:
        self._work("close", -1)


def _train(folder: Path, *, observed: bool, steps: int = 10) -> tuple[Fit, _Drawer | None]:
    task = _Task()
    drawer = _Drawer(task) if observed else None
    fit = Fit(
        task,
        folder=folder,
        budget=TrainingConfig(steps=steps, batch_size=4, weight_ema=0.9, validate_every=4, checkpoint_every=4),
        seed=3,
        record={"config": {"training": {"steps": steps}}},
        device=torch.device("cpu"),
        observer=drawer,
    )
    fit.run(label="x")
    return fit, drawer


def test_a_training_that_is_looked_at_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    _train(tmp_path / "alone", observed=False)
    _, drawer = _train(tmp_path / "watched", observed=True)
    assert drawer is not None
    told = [("begin", 0), ("validated", 4), ("validated", 8), ("trained", 10), ("validated", 10), ("close", -1)]
    assert drawer.told == told
    found = [load_newest(tmp_path / name, warn=pytest.fail) for name in ("alone", "watched")]
    newest = [each for each in found if each is not None]
    digests = [{name: digest for name, digest in each.sha256.items() if name != "state.json"} for each in newest]
    assert len(digests[0]) == 3  # model, optimiser and average; the state says how many seconds it took
    assert digests[0] == digests[1]
    best = [load_checkpoint(tmp_path / name / "best").sha256 for name in ("alone", "watched")]
    assert best[0]["model.safetensors"] == best[1]["model.safetensors"]
    records = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("alone", "watched")]
    assert records[0] == records[1]


def test_no_state_of_random_numbers_is_moved() -> None:
    def states() -> tuple[bytes, str, str]:
        return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), str(random.getstate())  # noqa: NPY002

    drawer = _Drawer(_Task())
    before = states()
    Observed(drawer).trained(3, {"loss": 1.0})
    assert drawer.told == [("trained", 3)]
    assert states() == before


def test_its_time_is_told_apart_from_that_of_the_training(tmp_path: Path) -> None:
    fit, _ = _train(tmp_path, observed=True)
    result = fit.run(label="x")  # ended already: what the first session has counted stands
    assert result.observer_seconds >= 0.15
    assert result.seconds < 10
    wall = result.seconds + result.observer_seconds
    assert result.validation_seconds < wall - 0.15


def test_the_record_can_be_read_along(tmp_path: Path) -> None:
    """A line is there for others when it was written, and not only at the next checkpoint."""
    seen = []

    class _Reader(_Drawer):
        def trained(self, step: int, numbers: Mapping[str, float]) -> None:
            seen.append((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("\n"))

    task = _Task()
    budget = TrainingConfig(steps=50, batch_size=4, validate_every=50, checkpoint_every=50)
    record = {"config": {"training": {"steps": 50}}}
    fit = Fit(
        task, folder=tmp_path, budget=budget, seed=3, record=record, device=torch.device("cpu"), observer=_Reader(task)
    )
    fit.run(label="x")
    assert seen == [1, 2]
