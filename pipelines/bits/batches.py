"""Numbers of all items of a split, batch by batch, by as many processes as there are."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from twostage.distributed import sum_over_ranks, world_size
from twostage.progress import Progress


def over_batches(
    label: str,
    rows: int,
    items: int,
    measured: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]],
) -> np.ndarray:
    """`[rows, N]` float64: the numbers of the items of all batches together.

    They are the same, to the bit, for any number of processes.

    Args:
        label: of the progress bar.
        rows: numbers of an item.
        items: N.
        measured: of this process's own batches (`twostage.distributed.own_batches`, `own_share`), measured as they are
            asked for: places of the items, int64 `[B]`, and `rows` arrays `[B]`.
    """
    numbers_RN = torch.zeros(rows, items, dtype=torch.float64)
    with Progress(label, total=items, unit="item") as progress:
        for places_B, numbers in measured:
            numbers_RN[:, torch.from_numpy(places_B)] = torch.from_numpy(np.stack(numbers))
            progress.advance_shared(len(places_B), world_size())
    return sum_over_ranks(numbers_RN)[0].numpy()
