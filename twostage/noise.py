"""Random numbers that belong to an item, or to a row of a step's batch, whoever computes it.

- Of an item (`uniform_noise`): item i draws from (seed, i) alone, on every device.
- Of a row of a training batch (`batch_uniform`, `batch_normal`, `batch_integers`): a batch that is worked through in
  parts, by several processes or one part after the other, sees the noise that it would see whole. Each part draws the
  numbers of the whole batch and takes its rows; that costs little beside a training step, and needs no generator that
  can jump.
- Dropout inside a network draws from torch's global generator, for each part anew: of the same law, but other masks
  than the batch would have whole.
"""

from collections.abc import Sequence
from types import TracebackType

import numpy as np
import torch
from torch import Tensor


def uniform_noise(*, seed: int, first_item: int, count: int, symbols: int, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), float64 [count, symbols]; row i is a pure function of (seed, first_item + i, stream).

    Codes draw from stream 0, pixels from stream 1, ends of sequences from stream 2: under one seed they must not share
    numbers.
    """
    items = range(first_item, first_item + count)
    return uniform_noise_of(items, seed=seed, symbols=symbols, stream=stream)


def uniform_noise_of(items: Sequence[int], *, seed: int, symbols: int, stream: int = 0) -> Tensor:
    """`uniform_noise` of items that need not follow one another, float64 [len(items), symbols]."""
    counter = np.array([0, 0, 0, stream], np.uint64)  # stream 0 is Philox's own start
    keys = [np.array([seed, item], np.uint64) for item in items]
    raw = np.stack([np.random.Philox(key=key, counter=counter).random_raw(symbols) for key in keys])
    # Raw words rather than `Generator.random`: numpy promises the stream of a bit generator, not that of its methods.
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53)


def step_seed(seed: int, step: int, part: int = 0) -> int:
    """Seed of a part of a training step; part 0 is also that of a step in one part."""
    word = np.random.SeedSequence([seed, 1, step, part] if part else [seed, 1, step]).generate_state(1, np.uint64)[0]
    return int(word >> np.uint64(1))


def seed_step(seed: int, step: int, part: int = 0) -> None:
    """Seed torch's generators (CPU and accelerators) from (seed, step, part)."""
    number = step_seed(seed, step, part)
    # torch.manual_seed formats a stack trace for every accelerator that is not in use: 0.2 ms a step.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(number)


class BatchNoise:
    """Noise of one step's whole batch, for a step in several parts; a context manager, in force until it ends.

    Its generators start where the global ones start in a step of one part.
    """

    def __init__(self, seed: int, *, items: np.ndarray) -> None:
        self.seed, self.items, self.rows = seed, items, len(items)
        self.first, self.count = 0, self.rows
        self._generators: dict[torch.device, torch.Generator] = {}

    def begin_part(self, first: int, count: int) -> None:
        """From now on rows `first` .. `first + count - 1` are drawn for, from the start of the stream."""
        self.first, self.count = first, count
        self._generators.clear()

    def generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]

    def __enter__(self) -> "BatchNoise":
        global _in_force
        _in_force = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        global _in_force
        _in_force = None


_in_force: BatchNoise | None = None


def batch_generator(device: torch.device) -> torch.Generator | None:
    """What is drawn once for a whole batch comes from this generator; None: torch's global one."""
    return None if _in_force is None else _in_force.generator(device)


def whole_batch_of(items: np.ndarray) -> np.ndarray:
    """The items of the step's batch that these are a part of; outside a training in parts these themselves."""
    return items if _in_force is None else _in_force.items


def batch_integers(bound: int, *shape: int, device: torch.device) -> Tensor:
    """Integers in [0, bound) for the rows of a training batch; outside a training as `torch.randint`."""
    whole = torch.randint(bound, _whole(shape), generator=batch_generator(device), device=device)
    return _own(whole)


def batch_uniform(*shape: int, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), fp32, for the rows of a training batch; outside a training as `torch.rand`."""
    whole = torch.rand(_whole(shape), generator=batch_generator(device), device=device)
    return _own(whole)


def batch_normal(*shape: int, device: torch.device) -> Tensor:
    """Standard normal numbers, fp32, for the rows of a training batch; outside a training as `torch.randn`."""
    whole = torch.randn(_whole(shape), generator=batch_generator(device), device=device)
    return _own(whole)


def _whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    if _in_force is None:
        return shape
    if shape[0] != _in_force.count:
        raise ValueError(f"expected noise for the {_in_force.count} rows of this part, but {shape[0]} were asked for")
    return (_in_force.rows, *shape[1:])


def _own(whole: Tensor) -> Tensor:
    return whole if _in_force is None else whole[_in_force.first : _in_force.first + _in_force.count]


def item_noise(seed: int, first_item: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise `[count, *shape]`, fp32 on the CPU; that of item i is a pure function of (seed, i)."""
    noise = torch.empty(count, *shape)
    for row in range(count):
        word = np.random.SeedSequence([seed, first_item + row]).generate_state(1, np.uint64)[0]
        noise[row].normal_(generator=torch.Generator().manual_seed(int(word >> np.uint64(1))))
    return noise
