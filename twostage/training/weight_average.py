"""Moving average of a model's weights: smoother than the last step, and what is validated and kept.

average_t = d_t average_{t-1} + (1 - d_t) weights_t with d_t = min(decay, t / (t + 9)), t = 0, 1, ... : the warm-up
of TensorFlow's ExponentialMovingAverage, min(decay, (1 + n) / (10 + n)) with n = t - 1. The first step's weights
are taken whole and pushed out by later ones, the average spanning about a ninth of the steps so far until `decay` is
reached: nothing of the random start is left in it, and there is no bias to divide away.

Parameters are averaged; buffers are not. The buffers of this project are an EMA codebook and its counts: a moving
average already, and a second one would leave every revived code on the way between two places for as long as it reaches
back. In validation and in `best/` the averaged encoder and decoder meet the codebook of that very step and are measured
with it, so that a misfit shows in the number that picks `best/`. A codebook trained by its loss is a parameter.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def decay_at(decay: float, step: int) -> float:
    """Weight of the old average in the update that ends step `step` (0-based)."""
    return min(decay, step / (step + 9))


class WeightAverage:
    """The average of `model`'s trained parameters, on their devices; meaningful from the first `update` on."""

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.decay = decay
        self._names = [name for name, _ in named]
        self._parameters: list[Tensor] = [parameter for _, parameter in named]
        self._averages = [parameter.detach().clone() for parameter in self._parameters]

    def update(self, step: int) -> None:
        """Take in the weights after the optimiser's step `step` (0-based)."""
        get_ema_multi_avg_fn(decay_at(self.decay, step))(self._averages, self._parameters, None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the model's parameters hold the average; after it their own values, bit for bit."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        _copy(self._averages, self._parameters)
        try:
            yield
        finally:
            _copy(own, self._parameters)

    def tensors(self) -> dict[str, Tensor]:
        """The average by parameter name, for a checkpoint."""
        return dict(zip(self._names, self._averages, strict=True))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `tensors` gave."""
        _copy([tensors[name] for name in self._names], self._averages)


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
