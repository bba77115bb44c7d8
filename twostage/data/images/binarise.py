"""Grey levels to zeros and ones: each sub-pixel is one with probability level/(levels - 1).

`static`: one fixed draw for every image, a data set like any other with two levels. `dynamic`: the same fixed draw for
validation and test, while training is meant to draw anew for every batch; the grey levels of the training images go
along as `intensities`, and their fixed draw stands in `images`, for whatever looks at training images once. What is
measured on validation and test images is therefore the same under both.

The draws depend on the split, the position of the item in it and nothing else. They come from the raw stream of numpy's
Philox, which numpy promises to keep, unlike what its generators make of it. They are not those of the binarised MNIST
files of Larochelle and Murray 2011: results on these can only be compared roughly.
"""

import hashlib
from dataclasses import replace
from typing import Literal

import numpy as np

from twostage.data.images.dataset import ImageDataset

SEED = "twostage binarise 1"
_CHUNK_ITEMS = 1024


def binarised(dataset: ImageDataset, *, mode: Literal["static", "dynamic"]) -> ImageDataset:
    """The data set with two levels; its name says so.

    Args:
        dataset: any data set of grey levels.
        mode: whether the intensities of the training images go along (`dynamic`).
    """
    parts = {
        name: replace(split, images=_draw(split.images, dataset.levels, name))
        for name, split in (("train", dataset.train), ("validation", dataset.validation), ("test", dataset.test))
    }
    if mode == "dynamic":
        parts["train"] = replace(parts["train"], intensities=dataset.train.images)
    return replace(
        dataset,
        name=f"{dataset.name}-binarised-{mode}",
        levels=2,
        intensity_levels=dataset.levels if mode == "dynamic" else None,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def _draw(images_NCHW: np.ndarray, levels: int, split: str) -> np.ndarray:
    """One Bernoulli draw of every sub-pixel, uint8 `[N, C, H, W]` of 0 and 1."""
    key = int.from_bytes(hashlib.sha256(f"{SEED} {split}".encode()).digest()[:16], "little")
    stream = np.random.Philox(key=key)
    drawn_NCHW = np.empty(images_NCHW.shape, np.uint8)
    for start in range(0, len(images_NCHW), _CHUNK_ITEMS):
        chunk = images_NCHW[start : start + _CHUNK_ITEMS]
        # Uniform on 0..levels-2, so that P(below < level) is level/(levels - 1): exactly 0 and 1 at the ends.
        below = (stream.random_raw(chunk.size) >> 32) * np.uint64(levels - 1) >> 32
        drawn_NCHW[start : start + _CHUNK_ITEMS] = below.reshape(chunk.shape) < chunk
    return drawn_NCHW
