"""Means, standard errors and other small statistics over the items of a data set."""

import math

import numpy as np


def standard_error(values_N: np.ndarray) -> float | None:
    """Standard error of the mean over items; None for fewer than two."""
    return float(values_N.std(ddof=1) / math.sqrt(len(values_N))) if len(values_N) > 1 else None


def psnr_db(squared_error: float, count: int, levels: int) -> float | None:
    """10 log10((L-1)^2 / mean squared error) of `count` sub-pixels; None if there is no error."""
    return 10.0 * math.log10((levels - 1) ** 2 * count / squared_error) if squared_error > 0 else None


def swap_partners(count: int) -> np.ndarray:
    """Another item for every one of `count` items, `[N]`: one fixed random cycle through all of them.

    Not the neighbour: files of a folder stand in the order of their names, where neighbours are alike.
    """
    order = np.random.Generator(np.random.PCG64(count)).permutation(count)
    partners = np.empty(count, np.int64)
    partners[order] = np.roll(order, 1)
    return partners


def evenly(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` indices below `count`, evenly spread."""
    return np.linspace(0, count - 1, min(wanted, count)).astype(int)


def ratio_error(bits_N: np.ndarray, samples_N: np.ndarray) -> float | None:
    """Standard error of sum(bits) / sum(samples) over recordings; None for a single one."""
    count = len(bits_N)
    if count < 2:
        return None
    residuals_N = bits_N - bits_N.sum() / samples_N.sum() * samples_N
    return float(math.sqrt((residuals_N**2).sum() / (count * (count - 1))) / samples_N.mean())


def mean_and_error(values_N: np.ndarray, sizes_N: np.ndarray | None = None) -> tuple[float, float | None]:
    """Mean over items with its standard error; of sums over items of different sizes the mean per unit of size."""
    if sizes_N is None:
        return float(values_N.mean()), standard_error(values_N)
    return float(values_N.sum() / sizes_N.sum()), ratio_error(values_N, sizes_N)
