"""A step's batch in parts: weights, and what is said and kept when a number is not finite."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from twostage.config.check import check_recipe
from twostage.config.schema import Recipe, TrainingConfig
from twostage.distributed import own_batches
from twostage.errors import RunError, UsageError
from twostage.noise import BatchNoise, batch_normal, batch_uniform
from twostage.storage.checkpoint import load_newest, save_checkpoint
from twostage.training.loop import Fit
from twostage.training.task import StepResult


class _Lengths:
    """A loss that is a mean over more of some items than of others, as over the codes of sequences."""

    objective = "loss"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.x, self.lengths = torch.randn(12, 4), torch.arange(1.0, 13.0)
        self.items = 12

    def start(self) -> None: ...

    def loss(self, indices: np.ndarray) -> StepResult:
        rows = torch.from_numpy(indices)
        total = self.lengths[rows].sum()
        loss = (self.model(self.x[rows])[:, 0].square() * self.lengths[rows]).sum() / total
        return StepResult(loss=loss, metrics={"seen": loss.detach()}, output=total, weight=float(total))

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        assert isinstance(result.output, torch.Tensor)
        return {"total": float(result.output)}

    def validate(self) -> Mapping[str, float]:
        return {"loss": 0.0}


def _fit(folder: Path, **settings: int) -> Fit:
    budget = TrainingConfig(**{"steps": 4, "batch_size": 7, "checkpoint_every": 2, **settings})  # type: ignore[arg-type]
    return Fit(_Lengths(), folder=folder, budget=budget, seed=0, record={}, device=torch.device("cpu"))


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_weigh_what_their_loss_is_a_mean_over(parts: int, tmp_path: Path) -> None:
    whole, cut = _fit(tmp_path), _fit(tmp_path, accumulate=parts)
    for _ in range(3):
        # fp32 sums of 7 products in another order
        assert cut.train_step() == pytest.approx(whole.train_step(), rel=1e-5)
    for one, other in zip(whole.task.model.parameters(), cut.task.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-6, rtol=1e-5)


def test_more_parts_than_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a batch of at least 8 items, one for each of 1 processes times 8 parts"):
        _fit(tmp_path, accumulate=8)
    with pytest.raises(UsageError, match=r"prior_training\.accumulate must be at most prior_training\.batch_size"):
        check_recipe(Recipe(prior_training=TrainingConfig(batch_size=4, accumulate=5)), source="x")


def test_weights_that_the_optimiser_made_infinite_are_not_saved(tmp_path: Path) -> None:
    """The loss would notice one step later, and a checkpoint may lie between."""
    fit = _fit(tmp_path)
    step = fit.optimiser.step

    def overflowing() -> None:
        step()
        if fit.step == 3:
            fit.task.model.weight.data[0, 1] = float("inf")

    fit.optimiser.step = overflowing  # type: ignore[method-assign, assignment]
    with pytest.raises(RunError, match="the tensor model weight is not finite after step 4, which was not saved"):
        fit.run(label="x")
    newest = load_newest(tmp_path, warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == 2


def test_a_bad_weight_is_named_before_the_loss_it_spoils(tmp_path: Path) -> None:
    fit = _fit(tmp_path)
    fit.task.model.bias.data[0] = float("nan")
    with pytest.raises(RunError, match=r"^bias of the model is not finite at step 0 \(loss nan"):
        fit.train_step()


@pytest.mark.parametrize("foreign", ["state", "model", "optimiser"])
def test_a_checkpoint_of_something_else_is_not_gone_on_from(foreign: str, tmp_path: Path) -> None:
    _fit(tmp_path).run(label="x")
    newest = load_newest(tmp_path, warn=pytest.fail)
    assert newest is not None
    tensors, state = newest.tensors, newest.state
    if foreign == "state":
        state = {**state, "best_step": "first"}
    else:
        tensors = {**tensors, foreign: {"other": torch.zeros(2)}}
    save_checkpoint(tmp_path / "step-00000009", tensors=tensors, state=state)
    with pytest.raises(RunError, match="so another program or version wrote"):
        _fit(tmp_path, steps=12).run(label="x")


@pytest.mark.parametrize("draw", [batch_uniform, batch_normal])
def test_parts_of_a_batch_draw_its_noise(draw) -> None:
    device = torch.device("cpu")
    torch.manual_seed(5)
    whole = draw(7, 40, device=device)
    with BatchNoise(5, items=np.arange(7)) as noise:
        parts = []
        for first, count in ((0, 3), (3, 4)):
            noise.begin_part(first, count)
            parts.append(draw(count, 40, device=device))
        with pytest.raises(ValueError, match="noise for the 4 rows of this part, but 5"):
            draw(5, device=device)
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("items", "world"), [(10, 2), (3, 4), (12, 3)])
def test_every_item_is_in_one_batch_of_one_process(items: int, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twostage.distributed.world_size", lambda: world)
    seen: list[int] = []
    for number in range(world):
        monkeypatch.setattr("twostage.distributed.rank", lambda number=number: number)
        seen += [item for batch in own_batches(items, 4) for item in range(batch.start, batch.stop)]
    assert sorted(seen) == list(range(items))
