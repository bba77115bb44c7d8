"""How reconstructions of images differ from their originals: numbers of every pair, and measures of all together.

Shapes: B images of a batch, M of all batches, R numbers, C x H x W image, K harmonics of the grid of codes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostage.metrics.colour import chroma, colour_error, to_lab
from twostage.metrics.grid_energy import grid_db, grid_power, harmonics
from twostage.metrics.ratios import ratio
from twostage.metrics.sharpness import gradient_energy
from twostage.metrics.ssim import ssim, why_no_ssim
from twostage.metrics.statistics import psnr_db


@dataclass(frozen=True)
class Pairs:
    """Originals and reconstructions of a batch, `[B, C, H, W]`."""

    x: Tensor
    """Integer levels."""
    decoded: Tensor
    """As the model decodes them, in levels."""
    levels: int

    @property
    def seen(self) -> tuple[Tensor, Tensor]:
        """Both as pictures show them: without what lies outside of the levels."""
        return self.x, self.decoded.clamp(0, self.levels - 1)


@dataclass(frozen=True)
class Part:
    """A few numbers of every pair, and what they are good for."""

    numbers: int
    of: Callable[[Pairs], Tensor]
    """`[numbers, B]`."""


def _both(measure: Callable[[Tensor], Tensor], pairs: Pairs) -> Tensor:
    """A measure `[..., B]` of originals and of reconstructions, one behind the other: `[2 ..., B]`."""
    found = torch.stack([measure(images) for images in pairs.seen])
    return found.reshape(-1, found.shape[-1])


class ImageQuality:
    """Measures of reconstructions of images of one shape.

    Args:
        image_shape: (C, H, W).
        levels: size of the alphabet.
        period: pixels of a position of the code grid along a side.
    """

    def __init__(self, image_shape: tuple[int, int, int], levels: int, period: int) -> None:
        self.image_shape, self.levels, self.period = image_shape, levels, period
        self.no_ssim, self._harmonics = why_no_ssim(image_shape), harmonics(image_shape, period)
        self._parts = {
            "error": Part(2, self._error),
            "ssim": Part(1, self._ssim),
            "gradients": Part(2, lambda pairs: _both(gradient_energy, pairs)),
            "colour": Part(9 if image_shape[0] == 3 else 0, self._colour),
            "grid": Part(4 * self._harmonics, lambda pairs: _both(self._grid, pairs)),
        }

    @property
    def numbers(self) -> int:
        """R."""
        return sum(part.numbers for part in self._parts.values())

    def of(self, x_BCHW: Tensor, decoded_BCHW: Tensor) -> Tensor:
        """Numbers of every image and its reconstruction, `[R, B]` float64; the first is the squared error."""
        pairs = Pairs(x_BCHW, decoded_BCHW, self.levels)
        return torch.cat([part.of(pairs) for part in self._parts.values() if part.numbers])

    def together(self, numbers_RM: np.ndarray, mean_CHW: np.ndarray, *, sampled: bool) -> dict[str, Any]:
        """Measures of all images together, by the names of the fields of a row.

        Args:
            numbers_RM: of every image.
            mean_CHW: of the originals.
            sampled: whether reconstructions are draws and not the mean of p(x|z). Then they have no explained share,
                since every draw is as far from that mean as the original is.
        """
        cuts = np.cumsum([part.numbers for part in self._parts.values()])[:-1]
        sums = dict(zip(self._parts, np.split(numbers_RM.sum(1), cuts), strict=True))
        (error, power), count = sums["error"], numbers_RM.shape[1]
        deviation = power - count * float(np.square(mean_CHW).sum())
        unexplained = None if sampled else ratio(error, deviation if deviation > 1e-9 * power else 0.0)
        similarity = float(sums["ssim"][0] / count)
        original, made = sums["gradients"]
        return {
            "psnr_db": psnr_db(error, count * math.prod(self.image_shape), self.levels),
            "ssim": None if math.isnan(similarity) else similarity,
            "explained_share": None if unexplained is None else 1 - unexplained,
            "sharpness": ratio(made, original),
            "grid_db": grid_db(*sums["grid"].reshape(2, 2, -1)) if self._harmonics else None,
            **(_of_colour(sums["colour"], count) if len(sums["colour"]) else {}),
        }

    def _error(self, pairs: Pairs) -> Tensor:
        """Squared error, and power of the original."""
        both = (pairs.decoded.double() - pairs.x, pairs.x.double())
        return torch.stack([images.square().flatten(1).sum(1) for images in both])

    def _ssim(self, pairs: Pairs) -> Tensor:
        """NaN where it cannot be measured, by one process of several alone even, so that all have as many numbers."""
        if self.no_ssim is not None:
            return torch.full((1, len(pairs.x)), math.nan, dtype=torch.float64, device=pairs.x.device)
        x, made = (images.cpu().numpy() for images in pairs.seen)
        return torch.from_numpy(ssim(x, made, self.levels))[None].to(pairs.x.device)

    def _colour(self, pairs: Pairs) -> Tensor:
        """Distance; then of originals and of reconstructions mean chroma, a*, b* and their mean square."""
        x, made = (to_lab(images, self.levels) for images in pairs.seen)

        def of(lab: Tensor) -> list[Tensor]:
            a_b = lab[:, 1:].flatten(2)
            return [chroma(lab), *a_b.mean(2).unbind(1), a_b.square().sum(1).mean(1)]

        return torch.stack([colour_error(x, made), *of(x), *of(made)])

    def _grid(self, images_BCHW: Tensor) -> Tensor:
        return grid_power(images_BCHW, self.period).flatten(0, 1)


def _of_colour(sums_9: np.ndarray, count: int) -> dict[str, Any]:
    distance, *both = sums_9 / count
    (chroma_x, *spread_x), (chroma_made, *spread_made) = both[:4], both[4:]
    return {
        "colour_error": float(distance),
        "colourfulness": ratio(chroma_made, chroma_x),
        "colour_spread": ratio(_deviation(*spread_made), _deviation(*spread_x)),
    }


def _deviation(a: float, b: float, square: float) -> float:
    """Of the colours of all pixels from their mean."""
    variance = square - a**2 - b**2
    return math.sqrt(variance) if variance > 1e-9 * square else 0.0
