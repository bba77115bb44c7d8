"""Numbers of all items of a split, batch by batch, by as many processes as there are."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from twostage.distributed import own_batches, sum_over_ranks, world_size
from twostage.progress import Progress


def over_batches(
    label: str,
    rows: int,
    items: int,
    batch_size: int,
    measure: Callable[[np.ndarray], Sequence[np.ndarray]],
    *,
    unit: str,
    order_N: np.ndarray | None = None,
) -> np.ndarray:
    """`[rows, N]` float64: what `measure` gives for the items of each batch, `rows` arrays `[B]` for indices `[B]`.

    Several processes take a batch each in turn; the numbers are the same, to the bit, for any number of them.

    Args:
        label, unit: of the progress bar.
        order_N: which items stand side by side; None: as they come.
    """
    order_N = np.arange(items) if order_N is None else order_N
    numbers_RN = torch.zeros(rows, items, dtype=torch.float64)
    with Progress(label, total=items, unit=unit) as progress:
        for batch in own_batches(items, batch_size):
            indices_B = order_N[batch]
            numbers_RN[:, torch.from_numpy(indices_B)] = torch.from_numpy(np.stack(measure(indices_B)))
            progress.advance_shared(len(indices_B), world_size())
    return sum_over_ranks(numbers_RN)[0].numpy()
