"""Posteriors of a split: of images one vector each, of recordings one for every real position."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stage1_vqvae import AudioVAE
from stage1_vqvae.batch import Batch
from stage1_vqvae.gaussian import GaussianPosterior
from twostage.errors import RunError
from twostage_pipelines.evaluate.posteriors import posterior_of, posteriors_of


class Known:
    """A model of images whose posterior is known: item i has the i-th mean, and minus that as its log variance."""

    classes = 0

    def __init__(self, mean: Tensor) -> None:
        self.mean = mean

    def posterior(self, x: Tensor) -> GaussianPosterior:
        return GaussianPosterior(self.mean[x], -self.mean[x])


def in_parts(count: int, size: int) -> Any:
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        yield rows, Batch(items=torch.from_numpy(rows), x=torch.from_numpy(rows))


def test_batches_change_nothing() -> None:
    mean = torch.randn(10, 2, 1, 3, generator=torch.Generator().manual_seed(0))
    whole, parts = (posteriors_of(Known(mean), in_parts(10, size), items=10) for size in (10, 3))
    assert (whole.mean_NZ == mean.flatten(1).double().numpy()).all()
    assert (parts.mean_NZ == whole.mean_NZ).all()
    assert (parts.log_variance_NZ == -whole.mean_NZ).all()
    assert parts.latent_shape == (2, 1, 3)
    assert parts.positions is None


def test_posteriors_that_are_not_finite_are_refused() -> None:
    mean = torch.tensor([[0.0], [math.nan], [1.0]])
    with pytest.raises(RunError, match="those of 1 of 3 items are not"):
        posteriors_of(Known(mean), in_parts(3, 2), items=3)


class TestRecordings:
    LENGTHS = (100, 30, 64, 65)
    POSITIONS = (7, 2, 4, 5)

    def model(self) -> AudioVAE:
        torch.manual_seed(0)
        small: dict[str, Any] = {"channels": 8, "residual_blocks": 1, "residual_channels": 4, "head_channels": 4}
        return AudioVAE(**small, downsampling_layers=4, latent_channels=3, mixtures=2).eval()

    def batch(self, rows: list[int], *, behind: int = 0) -> tuple[np.ndarray, Batch]:
        """Recordings of these numbers, `behind` in place of what is behind their ends."""
        samples = torch.randint(-9000, 9000, (4, 100), generator=torch.Generator().manual_seed(1), dtype=torch.int16)
        lengths = torch.tensor(self.LENGTHS)
        samples[torch.arange(100) >= lengths[:, None]] = behind
        x = samples[rows, : int(lengths[rows].max())]
        return np.array(rows), Batch(items=torch.tensor(rows), x=x, lengths=lengths[rows])

    def test_a_vector_is_a_real_position_and_padding_changes_nothing(self) -> None:
        model = self.model()
        with torch.no_grad():
            single = [posterior_of(model, self.batch([row])[1]) for row in range(4)]
        found = posteriors_of(model, iter([self.batch([0, 3]), self.batch([2, 1], behind=77)]), items=4)
        assert len(found) == sum(self.POSITIONS)
        assert found.positions == sum(self.POSITIONS) / 4
        assert found.latent_shape == (3,)
        means = np.concatenate([posterior.mean[0].T.double().numpy() for posterior in single])
        np.testing.assert_allclose(found.mean_NZ, means, atol=1e-5)
        log_variances = np.concatenate([posterior.log_variance[0].T.double().numpy() for posterior in single])
        np.testing.assert_allclose(found.log_variance_NZ, log_variances, atol=1e-5)

    def test_the_rate_is_that_of_the_bound(self) -> None:
        """All positions of all recordings together cost what their ELBOs have as a rate."""
        model = self.model()
        _, batch = self.batch([0, 1, 2, 3])
        score = model.score(batch, samples=1, seed=0)
        assert score.rate is not None
        found = posteriors_of(model, iter([self.batch([0, 1, 2, 3])]), items=4)
        assert found.kl_nats().sum() == pytest.approx(float(score.rate.sum()), rel=1e-5)
