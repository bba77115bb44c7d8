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


def test_encoder_decoder_and_bounds_follow_the_label(make_sounds: Any) -> None:
    model = make_model(classes=3).eval()
    sounds, speaker = make_sounds([90, 50], padded=96), torch.tensor([0, 1])
    labels = [torch.tensor([0, 2]), torch.tensor([1, 2])]
    means = [model.posterior(*sounds, label).mean for label in labels]
    assert (means[0][0] != means[1][0]).all()
    assert torch.equal(means[0][1], means[1][1])
    assert not means[0][1, :, 4:].any()  # nothing of the label behind the end
    waves = [model.decode(means[0], torch.tensor([6, 4]), speaker, label) for label in labels]
    assert (waves[0][0] - waves[1][0]).abs().max() > 1e-3
    assert torch.equal(waves[0][1], waves[1][1])
    bounds = [
        model.bounds(*sounds, speaker, label, samples=2, seed=0, items_B=torch.tensor([0, 1])) for label in labels
    ]
    for name, values in fields(bounds[0]).items():
        assert (values == fields(bounds[1])[name]).tolist() == [False, True], name
    for wrong in (None, torch.tensor([0, 3]), torch.tensor([0])):
        with pytest.raises(UsageError, match="expected 2 labels from 0 to 2"):
            model.posterior(*sounds, wrong)
        with pytest.raises(UsageError, match="expected 2 labels from 0 to 2"):
            model.decode(means[0], torch.tensor([6, 4]), speaker, wrong)
    with pytest.raises(UsageError, match="takes no labels"):
        make_model().posterior(*sounds, labels[0])


def test_the_loss_reaches_the_embeddings_of_the_labels(make_sounds: Any) -> None:
    model = make_model(classes=3)
    sounds = make_sounds([90, 50], padded=96)
    model(*sounds, torch.tensor([0, 1]), labels_B=torch.tensor([0, 2])).loss.backward()
    for embedding in (model.encoder.label_embedding, model.decoder.label_embedding):
        assert embedding.weight.grad is not None
        assert embedding.weight.grad.any(1).tolist() == [True, False, True]


def test_free_bits_charge_every_channel_at_least_so_much_a_position_and_pull_no_further(make_sounds: Any) -> None:
    sounds, speaker = make_sounds([20, 70], padded=144), torch.tensor([0, 1])
    plain = make_model(beta=2.0).eval()
    with torch.no_grad():
        plain.encoder.project.weight[1].mul_(20)  # the mean of channel 1
        kl_Z = plain.posterior(*sounds).kl_nats().sum((0, 2)) / 7  # two positions and five
    limit = float(kl_Z.sort().values[1:].mean())
    assert (kl_Z < limit).sum() == 2
    losses = {}
    for free_bits in (0.0, limit):
        model = make_model(beta=2.0, free_bits=free_bits).eval()
        model.load_state_dict(plain.state_dict())
        torch.manual_seed(2)
        output = model(*sounds, speaker)
        losses[free_bits] = output.loss
        output.loss.backward()
        rows = model.encoder.project.weight.grad
    charged = 2.0 * 7 / 90 * (kl_Z.clamp(min=limit) - kl_Z).sum()
    torch.testing.assert_close(losses[limit] - losses[0.0], charged, atol=1e-4, rtol=1e-4)
    # Of a free channel the KL alone has no gradient: what is left is that of the distortion.
    without = make_model(beta=1e-30).eval()
    without.load_state_dict(plain.state_dict())
    torch.manual_seed(2)
    without(*sounds, speaker).loss.backward()
    free = (kl_Z < limit).nonzero()[:, 0]
    torch.testing.assert_close(rows[free], without.encoder.project.weight.grad[free])
    assert (rows[1] - without.encoder.project.weight.grad[1]).abs().max() > 1e-3


def test_the_kl_warms_up(make_sounds: Any) -> None:
    sounds, speaker = make_sounds([20, 70], padded=80), torch.tensor([0, 1])
    model, plain = make_model(kl_warmup_steps=4, beta=3.0).eval(), make_model(beta=3.0).eval()
    torch.manual_seed(2)
    whole = plain(*sounds, speaker)
    for step in range(6):
        torch.manual_seed(2)
        missing = 3.0 * (1 - min(step / 4, 1.0)) * whole.kl_nats.sum() / 90
        torch.testing.assert_close(whole.loss - model(*sounds, speaker).loss, missing, atol=1e-5, rtol=1e-4)
        model.count_step()
    assert model.state_dict()["steps_done"] == 6


def test_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="beta must be"):
        make_model(beta=0.0)
    for wrong in ({"kl_warmup_steps": -1}, {"free_bits": -0.5}, {"free_bits": float("nan")}):
        with pytest.raises(UsageError, match="must be at least 0"):
            make_model(**wrong)
    with pytest.raises(UsageError, match=r"expected latents \[batch, 3, positions\]"):
        make_model().decode(torch.zeros(1, 4, 2), torch.tensor([2]), torch.tensor([0]))
