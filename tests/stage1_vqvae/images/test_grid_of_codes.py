"""How much of the grid of the codes decoders leave in what they decode, today."""

import numpy as np
import pytest
import torch

from stage1_vqvae import VQVAE
from stage1_vqvae.images.upsampling import Upsampling
from twostage.metrics.grid_energy import grid_db, grid_power

SIDE, PERIOD = 16, 4
TODAY_DB = {
    ("mse", "transposed"): 5.4,
    ("logistic-mixture", "transposed"): 5.7,
    ("logistic-mixture", "nearest-convolution"): -1.6,
}
"""By likelihood and upsampling; one who mends a decoder writes down less."""


def natural_images(count: int) -> torch.Tensor:
    """Colour images with the spectrum and the correlated channels of photographs, 256 levels."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(2 * SIDE)[:, None], np.fft.rfftfreq(2 * SIDE))
    noise = np.fft.rfft2(rng.normal(0, 1, (count, 3, 2 * SIDE, 2 * SIDE)))
    smooth = np.fft.irfft2(noise / np.maximum(frequency, 0.5 / SIDE))[..., :SIDE, :SIDE]
    mixed = smooth.mean(1, keepdims=True) * 2 + smooth / 2
    return torch.from_numpy(np.clip(np.rint(128 + 50 * mixed / mixed.std()), 0, 255)).long()


@pytest.mark.parametrize(("likelihood", "upsampling"), list(TODAY_DB))
def test_a_short_training_leaves_as_much_of_the_grid_as_today(likelihood: str, upsampling: Upsampling) -> None:
    x = natural_images(256)
    torch.manual_seed(0)
    model = VQVAE(
        image_shape=(3, SIDE, SIDE), likelihood=likelihood, mixtures=3, downsampling=PERIOD, channels=32,
        residual_channels=16, residual_blocks=1, head_channels=16, codebook_size=64, embedding_dim=16,
        upsampling=upsampling,
    )  # fmt: skip
    model.initialise_codebook(x[:64], seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(100):
        output = model(x[16 * (step % 16) :][:16])
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        model.update_codebook(output)
    made = model.eval().reconstruct(x)
    found = grid_db(*(grid_power(images, PERIOD).sum(-1).numpy() for images in (x, made)))
    assert found == pytest.approx(TODAY_DB[likelihood, upsampling], abs=1.0)
