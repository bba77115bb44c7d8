"""Which precision a training computes in, what its record says of that, and where bf16 is refused."""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from twostage.config.schema import TrainingConfig
from twostage.errors import RunError, UsageError
from twostage.storage.checkpoint import load_newest
from twostage.training import precision
from twostage.training.interrupts import Interrupted
from twostage.training.loop import Fit
from twostage.training.precision import bf16_on, check_bf16, chosen_precision, recorded_precision
from twostage.training.task import StepResult

CPU = torch.device("cpu")
NATIVE, EMULATED = 0.65, 12.34


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Puts a number in the place of the measured cost of bf16 on this CPU."""
    return lambda number: monkeypatch.setattr(precision, "cpu_cost", lambda: number)


class _Task:
    """A line through points; remembers in which type its layer computed."""

    objective = "error"
    items = 16

    def __init__(self, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.model, self.dtypes, self.stop_at = nn.Linear(3, 1), list[torch.dtype](), stop_at
        self.x = torch.randn(self.items, 3, generator=torch.Generator().manual_seed(1))

    def start(self) -> None: ...

    def loss(self, indices: np.ndarray) -> StepResult:
        y = self.model(self.x[torch.from_numpy(indices)])
        self.dtypes.append(y.dtype)
        if len(self.dtypes) == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return StepResult(loss=(y.float() - 1).pow(2).mean(), metrics={}, output=None)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        return {}

    def validate(self) -> Mapping[str, float]:
        return {"error": (self.model(self.x) - 1).pow(2).mean().item()}


def _fit(folder: Path, task: _Task, setting: str) -> Fit:
    budget = TrainingConfig(steps=6, batch_size=8, learning_rate=1e-2, precision=setting)
    return Fit(task, folder=folder, budget=budget, seed=3, record={}, device=CPU)


def _record(folder: Path) -> Mapping[str, object]:
    newest = load_newest(folder, warn=pytest.fail)
    assert newest is not None
    return newest.state["record"]


@pytest.mark.parametrize(
    ("setting", "number", "computed"),
    [
        ("auto", NATIVE, torch.bfloat16),
        ("auto", EMULATED, torch.float32),
        ("fp32", NATIVE, torch.float32),
        ("bf16-forced", EMULATED, torch.bfloat16),
    ],
)
def test_a_training_computes_in_what_it_says(
    setting: str, number: float, computed: torch.dtype, cost: Callable[[float], None], tmp_path: Path
) -> None:
    cost(number)
    task = _Task()
    _fit(tmp_path, task, setting).run(label="line")
    assert set(task.dtypes) == {computed}
    assert _record(tmp_path)["precision"] == {torch.bfloat16: "bf16", torch.float32: "fp32"}[computed]


@pytest.mark.parametrize(("first", "then", "kept"), [(NATIVE, EMULATED, "bf16"), (EMULATED, NATIVE, "fp32")])
def test_a_training_goes_on_as_it_began_and_says_what_that_costs(
    first: float,
    then: float,
    kept: str,
    cost: Callable[[float], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cost(first)
    whole = _fit(tmp_path / "whole", _Task(), "auto")
    whole.run(label="line")
    with pytest.raises(Interrupted):
        _fit(tmp_path / "parts", _Task(stop_at=3), "auto").run(label="line")
    capsys.readouterr()
    cost(then)
    parts = _fit(tmp_path / "parts", _Task(), "auto")
    parts.run(label="line")
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert f"goes on in {kept}" in warnings[0]
    assert f"takes {then:.2g} times as long in bf16 as in fp32" in warnings[0]
    assert _record(tmp_path / "parts")["precision"] == kept
    assert all(map(torch.equal, whole.task.model.parameters(), parts.task.model.parameters()))


def test_explicit_bf16_is_refused_where_it_is_emulated_with_what_it_costs(cost: Callable[[float], None]) -> None:
    cost(EMULATED)
    with pytest.raises(UsageError, match=r'prior asks for precision "bf16".* 12 times as long.*"bf16-forced"'):
        check_bf16("bf16", CPU, what="prior")
    for setting in ("auto", "fp32", "bf16-forced"):
        check_bf16(setting, CPU, what="prior")
    cost(NATIVE)
    check_bf16("bf16", CPU, what="prior")


def test_the_slowest_of_several_processes_decides_for_all(
    cost: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cost(NATIVE)
    assert chosen_precision("auto", CPU) == "bf16"
    monkeypatch.setattr(precision, "of_every_rank", lambda own: [own, EMULATED])
    assert chosen_precision("auto", CPU) == "fp32"
    assert "12 times" in str(bf16_on(CPU))


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_a_cuda_device_is_asked(native: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: native or including_emulation)
    assert chosen_precision("auto", torch.device("cuda")) == chosen
    assert "nan" not in str(bf16_on(torch.device("cuda")))
    assert "inf" not in str(bf16_on(torch.device("cuda")))


def test_a_record_says_what_was_chosen_and_nothing_that_is_not_known_here() -> None:
    place = Path("run")
    chosen = {"precision": "fp32", "config": {"training": {"precision": "auto"}}}
    assert recorded_precision(chosen, folder=place) == "fp32"
    for unknown in ("fp8", ["bf16"], None):
        with pytest.raises(RunError, match="use the version that wrote it"):
            recorded_precision({"precision": unknown}, folder=place)


def test_measuring_leaves_threads_gradients_and_random_numbers_alone() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():
        measured = precision.cpu_cost.__wrapped__()
        assert not torch.is_grad_enabled()
    assert 0 < measured < float("inf")
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
