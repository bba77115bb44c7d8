"""The pixel decoder, plain and autoregressive: mass function, causality, and sampling against the parallel pass."""

import itertools
import math

import pytest
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.networks import ImageNetworks
from stage1_vqvae.images.pixel_decoder import PixelDecoder
from twostage.likelihoods.images import draw_levels
from twostage.noise import uniform_noise


def _decoder(
    likelihood: str = "categorical", *, image_shape=(1, 4, 6), levels: int = 4, layers: int = 2, auxiliary_weight=0.5
):
    torch.manual_seed(0)
    settings = ImageNetworks(
        image_shape=image_shape,
        levels=levels,
        likelihood=likelihood,
        mixtures=2,
        downsampling=2,
        channels=8,
        residual_blocks=1,
        residual_channels=4,
        head_channels=6,
        autoregressive_layers=layers,
        autoregressive_channels=4,
        autoregressive_kernel=3,
    )
    decoder = PixelDecoder(settings, in_channels=3, auxiliary_weight=auxiliary_weight)
    for parameter in decoder.likelihood.parameters():
        torch.nn.init.normal_(parameter, std=0.7)  # far from uniform
    return decoder.eval()


@pytest.mark.parametrize("likelihood", ["categorical", "hurdle", "logistic-mixture"])
@pytest.mark.parametrize("layers", [0, 2])
def test_masses_of_all_images_sum_to_one(likelihood: str, layers: int) -> None:
    decoder = _decoder(likelihood, image_shape=(2, 2, 2), levels=3, layers=layers)
    images = torch.tensor(list(itertools.product(range(3), repeat=8))).reshape(-1, 2, 2, 2)
    z = torch.randn(1, 3, 1, 1)
    with torch.no_grad():
        log_prob = decoder.log_prob(z.expand(len(images), -1, -1, -1), images).flatten(1).sum(1).double()
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_a_pixel_changes_the_masses_of_later_pixels_only() -> None:
    decoder = _decoder("logistic-mixture", image_shape=(3, 6, 8), levels=16)
    z, x = torch.randn(1, 3, 3, 4), torch.randint(0, 16, (1, 3, 6, 8))
    before = decoder.log_prob(z, x)
    for row, column, channel in [(0, 0, 0), (2, 3, 1), (2, 7, 0), (5, 7, 2)]:
        other = x.clone()
        other[0, channel, row, column] = (other[0, channel, row, column] + 7) % 16
        changed = (decoder.log_prob(z, other) != before)[0]
        order = (torch.arange(48).reshape(6, 8) * 3)[None] + torch.arange(3)[:, None, None]
        here = int(order[channel, row, column])
        assert changed[channel, row, column]
        assert not changed[order < here].any()
        if (row, column) != (5, 7):
            assert changed[order > here].any()


def test_latents_change_the_masses_of_pixels_near_them_before_and_after() -> None:
    """The decoder's features are known beforehand: they act on their own pixels at once."""
    decoder = _decoder()
    z, x = torch.randn(1, 3, 2, 3), torch.randint(0, 4, (1, 1, 4, 6))
    other = z.clone()
    other[..., 0, 0] += 1.0
    changed = (decoder.log_prob(z, x) != decoder.log_prob(other, x))[0, 0]
    assert changed[0, 0]


@pytest.mark.parametrize(
    ("likelihood", "shape", "levels"),
    [("hurdle", (1, 6, 8), 17), ("categorical", (3, 4, 4), 5), ("logistic-mixture", (3, 4, 6), 256)],
)
def test_sampled_image_is_what_the_parallel_pass_draws_from_the_same_noise(likelihood, shape, levels) -> None:
    """Fast = slow: given the sampled image, the parallel pass must find each of its levels at its own noise."""
    decoder = _decoder(likelihood, image_shape=shape, levels=levels)
    z = torch.randn(3, 3, shape[1] // 2, shape[2] // 2)
    sampled = decoder.decode(z, seed=5, first_item=0)
    assert sampled.std() > 0
    noise = uniform_noise(seed=5, first_item=0, count=3, symbols=math.prod(shape), stream=1)
    noise_BCHW = noise.view(3, *shape[1:], shape[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = decoder.pixels(decoder.network(z), sampled.long())
        again = draw_levels(decoder.likelihood, features, noise_BCHW)
    assert torch.equal(again.float(), sampled)


def test_a_sampled_item_depends_on_its_number_and_the_seed_alone() -> None:
    decoder = _decoder()
    z = torch.randn(1, 3, 2, 3).expand(4, -1, -1, -1)
    together = decoder.decode(z, seed=1, first_item=0)
    alone = torch.cat([decoder.decode(z[i : i + 1], seed=1, first_item=i) for i in range(4)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together, decoder.decode(z, seed=2, first_item=0))


def test_samples_have_the_frequencies_of_the_masses() -> None:
    decoder = _decoder(image_shape=(1, 2, 2), levels=2)
    z, count = torch.randn(1, 3, 1, 1), 20000
    drawn = decoder.decode(z.expand(count, -1, -1, -1), seed=0, first_item=0).long().flatten(1)
    images = torch.tensor(list(itertools.product(range(2), repeat=4))).reshape(-1, 1, 2, 2)
    with torch.no_grad():
        mass = decoder.log_prob(z.expand(16, -1, -1, -1), images).flatten(1).sum(1).exp()
    frequency = torch.bincount(drawn @ torch.tensor([8, 4, 2, 1]), minlength=16) / count
    assert ((frequency - mass).abs() < 5 * (mass / count).sqrt()).all()


def test_auxiliary_likelihood_is_trained_on_the_latents_alone_and_never_scored() -> None:
    decoder, plain = _decoder(), _decoder(auxiliary_weight=0.0)
    plain.load_state_dict({k: v for k, v in decoder.state_dict().items() if not k.startswith("auxiliary")})
    z, x = torch.randn(2, 3, 2, 3), torch.randint(0, 4, (2, 1, 4, 6))
    log_prob, added = decoder.training_nats(z, x)
    assert torch.equal(log_prob, decoder.log_prob(z, x).flatten(1).sum(1))
    torch.testing.assert_close(log_prob, plain.log_prob(z, x).flatten(1).sum(1))
    auxiliary = decoder.auxiliary.log_prob(decoder.network(z), x).flatten(1).sum(1)
    torch.testing.assert_close(added, 0.5 * auxiliary)
    assert not plain.training_nats(z, x)[1].any()


@pytest.mark.parametrize("model_class", [VQVAE, VAE])
def test_both_models_train_every_part_of_an_autoregressive_decoder(model_class: type) -> None:
    torch.manual_seed(0)
    model = model_class(
        image_shape=(3, 8, 8),
        levels=16,
        likelihood="logistic-mixture",
        channels=16,
        head_channels=8,
        residual_channels=8,
        autoregressive_layers=2,
        autoregressive_channels=4,
        auxiliary_weight=1.0,
    )
    x = torch.randint(0, 16, (4, 3, 8, 8))
    model(x).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert model.autoregressive
    assert model.likelihood_is_discrete
