"""Vectors of latents, MLPs and labels in the VAE and the autoencoder; annealing and free bits in training."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.tasks import GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vae import VAE
from twostage.errors import UsageError

KINDS: dict[str, dict[str, Any]] = {
    "grid": {"latent_channels": 1},
    "vector": {"latent_channels": 3, "latent_dim": 1},
    "mlp": {"latent_dim": 1, "network": "mlp", "mlp_width": 12, "mlp_layers": 2},
}
SIZES = {"levels": 3, "downsampling": 2, "channels": 8, "residual_channels": 4, "head_channels": 6}


def _vae(**overrides: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(**{"image_shape": (1, 2, 2), **SIZES, **overrides}).eval()


def _images(count: int, side: int = 2) -> Tensor:
    return torch.randint(0, 3, (count, 1, side, side), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_importance_bound_reaches_the_evidence_given_the_label(kind: str, classes: int) -> None:
    """With one latent the evidence is an integral over a line, with labels that of p(x|y): another for each label."""
    model = _vae(**KINDS[kind], classes=classes)
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.mul_(3.0)
    x, z = _images(1), torch.linspace(-8, 8, 2001)
    evidence = {}
    for label in range(max(classes, 1)):
        labels_B = torch.full((2001,), label) if classes else None
        z_BL = z.reshape(-1, *[1] * len(model.latent_shape))
        with torch.no_grad():
            log_joint = model.log_prob(x.expand(2001, -1, -1, -1), z_BL, labels_B).double()
        log_joint += -0.5 * (z.double() ** 2 + math.log(2 * math.pi))
        evidence[label] = torch.logsumexp(log_joint + math.log(16 / 2000), 0).item()
        many = torch.full((200,), label) if classes else None
        bound_B = model.bounds(x.expand(200, -1, -1, -1), many, samples=128, seed=0).importance_weighted.double()
        assert bound_B.mean().item() == pytest.approx(evidence[label], abs=4 * bound_B.std().item() / 14 + 2e-3)
    assert not classes or max(evidence.values()) > min(evidence.values()) + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_reaches_encoder_and_decoder(kind: str) -> None:
    model, x = _vae(**KINDS[kind], classes=3), _images(4)
    first, second = torch.zeros(4, dtype=torch.int64), torch.full((4,), 2)
    assert ((model.posterior(x, first).mean - model.posterior(x, second).mean).abs() > 1e-4).all()
    z = torch.randn(4, *model.latent_shape)
    assert ((model.decode(z, first) - model.decode(z, second)).abs() > 1e-5).all()
    mixed = torch.tensor([0, 2, 2, 0])
    expected = torch.where((mixed == 0)[:, None, None, None], model.decode(z, first), model.decode(z, second))
    torch.testing.assert_close(model.decode(z, mixed), expected)


@pytest.mark.parametrize("kind", ["vector", "mlp"])
def test_a_vector_sees_and_makes_the_whole_image(kind: str) -> None:
    model = _vae(**KINDS[kind], image_shape=(1, 16, 16))
    scaled = torch.randn(1, 1, 16, 16, requires_grad=True)
    model.encoder(scaled.flatten(1) if kind == "mlp" else scaled)[:, 0].sum().backward()
    assert scaled.grad is not None
    assert (scaled.grad != 0).all()
    decoded = model.decode(torch.linspace(-4, 4, 9)[:, None])
    assert (decoded.amax(0) - decoded.amin(0) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str) -> None:
    model = _vae(**{**KINDS[kind], "latent_dim": 4 * ("latent_dim" in KINDS[kind])}, classes=3).train()
    model(_images(64), torch.arange(64) % 3).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "expected 2 labels from 0 to 2, int64, got none"),
        (torch.tensor([0, 3]), "got 0 to 3: the model was trained on no other"),
        (torch.tensor([-1, 0]), "got -1 to 0"),
        (torch.tensor([0, 1, 2]), r"got torch.int64 of shape \(3,\)"),
        (torch.tensor([0.0, 1.0]), "got torch.float32"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor | None, message: str) -> None:
    model = _vae(classes=3)
    for refused in (lambda: model(_images(2), labels), lambda: model.decode(torch.zeros(2, 8, 1, 1), labels)):
        with pytest.raises(UsageError, match=message):
            refused()


def test_an_unconditional_model_refuses_labels_and_foreign_latents() -> None:
    model = _vae()
    with pytest.raises(UsageError, match="takes no labels"):
        model(_images(2), torch.tensor([0, 1]))
    with pytest.raises(UsageError, match=r"expected latents \[batch, 8, 1, 1\], got shape \(2, 8\)"):
        model.decode(torch.zeros(2, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "mlp"}, "set latent_dim to its length"),
        ({"network": "transformer"}, "'convolutional' or 'mlp', not 'transformer'"),
        ({"latent_dim": -1}, "latent_dim and classes of at least 0"),
        ({"kl_warmup_steps": -1}, "must be at least 0, not -1"),
        ({"free_bits": math.nan}, "must be at least 0, not 0 and nan"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _vae(**settings)


def _loss(model: VAE, x: Tensor) -> tuple[float, Any]:
    torch.manual_seed(5)
    output = model(x)
    return output.loss.item(), output


def test_beta_grows_over_the_warmup_and_the_bounds_know_nothing_of_it() -> None:
    plain, warm = _vae(beta=3.0), _vae(beta=3.0, kl_warmup_steps=4)
    x = _images(8)
    elbo = plain.bounds(x, samples=2, seed=0).elbo
    task = GaussianTask(warm, train=TrainingImages(x), validation=x, evaluation_batch_size=8)
    for step, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0, 1.0)):
        whole, output = _loss(plain, x)
        expected = whole - (1 - share) * 3.0 * output.kl_nats.mean().item() / 4
        assert _loss(warm, x)[0] == pytest.approx(expected, rel=1e-5), step
        result = task.loss(np.arange(8))
        assert float(result.metrics["kl_weight"]) == pytest.approx(3.0 * share)
        task.after_step(result, torch.optim.SGD(warm.parameters()))
        assert torch.equal(warm.bounds(x, samples=2, seed=0).elbo, elbo)
        assert warm.state_dict()["steps_done"].item() == step + 1
    assert "steps_done" not in plain.state_dict()


def test_free_bits_charge_every_latent_at_least_so_much_and_pull_no_further() -> None:
    plain, free = _vae(beta=2.0, latent_channels=4), _vae(beta=2.0, latent_channels=4, free_bits=0.02)
    x = _images(8)
    kl_L = plain.posterior(x).kl_nats().mean(0).flatten()
    below = kl_L < 0.02
    assert 0 < below.sum() < len(kl_L)
    whole, _ = _loss(plain, x)
    charged, output = _loss(free, x)
    assert charged == pytest.approx(whole + 2.0 * (0.02 - kl_L[below]).sum().item() / 4, rel=1e-5)
    assert output.kl_nats.mean().item() == pytest.approx(kl_L.sum().item(), rel=1e-5)
    assert torch.equal(free.bounds(x, samples=2, seed=0).elbo, plain.bounds(x, samples=2, seed=0).elbo)
    # What a latent below is pulled by is the likelihood alone: as with a beta of nearly nothing.
    weights = {}
    for name, model in (("free", free), ("plain", plain), ("none", _vae(beta=1e-9, latent_channels=4))):
        torch.manual_seed(5)
        model(x).loss.backward()
        gradient = model.encoder.layers[-1].bias.grad
        assert gradient is not None
        weights[name] = gradient[:4]
    torch.testing.assert_close(weights["free"][below], weights["none"][below], atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(weights["free"][~below], weights["plain"][~below], atol=1e-7, rtol=1e-4)
    assert (weights["plain"][below] - weights["none"][below]).abs().min() > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_is_its_decoder_at_its_encoders_latents(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Autoencoder(image_shape=(1, 4, 4), **SIZES, **KINDS[kind]), _images(5, side=4)
    output, again = model(x), model(x)
    assert torch.equal(output.loss, again.loss)
    log_prob_B = model.log_prob(x, model.encode(x))
    torch.testing.assert_close(log_prob_B, output.log_likelihood_nats)
    assert output.loss.item() == pytest.approx(-log_prob_B.mean().item() / 16, rel=1e-6)
    assert torch.equal(model.reconstruct(x), model.decode(model.encode(x)))
    output.loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_an_autoencoder_of_enough_latents_learns_images_by_heart() -> None:
    """Sixteen random images, sixteen latents: the distortion goes to zero and the reconstructions to the images."""
    torch.manual_seed(0)
    model, x = Autoencoder(image_shape=(1, 4, 4), **SIZES, latent_dim=16, network="mlp", mlp_width=64), _images(16, 4)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(300):
        optimiser.zero_grad()
        model(x).loss.backward()
        optimiser.step()
    assert -model.log_prob(x, model.encode(x)).mean().item() / 16 < 0.05
    assert (model.reconstruct(x).round() == x).float().mean() > 0.98


def test_an_mlp_can_say_surely_white_and_surely_black() -> None:
    """Six random images in two latents: nearly every pixel comes close to 0 or 1, none saturates in between."""
    torch.manual_seed(0)
    x = torch.randint(0, 2, (6, 1, 8, 8), dtype=torch.uint8)
    sizes: dict[str, Any] = {"latent_dim": 2, "network": "mlp", "mlp_layers": 2, "mlp_width": 64, "head_channels": 8}
    model = Autoencoder(image_shape=(1, 8, 8), levels=2, likelihood="bernoulli", **sizes)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        model(x).loss.backward()
        optimiser.step()
    assert ((model.reconstruct(x) - x.float()).abs() < 0.1).float().mean() > 0.97
