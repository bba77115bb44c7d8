"""Numbers of all items of a split, batch by batch, by as many processes as there are."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch

from twostage.distributed import sum_over_ranks, world_size
from twostage.progress import Progress

Batch = TypeVar("Batch", slice, np.ndarray)


def over_batches(
    label: str,
    rows: int,
    items: int,
    batches: Iterable[Batch],
    measure: Callable[[Batch], Sequence[np.ndarray]],
    *,
    unit: str,
) -> np.ndarray:
    """`[rows, N]` float64: what `measure` gives for the items of each batch, `rows` arrays `[B]`.

    The numbers are the same, to the bit, for any number of processes.

    Args:
        label, unit: of the progress bar.
        batches: this process's own (`twostage.distributed.own_batches`, `own_share`), as slices or indices `[B]`.
    """
    numbers_RN = torch.zeros(rows, items, dtype=torch.float64)
    with Progress(label, total=items, unit=unit) as progress:
        for batch in batches:
            numbers_RB = np.stack(measure(batch))
            numbers_RN[:, batch] = torch.from_numpy(numbers_RB)
            progress.advance_shared(numbers_RB.shape[1], world_size())
    return sum_over_ranks(numbers_RN)[0].numpy()
