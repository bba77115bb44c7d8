"""Sheets of small pictures: reconstructions beside originals, and samples beside their nearest training items.

All are made of pictures of one size, whatever these show (`modality.pictures`).

Shapes: N samples, M training items, C x H x W picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostage.metrics.memorisation import Neighbours, WithMirrored, memorisation, nearest_images
from twostage.metrics.statistics import evenly

from ..media.png import grid, to_bytes
from ..modality.pictures import Pictures

COMPARED = 100
"""Samples, and as many test items, whose nearest training items are looked up."""
SHOWN = 16
NEIGHBOURS = 3
_STRIPS = 4
"""Strips of a sample and its nearest training items in a row."""
_WIDE = 8
"""Pictures in a row of reconstructions and originals, about."""


@dataclass(frozen=True)
class Sheet:
    """One picture made of many, uint8 `[C, H', W']`."""

    kind: str
    """What it shows, in one word: part of its file name."""
    picture_CHW: np.ndarray
    caption: str


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: pictures of training items, and how near those of test items come to them."""

    train_MCHW: np.ndarray | WithMirrored
    held_out: Neighbours
    levels: int
    """Size of the alphabet of the pictures."""
    item: str = "image"
    level: str = "levels"
    """As `Pictures` calls them."""

    @classmethod
    def of(cls, pictures: Pictures, test_NCHW: np.ndarray) -> "Reference":
        """Everything that the models were trained on, beside pictures of test items."""
        train_MCHW = pictures.training()
        held_out = nearest_images(test_NCHW, train_MCHW, count=1)
        return cls(train_MCHW, held_out, levels=pictures.levels, item=pictures.item, level=pictures.level)


def reconstruction_sheet(
    name: str,
    shown: Sequence[np.ndarray],
    *,
    levels: int,
    item: str,
    sampled: bool,
    which: str = "",
    others: Sequence[str] = (),
) -> Sheet:
    """Test items beside what a model makes of them.

    Args:
        name: of the model.
        shown: pictures `[N, C, H, W]` of the originals and of their reconstructions.
        levels: size of the alphabet.
        item: what a picture shows.
        sampled: whether the reconstructions are draws of an autoregressive decoder.
        which: of all reconstructions these are, in words with a space behind them; the name of the sheet begins so.
        others: decoders of which there are reconstructions behind the first ones.
    """
    side_by_side = np.stack([to_bytes(pictures_NCHW, levels) for pictures_NCHW in shown], 1)
    what = f"{which}{'sampled ' if sampled else ''}reconstructions"
    return Sheet(
        f"{which.strip()}-reconstructions".lstrip("-"),
        grid(side_by_side.reshape(-1, *side_by_side.shape[2:]), columns=_WIDE // len(shown) * len(shown)),
        f"{name}: test {item}s (left of each {'group' if others else 'pair'}) and {what}"
        f"{''.join(f', then those of the {other}' for other in others)}.",
    )


def neighbour_sheet(name: str, samples_NCHW: np.ndarray, reference: Reference) -> Sheet:
    """Strips of a sample and its nearest training items, and in the caption whether the model repeats them.

    Args:
        name: of the model.
        samples_NCHW: integer levels; all are compared, evenly chosen ones shown.
        reference: what they are compared with.
    """
    count = min(NEIGHBOURS, len(reference.train_MCHW))
    found = nearest_images(samples_NCHW, reference.train_MCHW, count=count)
    strips = []
    for index in evenly(len(samples_NCHW), SHOWN):
        strip_NCHW = np.concatenate([samples_NCHW[index : index + 1], reference.train_MCHW[found.indices_Nk[index]]])
        strips.append(grid(to_bytes(strip_NCHW, reference.levels), columns=1 + count))
    near = f"nearest training {reference.item}"
    which = f"is the {near}" if count == 1 else f"are the {count} {near}s"
    said = memorisation(found, reference.held_out, item=reference.item, level=reference.level).sentence
    shown_N = found.distances_Nk[evenly(len(samples_NCHW), SHOWN), 0]
    far = f"The nearest are {', '.join(f'{distance:.0f}' for distance in shown_N)} {reference.level} away, row by row."
    return Sheet(
        "neighbours",
        grid(np.stack(strips), columns=_STRIPS, border=3, background=255),
        f"{name}: in each strip a sample, left; beside it {which}. {far} {said}",
    )
