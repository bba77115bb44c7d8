"""The run folder: when a training counts as finished."""

from pathlib import Path
from typing import Any

import pytest
import torch

from twostage.checkpoint import save_checkpoint
from twostage_pipelines.run import is_finished


@pytest.mark.parametrize(
    ("step", "said", "finished"),
    [
        (10, {}, True),  # written before there was patience
        (4, {}, False),
        (10, {"finished": True}, True),
        (4, {"finished": True}, True),  # out of patience
        (4, {"finished": False}, False),
    ],
)
def test_a_training_is_finished_at_its_last_step_or_out_of_patience(
    tmp_path: Path, step: int, said: dict[str, Any], finished: bool
) -> None:
    assert not is_finished(tmp_path)
    record = {"config": {"training": {"steps": 10}}}
    for at, state in ((1, {"finished": False}), (step, said)):
        save_checkpoint(
            tmp_path / f"step-{at:08d}",
            tensors={"model": {"weight": torch.zeros(1)}},
            state={"step": at, "record": record, **state},
        )
    assert is_finished(tmp_path) == finished
