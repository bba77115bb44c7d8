"""The 1797 real handwritten digits inside scikit-learn: 8x8 pixels, 17 grey levels, available offline.

Split: per class 30 test and 20 validation images, the rest is training data: 1297 / 200 / 300. Which images these are
is ranked by SHA-256 of the split's seed and the image's index: numpy does not promise that a seeded generator keeps its
stream from one release to the next, and a test set that moves with a library makes old numbers worthless.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998;
scikit-learn ships its test part, in which each level counts the set pixels (0..16) of a 4x4 block of a bitmap.
"""

import hashlib

import numpy as np

from twostage.data.images.dataset import ImageDataset, Split

LEVELS = 17
CLASSES = tuple("0123456789")
TEST_PER_CLASS = 30
VALIDATION_PER_CLASS = 20
SPLIT_SEED = "twostage digits split 1"


def load_digits() -> ImageDataset:
    """The digits with images uint8 [N, 1, 8, 8], levels 0..16 and labels 0..9; always the same three splits."""
    from sklearn import datasets

    source = datasets.load_digits()
    images_NCHW = source.images.astype(np.uint8)[:, None]
    labels_N = source.target.astype(np.int64)
    rank_N = np.array([_rank(index) for index in range(len(labels_N))])
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for label in range(len(CLASSES)):
        members = np.flatnonzero(labels_N == label)
        members = members[np.argsort(rank_N[members])]
        held_out = TEST_PER_CLASS + VALIDATION_PER_CLASS
        parts["test"].append(members[:TEST_PER_CLASS])
        parts["validation"].append(members[TEST_PER_CLASS:held_out])
        parts["train"].append(members[held_out:])

    def part(name: str) -> Split:
        chosen = np.sort(np.concatenate(parts[name]))
        return Split(images=images_NCHW[chosen], labels=labels_N[chosen])

    return ImageDataset(
        name="digits",
        levels=LEVELS,
        classes=CLASSES,
        train=part("train"),
        validation=part("validation"),
        test=part("test"),
    )


def _rank(index: int) -> int:
    """A fixed pseudo-random number below 2^63 for the image at `index`."""
    return int.from_bytes(hashlib.sha256(f"{SPLIT_SEED} {index}".encode()).digest()[:8], "big") >> 1
