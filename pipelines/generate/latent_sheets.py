"""Sheets of a continuous latent space, made by decoding chosen latents: manifold, traversals, interpolations, draws.

All work on a function from latents to pictures, so that they serve a VAE, an autoencoder and a conditional VAE with its
label held, whatever the pictures show. An autoregressive decoder shows samples, others the mean of p(x|z).

Shapes: N, M items, Z latents of an item (a grid is flattened), C x H x W picture.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

from stage1_vqvae.batch import Asked
from twostage.errors import UsageError

from ..media.png import grid, to_bytes
from .sheets import Sheet

Decode = Callable[[np.ndarray], np.ndarray]
"""Latents `[N, Z]` to pictures `[N, C, H, W]` in levels."""

MANIFOLD_SIDE = 20
STEPS = 11
"""Pictures in a row of a traversal or an interpolation, both ends included."""
REACH = 2.5
"""A traversal runs so many standard deviations either way."""
_WHITE = 255


def decoder_of(model: Any, *, device: torch.device, seed: int = 0, batch_size: int = 256) -> Decode:
    """The function from latents to images of a trained model that is conditioned on nothing else.

    Args:
        model: in eval mode on `device`.
        device: of the model.
        seed: of the pixels that an autoregressive decoder draws.
        batch_size: latents decoded at once; changes memory and speed, not results.
    """

    def decode(latents_NZ: np.ndarray) -> np.ndarray:
        z = torch.from_numpy(latents_NZ).float().reshape(-1, *model.latent_shape).to(device)
        parts = [
            model.decode_batch(part, Asked(items=items), seed=seed).cpu().numpy()
            for part, items in zip(z.split(batch_size), torch.arange(len(z)).split(batch_size), strict=True)
        ]
        return np.concatenate(parts)

    return decode


@dataclass(frozen=True)
class LatentSpread:
    """Where the latents of a model lie, each on its own: the prior of a VAE, the training set of an autoencoder."""

    mean_Z: np.ndarray
    deviation_Z: np.ndarray
    origin: str
    """In words."""

    @classmethod
    def prior(cls, latents: int) -> "LatentSpread":
        """N(0, I)."""
        return cls(np.zeros(latents), np.ones(latents), "the prior N(0, I)")

    @classmethod
    def of(cls, latents_NZ: np.ndarray) -> "LatentSpread":
        """Mean and standard deviation of every latent over the items; no latent knows of another."""
        return cls(latents_NZ.mean(0), latents_NZ.std(0), "the latents of the items, for want of a prior")


def manifold(name: str, decode: Decode, *, spread: LatentSpread, levels: int, side: int = MANIFOLD_SIDE) -> Sheet:
    """What stands on a regular grid over two latents, in equal steps of probability (the inverse CDF of a Gaussian).

    Args:
        name: of the model.
        decode: its decoder.
        spread: mean and standard deviation of that Gaussian.
        levels: size of the alphabet.
        side: pictures in a row and in a column.

    Raises:
        UsageError: there are not two latents.
    """
    latents = len(spread.mean_Z)
    if latents != 2:
        raise UsageError(f"expected a model of 2 latents for a picture of its manifold, but {name} has {latents}")
    quantiles = np.array([NormalDist().inv_cdf((index + 0.5) / side) for index in range(side)])
    # Latent 0 grows to the right, latent 1 upwards, as in the scatter.
    across, up = np.meshgrid(quantiles, quantiles[::-1])
    images = decode(spread.mean_Z + spread.deviation_Z * np.stack([across.ravel(), up.ravel()], 1))
    caption = (
        f"{name}: decoded latents, latent 0 to the right and latent 1 upwards, in equal steps of probability of a "
        f"Gaussian with the mean and the width of {spread.origin}."
    )
    return Sheet("manifold", grid(to_bytes(images, levels), columns=side), caption)


def traversals(
    name: str,
    decode: Decode,
    start_Z: np.ndarray,
    dimensions: Sequence[int],
    *,
    spread: LatentSpread,
    levels: int,
    steps: int = STEPS,
) -> Sheet:
    """One row per dimension: an item's latents with that one moved through its range, all others held.

    Args:
        name: of the model.
        decode: its decoder.
        start_Z: latents of the item, such as its posterior mean; decoded as they are in the first column.
        dimensions: which latents, in the order of the rows.
        spread: a latent runs from `REACH` standard deviations below its mean to as many above.
        levels: size of the alphabet.
        steps: pictures in a row.
    """
    moved = np.repeat(start_Z[None], len(dimensions) * steps, 0).reshape(len(dimensions), steps, -1)
    for row, dimension in enumerate(dimensions):
        reach = REACH * spread.deviation_Z[dimension]
        centre = spread.mean_Z[dimension]
        moved[row, :, dimension] = np.linspace(centre - reach, centre + reach, steps)
    pictures = to_bytes(decode(np.concatenate([start_Z[None], moved.reshape(-1, len(start_Z))])), levels)
    item, *rows = np.split(pictures, [1 + steps * row for row in range(len(dimensions))])
    strips = np.stack([grid(np.concatenate([item, row]), columns=1 + steps) for row in rows])
    listed = ", ".join(str(dimension) for dimension in dimensions)
    return Sheet(
        "traversals",
        grid(strips, columns=1, border=0),
        f"{name}: left the decoded latents of an item, beside it one latent at a time moved from -{REACH:g} to "
        f"+{REACH:g} standard deviations of {spread.origin}; from the top latents {listed}.",
    )


def interpolations(
    name: str, decode: Decode, first_MZ: np.ndarray, last_MZ: np.ndarray, *, levels: int, steps: int = STEPS
) -> Sheet:
    """A row per pair of items: decoded points on the straight line between their latents."""
    share_S11 = np.linspace(0.0, 1.0, steps)[:, None, None]
    between_MSZ = np.moveaxis(first_MZ + share_S11 * (last_MZ - first_MZ), 0, 1)
    pictures = to_bytes(decode(between_MSZ.reshape(-1, first_MZ.shape[1])), levels)
    return Sheet(
        "interpolations",
        grid(pictures, columns=steps),
        f"{name}: between two test items, left and right, in equal steps of the straight line through latent space.",
    )


def side_by_side(kind: str, blocks: Mapping[str, np.ndarray], *, levels: int, columns: int, caption: str) -> Sheet:
    """Blocks of pictures `[N, C, H, W]` in levels, the same number in each, beside one another; the caption names them.

    Of latent draws of an autoencoder beside a VAE's, or of reconstructions at several betas with one column a block.
    """
    sheets = np.stack([grid(to_bytes(images, levels), columns=columns) for images in blocks.values()])
    return Sheet(
        kind,
        grid(sheets, columns=len(blocks), border=4, background=_WHITE),
        f"{caption} From the left: {', '.join(blocks)}.",
    )


def latent_draws(drawn: Mapping[str, np.ndarray], *, levels: int, columns: int = 8) -> Sheet:
    """Decoded random latents of several models side by side: what an autoencoder cannot do and a VAE can.

    Args:
        drawn: as many pictures of each; the name of a model should say what its latents were drawn from.
        levels: size of the alphabet.
        columns: of a block.
    """
    return side_by_side("latent-draws", drawn, levels=levels, columns=columns, caption="Decoded random latents.")


def reconstructions_by_model(
    originals: np.ndarray, decoded: Mapping[str, np.ndarray], *, levels: int, item: str = "image"
) -> Sheet:
    """Originals in the first column and what every model makes of them in the others, such as one model per beta."""
    return side_by_side(
        "reconstructions-by-model",
        {"originals": originals, **decoded},
        levels=levels,
        columns=1,
        caption=f"Test {item}s and their reconstructions.",
    )
