"""Ways to double the sides of maps: their shapes, and which of them start with a grid."""

import pytest
import torch
from torch import nn

from stage1_vqvae import VQVAE
from stage1_vqvae.images.upsampling import Upsampling, upsampling_layer
from twostage.errors import UsageError


@pytest.mark.parametrize("kind", ["transposed", "nearest-convolution", "subpixel"])
def test_flat_maps_become_flat_ones_of_twice_the_sides_but_for_transposed_convolutions(kind: Upsampling) -> None:
    torch.manual_seed(0)
    made = upsampling_layer(kind, 3, 5)(torch.ones(2, 3, 6, 4))
    assert made.shape == (2, 5, 12, 8)
    inner = made[..., 2:-2, 2:-2]
    flat = torch.allclose(inner, inner[..., :1, :1], atol=1e-6)
    assert flat == (kind != "transposed")


def test_nearest_neighbours_and_a_convolution_are_computed_as_one_layer() -> None:
    torch.manual_seed(0)
    layer = upsampling_layer("nearest-convolution", 3, 5)
    plain = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 3, padding=1))
    plain.load_state_dict(layer.state_dict())
    maps = torch.randn(2, 3, 4, 6)
    gradients = []
    for module in (layer, plain):
        made = module(maps)
        torch.testing.assert_close(made, plain(maps), atol=1e-5, rtol=1e-5)
        made.square().sum().backward()
        gradients.append([parameter.grad for parameter in module.parameters()])
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-4)


def test_sub_pixels_start_as_nearest_neighbours_and_learn_kernels_of_their_own() -> None:
    torch.manual_seed(0)
    layer, maps = upsampling_layer("subpixel", 3, 5), torch.randn(2, 3, 4, 4)
    made = layer(maps)
    assert torch.equal(made, made[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))
    made[..., 0::2, 1::2].sum().backward()
    gradient = next(layer.parameters()).grad
    assert gradient is not None
    assert (gradient.flatten(1).abs().sum(1) > 0).tolist() == [False, True, False, False] * 5


def test_a_model_is_told_its_upsampling_and_refuses_an_unknown_one() -> None:
    settings = {"image_shape": (1, 8, 8), "channels": 8, "residual_channels": 4, "embedding_dim": 4, "codebook_size": 4}
    kinds = {kind: VQVAE(**settings, upsampling=kind) for kind in ("transposed", "nearest-convolution", "subpixel")}
    assert len({sum(weight.numel() for weight in model.parameters()) for model in kinds.values()}) == 3
    assert kinds["subpixel"].decode(torch.zeros(2, 1, 2, 2, dtype=torch.int64)).shape == (2, 1, 8, 8)
    with pytest.raises(UsageError, match="transposed, nearest-convolution or subpixel, not 'bilinear'"):
        VQVAE(**settings, upsampling="bilinear")
