"""Pictures of latents: which latents are decoded and where they stand; figures: what is on their axes."""

import io
from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from stage1_vqvae import VAE
from stage1_vqvae.images.autoencoder import Autoencoder
from twostage.errors import UsageError
from twostage_pipelines.evaluate.code_diagnosis import PriorDiagnosis
from twostage_pipelines.evaluate.latent_diagnosis import Posteriors, diagnose_posteriors
from twostage_pipelines.generate.latent_sheets import (
    LatentSpread,
    decoder_of,
    interpolations,
    latent_draws,
    manifold,
    reconstructions_by_model,
    traversals,
)
from twostage_pipelines.report import diagnosis_figures
from twostage_pipelines.report.diagnosis_figures import LatentCloud, in_two_dimensions, latent_scatter, training_parts
from twostage_pipelines.report.latents import Continuous, by_beta

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


def test_models_stand_in_the_order_of_their_beta() -> None:
    def found(name: str, model: Any) -> Continuous:
        stage1: Any = None
        return Continuous(name=name, stage1=stage1, model=model, means_NZ=np.zeros((2, 2)), posteriors=None)

    models = [
        found("vae", VAE(**SMALL)),
        found("cvae", VAE(**SMALL, classes=2, beta=0.5)),
        found("beta-vae-3", VAE(**SMALL, beta=3.0)),
        found("beta-vae-0.1", VAE(**SMALL, beta=0.1)),
        found("ae", Autoencoder(**SMALL)),
    ]
    assert [one.name for one in by_beta(models)] == ["ae", "beta-vae-0.1", "vae", "beta-vae-3", "cvae"]


