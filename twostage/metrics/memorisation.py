"""Nearest training images: does a model make new images, or does it give its training set back?

Distances are Euclidean between integer levels. Squared distances are whole numbers below 2^53 in every term, so float64
computes them exactly, in whatever order a matrix product adds up: a copy has distance 0, not nearly 0, and the size of
the blocks changes nothing.

A pixel distance finds copies, also slightly changed ones; it does not find an object that was moved by some pixels.

Shapes: N images that are asked about, M training images, C x H x W image, D = C*H*W, k neighbours.
"""

from dataclasses import dataclass

import numpy as np

from twostage.errors import UsageError


class WithMirrored:
    """Images `[M, C, H, W]` and the same mirrored behind them, `[2 M, C, H, W]`: mirrored when they are asked for."""

    def __init__(self, images_MCHW: np.ndarray) -> None:
        self._images = images_MCHW
        self.shape = (2 * len(images_MCHW), *images_MCHW.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The images of a slice, or of integer indices, as an array of their own."""
        indices = np.arange(len(self))[rows]
        picked = self._images[indices % len(self._images)]
        mirrored = indices >= len(self._images)
        picked[mirrored] = picked[mirrored][..., ::-1]
        return picked


@dataclass(frozen=True)
class Neighbours:
    """The k nearest training images of every image, nearest first; of equals the one with the lower index."""

    indices_Nk: np.ndarray
    """int64, rows of the training images."""
    distances_Nk: np.ndarray
    """float64, Euclidean, in levels."""


def nearest_images(
    images_NCHW: np.ndarray, train_MCHW: np.ndarray | WithMirrored, *, count: int, block_size: int = 2048
) -> Neighbours:
    """Nearest of the training images, integer levels both.

    Args:
        images_NCHW, train_MCHW: unsigned integer levels, at most 65535.
        count: k, neighbours per image.
        block_size: training images compared at a time; memory is block_size * (N + D) float64 numbers.

    Raises:
        UsageError: the shapes differ or there are fewer than k training images.
    """
    if images_NCHW.shape[1:] != train_MCHW.shape[1:] or not 1 <= count <= len(train_MCHW):
        raise UsageError(
            f"expected images of one shape and at least {count} training images, but shapes {images_NCHW.shape} and "
            f"{train_MCHW.shape} came: compare with the data that the model was trained on"
        )
    images_ND = images_NCHW.reshape(len(images_NCHW), -1).astype(np.float64)
    squares_N = (images_ND**2).sum(1)
    best_index_Nk = np.zeros((len(images_ND), 0), np.int64)
    best_squared_Nk = np.zeros((len(images_ND), 0))
    for start in range(0, len(train_MCHW), block_size):
        block_BD = train_MCHW[start : start + block_size].reshape(-1, images_ND.shape[1]).astype(np.float64)
        squared_NB = squares_N[:, None] + (block_BD**2).sum(1) - 2.0 * (images_ND @ block_BD.T)
        index_NB = np.broadcast_to(np.arange(start, start + len(block_BD)), squared_NB.shape)
        # Earlier rows stand first and the sort is stable, so ties fall to the lower index.
        squared = np.concatenate([best_squared_Nk, squared_NB], 1)
        index = np.concatenate([best_index_Nk, index_NB], 1)
        order_Nk = np.argsort(squared, axis=1, kind="stable")[:, :count]
        best_squared_Nk = np.take_along_axis(squared, order_Nk, 1)
        best_index_Nk = np.take_along_axis(index, order_Nk, 1)
    return Neighbours(indices_Nk=best_index_Nk, distances_Nk=np.sqrt(best_squared_Nk))


@dataclass(frozen=True)
class Memorisation:
    """How near samples come to the training images, beside how near unseen real images come."""

    samples: int
    copies: int
    """Samples that equal a training image, level for level."""
    sample_distance: float
    """Median over samples of the distance to the nearest training image, in levels."""
    held_out_distance: float
    """The same of held-out images."""
    item: str = "image"
    """What the pictures are of."""
    level: str = "levels"
    """What distances are counted in."""

    @property
    def ratio(self) -> float | None:
        """Samples' median distance over that of held-out images; None where the latter is 0."""
        return self.sample_distance / self.held_out_distance if self.held_out_distance > 0 else None

    @property
    def sentence(self) -> str:
        """The numbers and what they mean."""
        ratio = "undefined" if self.ratio is None else f"{self.ratio:.2f}"
        return (
            f"Median distance to the nearest training {self.item}: {self.sample_distance:.1f} {self.level} from "
            f"{self.samples} samples, {self.held_out_distance:.1f} from test {self.item}s, ratio {ratio}; "
            f"{self.copies} of the samples are copies. A ratio far below 1 means that the model repeats its training "
            f"{self.item}s instead of making new ones; a blurred {self.item}, too, is a little nearer to everything."
        )


def memorisation(
    samples: Neighbours, held_out: Neighbours, *, item: str = "image", level: str = "levels"
) -> Memorisation:
    """Compare the nearest neighbours of samples with those of held-out images, each against the training images.

    `item` and `level` are words for the sentence, see `Memorisation`.
    """
    nearest_N = samples.distances_Nk[:, 0]
    return Memorisation(
        samples=len(nearest_N),
        copies=int((nearest_N == 0).sum()),
        sample_distance=float(np.median(nearest_N)),
        held_out_distance=float(np.median(held_out.distances_Nk[:, 0])),
        item=item,
        level=level,
    )
