"""Compiled training steps: the numbers of the plain ones, resumed bit for bit, and a compiler that is missing."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._inductor import config as inductor

from stage2_prior import PixelCNN
from twostage.config.schema import TrainingConfig
from twostage.errors import RunError
from twostage.storage.checkpoint import load_checkpoint
from twostage.training.loop import Fit
from twostage.training.task import StepResult

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


class _Prior:
    """A PixelCNN, small enough to be compiled in seconds."""

    objective = "nats"
    items = 20

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = PixelCNN(codebook_size=5, grid=(2, 2), channels=4, layers=1, first_kernel=3)
        self.codes = torch.randint(0, 5, (self.items, 1, 2, 2), generator=torch.Generator().manual_seed(1))

    def start(self) -> None: ...

    def loss(self, indices: np.ndarray) -> StepResult:
        return StepResult(loss=-self.model.log_prob(self.codes[torch.from_numpy(indices)]).mean(), metrics={})

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        return {}

    def validate(self) -> Mapping[str, float]:
        return {"nats": -self.model.log_prob(self.codes).mean().item()}


def _fit(folder: Path, task: _Prior, *, compile: bool, steps: int = 6) -> Fit:
    budget = TrainingConfig(
        steps=steps, batch_size=8, learning_rate=1e-2, validate_every=3, checkpoint_every=3, compile=compile
    )
    return Fit(task, folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu"))


def _weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder / f"step-{step:08d}").tensors["model"]


@needs_compiler
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_compiled_steps_train_what_plain_ones_do_and_resume_bit_for_bit(tmp_path: Path) -> None:
    task = _Prior()
    _fit(tmp_path / "plain", _Prior(), compile=False).run(label="plain")
    _fit(tmp_path / "compiled", task, compile=True).run(label="compiled")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert task.model._compiled_call_impl is None  # what follows the training runs as written
    plain, compiled = _weights(tmp_path / "plain", 6), _weights(tmp_path / "compiled", 6)
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-5, rtol=1e-4)
    shutil.copytree(tmp_path / "compiled" / "step-00000003", tmp_path / "resumed" / "step-00000003")
    _fit(tmp_path / "resumed", _Prior(), compile=True).run(label="resumed")
    for name, value in _weights(tmp_path / "resumed", 6).items():
        assert torch.equal(compiled[name], value)


@pytest.mark.filterwarnings("ignore")
def test_a_missing_compiler_is_told_in_a_sentence(tmp_path: Path) -> None:
    torch._dynamo.reset()
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(RunError, match=r"torch\.compile failed .*install a C\+\+ compiler"),
    ):
        _fit(tmp_path, _Prior(), compile=True).run(label="compiled")
