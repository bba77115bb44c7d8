"""What all models of images share: one list of settings, widths of the networks, levels as tensors."""

from dataclasses import MISSING, fields
from typing import get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.networks import (
    ImageNetworks,
    ImageNetworkSettings,
    code_grid,
    image_tensor,
    level_widths,
    normalise,
)
from stage1_vqvae.images.vimco import VIMCO
from twostage.errors import UsageError


def test_the_keywords_are_the_settings() -> None:
    assert get_type_hints(ImageNetworkSettings) == get_type_hints(ImageNetworks)
    required = {field.name for field in fields(ImageNetworks) if field.default is MISSING}
    assert required == ImageNetworkSettings.__required_keys__ == {"image_shape"}


@pytest.mark.parametrize("model", [VQVAE, VAE, Autoencoder, VIMCO])
def test_a_wrong_or_missing_keyword_is_refused(model: type[nn.Module]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'head_chanels'"):
        model(image_shape=(1, 4, 4), head_chanels=4)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'image_shape'"):
        model(levels=4)


def test_vimco_has_no_auxiliary_likelihood() -> None:
    with pytest.raises(TypeError, match="auxiliary_weight"):
        VIMCO(image_shape=(1, 4, 4), auxiliary_weight=1.0)


@pytest.mark.parametrize(
    ("downsampling", "widths"),
    [(2, [64]), (4, [64, 32]), (8, [64, 32, 32]), (16, [64, 32, 32, 16]), (32, [64, 32, 32, 16, 8])],
)
def test_levels_get_narrower_towards_the_pixels(downsampling: int, widths: list[int]) -> None:
    assert level_widths(64, downsampling) == widths
    model = VQVAE(image_shape=(1, 32, 64), channels=64, downsampling=downsampling)
    convolutions = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions if layer.stride == (2, 2)] == widths[::-1]
    transposed = [layer for layer in model.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.in_channels for layer in transposed] == widths


def test_the_narrowest_network_has_a_channel_everywhere() -> None:
    assert level_widths(2, 32) == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("shape", "fitting"),
    [((1, 48, 64), "2, 4, 8, 16"), ((1, 30, 64), "2"), ((1, 32, 36), "2, 4"), ((3, 8, 24), "2, 4, 8")],
)
def test_a_refused_downsampling_names_those_that_fit(shape: tuple[int, int, int], fitting: str) -> None:
    size = f"{shape[1]}x{shape[2]}"
    with pytest.raises(UsageError, match=f"32 does not divide the {size} images; choose one of {fitting}$"):
        code_grid(shape, 32)


def test_sixteen_bits_become_tensors_that_can_be_computed_with() -> None:
    levels = np.array([[0, 1], [40_000, 65_535]], np.uint16)
    scaled = normalise(image_tensor(levels), 65_536)
    np.testing.assert_allclose(scaled.numpy(), levels / 32_767.5 - 1, atol=1e-7)
    assert image_tensor(levels.astype(np.uint8)).dtype == torch.uint8
