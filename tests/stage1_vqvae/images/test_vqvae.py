"""The VQ-VAE as a whole: what its loss is, where gradients go, and that encode, decode and log_prob agree."""

import itertools
import math

import pytest
import torch

from stage1_vqvae import VAE, VQVAE
from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.errors import UsageError


def _model(**overrides) -> VQVAE:
    torch.manual_seed(0)
    settings = {"image_shape": (1, 8, 8), "levels": 5, "downsampling": 4, "channels": 8, "residual_channels": 4}
    return VQVAE(**{**settings, "head_channels": 6, "embedding_dim": 4, "codebook_size": 6, **overrides})


def _images(count: int, levels: int = 5) -> torch.Tensor:
    return torch.randint(0, levels, (count, 1, 8, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_loss_is_equation_three(update: str) -> None:
    model = _model(update=update, commitment_beta=0.7)
    x = _images(4)
    output = model(x)
    z = model.encoder(x.float() * 0.5 - 1.0)
    e = model.quantiser.lookup(output.quantised.codes)
    squared = (z - e).pow(2).mean()
    expected = -output.log_likelihood_nats.mean() / 64 + (0.7 + (update == "loss")) * squared
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_every_part_that_should_learn_gets_a_gradient(update: str) -> None:
    model = _model(update=update)
    model(_images(8)).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert ("quantiser.codebook" in dict(model.named_parameters())) == (update == "loss")


def test_log_prob_of_own_codes_is_the_training_log_likelihood() -> None:
    model = _model().eval()
    x = _images(4)
    torch.testing.assert_close(model.log_prob(x, model.encode(x)), model(x).log_likelihood_nats)


def test_two_part_code_is_a_subnormalised_code() -> None:
    """Kraft: summed over all images of a toy alphabet, 2^-bits(x) is at most one, because z(x) is one of the codes."""
    model = _model(image_shape=(1, 2, 4), levels=2, downsampling=2, codebook_size=3).eval()
    with torch.no_grad():
        model.quantiser.codebook.copy_(torch.randn(1, 3, 4))
    images = torch.tensor(list(itertools.product(range(2), repeat=8))).reshape(-1, 1, 2, 4)
    codes = model.encode(images)
    uniform_rate_bits = 2 * math.log2(3)
    bits = -model.log_prob(images, codes).double() / math.log(2) + uniform_rate_bits
    assert torch.pow(2.0, -bits).sum().item() <= 1 + 1e-9
    every_code = torch.tensor(list(itertools.product(range(3), repeat=2))).reshape(-1, 1, 1, 2)
    for code in every_code:
        log_prob = model.log_prob(images, code.expand(len(images), -1, -1, -1)).double()
        assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_decode_depends_on_the_codes_only_through_their_positions() -> None:
    """A changed code changes the image near its own position; pixels outside the decoder's reach stay as they were."""
    model = _model(image_shape=(1, 64, 64), residual_blocks=1).eval()
    with torch.no_grad():
        model.quantiser.codebook.copy_(torch.randn(1, 6, 4))
    codes = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    other = codes.clone()
    other[0, 0, 0, 0] = 3
    difference = (model.decode(codes) - model.decode(other)).abs()[0, 0]
    assert difference[:4, :4].max() > 0
    assert difference[32:, 32:].max() == 0


def test_forward_leaves_the_codebook_alone_and_update_moves_it() -> None:
    model = _model()
    before = model.quantiser.codebook.clone()
    output = model(_images(8))
    assert torch.equal(model.quantiser.codebook, before)
    model.update_codebook(output)
    assert not torch.equal(model.quantiser.codebook, before)
    with pytest.raises(RuntimeError, match="training mode"):
        model.update_codebook(model.eval()(_images(8)))


def test_kmeans_start_lowers_the_quantisation_error() -> None:
    random, kmeans = _model(codebook_size=16), _model(codebook_size=16)
    x = _images(64)
    kmeans.initialise_codebook(x, seed=0)
    assert kmeans(x).quantised.commitment_loss < 0.5 * random(x).quantised.commitment_loss


@pytest.mark.parametrize("model_class", [VQVAE, VAE])
def test_a_downsampling_that_does_not_divide_the_image_is_refused(model_class: type) -> None:
    with pytest.raises(UsageError, match="downsampling 8 does not divide the 28x28 images; choose one of 2, 4"):
        model_class(image_shape=(1, 28, 28), downsampling=8)
    with pytest.raises(UsageError, match="must be one of 2, 4, 8, 16, 32, not 3"):
        model_class(image_shape=(1, 27, 27), downsampling=3)


@pytest.mark.parametrize("model_class", [VQVAE, VAE])
@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(2, 1, 8, 8), "integer images .* got torch.float32"),
        (torch.full((2, 1, 8, 8), -1), "got levels -1 to -1"),
        (torch.full((2, 1, 8, 8), -100), "got levels -100 to -100"),
        (torch.full((2, 1, 8, 8), 5), "got levels 5 to 5"),
        (torch.zeros(2, 1, 12, 8, dtype=torch.int64), "got shape"),
        (torch.zeros(2, 8, 8, dtype=torch.int64), "got shape"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.int64), "got shape"),
    ],
)
def test_images_that_would_get_a_wrong_likelihood_are_refused(
    model_class: type, images: torch.Tensor, sentence: str
) -> None:
    model = model_class(image_shape=(1, 8, 8), levels=5, channels=8).eval()
    with pytest.raises(UsageError, match=sentence):
        model(images)
    if isinstance(model, VQVAE):
        with pytest.raises(UsageError, match=sentence):
            model.encode(images)
        with pytest.raises(UsageError, match=sentence):
            model.log_prob(images, torch.zeros(len(images), 1, 2, 2, dtype=torch.int64))


@pytest.mark.parametrize("downsampling", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("codebooks", [1, 2])
def test_shapes_are_as_documented(downsampling: int, codebooks: int) -> None:
    model = _model(image_shape=(3, 32, 96), downsampling=downsampling, codebooks=codebooks).eval()
    x = torch.randint(0, 5, (2, 3, 32, 96))
    codes = model.encode(x)
    assert codes.shape == (2, codebooks, 32 // downsampling, 96 // downsampling) == (2, *model.code_shape)
    assert model.decode(codes).shape == x.shape


def _ladder(dropout: float) -> list[float]:
    """Nats/dim of digits from the first 1, 2 and 3 codes of every position, after a short training."""
    digits = torch.from_numpy(load_dataset(DataConfig(name="digits")).train.images[:256])
    model = _model(
        levels=17,
        likelihood="hurdle",
        downsampling=2,
        channels=32,
        residual_blocks=1,
        embedding_dim=8,
        codebook_size=8,
        quantiser="residual",
        codebooks=3,
        quantiser_dropout=dropout,
    )
    model.initialise_codebook(digits, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(300):
        output = model(digits[step % 8 :: 8])
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        model.update_codebook(output)
    codes = model.eval().encode(digits)
    assert model.decode(codes[:, :1]).shape == (256, 1, 8, 8)
    return [-float(model.log_prob(digits, codes[:, :levels]).mean()) / 64 for levels in (1, 2, 3)]


def test_a_residual_model_serves_a_ladder_of_rates_and_dropout_trains_its_lower_rungs() -> None:
    ladder, whole = _ladder(0.7), _ladder(0.0)
    assert ladder[0] > ladder[1] + 0.01 > ladder[2] + 0.02
    assert whole[0] > ladder[0] + 0.02
