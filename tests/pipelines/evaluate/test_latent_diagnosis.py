"""Posterior diagnosis: every number against a closed form or plain loops, and collapse provoked in two ways."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE
from stage1_vqvae.batch import Batch
from twostage.errors import UsageError
from twostage_pipelines.evaluate.latent_diagnosis import (
    PosteriorDiagnosis,
    diagnose_posteriors,
    mutual_information,
    total_correlation_nats,
)
from twostage_pipelines.evaluate.posteriors import Posteriors, posteriors_of


def posteriors(mean_NZ: np.ndarray, log_variance: float | np.ndarray) -> Posteriors:
    mean_NZ = np.asarray(mean_NZ, np.float64)
    return Posteriors(mean_NZ, np.broadcast_to(log_variance, mean_NZ.shape).astype(np.float64), mean_NZ.shape[1:])


def channel(count: int, *, signal: float, noise: float, latents: int = 1) -> Posteriors:
    """Means of variance `signal`, posteriors of variance `noise`: a Gaussian channel, log(1 + signal/noise)/2 nats."""
    random = np.random.default_rng(3)
    return posteriors(random.standard_normal((count, latents)) * math.sqrt(signal), math.log(noise))


class TestRate:
    def test_agrees_with_torch_and_finds_the_latents_in_use(self) -> None:
        random = np.random.default_rng(0)
        found = posteriors(random.standard_normal((50, 3)) * [1.0, 0.05, 0.2], random.standard_normal((50, 3)))
        mean, scale = torch.from_numpy(found.mean_NZ), torch.from_numpy(np.exp(found.log_variance_NZ / 2))
        normal = torch.distributions.Normal
        expected = torch.distributions.kl_divergence(normal(mean, scale), normal(0.0, 1.0)).mean(0).numpy()
        diagnosis = diagnose_posteriors(found)
        np.testing.assert_allclose(diagnosis.kl_nats_Z, expected, rtol=1e-9)
        assert diagnosis.rate_nats == pytest.approx(expected.sum())
        assert diagnosis.active_Z.tolist() == [True, False, True]  # variances 1, 0.0025 and 0.04 beside 0.01
        assert diagnosis.active_units == 2

    def test_a_mean_that_is_off_but_constant_costs_bits_and_tells_nothing(self) -> None:
        diagnosis = diagnose_posteriors(posteriors(np.full((100, 2), 3.0), 0.0))
        assert diagnosis.rate_nats == pytest.approx(9.0)
        assert diagnosis.information.upper_nats == pytest.approx(0.0, abs=1e-9)
        assert diagnosis.marginal_kl_nats == pytest.approx(9.0)
        assert diagnosis.verdict == "collapsed"


class TestMutualInformation:
    @pytest.mark.parametrize(("signal", "noise"), [(0.5, 1.0), (1.0, 0.25)])
    def test_bounds_hold_the_capacity_of_a_gaussian_channel(self, signal: float, noise: float) -> None:
        exact = 2 * 0.5 * math.log(1 + signal / noise)
        found = mutual_information(channel(2000, signal=signal, noise=noise, latents=2), items=2000, seed=0)
        error = found.standard_error_nats
        assert 0 < error < 0.05
        assert found.lower_nats <= found.upper_nats
        assert found.lower_nats == pytest.approx(exact, abs=4 * error)
        assert found.upper_nats == pytest.approx(exact, abs=4 * error)
        assert not found.saturated

    def test_agrees_with_plain_loops(self) -> None:
        random = np.random.default_rng(1)
        some = posteriors(random.standard_normal((7, 3)) * 2, random.standard_normal((7, 3)))
        found = mutual_information(some, items=7, seed=5)
        noise = np.stack([_noise(5, item, 3) for item in range(7)])
        drawn = some.mean_NZ + np.exp(some.log_variance_NZ / 2) * noise

        def log_q(z: np.ndarray, item: int) -> float:
            variance = np.exp(some.log_variance_NZ[item])
            return float((-0.5 * ((z - some.mean_NZ[item]) ** 2 / variance + np.log(2 * np.pi * variance))).sum())

        own, among, others = [], [], []
        for item in range(7):
            densities = [math.exp(log_q(drawn[item], other)) for other in range(7)]
            own.append(log_q(drawn[item], item))
            among.append(math.log(sum(densities) / 7))
            others.append(math.log((sum(densities) - densities[item]) / 6))
        assert found.lower_nats == pytest.approx(np.mean(own) - np.mean(among), abs=1e-9)
        rate = some.kl_nats().sum(1).mean()
        assert found.upper_nats == pytest.approx(min(rate, np.mean(own) - np.mean(others)), abs=1e-9)

    def test_says_when_it_can_only_count_its_items(self) -> None:
        far = posteriors(np.arange(64.0)[:, None] * 100, math.log(1e-4))
        found = mutual_information(far, items=16, seed=0)
        assert found.items == 16
        assert found.lower_nats == pytest.approx(math.log(16), abs=1e-9)
        assert found.saturated
        assert "(the most that 16 items can show)" in diagnose_posteriors(far, information_items=16).sentence

    def test_narrow_posteriors_far_from_zero_keep_their_precision(self) -> None:
        """Squares multiplied out cancel: here to 1e-9 of their size."""
        pair = posteriors(np.repeat([[40.0], [40.001]], 50, axis=0), math.log(1e-8))
        assert mutual_information(pair, items=100, seed=0).lower_nats == pytest.approx(math.log(2), abs=1e-4)

    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        some = channel(50, signal=1.0, noise=0.5)
        whole = mutual_information(some, items=50, seed=0)
        monkeypatch.setattr("twostage_pipelines.evaluate.latent_diagnosis._BLOCK", 7)
        assert mutual_information(some, items=50, seed=0).lower_nats == pytest.approx(whole.lower_nats, abs=1e-12)


class TestEntanglement:
    def test_a_known_correlation_gives_its_total_correlation(self) -> None:
        random = np.random.default_rng(2)
        first, second = random.standard_normal((2, 20_000))
        means = np.stack([first, 0.8 * first + 0.6 * second, np.zeros_like(first)], 1)
        # Posterior variances join the covariance: of z the correlation is 0.8 / (1 + 0.25).
        found = diagnose_posteriors(posteriors(means, math.log(0.25)), information_items=100)
        assert found.total_correlation_nats == pytest.approx(-0.5 * math.log(1 - 0.64**2), abs=0.02)
        assert found.strongest_correlation == pytest.approx(0.8, abs=0.01)
        assert found.correlation_ZZ[2].tolist() == [0.0, 0.0, 1.0]

    def test_independent_latents_show_no_more_than_the_stated_bias(self) -> None:
        found = [
            total_correlation_nats(posteriors(np.random.default_rng(seed).standard_normal((400, 20)), -12.0))
            for seed in range(20)
        ]
        assert np.mean(found) == pytest.approx(20 * 19 / (4 * 400), rel=0.1)

    def test_chance_is_told_apart_from_entanglement(self) -> None:
        """Independent latents, more than a quarter of the items, show dozens of bits; two that are one show more."""
        means = np.random.default_rng(0).standard_normal((400, 100))
        apart = diagnose_posteriors(posteriors(means, -6.0))
        assert apart.total_correlation_nats > 5.0
        assert apart.total_correlation_nats == pytest.approx(apart.chance_correlation_nats, rel=0.05)
        means[:, 1] = means[:, 0]
        twins = diagnose_posteriors(posteriors(means, -6.0))
        assert twins.total_correlation_nats - twins.chance_correlation_nats == pytest.approx(2.5, abs=0.7)
        assert f"show {twins.chance_correlation_nats / math.log(2):.2f} by chance" in twins.entanglement

    def test_of_very_many_latents_those_of_the_highest_rate_are_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that a large grid, whose matrix of correlations would not fit into memory, is diagnosed all the same."""
        monkeypatch.setattr("twostage_pipelines.evaluate.latent_diagnosis.ENTANGLED_LATENTS", 3)
        means = np.random.default_rng(0).standard_normal((200, 6)) * [0.5, 2.0, 0.5, 1.0, 2.0, 0.5]
        means[:, 4] = means[:, 1]
        found = diagnose_posteriors(posteriors(means, -3.0))
        assert found.entangled.tolist() == [1, 3, 4]
        assert found.correlation_ZZ.shape == (3, 3)
        assert found.strongest_correlation == pytest.approx(1.0)
        assert "of the 3 latents of the highest rate" in found.entanglement
        assert len(found.kl_nats_Z) == 6

    def test_the_sign_of_a_correlation_does_not_hide_it(self) -> None:
        values = np.random.default_rng(0).standard_normal(100)
        found = diagnose_posteriors(posteriors(np.stack([values, -values], 1), -1.0))
        assert found.strongest_correlation == pytest.approx(1.0)


