"""What is drawn anew for every batch: mirror images and binarisation."""

import numpy as np
import pytest
import torch

from stage1_vqvae.images.training_images import TrainingImages
from twostage.errors import UsageError

IMAGES = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)


def test_without_draws_a_batch_is_the_images_themselves() -> None:
    assert torch.equal(TrainingImages(IMAGES).batch(np.array([1, 0, 1])), IMAGES[[1, 0, 1]])


def test_half_of_the_images_are_mirrored_left_to_right() -> None:
    torch.manual_seed(0)
    batch = TrainingImages(IMAGES, horizontal_flips=True).batch(np.zeros(1000, np.int64))
    plain = (batch == IMAGES[0]).flatten(1).all(1)
    mirrored = (batch == IMAGES[0].flip(-1)).flatten(1).all(1)
    assert (plain ^ mirrored).all()
    assert 440 < int(mirrored.sum()) < 560


def test_dynamic_binarisation_draws_every_pixel_with_its_own_probability() -> None:
    torch.manual_seed(0)
    levels = torch.tensor([0, 4, 8, 16], dtype=torch.uint8).reshape(1, 1, 2, 2)
    images = TrainingImages(torch.zeros_like(levels), intensities=levels, intensity_levels=17)
    batch = images.batch(np.zeros(4000, np.int64))
    assert batch.dtype == torch.uint8
    assert set(batch.unique().tolist()) == {0, 1}
    torch.testing.assert_close(batch.float().mean(0).flatten(), torch.tensor([0, 0.25, 0.5, 1]), atol=0.03, rtol=0)


def test_intensities_need_their_alphabet() -> None:
    with pytest.raises(UsageError, match="go together"):
        TrainingImages(IMAGES, intensities=IMAGES)
