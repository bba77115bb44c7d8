"""Energy of gradients: a blurred picture has less of it, and of an untouched one it is the same."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from twostage.metrics.sharpness import gradient_energy

NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 20, 30)))


def test_it_is_the_sum_over_all_pairs_of_neighbours() -> None:
    picture = NOISE[:1, :, :4, :5]
    expected = 0.0
    for c, y, x in np.ndindex(3, 4, 5):
        for down, across in ((1, 0), (0, 1)):
            if y + down < 4 and x + across < 5:
                expected += float(picture[0, c, y + down, x + across] - picture[0, c, y, x]) ** 2
    assert gradient_energy(picture).tolist() == [expected]


def test_a_blurred_picture_has_the_energy_that_is_known_of_blurred_noise() -> None:
    """Means of 3 neighbours of white noise differ by a third of a difference of two values; down, by their third."""
    blurred = F.avg_pool2d(NOISE.double(), (1, 3), stride=1)
    ratio = float(gradient_energy(blurred).sum() / gradient_energy(NOISE[..., 1:-1]).sum())
    assert ratio == pytest.approx((1 / 9 + 1 / 3) / 2, rel=0.03)


def test_flat_pictures_and_single_pixels_have_none() -> None:
    assert gradient_energy(torch.full((2, 1, 5, 7), 9)).tolist() == [0.0, 0.0]
    assert gradient_energy(NOISE[:2, :, :1, :1]).tolist() == [0.0, 0.0]
