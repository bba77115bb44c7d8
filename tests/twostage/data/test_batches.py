"""The batch order is a pure function of (seed, step) and drops nothing."""

import numpy as np
import pytest

from twostage.data.batches import batch_indices


def stream(*, seed: int, steps: int, batch_size: int, items: int) -> np.ndarray:
    return np.concatenate(
        [batch_indices(seed=seed, step=step, batch_size=batch_size, items=items) for step in range(steps)]
    )


@pytest.mark.parametrize(("batch_size", "items"), [(1, 7), (3, 7), (7, 7), (5, 20), (20, 7), (7, 1), (8, 13)])
def test_every_epoch_holds_every_item_exactly_once(batch_size: int, items: int) -> None:
    steps = 4 * items  # 4 * batch_size whole epochs
    order = stream(seed=3, steps=steps, batch_size=batch_size, items=items)
    assert order.shape == (steps * batch_size,)
    assert order.dtype == np.int64
    for epoch in order.reshape(4 * batch_size, items):
        assert sorted(epoch) == list(range(items))


def test_batch_size_does_not_change_the_order() -> None:
    """A different global batch reads the same stream, only cut elsewhere."""
    small = stream(seed=5, steps=60, batch_size=2, items=17)
    large = stream(seed=5, steps=8, batch_size=15, items=17)
    np.testing.assert_array_equal(small, large)


def test_a_step_does_not_depend_on_what_was_asked_before() -> None:
    forwards = [batch_indices(seed=1, step=step, batch_size=6, items=10) for step in range(20)]
    np.random.default_rng(0).random(5)
    backwards = [batch_indices(seed=1, step=step, batch_size=6, items=10) for step in reversed(range(20))][::-1]
    np.testing.assert_array_equal(forwards, backwards)


def test_epochs_and_seeds_have_different_orders() -> None:
    first, second = stream(seed=0, steps=2, batch_size=50, items=50).reshape(2, 50)
    assert (first != second).any()
    assert (first != batch_indices(seed=1, step=0, batch_size=50, items=50)).any()
    # Seed and epoch must not be summed: epoch 1 of seed 0 is not epoch 0 of seed 1.
    assert (second != batch_indices(seed=1, step=0, batch_size=50, items=50)).any()


def test_a_late_step_needs_no_walk_through_the_earlier_ones() -> None:
    indices = batch_indices(seed=0, step=10**12, batch_size=4, items=6)
    assert indices.shape == (4,)
    assert set(indices) <= set(range(6))


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"step": -1}, {"batch_size": 0}, {"items": 0}])
def test_senseless_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        batch_indices(**({"seed": 0, "step": 0, "batch_size": 2, "items": 3} | wrong))
