"""Noise that belongs to an item and not to a batch: item i draws from (seed, i) alone, on every device."""

import numpy as np
import torch
from torch import Tensor


def uniform_noise(*, seed: int, first_item: int, count: int, symbols: int, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), float64 [count, symbols]; row i is a pure function of (seed, first_item + i, stream).

    Codes draw from stream 0, pixels from stream 1, ends of sequences from stream 2: under one seed they must not share
    numbers.
    """
    counter = np.array([0, 0, 0, stream], np.uint64)  # stream 0 is Philox's own start
    keys = [np.array([seed, first_item + item], np.uint64) for item in range(count)]
    raw = np.stack([np.random.Philox(key=key, counter=counter).random_raw(symbols) for key in keys])
    # Raw words rather than `Generator.random`: numpy promises the stream of a bit generator, not that of its methods.
    return torch.from_numpy((raw >> np.uint64(11)) * 2.0**-53)