class TestDecoders:
    @pytest.mark.parametrize("kind", [VAE, Autoencoder])
    def test_flat_latents_reach_the_model_in_its_own_shape(self, kind: Any) -> None:
        torch.manual_seed(0)
        model = kind(**SMALL, head_channels=6, latent_channels=2).eval()
        latents = torch.randn(5, 2, 2, 2)
        decode = decoder_of(model, device=CPU, batch_size=2)
        np.testing.assert_allclose(decode(latents.flatten(1).double().numpy()), model.decode(latents), atol=1e-5)

    def test_a_conditional_model_is_given_the_label(self) -> None:
        torch.manual_seed(0)
        model = VAE(**SMALL, head_channels=6, latent_dim=2, classes=3).eval()
        latents = torch.randn(4, 2)
        expected = model.decode(latents, torch.full((4,), 2))
        np.testing.assert_allclose(decoder_of(model, device=CPU, label=2)(latents.numpy()), expected, atol=1e-5)
        assert not torch.allclose(expected, model.decode(latents, torch.full((4,), 1)), atol=1e-3)


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that are drawn, kept from being closed."""
    drawn: list[Figure] = []

    def keep(one: Figure) -> bytes:
        drawn.append(one)
        buffer = io.BytesIO()
        one.savefig(buffer, format="png")
        return buffer.getvalue()

    monkeypatch.setattr(diagnosis_figures, "figure_png", keep)
    yield drawn
    plt.close("all")


class TestFigures:
    def test_scatter_has_a_colour_per_class_and_the_prior_only_where_there_is_one(self, figure: list[Figure]) -> None:
        random = np.random.default_rng(0)
        labels = np.arange(30) % 3
        clouds = [
            LatentCloud("wide", random.standard_normal((30, 2)) * 4, labels),
            LatentCloud("narrow", random.standard_normal((30, 2)) * 0.1, labels),
            LatentCloud("none", random.standard_normal((30, 2)) * 40, labels, has_prior=False),
        ]
        data = latent_scatter(clouds, classes=("a", "b", "c"))
        assert Image.open(io.BytesIO(data)).format == "PNG"
        wide, narrow, none = figure[0].axes
        assert [len(axis.collections) for axis in figure[0].axes] == [3, 3, 3]
        assert [len(axis.patches) for axis in figure[0].axes] == [1, 1, 0]
        drawn = np.concatenate([np.asarray(part.get_offsets()) for part in wide.collections])
        assert sorted(drawn[:, 0]) == pytest.approx(sorted(clouds[0].points_N2[:, 0]))
        assert wide.get_xlim() == narrow.get_xlim()
        assert wide.get_xlim() != none.get_xlim()

    def test_a_single_item_of_many_latents_stands_in_the_middle(self) -> None:
        cloud = in_two_dimensions("vae", np.array([[1.0, 2.0, 3.0]]), np.zeros(1, np.int64))
        assert cloud.points_N2.tolist() == [[0.0, 0.0]]

    def test_more_latents_are_shown_by_their_principal_components(self) -> None:
        random = np.random.default_rng(0)
        latents = np.stack([random.standard_normal(500) * size for size in (0.1, 3.0, 1.0)], 1)
        cloud = in_two_dimensions("m", latents, np.zeros(500, np.int64))
        assert abs(np.corrcoef(cloud.points_N2[:, 0], latents[:, 1])[0, 1]) > 0.99
        assert abs(np.corrcoef(cloud.points_N2[:, 1], latents[:, 2])[0, 1]) > 0.99
        share = latents.var(0)[1] / latents.var(0).sum()
        assert cloud.axes[0] == f"component 1 ({share:.0%} of variance)"
        two = in_two_dimensions("m", latents[:, :2], np.zeros(500, np.int64))
        assert (two.points_N2 == latents[:, :2]).all()
        assert in_two_dimensions("m", latents[:, :1], np.zeros(500, np.int64)).points_N2.shape == (500, 2)

    @pytest.mark.parametrize(
        ("key", "kl"), [("distortion_bits_per_dim", 0.25), ("half_squared_error", 0.25 * np.log(2))]
    )
    def test_curves_add_reconstruction_and_kl(self, figure: list[Figure], key: str, kl: float) -> None:
        rows = [
            {"step": 1, key: 3.0, "rate_bits_per_dim": 0.5},
            {"step": 2, key: 2.0, "rate_bits_per_dim": 0.25},
            {"step": 2, f"validation_{key}": 2.5, "validation_rate_bits_per_dim": 0.25},
        ]
        training_parts({"vae": rows, "ae": [{"step": 1, key: 1.0}]})
        last = [[line.get_ydata()[-1] for line in axis.get_lines()] for axis in figure[0].axes]
        # Training batches and validation of the first, training batches of the second.
        assert last == [pytest.approx([2 + kl, 2.5 + kl, 1.0]), [2.0, 2.5, 1.0], pytest.approx([kl, kl, 0.0])]

    def test_rates_are_sorted_and_idle_latents_pale(self, figure: list[Figure]) -> None:
        means = np.random.default_rng(0).standard_normal((200, 3)) * [0.0, 1.0, 3.0]
        diagnosis = diagnose_posteriors(Posteriors(means, np.full((200, 3), -1.0), (3,)))
        diagnosis_figures.latent_rates(diagnosis, title="rates")
        axis = figure[0].axes[0]
        heights = [patch.get_height() for patch in axis.patches]
        assert heights == pytest.approx(sorted(diagnosis.kl_nats_Z / np.log(2), reverse=True))
        assert [text.get_text() for text in axis.get_xticklabels()] == ["2", "1", "0"]
        colours = [patch.get_facecolor() for patch in axis.patches]
        assert colours[0] == colours[1] != colours[2]
        diagnosis_figures.correlations(diagnosis, title="correlations")
        assert np.array_equal(figure[1].axes[0].images[0].get_array(), diagnosis.correlation_ZZ)

    def test_prices_and_map_of_codes(self, figure: list[Figure]) -> None:
        bits_hw = np.arange(6.0).reshape(2, 3)
        diagnosis_figures.code_costs(PriorDiagnosis(9, 4.0, 3.0, 2.5, 0.1, 2.0, None, bits_hw), title="vq-vae")
        bars, grid, _ = figure[0].axes
        assert [patch.get_height() for patch in bars.patches] == [4.0, 3.0, 2.5, 2.0]
        assert np.array_equal(grid.images[0].get_array(), bits_hw)
