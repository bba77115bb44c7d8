"""How much of the grid of the codes decoders leave in what they decode, early in a training."""

import numpy as np
import pytest
import torch

from stage1_vqvae import VQVAE
from stage1_vqvae.images.upsampling import Upsampling
from twostage.config.load import load_recipe
from twostage.metrics.grid_energy import grid_db, grid_power

SIDE, PERIOD = 16, 4
PHOTOGRAPHS = ("images", "natural32", "cifar10-small")
"""Recipes whose networks are this project's own; `cifar10` has those of the paper."""
MOST_DB, LEAST_DIFFERENCE_DB = 1.0, 3.0
"""One training differs from the next by several dB (docs/log.md), but neither of these depends on the seed."""


def natural_images(count: int) -> torch.Tensor:
    """Colour images with the spectrum and the correlated channels of photographs, 256 levels."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(2 * SIDE)[:, None], np.fft.rfftfreq(2 * SIDE))
    noise = np.fft.rfft2(rng.normal(0, 1, (count, 3, 2 * SIDE, 2 * SIDE)))
    smooth = np.fft.irfft2(noise / np.maximum(frequency, 0.5 / SIDE))[..., :SIDE, :SIDE]
    mixed = smooth.mean(1, keepdims=True) * 2 + smooth / 2
    return torch.from_numpy(np.clip(np.rint(128 + 50 * mixed / mixed.std()), 0, 255)).long()


def grid_after_training(x: torch.Tensor, likelihood: str, upsampling: Upsampling, *, seed: int) -> float:
    """dB of the grid in reconstructions after 50 steps; 0 is what the originals have."""
    torch.manual_seed(seed)
    model = VQVAE(
        image_shape=(3, SIDE, SIDE), likelihood=likelihood, mixtures=3, downsampling=PERIOD, channels=32,
        residual_channels=16, residual_blocks=1, head_channels=16, codebook_size=64, embedding_dim=16,
        upsampling=upsampling,
    )  # fmt: skip
    model.initialise_codebook(x[:64], seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(50):
        output = model(x[16 * (step % 16) :][:16])
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        model.update_codebook(output)
    made = model.eval().reconstruct(x)
    found = grid_db(*(grid_power(images, PERIOD).sum(-1).numpy() for images in (x, made)))
    assert found is not None
    return found


@pytest.mark.parametrize("likelihood", ["mse", "logistic-mixture"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_recipes_of_photographs_use_leaves_no_grid_where_transposed_convolutions_do(
    likelihood: str, seed: int
) -> None:
    (shipped,) = {load_recipe(name).stage1.upsampling for name in PHOTOGRAPHS}
    x = natural_images(256)
    shipped_db = grid_after_training(x, likelihood, shipped, seed=seed)
    assert shipped_db < MOST_DB
    assert grid_after_training(x, likelihood, "transposed", seed=seed) > shipped_db + LEAST_DIFFERENCE_DB
