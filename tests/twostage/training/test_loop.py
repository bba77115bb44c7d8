"""The training loop: exact resume, weight average, non-finite numbers, signals, schedule and record."""

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
from twostage.errors import RunError
from twostage.storage.checkpoint import load_checkpoint, load_newest
from twostage.storage.locks import exclusive
from twostage.training.interrupts import Interrupted
from twostage.training.loop import Fit
from twostage.training.optimiser import learning_rate_at, make_optimiser
from twostage.training.task import StepResult

ITEMS = 37


class _Regression:
    """A dropout network with a running statistic that is updated after the step, as an EMA codebook is."""

    objective = "error"

    poison_validation = False

    def __init__(self, *, poison_step: int | None = None, kill_step: int | None = None, number: int = signal.SIGINT):
        self.model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        self.model.register_buffer("statistic", torch.zeros(3))
        generator = torch.Generator().manual_seed(5)
        self.x = torch.randn(ITEMS, 3, generator=generator)
        self.y = self.x.sum(1, keepdim=True) ** 2
        self.items, self.steps_seen, self.started = ITEMS, 0, 0
        self.poison_step, self.kill_step, self.number = poison_step, kill_step, number

    def start(self) -> None:
        self.started += 1
        with torch.no_grad():
            self.model.statistic.copy_(torch.randn(3))

    def loss(self, indices: np.ndarray) -> StepResult:
        rows = torch.from_numpy(indices)
        loss = (self.model(self.x[rows]) - self.y[rows]).pow(2).mean() + self.model.statistic.sum() * 0.01
        if self.steps_seen == self.poison_step:
            loss = loss * float("nan")
        if self.steps_seen == self.kill_step:
            os.kill(os.getpid(), self.number)
        self.steps_seen += 1
        return StepResult(loss=loss, metrics={"noise": torch.rand(())}, output=self.x[rows].mean(0))

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        assert isinstance(result.output, torch.Tensor)
        self.model.statistic.mul_(0.9).add_(result.output, alpha=0.1)
        return {}

    def validate(self) -> Mapping[str, float]:
        error = (self.model(self.x) - self.y).pow(2).mean().item()
        return {"error": float("nan") if self.poison_validation else error}


def _fit(folder: Path, task: _Regression, *, steps: int, **budget: object) -> Fit:
    settings = {"batch_size": 8, "learning_rate": 1e-2, "validate_every": 4, "checkpoint_every": 5, **budget}
    record = {"config": {"training": {"steps": steps}}}
    return Fit(
        task,
        folder=folder,
        budget=TrainingConfig(steps=steps, **settings),
        seed=3,
        record=record,
        device=torch.device("cpu"),
    )


def _new_task(**settings) -> _Regression:
    torch.manual_seed(0)
    return _Regression(**settings)


def _final(folder: Path) -> tuple[dict, str]:
    """Every tensor of the newest checkpoint, and the record without wall-clock numbers."""
    newest = load_newest(folder, warn=pytest.fail)
    assert newest is not None
    return {f"{file}.{k}": v for file, tensors in newest.tensors.items() for k, v in tensors.items()}, (
        folder / "metrics.jsonl"
    ).read_text()


@pytest.mark.parametrize("weight_ema", [0.0, 0.9])
@pytest.mark.parametrize("stop", [1, 4, 5, 7, 12, 19])
def test_stopping_by_signal_and_going_on_is_the_uninterrupted_run_bit_for_bit(
    tmp_path: Path, stop: int, weight_ema: float
) -> None:
    _fit(tmp_path / "whole", _new_task(), steps=20, weight_ema=weight_ema).run(label="whole")
    with pytest.raises(Interrupted, match=f"after step {stop} of 20"):
        _fit(tmp_path / "parts", _new_task(kill_step=stop - 1), steps=20, weight_ema=weight_ema).run(label="first")
    torch.manual_seed(99)  # nothing may hang on the generator's state or on the fresh weights
    second = _Regression()
    torch.rand(5)
    _fit(tmp_path / "parts", second, steps=20, weight_ema=weight_ema).run(label="second")
    assert second.started == 0
    whole, parts = _final(tmp_path / "whole"), _final(tmp_path / "parts")
    assert whole[0].keys() == parts[0].keys()
    assert [key for key in whole[0] if not torch.equal(whole[0][key], parts[0][key])] == []
    assert whole[1] == parts[1]
    best = [load_checkpoint(tmp_path / name / "best") for name in ("whole", "parts")]
    assert best[0].state["best_step"] == best[1].state["best_step"]
    assert best[0].sha256["model.safetensors"] == best[1].sha256["model.safetensors"]


