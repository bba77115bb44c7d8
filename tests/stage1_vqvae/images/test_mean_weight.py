"""The squared error that training adds to a mixture: its value, what learns from it, that nothing else sees it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE, HierarchicalVQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.model import ImageModel
from stage1_vqvae.images.networks import ImageNetworks
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from stage1_vqvae.images.vimco import VIMCO
from twostage.errors import UsageError
from twostage.noise import seed_step

SIZES: dict[str, Any] = {
    "image_shape": (3, 8, 8), "levels": 17, "likelihood": "logistic-mixture", "mixtures": 2, "downsampling": 2,
    "channels": 8, "residual_blocks": 1, "residual_channels": 4, "head_channels": 6,
}  # fmt: skip
MODELS: dict[str, Callable[..., ImageModel]] = {
    "vq-vae": lambda **settings: VQVAE(**settings, embedding_dim=4, codebook_size=5),
    "hierarchy": lambda **settings: HierarchicalVQVAE(**settings, embedding_dim=4, codebook_size=5),
    "vae": lambda **settings: VAE(**settings, latent_channels=2),
    "autoencoder": lambda **settings: Autoencoder(**settings, latent_channels=2),
    "vimco": lambda **settings: VIMCO(**settings, embedding_dim=4, codebook_size=5, samples=3),
}
X = torch.randint(0, 17, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def _build(kind: str, **settings: Any) -> ImageModel:
    torch.manual_seed(0)
    return MODELS[kind](**SIZES, **settings)


def _pass(model: ImageModel) -> tuple[Any, Tensor]:
    """What a model says of the images, always from the same noise, and its decoder's features."""
    found: list[Tensor] = []
    handle = model.decoder.network.register_forward_hook(lambda _module, _given, features: found.append(features))
    seed_step(0, 0)
    output = model(X)
    handle.remove()
    return output, found[0]


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_grows_by_the_squared_error_and_nothing_else_changes(kind: str) -> None:
    plain, weighed = _build(kind), _build(kind, mean_weight=7.0)
    assert plain.state_dict().keys() == weighed.state_dict().keys()
    (without, _), (output, features_XFHW) = _pass(plain), _pass(weighed)
    mean_XCHW = weighed.decoder.likelihood.mean(features_XFHW).detach().numpy()
    halves = (X.repeat(len(mean_XCHW) // len(X), 1, 1, 1).numpy() - mean_XCHW) / 8.0  # of 17 levels, 8 are a half
    expected = 3.5 * np.mean(halves.astype(np.float64) ** 2)
    assert expected > 0.1
    assert (output.loss - without.loss).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(output.log_likelihood_nats, without.log_likelihood_nats)


@pytest.mark.parametrize("kind", MODELS)
def test_bits_and_their_gradients_are_those_without_it(kind: str) -> None:
    """Outside training the models are the same, and so is what the log-mass alone asks of the decoder."""
    plain, weighed = _build(kind).eval(), _build(kind, mean_weight=7.0).eval()
    latents = plain.point_latents(X)
    assert torch.equal(plain.log_prob(X, latents), weighed.log_prob(X, latents))
    assert torch.equal(plain.decode(latents), weighed.decode(latents))
    gradients = []
    for model in (plain, weighed):
        nats_BCHW = model.decoder.log_prob(model.decoder_input(latents), X)
        gradients.append(torch.autograd.grad(nats_BCHW.sum(), list(model.decoder.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_at_zero_the_loss_and_its_gradients_are_those_of_the_log_mass_to_the_bit() -> None:
    one, other = _build("autoencoder"), _build("autoencoder")
    output, _ = _pass(one)
    loss = -other.decoder.log_prob(other._latents(X), X).flatten(1).sum(1).mean() / other.dims
    assert torch.equal(output.loss, loss)
    found = torch.autograd.grad(output.loss, list(one.parameters()))
    expected = torch.autograd.grad(loss, list(other.parameters()))
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_of_vimco_the_posterior_learns_nothing_from_it() -> None:
    """Its gradient past a choice would need a score part; the decoder and the codes' vectors do learn."""
    models = [_build("vimco"), _build("vimco", mean_weight=7.0)]
    for model in models:
        _pass(model)[0].loss.backward()
    plain, weighed = (dict(model.named_parameters()) for model in models)
    same = {name for name in plain if torch.equal(plain[name].grad, weighed[name].grad)}
    assert {name for name in plain if name.startswith("encoder.")} <= same
    assert "prior_logits" in same
    assert not {"embedding.weight", "decoder.likelihood.frame.project.weight"} & same


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"likelihood": "categorical"}, "not for categorical with 0 of them"),
        ({"likelihood": "mse"}, "not for mse with 0 of them"),
        ({"likelihood": "logistic-mixture", "autoregressive_layers": 2}, "not for logistic-mixture with 2 of them"),
    ],
)
def test_other_decoders_refuse_it(settings: dict[str, Any], named: str) -> None:
    networks = ImageNetworks(**{**SIZES, **settings}, mean_weight=1.0)
    with pytest.raises(UsageError, match=named):
        PixelDecoder(networks, in_channels=3)
