"""The scores of `evaluate` against slow plain computations, and their agreement with the laws of coding."""

import math

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, VQVAE
from twostage.metrics.statistics import swap_partners
from twostage_pipelines.bits.images import (
    ItemBits,
    bound_bits,
    codebook_distortion,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_no_item_is_dropped_and_the_batch_size_changes_nothing(batch_size: int) -> None:
    torch.manual_seed(0)
    model = VQVAE(image_shape=(1, 4, 4), levels=5, downsampling=2, channels=8, head_channels=4, embedding_dim=4)
    images = np.random.default_rng(0).integers(0, 5, (7, 1, 4, 4), dtype=np.uint8)
    codes = model.eval().encode(torch.from_numpy(images)).numpy()
    distortion = codebook_distortion(model, images, codes, seed=0, device=CPU, batch_size=batch_size)
    with torch.no_grad():
        slow = [-model.log_prob(torch.from_numpy(images[[i]]), torch.from_numpy(codes[[i]])).item() for i in range(7)]
    np.testing.assert_allclose(distortion.bits_per_dim, np.array(slow) / (16 * math.log(2)), rtol=1e-5)
    means = model.decode(torch.from_numpy(codes)).numpy()
    psnr = 10 * math.log10(16 / np.mean((means - images) ** 2))
    assert distortion.psnr_db == pytest.approx(psnr, abs=1e-4)


def test_gaussian_bits_split_into_distortion_and_rate_and_iwae_is_no_longer() -> None:
    torch.manual_seed(0)
    model = VAE(image_shape=(1, 4, 4), levels=5, downsampling=2, channels=8, head_channels=4, beta=7.0).eval()
    images = np.random.default_rng(0).integers(0, 5, (9, 1, 4, 4), dtype=np.uint8)
    bits = bound_bits(model, images, samples=16, seed=0, device=CPU, batch_size=4)
    assert bits.elbo.distortion is not None
    assert bits.elbo.rate is not None
    np.testing.assert_allclose(bits.elbo.total, bits.elbo.distortion + bits.elbo.rate, rtol=1e-6)
    with torch.no_grad():
        kl = model.posterior(torch.from_numpy(images)).kl_nats().flatten(1).sum(1).numpy() / (16 * math.log(2))
    np.testing.assert_allclose(bits.elbo.rate, kl, rtol=1e-5)
    assert (bits.elbo.rate > 0).all()
    assert bits.multi_sample.mean < bits.elbo.mean
    assert bits.multi_sample.rate is None
    again = bound_bits(model, images, samples=16, seed=0, device=CPU, batch_size=9)
    np.testing.assert_allclose(bits.multi_sample.total, again.multi_sample.total, rtol=1e-5)


def test_standard_error_is_that_of_the_mean() -> None:
    bits = ItemBits.two_part(np.array([1.0, 2.0, 3.0, 6.0]), np.array([0.5, 0.5, 0.5, 0.5]))
    assert bits.mean == 3.5
    assert bits.standard_error == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)


@pytest.mark.parametrize("count", [2, 3, 50, 1000])
def test_every_item_is_swapped_with_another_one_and_none_twice(count: int) -> None:
    partners = swap_partners(count)
    assert sorted(partners) == list(range(count))
    assert (partners != np.arange(count)).all()
    assert np.array_equal(partners, swap_partners(count))
    if count == 1000:  # files in the order of their names: neighbours are alike and may not be partners
        assert (np.abs(partners - np.arange(count)) < 10).mean() < 0.05
