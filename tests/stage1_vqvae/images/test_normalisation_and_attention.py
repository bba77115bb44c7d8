"""Group normalisation and self-attention in encoders and decoders of all models of images; both are off by default."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stage1_vqvae import VAE, VIMCO, VQVAE, Autoencoder, HierarchicalVQVAE
from stage1_vqvae.images.grid_attention import GridAttention
from stage1_vqvae.images.networks import Decoder, Encoder, ImageNetworks
from twostage.errors import UsageError
from twostage.layers.residual import ResidualBlock, group_norm

MODELS: dict[str, type[nn.Module]] = {
    "vq-vae": VQVAE, "hierarchy": HierarchicalVQVAE, "vae": VAE, "ae": Autoencoder, "vimco": VIMCO,
}  # fmt: skip
SIZES: dict[str, Any] = {"channels": 16, "residual_channels": 8, "residual_blocks": 1, "head_channels": 8}


def networks(**settings: Any) -> ImageNetworks:
    return ImageNetworks(image_shape=(3, 64, 64), **{**SIZES, **settings})


def of_kind(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_them_where_asked_and_learns_through_them(name: str) -> None:
    shape: dict[str, Any] = {"image_shape": (1, 16, 16), "levels": 4, "downsampling": 4, **SIZES}
    plain = MODELS[name](**shape)
    assert (of_kind(plain, nn.GroupNorm), of_kind(plain, GridAttention)) == (0, 0)
    model = MODELS[name](**shape, normalisation="group", attention_blocks=2)
    assert of_kind(model, GridAttention) == 4
    model(torch.randint(0, 4, (4, 1, 16, 16))).loss.backward()
    learning = [
        module.weight.grad is not None and bool(module.weight.grad.any())
        for module in model.modules()
        if isinstance(module, nn.GroupNorm)
    ]
    # of attention, whose output is zero at first, the inputs do not learn from the first step
    assert sum(learning) == len(learning) - 4 > 8


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(UsageError, match="normalisation must be none or group, not 'batch'"):
        VQVAE(image_shape=(1, 8, 8), normalisation="batch")


@pytest.mark.parametrize(("normalisation", "same"), [("group", True), ("none", False)])
def test_normalised_maps_do_not_depend_on_the_scale_of_the_convolutions_before(normalisation: str, same: bool) -> None:
    torch.manual_seed(0)
    settings = networks(downsampling=16, normalisation=normalisation)
    encoder = Encoder(settings, in_channels=3, out_channels=4)
    decoder = Decoder(settings, in_channels=4, features=5)
    x = torch.randn(2, 3, 64, 64)
    before = (encoder(x), decoder(encoder(x)))
    strided = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    enlarging = [layer for layer in decoder.modules() if isinstance(layer, nn.ConvTranspose2d)][:-1]
    assert (len(strided), len(enlarging)) == (4, 3)
    with torch.no_grad():
        for parameter in (p for layer in (*strided, *enlarging) for p in layer.parameters()):
            parameter.mul_(3.0)
    for map_before, map_after in zip(before, (encoder(x), decoder(encoder(x))), strict=True):
        assert torch.allclose(map_before, map_after, atol=2e-3) == same


def test_an_item_is_normalised_by_itself() -> None:
    torch.manual_seed(0)
    encoder = Encoder(networks(normalisation="group", attention_blocks=1), in_channels=3, out_channels=4)
    x = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 6, 48, 64, 100])
def test_any_width_can_be_normalised(channels: int) -> None:
    assert group_norm(channels)(torch.randn(2, channels, 3, 3)).isfinite().all()
    block = ResidualBlock(channels=channels, residual_channels=channels, normalised=True)
    assert block(torch.randn(2, channels, 3, 3)).shape == (2, channels, 3, 3)


def attended(block: GridAttention, x_CHW: Tensor) -> Tensor:
    """The same by loops over heads and positions."""
    height, width = x_CHW.shape[1:]
    inputs_XN = block.inputs(block.norm(x_CHW[None]))[0].flatten(1)
    query_KEN, key_KEN, value_KEN = inputs_XN.unflatten(0, (3, block.heads, -1))
    seen = torch.zeros(block.heads, query_KEN.shape[1], height * width)
    for head in range(block.heads):
        for position in range(height * width):
            scores_N = query_KEN[head, :, position] @ key_KEN[head] * query_KEN.shape[1] ** -0.5
            seen[head, :, position] = value_KEN[head] @ scores_N.softmax(0)
    return x_CHW + block.output(seen.reshape(1, -1, height, width))[0]


@pytest.mark.parametrize("channels", [8, 96])
def test_attention_is_what_plain_loops_compute(channels: int) -> None:
    torch.manual_seed(0)
    block, x = GridAttention(channels), torch.randn(2, channels, 3, 4)
    assert torch.equal(block(x), x)  # before it has learned
    nn.init.normal_(block.output.weight)
    with torch.no_grad():
        expected = torch.stack([attended(block, x_CHW) for x_CHW in x])
        torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("blocks", [0, 1])
def test_attention_carries_over_the_whole_grid(blocks: int) -> None:
    torch.manual_seed(0)
    encoder = Encoder(networks(attention_blocks=blocks), in_channels=3, out_channels=4)
    for module in encoder.modules():
        if isinstance(module, GridAttention):
            nn.init.normal_(module.output.weight)
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    encoder(x)[..., 0, 0].sum().backward()
    assert x.grad is not None
    assert bool(x.grad[..., -8:, -8:].any()) == bool(blocks)
