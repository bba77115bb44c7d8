"""The autoencoder of sound: its loss, what reaches its latents, what it refuses."""

from typing import Any

import pytest
import torch

from stage1_vqvae import AudioAutoencoder
from twostage.errors import UsageError


def make_model(**overrides: Any) -> AudioAutoencoder:
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
    return AudioAutoencoder(**{**settings, **overrides})


def test_the_loss_is_the_distortion_per_sample_and_the_spectral_loss(make_sounds: Any) -> None:
    model = make_model(spectral_weight=0.5).eval()
    sounds, speaker = make_sounds([20, 70], padded=80), torch.tensor([0, 1])
    output, latents = model(*sounds, speaker), model.encode(*sounds)
    assert latents.shape == (2, 3, 5)
    assert not latents[0, :, 2:].any()
    torch.testing.assert_close(output.log_likelihood_nats, model.log_prob(*sounds, latents, speaker))
    expected = -output.log_likelihood_nats.sum() / 90 + 0.5 * output.spectral_loss
    torch.testing.assert_close(output.loss, expected)
    assert output.loss.isfinite()


def test_nothing_is_drawn_and_the_encoder_learns_from_both_terms(make_sounds: Any) -> None:
    sounds, speaker = make_sounds([90], padded=96), torch.tensor([1])
    model = make_model().eval()
    assert torch.equal(model(*sounds, speaker).loss, model(*sounds, speaker).loss)
    for name in ("log_likelihood_nats", "spectral_loss"):
        model.zero_grad()
        getattr(model(*sounds, speaker), name).sum().backward()
        assert model.encoder.project.weight.grad.abs().max() > 0, name


def test_reconstruction_follows_sound_and_speaker(make_sounds: Any) -> None:
    model = make_model().eval()
    sounds = make_sounds([90], padded=96)
    waves = [model.reconstruct(*sounds, torch.tensor([speaker])) for speaker in (0, 1)]
    assert torch.equal(waves[0], model.decode(model.encode(*sounds), torch.tensor([6]), torch.tensor([0])))
    assert (waves[0] - waves[1]).abs().max() > 1e-3
    other = model.reconstruct(*make_sounds([90], padded=96, first=50), torch.tensor([0]))
    assert (waves[0] - other).abs().max() > 1e-3


def test_what_does_not_fit(make_sounds: Any) -> None:
    model, sounds, speaker = make_model(), make_sounds([20], padded=32), torch.tensor([0])
    with pytest.raises(UsageError, match=r"expected latents \[batch, 3, positions\]"):
        model.decode(torch.zeros(1, 4, 2), torch.tensor([2]), speaker)
    with pytest.raises(UsageError, match="expected 2 codes per item for 32 samples"):
        model.log_prob(*sounds, torch.zeros(1, 3, 1), speaker)
    with pytest.raises(UsageError, match="takes no labels"):
        model.decode(torch.zeros(1, 3, 2), torch.tensor([2]), speaker, torch.tensor([0]))
