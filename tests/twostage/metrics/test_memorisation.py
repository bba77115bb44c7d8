"""Nearest training images against a plain search, exactness, and the number that tells memorisation."""

import numpy as np
import pytest

from twostage.errors import UsageError
from twostage.metrics.memorisation import Neighbours, WithMirrored, memorisation, nearest_images


def _images(seed: int, count: int, shape: tuple[int, ...] = (3, 4, 4), top: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("block_size", [1, 7, 1000])
def test_neighbours_are_those_of_a_plain_search_whatever_the_block(block_size: int) -> None:
    images, train = _images(0, 9, top=3), _images(1, 60, top=3)  # three levels: many ties
    found = nearest_images(images, train, count=4, block_size=block_size)
    for row, image in enumerate(images):
        squared = ((train.astype(np.int64) - image) ** 2).sum((1, 2, 3))
        order = np.lexsort((np.arange(60), squared))[:4]
        assert found.indices_Nk[row].tolist() == order.tolist()
        assert (found.distances_Nk[row] == np.sqrt(squared[order])).all()


def test_mirrored_images_are_searched_as_if_they_stood_behind_the_others() -> None:
    images, train = _images(0, 9, (3, 4, 5)), _images(1, 30, (3, 4, 5))
    images[4] = train[11, ..., ::-1]
    both, mirrored = np.concatenate([train, train[..., ::-1]]), WithMirrored(train)
    expected, found = (nearest_images(images, each, count=4, block_size=7) for each in (both, mirrored))
    np.testing.assert_array_equal(found.indices_Nk, expected.indices_Nk)
    np.testing.assert_array_equal(found.distances_Nk, expected.distances_Nk)
    assert (found.indices_Nk[4, 0], found.distances_Nk[4, 0]) == (41, 0)
    np.testing.assert_array_equal(mirrored[found.indices_Nk[4]], both[found.indices_Nk[4]])


def test_a_planted_copy_is_found_at_distance_exactly_zero() -> None:
    train = _images(2, 500, (3, 32, 32))  # squared norms of 6e7: single precision would be off by whole levels
    train[300:] |= 0x80
    images = train[[499, 3]].copy()
    images[1, 2, 31, 31] ^= 1
    found = nearest_images(images, train, count=1, block_size=64)
    assert found.indices_Nk[:, 0].tolist() == [499, 3]
    assert found.distances_Nk[:, 0].tolist() == [0.0, 1.0]


def test_images_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(UsageError, match="images of one shape"):
        nearest_images(_images(0, 2), _images(0, 2, (1, 4, 4)), count=1)
    with pytest.raises(UsageError, match="at least 3 training images"):
        nearest_images(_images(0, 2), _images(1, 2), count=3)


def _at(*distances: float) -> Neighbours:
    values = np.array(distances)[:, None]
    return Neighbours(indices_Nk=np.zeros_like(values, dtype=np.int64), distances_Nk=values)


def test_a_model_that_repeats_its_training_images_is_told_from_one_that_does_not() -> None:
    train, test = _images(3, 200, top=17), _images(4, 40, top=17)
    held_out = nearest_images(test, train, count=1)
    repeats = train[:30].copy()
    repeats[:20, 0, 0, 0] ^= 1
    copied = memorisation(nearest_images(repeats, train, count=2), held_out)
    assert (copied.samples, copied.copies) == (30, 10)
    assert copied.ratio is not None
    assert copied.ratio < 0.1
    fresh = memorisation(nearest_images(_images(5, 30, top=17), train, count=2), held_out)
    assert fresh.copies == 0
    assert fresh.ratio == pytest.approx(1.0, abs=0.05)
    assert f"ratio {fresh.ratio:.2f}" in fresh.sentence


def test_the_ratio_is_one_of_medians_and_undefined_where_test_images_are_training_images() -> None:
    assert memorisation(_at(1, 2, 90), _at(4, 4, 8)).ratio == 0.5
    copied_test_set = memorisation(_at(1, 2, 3), _at(0, 0, 0))
    assert copied_test_set.ratio is None
    assert "undefined" in copied_test_set.sentence
