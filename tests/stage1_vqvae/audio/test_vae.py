"""The VAE of sound: padding changes nothing, positions behind the end are free, bounds against references."""

from typing import Any

import pytest
import torch

from stage1_vqvae import AudioVAE
from stage1_vqvae.gaussian import VAEBounds
from twostage.errors import UsageError

STRIDE = 16


def make_model(**overrides: Any) -> AudioVAE:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "mixtures": 3,
        "speakers": 2,
        "speaker_channels": 5,
        "downsampling_layers": 4,
        "channels": 24,
        "residual_channels": 12,
        "head_channels": 10,
        "latent_channels": 3,
    }
    return AudioVAE(**{**settings, **overrides})


def fields(bounds: VAEBounds) -> dict[str, torch.Tensor]:
    return vars(bounds)


def test_bounds_belong_to_an_item_and_not_to_its_batch(make_sounds: Any) -> None:
    model = make_model().eval()
    lengths, items, speaker = [90, 1, 37], torch.tensor([7, 3, 12]), torch.tensor([0, 1, 1])
    samples, mask = make_sounds(lengths, padded=144)
    together = fields(model.bounds(samples, mask, speaker, samples=5, seed=4, items_B=items))
    for row, length in enumerate(lengths):
        padded = -(-length // STRIDE) * STRIDE
        one = slice(row, row + 1)
        apart = model.bounds(
            samples[one, :padded], mask[one, :padded], speaker[one], samples=5, seed=4, items_B=items[one]
        )
        for name, values in fields(apart).items():
            torch.testing.assert_close(values[0], together[name][row])
    other = model.bounds(samples, mask, speaker, samples=5, seed=4, items_B=items + 1)
    assert (other.importance_weighted != together["importance_weighted"]).all()


def test_importance_weights_average_to_the_elbo(make_sounds: Any) -> None:
    """A weight is log p(x|z) + log p(z) - log q(z|x); the mean of the last two is minus the KL in closed form."""
    model = make_model().eval()
    with torch.no_grad():
        model.encoder.project.weight.mul_(3)
        model.encoder.project.bias[3:] = -1.0
    samples, mask = make_sounds([37], padded=80)
    speaker = torch.tensor([1])
    draws = [
        model.bounds(samples, mask, speaker, samples=1, seed=seed, items_B=torch.tensor([0])) for seed in range(300)
    ]
    assert draws[0].kl > 0.1
    difference = torch.cat([draw.importance_weighted - draw.log_likelihood + draw.kl for draw in draws])
    assert abs(difference.mean()) < 4 * difference.std() / len(draws) ** 0.5


def test_more_samples_tighten_the_bound(make_sounds: Any) -> None:
    model = make_model().eval()
    sounds, speaker, items = make_sounds([37, 90], padded=96), torch.tensor([0, 1]), torch.tensor([0, 1])
    bounds = model.bounds(*sounds, speaker, samples=64, seed=0, items_B=items)
    assert (bounds.importance_weighted > bounds.elbo).all()


def test_positions_behind_the_end_are_free_and_unheard(make_sounds: Any) -> None:
    model = make_model().eval()
    sounds, speaker = make_sounds([20], padded=80), torch.tensor([0])
    kl = model.posterior(*sounds).kl_nats()
    assert kl[:, :, :2].any()
    assert not kl[:, :, 2:].any()
    z = torch.randn(1, 3, 5)
    changed = torch.cat([z[:, :, :2], torch.randn(1, 3, 3)], 2)
    wave = model.decode(z, torch.tensor([2]), speaker)
    assert torch.equal(wave, model.decode(changed, torch.tensor([2]), speaker))
    assert not wave[:, 32:].any()
    assert wave[:, :32].any()


def test_beta_weighs_the_loss_and_not_the_bounds(make_sounds: Any) -> None:
    sounds, speaker = make_sounds([20, 70], padded=80), torch.tensor([0, 1])
    losses, bounds = [], []
    for beta in (0.5, 3.0):
        model = make_model(beta=beta).eval()
        torch.manual_seed(2)
        output = model(*sounds, speaker)
        losses.append(output.loss)
        bounds.append(model.bounds(*sounds, speaker, samples=1, seed=0, items_B=torch.tensor([0, 1])).elbo)
    torch.testing.assert_close(losses[1] - losses[0], 2.5 * output.kl_nats.sum() / 90)
    assert torch.equal(*bounds)


def test_reconstruction_follows_sound_and_speaker(make_sounds: Any) -> None:
    model = make_model().eval()
    sounds = make_sounds([90], padded=96)
    waves = [model.reconstruct(*sounds, torch.tensor([speaker])) for speaker in (0, 1)]
    assert waves[0].shape == (1, 96)
    assert (waves[0] - waves[1]).abs().max() > 1e-3
    other = model.reconstruct(*make_sounds([90], padded=96, first=50), torch.tensor([0]))
    assert (waves[0] - other).abs().max() > 1e-3


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="beta must be"):
        make_model(beta=0.0)
    with pytest.raises(UsageError, match=r"expected latents \[batch, 3, positions\]"):
        make_model().decode(torch.zeros(1, 4, 2), torch.tensor([2]), torch.tensor([0]))