class TestVerdict:
    def test_spare_latents_are_a_partial_collapse(self) -> None:
        used = np.random.default_rng(0).standard_normal((500, 2)) * 3
        found = diagnose_posteriors(posteriors(np.pad(used, ((0, 0), (0, 3))), np.array([-4.0] * 2 + [0.0] * 3)))
        assert found.active_units == 2
        assert found.verdict == "partly collapsed"
        assert "2 of 5 latents are active" in found.sentence
        assert found.record()["verdict"] == "partly collapsed"

    def test_active_means_inside_wide_posteriors_are_a_collapse(self) -> None:
        """Every unit is active, but less than a bit gets through."""
        found = diagnose_posteriors(channel(500, signal=0.1, noise=0.9, latents=2))
        assert found.active_units == 2
        assert found.verdict == "collapsed"

    def test_items_told_apart_by_their_variances_alone_are_a_collapse(self) -> None:
        """No mean moves, so the mean image of every item is the same."""
        widths = np.array([[-16.0], [-8.0], [0.0], [8.0]]).repeat(50, axis=0)
        found = diagnose_posteriors(Posteriors(np.zeros((200, 1)), widths, (1,)))
        assert found.information.lower_nats > 1.2 * math.log(2)
        assert found.verdict == "collapsed"

    def test_of_recordings_the_positions_add_up_to_more_than_a_bit(self) -> None:
        """A fifth of a bit a position is little for an item of its own, and much for one of fifty positions."""
        found = channel(500, signal=0.1, noise=0.9, latents=2)
        positions = diagnose_posteriors(replace(found, positions=50.0))
        assert diagnose_posteriors(found).verdict == "collapsed"
        assert positions.verdict == "in use"
        assert positions.record()["positions_per_recording"] == 50.0
        rate = positions.rate_nats / math.log(2)
        assert (
            "2 of 2 latents are active (a latent is a channel, over the 500 positions of all recordings), the rate is "
            f"{rate:.2f} bits a position and {50 * rate:.2f} a recording, and I(x; z) of a position is at least "
        ) in positions.sentence
        constant = diagnose_posteriors(replace(posteriors(np.full((100, 2), 3.0), 0.0), positions=50.0))
        assert constant.verdict == "collapsed"

    @pytest.mark.parametrize("items", [2, 3])
    def test_few_items_are_no_collapse(self, items: int) -> None:
        """Of two items no latents could tell more than one bit, and these tell them apart nearly always."""
        means = np.array([[-2.0], [2.0], [6.0]])[:items]
        found = diagnose_posteriors(posteriors(means, math.log(0.5)))
        assert found.information.lower_nats < math.log(items)
        assert found.verdict == "in use"

    def test_one_item_is_refused(self) -> None:
        with pytest.raises(UsageError, match="two items or more, got 1"):
            diagnose_posteriors(posteriors(np.zeros((1, 2)), 0.0))


