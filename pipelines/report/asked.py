"""What decoders are given: several items with what there is to know of them, some of these, and their latents.

Shapes: A axes of the latents of an item.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.interface import Asked


def asked_for(
    count: int,
    *,
    device: torch.device,
    labels: Sequence[int] | np.ndarray = (),
    speakers: Sequence[int] | np.ndarray = (),
    lengths: np.ndarray | Tensor | None = None,
) -> Asked:
    """`count` items, numbered from 0; what they have none of is left out by an empty sequence."""

    def tensor(numbers: Any) -> Tensor | None:
        return torch.as_tensor(numbers, dtype=torch.int64, device=device) if len(numbers) else None

    return Asked(
        items=torch.arange(count),
        labels=tensor(labels),
        speakers=tensor(speakers),
        lengths=None if lengths is None else tensor(lengths),
    )


def part_of(asked: Asked, rows: slice) -> Asked:
    """The same of some of the items."""

    def part(numbers: Tensor | None) -> Tensor | None:
        return None if numbers is None else numbers[rows]

    return Asked(
        items=asked.items[rows],
        lengths=part(asked.lengths),
        labels=part(asked.labels),
        speakers=part(asked.speakers),
    )


def stacked(latents: Sequence[Tensor]) -> Tensor:
    """Latents of several items in one tensor, those of shorter sequences with zeros behind them."""
    longest = max(each.shape[-1] for each in latents)
    return torch.stack([F.pad(each, (0, longest - each.shape[-1])) for each in latents])
