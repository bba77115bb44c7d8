"""What looks on at a training: pictures, logs. The record and the weights are the same, bit for bit, without it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch


class Observer(Protocol):
    """Told of a training by the loop, in its first process alone; changes neither model nor data.

    What it cannot do, on a full disk perhaps, it says and leaves undone: no training ends over it.
    """

    def begin(self, step: int) -> None:
        """The training begins after `step` steps; whatever was noted of later ones will come again."""

    def trained(self, step: int, numbers: Mapping[str, float]) -> None:
        """A line of the record on training batches."""

    def validated(self, step: int, numbers: Mapping[str, float]) -> None:
        """A line of the record on validation data; the model is in eval mode as it was validated, without gradients."""

    def close(self) -> None:
        """The training has ended, in whatever way."""


class Observed:
    """An observer as the loop sees it, or none: torch's random numbers are kept from it and its time is counted."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self.seconds = 0.0
        """On the clock, of all that the observer has done."""

    def begin(self, step: int) -> None:
        if self._observer is not None:
            with self._aside():
                self._observer.begin(step)

    def trained(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._observer is not None:
            with self._aside():
                self._observer.trained(step, numbers)

    def validated(self, step: int, numbers: Mapping[str, float]) -> None:
        if self._observer is not None:
            with self._aside(), torch.no_grad():
                self._observer.validated(step, numbers)

    def close(self) -> None:
        if self._observer is not None:
            with self._aside():
                self._observer.close()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        began = time.perf_counter()
        own = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        try:
            with torch.random.fork_rng(own):
                yield
        finally:
            self.seconds += time.perf_counter() - began
