"""Figures of the diagnosis: what is on their axes."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from twostage_pipelines.evaluate.latent_diagnosis import diagnose_posteriors
from twostage_pipelines.evaluate.posteriors import Posteriors
from twostage_pipelines.report import diagnosis_figures
from twostage_pipelines.report.diagnosis_figures import LatentCloud, in_two_dimensions, latent_scatter, training_parts


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
        ("key", "dim", "kl"),
        [
            ("distortion_bits_per_dim", "dim", 0.25),
            ("distortion_bits_per_sample", "sample", 0.25),
            ("half_squared_error", "dim", 0.25 * np.log(2)),
        ],
    )
    def test_curves_add_reconstruction_and_kl(self, figure: list[Figure], key: str, dim: str, kl: float) -> None:
        rate = f"rate_bits_per_{dim}"
        rows = [
            {"step": 1, key: 3.0, rate: 0.5},
            {"step": 2, key: 2.0, rate: 0.25},
            {"step": 2, f"validation_{key}": 2.5, f"validation_{rate}": 0.25},
        ]
        training_parts({"vae": rows, "ae": [{"step": 1, key: 1.0}]}, dim=dim)
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
        assert axis.get_ylabel() == "KL, bits an item"
        diagnosis_figures.correlations(diagnosis, title="correlations")
        assert np.array_equal(figure[1].axes[0].images[0].get_array(), diagnosis.correlation_ZZ)

    def test_rates_of_a_sequence_are_those_of_a_position(self, figure: list[Figure]) -> None:
        means = np.random.default_rng(0).standard_normal((200, 3))
        diagnosis = diagnose_posteriors(Posteriors(means, np.full((200, 3), -1.0), (3,), positions=20.0))
        diagnosis_figures.latent_rates(diagnosis, title="rates")
        assert figure[0].axes[0].get_ylabel() == "KL, bits a position"

    def test_costs_of_codes_and_of_positions_of_a_grid_or_a_sequence(self, figure: list[Figure]) -> None:
        numbers = {"uniform": 4.0, "unigram": 3.0, "held_out": 2.5, "train": 2.0}
        costs: dict[str, Any] = {f"{key}_bits_per_code": bits for key, bits in numbers.items()}
        costs["held_out_standard_error"] = 0.1
        bits_hw, bits_T = np.arange(6.0).reshape(2, 3), [3.0, 1.0, 2.0]
        diagnosis_figures.code_costs({**costs, "bits_by_position": bits_hw.tolist()}, title="grid")
        bars, grid, _ = figure[0].axes
        assert [patch.get_height() for patch in bars.patches] == [4.0, 3.0, 2.5, 2.0]
        assert np.array_equal(grid.images[0].get_array(), bits_hw)
        del costs["train_bits_per_code"]
        diagnosis_figures.code_costs({**costs, "bits_by_position": bits_T}, title="sequence")
        bars, line = figure[1].axes
        assert [patch.get_height() for patch in bars.patches] == [4.0, 3.0, 2.5]
        assert line.get_lines()[0].get_ydata().tolist() == bits_T

    def test_positions_of_a_hierarchy_are_a_picture_a_level(self, figure: list[Figure]) -> None:
        numbers = {"uniform_bits_per_code": 3.0, "bits_by_position": list(range(10)), "grids": "1x2+2x4"}
        diagnosis_figures.code_costs(numbers, title="hierarchy")
        _, coarse, fine, *_ = figure[0].axes
        assert np.array_equal(coarse.images[0].get_array(), [[0, 1]])
        assert np.array_equal(fine.images[0].get_array(), [[2, 3, 4, 5], [6, 7, 8, 9]])
        assert [axis.get_title() for axis in (coarse, fine)] == [
            "bits of each position, 1x2",
            "bits of each position, 2x4",
        ]
