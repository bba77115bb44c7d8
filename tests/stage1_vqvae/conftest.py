"""Recordings of unequal length for the tests of sound models."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

MakeSounds = Callable[..., tuple[Tensor, Tensor]]


@pytest.fixture
def make_sounds() -> MakeSounds:
    """Samples and mask of items of these lengths; the padding is noise, which nothing may look at.

    Item `first + i` is the same sound in every batch, whatever stands beside it and however far it is padded.
    """

    def make(lengths: Sequence[int], *, padded: int, first: int = 0) -> tuple[Tensor, Tensor]:
        samples = torch.randint(-9000, 9000, (len(lengths), padded), dtype=torch.int16)
        for row, length in enumerate(lengths):
            generator = torch.Generator().manual_seed(first + row)
            time = torch.arange(length) * (0.05 + 0.4 * torch.rand((), generator=generator))
            wave = time.sin() + 0.3 * torch.randn(length, generator=generator)
            samples[row, :length] = (6000 * torch.rand((), generator=generator) * wave).to(torch.int16)
        return samples, torch.arange(padded) < torch.tensor(lengths)[:, None]

    return make
