"""Held-out items that stand in the training data as well, for images and recordings alike."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from twostage.progress import say


def tell_repeated(
    train: Iterable[np.ndarray], held_out: Mapping[str, Iterable[np.ndarray]], *, kind: str, alike: str
) -> None:
    """Say how many held-out items are training items, value for value: their bits are not those of unseen data.

    Args:
        train: the training items.
        held_out: the items of each other split, by its name.
        kind: what they are, in the plural.
        alike: how they are compared, such as `pixel for pixel`.
    """
    # Digests, because the items themselves would be the data set a second time.
    trained = {_digest(item) for item in train}
    for name, items in held_out.items():
        found = [_digest(item) in trained for item in items]
        if any(found):
            say(f"warning: {sum(found)} of {len(found)} {name} {kind} also stand in the training data, {alike}")


def _digest(item: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(item).data).digest()
