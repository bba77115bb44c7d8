"""What models of any data are given, and what they answer in nats: batches of items, and their scores.

Shapes: B items, S the axes of an item.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a decoder is given beside latents. A model takes what it is conditioned on and leaves the rest alone.

    All but `items` are on the model's device.
    """

    items: Tensor
    """`[B]` int64 on the CPU: numbers of the items in their data set or stream, which name their noise."""
    lengths: Tensor | None = None
    """`[B]` int64, real length along the only axis of an item; None where all items are of one size."""
    labels: Tensor | None = None
    """`[B]` int64; None where there are none."""
    speakers: Tensor | None = None
    """`[B]` int64; None where there are none."""

    @property
    def first_item(self) -> int:
        """Number of the first item, of batches whose items follow one another.

        Raises:
            ValueError: they do not.
        """
        first = int(self.items[0]) if len(self.items) else 0
        if self.items.tolist() != list(range(first, first + len(self.items))):
            raise ValueError(f"expected items that follow one another, got {self.items.tolist()}")
        return first


@dataclass(frozen=True, kw_only=True)
class Batch(Asked):
    """Items of a data set on one device."""

    x: Tensor
    """`[B, *S]`, integers: levels of images, or int16 samples with anything behind an item's length."""

    def __len__(self) -> int:
        return len(self.x)

    @property
    def mask(self) -> Tensor:
        """`[B, S]`, true on the real samples of items that have lengths."""
        assert self.lengths is not None
        return torch.arange(self.x.shape[1], device=self.x.device) < self.lengths[:, None]


@dataclass(frozen=True)
class Score:
    """Nats of every item, `[B]` fp32, from the same draws; all at beta = 1."""

    distortion: Tensor
    """-log p(x|z), the mean over draws of z where z is drawn."""
    rate: Tensor | None = None
    """KL(q(z|x) || p(z)); None of codes, which a prior prices, and of a model without a distribution over latents."""
    tighter: Tensor | None = None
    """Minus the bound of several samples, which does not split; None where there is no bound."""