class TestTrainedModels:
    """8x8 images of four flat quadrants, black or white: four bits an item, which latents can carry, or neighbours."""

    @staticmethod
    def images(count: int) -> np.ndarray:
        random = np.random.default_rng(0)
        flat = np.kron(random.integers(0, 2, (count, 1, 2, 2)), np.ones((4, 4), np.int64))
        return (flat ^ (random.random(flat.shape) < 0.02)).astype(np.uint8)

    def trained(self, **settings: Any) -> PosteriorDiagnosis:
        torch.manual_seed(0)
        small = {"channels": 8, "residual_blocks": 1, "residual_channels": 4, "head_channels": 4, "latent_channels": 1}
        shape = {"image_shape": (1, 8, 8), "levels": 2, "likelihood": "bernoulli", "downsampling": 4}
        model = VAE(**{**shape, **small, **settings})
        optimiser, order = torch.optim.Adam(model.parameters(), 1e-2), np.random.default_rng(0)
        images = torch.from_numpy(self.images(1000))
        for _ in range(100):
            loss = model(images[torch.from_numpy(order.integers(0, 800, 64))]).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.eval()
        parts = np.split(np.arange(200), [64, 128, 192])
        batches = ((rows, Batch(items=torch.from_numpy(rows), x=images[800 + rows])) for rows in parts)
        return diagnose_posteriors(posteriors_of(model, batches, items=200))

    def test_a_plain_decoder_uses_its_latents_for_the_four_bits(self) -> None:
        found = self.trained()
        assert found.verdict == "in use"
        assert found.active_units == 4
        assert found.latent_shape == (1, 2, 2)
        assert 3.8 < found.information.lower_nats / math.log(2) < 4.6

    def test_a_large_kl_weight_is_caught(self) -> None:
        found = self.trained(beta=50.0)
        assert found.verdict == "collapsed"
        assert found.active_units == 0
        assert "lower beta" in found.sentence

    def test_a_strong_decoder_is_caught(self) -> None:
        found = self.trained(autoregressive_layers=1, autoregressive_channels=8, autoregressive_kernel=5)
        assert found.verdict == "collapsed"
        assert found.active_units == 0
        assert found.information.upper_nats < 0.1


def _noise(seed: int, item: int, latents: int) -> np.ndarray:
    word = np.random.SeedSequence([seed, item]).generate_state(1, np.uint64)[0]
    return torch.empty(latents).normal_(generator=torch.Generator().manual_seed(int(word >> np.uint64(1)))).numpy()
