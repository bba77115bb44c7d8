"""The settings that all models of images share: one list of names and types, and no other name passes."""

from dataclasses import MISSING, fields
from typing import get_type_hints

import pytest
from torch import nn

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.networks import ImageNetworks, ImageNetworkSettings
from stage1_vqvae.images.vimco import VIMCO


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
