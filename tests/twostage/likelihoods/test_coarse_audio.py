"""A likelihood of sound with a coarse grid is a mass function over all 16-bit samples, and draws what it says."""

import pytest
import torch
from torch import Tensor

from twostage.likelihoods.coarse_audio import CoarseAudioLikelihood

ALL_SAMPLES = torch.arange(-32768, 32768).to(torch.int16)
LOGITS = (-torch.inf, -3.0, 0.0, 2.0)


def _likelihood(bits: int = 8) -> CoarseAudioLikelihood:
    torch.manual_seed(0)
    return CoarseAudioLikelihood(features=8, mixtures=3, coarse_bits=bits).requires_grad_(False)


def _features() -> Tensor:
    """One item of four samples with the logits above, `[1, 8, 4]`."""
    features = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(1))
    features[0, -3] = torch.tensor(LOGITS)
    features[0, -2] *= 0.1
    features[0, -1] -= 3.0
    return features


@pytest.mark.parametrize("bits", [1, 8, 15])
def test_masses_sum_to_one_and_are_those_of_log_prob(bits: int) -> None:
    likelihood, features = _likelihood(bits), _features()
    masses = likelihood.probabilities(features)[0]
    for place in range(len(LOGITS)):
        log_masses = likelihood.log_prob(features[:, :, [place]].expand(1, 8, 65536), ALL_SAMPLES[None])[0]
        assert float(log_masses.double().exp().sum()) == pytest.approx(1.0, abs=2e-6)
        torch.testing.assert_close(log_masses.exp(), masses[place], rtol=1e-4, atol=1e-9)


def test_the_logit_is_the_share_of_the_grid_above_the_fine_levels() -> None:
    likelihood, features = _likelihood(), _features()
    masses = likelihood.probabilities(features)[0].double()
    fine = masses[0].view(256, 256)
    for place, logit in enumerate(LOGITS):
        own = likelihood.probabilities(features[:, :, [place]])[0, 0].double().view(256, 256)[:, 0].sum()
        share = torch.tensor(logit).double().sigmoid()
        torch.testing.assert_close(own, share + (1 - share) * own.new_tensor(1 / 256), rtol=0, atol=2e-3)
    assert float(fine[:, 0].sum()) < 0.01  # without the grid it has no more than its share


def test_the_grid_has_the_centre_of_the_fine_levels() -> None:
    likelihood = _likelihood()
    for pixels in (likelihood.pixels, likelihood.coarse):
        pixels.project.weight.zero_()
    features = torch.zeros(1, 8, 3)
    features[0, -2] = torch.tensor([-0.5, 0.0, 0.3])
    features[0, -1] = -3.0
    mean = {}
    for logit in (-torch.inf, 60.0):
        features[0, -3] = logit
        mean[logit] = likelihood.probabilities(features)[0].double() @ ALL_SAMPLES.double()
    torch.testing.assert_close(mean[60.0], mean[-torch.inf], rtol=0, atol=3.0)
    torch.testing.assert_close(mean[60.0], 32768 * features[0, -2].double(), rtol=0, atol=3.0)


def test_draws_have_the_frequencies_of_the_masses() -> None:
    likelihood, features, count = _likelihood(), _features(), 40_000
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5)[None] / count
    for place, logit in enumerate(LOGITS):
        drawn = likelihood.draw(features[:, :, [place]].expand(1, 8, count), uniform)[0].long() + 32768
        masses = likelihood.probabilities(features[:, :, [place]])[0, 0].double()
        frequency = torch.bincount(drawn, minlength=65536).double() / count
        torch.testing.assert_close(frequency.view(256, 256).sum(1), masses.view(256, 256).sum(1), rtol=0, atol=2e-3)
        on_grid = float(frequency[::256].sum())
        assert on_grid == pytest.approx(float(masses[::256].sum()), abs=2e-3), logit


def test_gradients_are_finite_where_the_grid_is_ruled_out() -> None:
    likelihood = _likelihood().requires_grad_(True)
    features = _features().requires_grad_(True)
    samples = torch.tensor([[256, 512, 3, -256]], dtype=torch.int16)
    likelihood.log_prob(features, samples).sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert float(features.grad[0, -3, 0]) == 0.0
    assert float(features.grad[0, -3, 1]) > 0 > float(features.grad[0, -3, 2])  # on the grid, off the grid
