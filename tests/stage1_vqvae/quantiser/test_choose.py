"""Every kind of quantiser by name: what it is given, what it refuses, and that a model passes it on."""

import pytest
import torch

from stage1_vqvae import VQVAE, AudioVQVAE
from stage1_vqvae.quantiser.choose import QuantiserSettings, make_quantiser
from twostage.config.quantiser import QUANTISERS, QuantiserConfig, QuantiserKind
from twostage.errors import UsageError


@pytest.mark.parametrize("kind", QUANTISERS)
def test_every_kind_takes_what_a_recipe_gives_it_and_answers_the_contract(kind: QuantiserKind) -> None:
    arguments = QuantiserConfig(kind=kind, embedding_dim=6).arguments(update="loss")
    module = make_quantiser(arguments.pop("quantiser"), **arguments)
    assert module.embedding_dim == 6
    assert module.codebook.shape[:2] == (module.codebooks, module.codebook_size)
    assert module.update_rule == ("loss" if "update" in QUANTISERS[kind].reads else QUANTISERS[kind].update)
    quantised = module(torch.randn(3, 6, 5), torch.arange(3))
    assert quantised.codes.shape == (3, module.codebooks, 5)
    assert 0 <= quantised.codes.min() <= quantised.codes.max() < module.codebook_size
    assert quantised.vectors.shape == (3, 6, 5)
    torch.testing.assert_close(module.lookup(quantised.codes), quantised.vectors)
    assert module.loss(quantised).shape == ()
    assert quantised.statistics is not None
    doubled = quantised.statistics + quantised.statistics
    assert module.update(doubled).perplexity >= 1


@pytest.mark.parametrize("kind", QUANTISERS)
def test_codes_stand_for_the_same_vectors_under_autocast(kind: QuantiserKind) -> None:
    """A decoder that is fitted to codes in bf16 is given what the codebook's own decoder was."""
    arguments = QuantiserConfig(kind=kind, embedding_dim=6).arguments(update="loss")
    module = make_quantiser(arguments.pop("quantiser"), **arguments)
    with torch.autocast("cpu", torch.bfloat16):
        quantised = module(torch.randn(3, 6, 5))
        found = module.lookup(quantised.codes)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, quantised.vectors)


@pytest.mark.parametrize("kind", QUANTISERS)
def test_a_setting_that_the_kind_does_not_read_is_refused(kind: QuantiserKind) -> None:
    for name in QuantiserSettings.__annotations__:
        if name not in QUANTISERS[kind].reads:
            with pytest.raises(UsageError, match=f"{kind} does not read {name}"):
                make_quantiser(kind, embedding_dim=6, **{name: getattr(QuantiserConfig(), name)})


def test_an_unknown_kind_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"one of vq, residual.*'rvq'"):
        make_quantiser("rvq", embedding_dim=6)  # type: ignore[arg-type]


def test_flat_settings_are_those_of_the_recipe() -> None:
    read = {name for facts in QUANTISERS.values() for name in facts.reads} - {"init"}
    assert QuantiserSettings.__annotations__.keys() == read


def test_models_of_images_and_sound_pass_kind_and_settings_on() -> None:
    image = VQVAE(image_shape=(1, 4, 4), levels=5, downsampling=2, channels=4, quantiser="fsq", fsq_levels=(3, 3))
    sound = AudioVQVAE(channels=8, quantiser="fsq", fsq_levels=(3, 3), codebooks=2, embedding_dim=5)
    assert (image.codebook_size, image.code_shape) == (9, (1, 2, 2))
    assert (sound.codebook_size, sound.codebooks) == (3, 2)
    with pytest.raises(UsageError, match="does not read codebook_size"):
        AudioVQVAE(channels=8, quantiser="fsq", codebook_size=9)
