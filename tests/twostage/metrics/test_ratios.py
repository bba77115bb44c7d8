"""A ratio over nothing is absent."""

import numpy as np
import pytest

from twostage.metrics.ratios import ratio
from twostage.training.record import validation_decrease


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1.0, 4.0, 0.25),
        (0.0, 4.0, 0.0),
        (-3, 2, -1.5),
        (1.0, 0.0, None),
        (0.0, 0.0, None),
        (np.float64(2.0), np.float64(0.0), None),
        (np.float32(1.0), np.int64(2), 0.5),
        (None, 1.0, None),
        (1.0, None, None),
    ],
)
def test_a_ratio_is_a_number_or_absent(part: float | None, whole: float | None, expected: float | None) -> None:
    found = ratio(part, whole)
    assert found == expected
    assert found is None or type(found) is float


def test_a_number_that_came_to_zero_early_has_no_share_left_to_fall() -> None:
    rows = [{"step": step, "validation_loss_per_dim": 0.0 if step else 1.0} for step in (0, 50, 100)]
    assert validation_decrease(rows) is None
    assert validation_decrease([*rows[:1], *rows[2:]]) == 1.0