def test_best_holds_the_averaged_weights_and_the_training_state_the_raw_ones(tmp_path: Path) -> None:
    """Checked against averages made here; the buffer in `best/` is that of the very step, as an EMA codebook is."""
    task = _new_task()
    original, trace = task.after_step, []

    def recording_after_step(result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        numbers = original(result, optimiser)
        trace.append({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
        return numbers

    task.after_step = recording_after_step  # type: ignore[method-assign]
    result = _fit(tmp_path / "averaged", task, steps=20, weight_ema=0.9, learning_rate=0.1).run(label="x")
    expected = trace[0]
    for step in range(1, result.best_step):
        decay = min(0.9, step / (step + 9))
        expected = {name: decay * expected[name] + (1 - decay) * raw for name, raw in trace[step].items()}
    best = load_checkpoint(tmp_path / "averaged" / "best")
    current = trace[result.best_step - 1]
    for name, tensor in best.tensors["model"].items():
        if name == "statistic":
            assert torch.equal(tensor, current[name])
        else:
            torch.testing.assert_close(tensor, expected[name])
            assert not torch.allclose(tensor, current[name])
    task.model.load_state_dict(best.tensors["model"])
    task.model.eval()
    assert task.validate()["error"] == result.best_value
    # The average only watches: state and record of the steps are those of a training without one.
    _fit(tmp_path / "plain", _new_task(), steps=20, learning_rate=0.1).run(label="x")
    averaged, plain = _final(tmp_path / "averaged"), _final(tmp_path / "plain")
    assert {name for name in averaged[0] if name not in plain[0]} == {
        f"average.{n}" for n in expected if n[0].isdigit()
    }
    assert all(torch.equal(plain[0][name], averaged[0][name]) for name in plain[0])


def test_a_crash_between_checkpoints_repeats_the_steps_and_no_record_stands_twice(tmp_path: Path) -> None:
    _fit(tmp_path / "whole", _new_task(), steps=12).run(label="whole")
    task = _new_task()
    original, crash_after = task.loss, 8

    def crashing_loss(indices: np.ndarray) -> StepResult:
        if task.steps_seen == crash_after:
            raise MemoryError("crash")
        return original(indices)

    task.loss = crashing_loss  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        _fit(tmp_path / "parts", task, steps=12).run(label="first")
    _fit(tmp_path / "parts", _new_task(), steps=12).run(label="second")
    assert _final(tmp_path / "whole")[1] == _final(tmp_path / "parts")[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_at_a_saved_step_with_their_exit_code(tmp_path: Path, number: int, code: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="run the same command again") as caught:
        _fit(tmp_path, _new_task(kill_step=2, number=number), steps=20).run(label="x")
    assert caught.value.exit_code == code
    newest = load_newest(tmp_path, warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == 3
    assert signal.getsignal(number) == before


def test_a_non_finite_validation_ends_the_training_and_says_so(tmp_path: Path) -> None:
    """Otherwise a run without a single usable model would count as finished."""
    task = _new_task()
    task.poison_validation = True
    with pytest.raises(RunError, match=r"validation number error is nan after step \d+"):
        _fit(tmp_path, task, steps=20).run(label="x")


def test_a_non_finite_loss_reaches_neither_optimiser_nor_statistic(tmp_path: Path) -> None:
    task = _new_task(poison_step=7)
    fit = _fit(tmp_path, task, steps=20)
    weights: list[dict] = []
    step = fit.optimiser.step

    def recording_step() -> None:
        step()
        weights.append({k: v.clone() for k, v in task.model.state_dict().items()})

    fit.optimiser.step = recording_step  # type: ignore[method-assign, assignment]
    with pytest.raises(RunError, match=r"the loss is not finite at step 7 .*any checkpoint in .* is from before"):
        fit.run(label="x")
    assert len(weights) == 7
    state = task.model.state_dict()
    assert all(torch.equal(state[k], weights[-1][k]) for k in state if k != "statistic")
    assert state["statistic"].isfinite().all()
    newest = load_newest(tmp_path, warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == 5


def test_best_holds_the_lowest_validation_value_and_its_weights(tmp_path: Path) -> None:
    task = _new_task()
    result = _fit(tmp_path, task, steps=40, learning_rate=0.3).run(label="x")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    validated = {row["step"]: row["validation_error"] for row in rows if "validation_error" in row}
    assert set(validated) == set(range(4, 41, 4))
    assert result.best_value == min(validated.values()) == validated[result.best_step]
    best = load_checkpoint(tmp_path / "best")
    task.model.load_state_dict(best.tensors["model"])
    task.model.eval()
    assert task.validate()["error"] == pytest.approx(result.best_value, rel=1e-6)


def test_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    budget = TrainingConfig(steps=110, batch_size=1, learning_rate=0.2, warmup_steps=10, schedule="cosine")
    assert learning_rate_at(budget, 0) == pytest.approx(0.02)
    assert learning_rate_at(budget, 9) == pytest.approx(0.2)
    assert learning_rate_at(budget, 60) == pytest.approx(0.1)
    assert learning_rate_at(budget, 109) < 1e-3
    constant = TrainingConfig(steps=110, batch_size=1, learning_rate=0.2)
    assert learning_rate_at(constant, 0) == learning_rate_at(constant, 109) == 0.2


def test_clip_norm_zero_turns_clipping_off(tmp_path: Path) -> None:
    """After a step the gradients left behind have at most the norm asked for, or whatever norm they had."""
    norms = {}
    for clip in (0.0, 1e-3):
        task = _new_task()
        fit = _fit(tmp_path / str(clip), task, steps=1, clip_norm=clip)
        fit.run(label="x")
        norms[clip] = sum(float(p.grad.norm()) ** 2 for p in task.model.parameters() if p.grad is not None) ** 0.5
    assert norms[1e-3] == pytest.approx(1e-3, rel=1e-3)
    assert norms[0.0] > 1e-1


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path: Path) -> None:
    with exclusive(tmp_path), pytest.raises(RunError, match="another process is training"):
        _fit(tmp_path, _new_task(), steps=1).run(label="x")
    _fit(tmp_path, _new_task(), steps=1).run(label="x")


def test_weight_decay_spares_biases_embeddings_and_codebooks() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ConvTranspose2d(1, 1, 2), nn.Embedding(3, 2))
    model.register_parameter("codebook", nn.Parameter(torch.ones(1, 3, 2)))
    groups = make_optimiser(
        model, TrainingConfig(steps=1, batch_size=1, learning_rate=1.0, weight_decay=0.1)
    ).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert {name for name, value in named.items() if value} == {"0.weight", "1.weight"}


def test_a_lost_record_does_not_stop_a_resumed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted):
        _fit(tmp_path, _new_task(kill_step=9), steps=20).run(label="x")
    (tmp_path / "metrics.jsonl").unlink()
    _fit(tmp_path, _new_task(), steps=20).run(label="x")
    assert "record of earlier steps is incomplete" in capsys.readouterr().err
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        12,
        16,
        20,
        20,
    ]
