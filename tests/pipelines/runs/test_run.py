"""The run folder: when a training counts as finished."""

from pathlib import Path
from typing import Any

import pytest
import torch

from twostage.config.schema import Recipe
from twostage.errors import RunError
from twostage.storage.checkpoint import save_checkpoint
from twostage_pipelines.runs.jobs import record_of
from twostage_pipelines.runs.run import Run, is_finished, training_cost


@pytest.mark.parametrize(
    ("step", "finished"),
    [
        (10, True),
        (4, True),  # out of patience
        (4, False),
    ],
)
def test_a_training_is_finished_at_its_last_step_or_out_of_patience(tmp_path: Path, step: int, finished: bool) -> None:
    assert not is_finished(tmp_path)
    record = {"config": {"training": {"steps": 10}}}
    for at, said in ((1, False), (step, finished)):
        save_checkpoint(
            tmp_path / f"step-{at:08d}",
            tensors={"model": {"weight": torch.zeros(1)}},
            state={"step": at, "record": record, "finished": said},
        )
    assert is_finished(tmp_path) == finished


WHOLE: dict[str, Any] = {"step": 4, "seconds": 1.5, "finished": True, "record": {"config": {"training": {"steps": 4}}}}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"step": None}, "step"),
        ({"step": "4"}, "step"),
        ({"step": True}, "step"),
        ({"finished": "no"}, "finished"),
        ({"seconds": [1]}, "seconds"),
        ({"record": None}, "record"),
        ({"record": ["config"]}, "record"),
        ({"record": {}}, "record.config"),
        ({"record": {"config": 5}}, "record.config"),
        ({"record": {"config": {}}}, "record.config.training"),
        ({"record": {"config": {"training": []}}}, "record.config.training"),
        ({"record": {"config": {"training": {"steps": "4"}}}}, "record.config.training.steps"),
    ],
)
def test_a_state_that_says_something_else_is_refused_with_a_sentence(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    weights = {"model": {"weight": torch.zeros(1)}}
    save_checkpoint(tmp_path / "step-00000004", tensors=weights, state={**WHOLE, **changed})
    for read in (is_finished, training_cost, record_of):
        with pytest.raises(RunError, match=f"the newest checkpoint in .* has no {named} that this version understands"):
            read(tmp_path)


@pytest.mark.parametrize("missing", ["step", "record", "seconds", "finished"])
def test_a_state_that_lacks_something_is_refused_with_a_sentence(tmp_path: Path, missing: str) -> None:
    state = {key: value for key, value in WHOLE.items() if key != missing}
    save_checkpoint(tmp_path / "step-00000004", tensors={"model": {"weight": torch.zeros(1)}}, state=state)
    with pytest.raises(RunError, match=f"has no {missing} that this version understands"):
        (is_finished if missing == "finished" else training_cost)(tmp_path)


def test_what_a_command_needs_twice_is_made_once(tmp_path: Path) -> None:
    run, made = Run(path=tmp_path, recipe=Recipe()), list[int]()

    def make() -> int:
        made.append(len(made))
        return made[-1]

    keys = [("posteriors", "vae", "test", "a"), ("posteriors", "vae", "test", "b")]
    assert [run.once(key, make) for key in (*keys, *keys)] == [0, 1, 0, 1]
    assert made == [0, 1]
