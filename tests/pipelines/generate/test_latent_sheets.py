"""Sheets of latents: which latents are decoded and where they stand."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE
from stage1_vqvae.images.autoencoder import Autoencoder
from twostage.errors import UsageError
from twostage_pipelines.generate.latent_sheets import (
    LatentSpread,
    decoder_of,
    interpolations,
    latent_draws,
    manifold,
    reconstructions_by_model,
    traversals,
)

CPU = torch.device("cpu")
LEVELS = 256
SMALL: dict[str, Any] = {
    "image_shape": (1, 4, 4),
    "levels": 5,
    "downsampling": 2,
    "channels": 8,
    "residual_channels": 4,
}


def plain(latents_NZ: np.ndarray) -> np.ndarray:
    """One pixel per item: level 100 + 10 times the sum of its latents, each weighed by its number plus one."""
    weights_Z = np.arange(latents_NZ.shape[1]) + 1
    return (100 + 10 * (latents_NZ * weights_Z).sum(1))[:, None, None, None]


def pixels(picture_CHW: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The one-pixel pictures of a grid with borders of 1."""
    inner = picture_CHW[0, 1::2, 1::2]
    assert inner.shape == (rows, columns)
    return inner.astype(int)


class TestSheets:
    def test_manifold_steps_evenly_through_the_priors_probability(self) -> None:
        sheet = manifold("vae", plain, spread=LatentSpread.prior(2), levels=LEVELS, side=4)
        quantile = [NormalDist().inv_cdf(share) for share in (0.125, 0.375, 0.625, 0.875)]
        expected = [[100 + 10 * (across + 2 * up) for across in quantile] for up in reversed(quantile)]
        assert (pixels(sheet.picture_CHW, 4, 4) == np.rint(expected)).all()
        with pytest.raises(UsageError, match=r"2 latents .* has 3"):
            manifold("vae", plain, spread=LatentSpread.prior(3), levels=LEVELS)

    def test_manifold_of_an_autoencoder_is_where_its_latents_are(self) -> None:
        spread = LatentSpread(np.array([5.0, -1.0]), np.array([4.0, 2.0]), "these")
        sheet = manifold("ae", plain, spread=spread, levels=LEVELS, side=4)
        quantile = NormalDist().inv_cdf(0.875)
        corner = 100 + 10 * (5 - 4 * quantile + 2 * (-1 + 2 * quantile))
        assert pixels(sheet.picture_CHW, 4, 4)[0, 0] == round(corner)
        assert sheet.caption.endswith("the width of these.")

    def test_traversal_moves_one_latent_at_a_time(self) -> None:
        start = np.array([1.0, 2.0, 0.5])
        sheet = traversals("vae", plain, start, [2, 0], spread=LatentSpread.prior(3), levels=LEVELS, steps=3)
        strips = sheet.picture_CHW[0]
        own = 100 + 10 * (1 + 4 + 1.5)
        rows = [strips[1, 1::2].tolist(), strips[4, 1::2].tolist()]
        assert rows == [
            [own, *(own + 30 * (value - 0.5) for value in (-2.5, 0, 2.5))],
            [own, *(own + 10 * (value - 1) for value in (-2.5, 0, 2.5))],
        ]
        assert "latents 2, 0" in sheet.caption

    def test_interpolation_ends_at_its_items(self) -> None:
        first, last = np.array([[0.0, 0.0], [4.0, 0.0]]), np.array([[4.0, 2.0], [0.0, 0.0]])
        found = pixels(interpolations("vae", plain, first, last, levels=LEVELS, steps=5).picture_CHW, 5, 2)
        assert found.tolist() == [[100, 120, 140, 160, 180], [140, 130, 120, 110, 100]]

    def test_spread_of_an_autoencoder_is_that_of_its_latents(self) -> None:
        latents = np.array([[4.0, 0.0], [6.0, 2.0]])
        spread = LatentSpread.of(latents)
        sheet = traversals("ae", plain, np.zeros(2), [0, 1], spread=spread, levels=LEVELS, steps=3)
        strips = sheet.picture_CHW[0]
        # Latent 0 has mean 5 and deviation 1, latent 1 mean 1 and deviation 1 and twice the weight.
        assert strips[1, 3::2].tolist() == [125, 150, 175]
        assert strips[4, 3::2].tolist() == [70, 120, 170]
        assert "for want of a prior" in sheet.caption

    def test_draws_of_two_models_stand_side_by_side_and_are_named(self) -> None:
        drawn = {"ae (fit)": np.full((4, 1, 1, 1), 150.0), "vae": np.arange(4.0)[:, None, None, None]}
        sheet = latent_draws(drawn, levels=LEVELS, columns=2)
        # Blocks of two 1-pixel columns are 5 pixels wide, between borders of 4.
        left, right = sheet.picture_CHW[0, 4:9, 4:9], sheet.picture_CHW[0, 4:9, 13:18]
        assert (left[1::2, 1::2] == 150).all()
        assert right[1::2, 1::2].tolist() == [[0, 1], [2, 3]]
        assert sheet.caption.endswith("From the left: ae (fit), vae.")

    def test_reconstructions_stand_beside_their_originals(self) -> None:
        originals = np.array([10, 20, 30], np.uint8)[:, None, None, None]
        decoded = {"beta 1": originals + 1.0, "beta 4": originals + 2.0}
        sheet = reconstructions_by_model(originals, decoded, levels=LEVELS)
        columns = [sheet.picture_CHW[0, 4:11, left : left + 3][1::2, 1].tolist() for left in (4, 11, 18)]
        assert columns == [[10, 20, 30], [11, 21, 31], [12, 22, 32]]
        assert sheet.caption.endswith("originals, beta 1, beta 4.")


class TestDecoders:
    @pytest.mark.parametrize("kind", [VAE, Autoencoder])
    def test_flat_latents_reach_the_model_in_its_own_shape(self, kind: Any) -> None:
        torch.manual_seed(0)
        model = kind(**SMALL, head_channels=6, latent_channels=2).eval()
        latents = torch.randn(5, 2, 2, 2)
        decode = decoder_of(model, device=CPU, batch_size=2)
        np.testing.assert_allclose(decode(latents.flatten(1).double().numpy()), model.decode(latents), atol=1e-5)
