"""Every model of stage one against the contract: an item has its own numbers, which are those of the flat methods."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae import (
    VAE,
    VIMCO,
    VQVAE,
    AudioAutoencoder,
    AudioVAE,
    AudioVQVAE,
    Autoencoder,
    HierarchicalVQVAE,
    WaveNetDecoder,
    WithDecoder,
)
from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.interface import Codec, Stage1Model
from twostage.data.audio.spectral import waveform
from twostage.errors import UsageError
from twostage.noise import item_noise

_IMAGE: dict[str, Any] = {
    "image_shape": (1, 4, 4), "levels": 5, "downsampling": 2, "channels": 8, "residual_channels": 4, "head_channels": 6,
}  # fmt: skip
_WIDE: dict[str, Any] = {**_IMAGE, "image_shape": (1, 8, 8)}
_SOUND: dict[str, Any] = {
    "mixtures": 2, "speaker_channels": 4, "downsampling_layers": 4, "channels": 16, "residual_blocks": 1,
    "residual_channels": 8, "head_channels": 8,
}  # fmt: skip
_CODES: dict[str, Any] = {"embedding_dim": 4, "codebook_size": 6, "codebooks": 2}
_PIXELS: dict[str, Any] = {"autoregressive_layers": 1, "autoregressive_channels": 4}


def _with_decoder(**settings: Any) -> WithDecoder:
    codec = AudioVQVAE(**_SOUND, **_CODES, speakers=3).eval()
    arguments = {"channels": 4, "blocks": 1, "layers_per_block": 3, "head_channels": 4, "mixtures": 2}
    decoder = WaveNetDecoder(condition_channels=4, stride=16, speakers=3, **arguments, **settings).eval()
    return WithDecoder(codec, decoder)


IMAGES: dict[str, Callable[[], Any]] = {
    "vq-vae": lambda: VQVAE(**_IMAGE, **_CODES),
    "vq-vae, pixels": lambda: VQVAE(**_IMAGE, **_CODES, **_PIXELS, update="loss"),
    "vq-vae, hierarchy": lambda: HierarchicalVQVAE(**_WIDE, **_CODES, update="loss"),
    "vq-vae, hierarchy, pixels": lambda: HierarchicalVQVAE(**_WIDE, **_CODES, **_PIXELS),
    "vq-vae, mse": lambda: VQVAE(**_IMAGE, **_CODES, likelihood="mse"),
    "autoencoder": lambda: Autoencoder(**_IMAGE, latent_channels=2),
    "vae": lambda: VAE(**_IMAGE, latent_channels=2, beta=0.5),
    "vae, vector, pixels": lambda: VAE(**_IMAGE, **_PIXELS, latent_dim=3),
    "conditional vae": lambda: VAE(**_IMAGE, latent_channels=2, classes=3),
    "vimco": lambda: VIMCO(**_IMAGE, **_CODES),
}
SOUNDS: dict[str, Callable[[], Any]] = {
    "audio vq-vae": lambda: AudioVQVAE(**_SOUND, **_CODES, speakers=3),
    "audio vq-vae, mu-law": lambda: AudioVQVAE(**_SOUND, **_CODES, likelihood="mu-law", update="loss"),
    "audio vae": lambda: AudioVAE(**_SOUND, latent_channels=3, speakers=3, beta=2.0),
    "audio vae, mu-law": lambda: AudioVAE(**_SOUND, latent_channels=3, likelihood="mu-law"),
    "conditional audio vae": lambda: AudioVAE(**_SOUND, latent_channels=3, speakers=3, classes=3),
    "conditional audio vae, no speakers": lambda: AudioVAE(**_SOUND, latent_channels=3, classes=3),
    "audio autoencoder": lambda: AudioAutoencoder(**_SOUND, latent_channels=3, speakers=3),
    "with wavenet decoder": _with_decoder,
    "with wavenet decoder, mu-law": lambda: _with_decoder(likelihood="mu-law"),
}
MODELS = IMAGES | SOUNDS
LENGTHS = [37, 80, 5]
LABELS, SPEAKERS = torch.tensor([2, 0, 1]), torch.tensor([0, 2, 1])


def make(name: str) -> Any:
    torch.manual_seed(0)
    model = MODELS[name]()
    for network in [model] if name in IMAGES or not isinstance(model, WithDecoder) else [model.codec, model.decoder]:
        network.eval()
        with torch.no_grad():
            for weight in network.parameters():  # at their start some models say nearly the same of every item
                weight.mul_(1.5)
    return model


def batch_of(name: str, *, width: int = 96) -> Batch:
    """Three items with labels and speakers; behind the end of a sound, up to `width`, is noise."""
    generator = torch.Generator().manual_seed(1)
    if name in IMAGES:
        side = 8 if "hierarchy" in name else 4
        x = torch.randint(0, 5, (3, 1, side, side), generator=generator)
        return Batch(x=x, items=torch.arange(4, 7), labels=LABELS, speakers=SPEAKERS)
    x = torch.randint(-9000, 9000, (3, width), dtype=torch.int16)
    for row, length in enumerate(LENGTHS):
        x[row, :length] = (3000 * torch.randn(length, generator=generator)).to(torch.int16)
    lengths = torch.tensor(LENGTHS)
    return Batch(x=x, items=torch.tensor([7, 3, 12]), lengths=lengths, labels=LABELS, speakers=SPEAKERS)


def alone(batch: Batch, row: int) -> Batch:
    """One item, a sound without any padding."""
    one = slice(row, row + 1)
    values = {key: None if value is None else value[one] for key, value in vars(batch).items()}
    if batch.lengths is not None:
        values["x"] = values["x"][:, : int(batch.lengths[row])]
    return Batch(**values)


def same(found: Tensor, expected: Tensor) -> None:
    """Equal apart from what other shapes do to rounding."""
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def same_and_zero_behind(found: Tensor, expected: Tensor) -> None:
    """`found` is `expected` with zeros behind its last axis."""
    length = expected.shape[-1]
    same(found[..., :length], expected)
    assert not found[..., length:].any()


@pytest.mark.parametrize("name", MODELS)
def test_attributes(name: str) -> None:
    model: Stage1Model = make(name)
    assert model.latents == {"vq": "codes", "wi": "codes", "au": "none", "va": "gaussian", "co": "gaussian",
                             "vi": "table"}[name.removeprefix("audio ")[:2]]  # fmt: skip
    assert model.levels == (5 if name in IMAGES else 256 if "mu-law" in name else 65536)
    assert model.likelihood_is_discrete == ("mse" not in name)
    assert model.autoregressive == ("pixels" in name or "wavenet" in name)
    assert model.classes == (3 if "conditional" in name else 0)
    assert model.speakers in (0, 3)
    assert (model.beta is None) == (model.latents != "gaussian")
    if model.latents == "codes":
        codec: Codec = make(name)
        assert (codec.codebook_size, codec.codebooks) == (6, 2)
        assert codec.update_rule in ("ema", "loss")


@pytest.mark.parametrize("name", MODELS)
def test_dims_and_positions(name: str) -> None:
    model, batch = make(name), batch_of(name)
    dims, positions = ([64] * 3, [20] * 3) if "hierarchy" in name else ([16] * 3, [4] * 3)
    assert model.dims_of(batch).tolist() == (dims if name in IMAGES else LENGTHS)
    if model.latents == "codes":
        assert model.positions_of(batch).tolist() == (positions if name in IMAGES else [3, 5, 1])


@pytest.mark.parametrize("name", MODELS)
def test_an_item_has_its_own_numbers_whatever_stands_beside_it(name: str) -> None:
    model, batch = make(name), batch_of(name)
    score, latents = model.score(batch, samples=3, seed=5), model.latents_of(batch, seed=0)
    decoded = model.decode_batch(latents, batch, seed=2)
    assert len(set(score.distortion.tolist())) == 3
    for row in range(3):
        one = alone(batch, row)
        own, own_latents = model.score(one, samples=3, seed=5), model.latents_of(one, seed=0)
        for field, values in vars(own).items():
            if values is None:
                assert getattr(score, field) is None
            else:
                same(values[0], getattr(score, field)[row])
        same_and_zero_behind(latents[row], own_latents[0])
        same_and_zero_behind(decoded[row], model.decode_batch(own_latents, one, seed=2)[0])


@pytest.mark.parametrize("name", MODELS)
def test_latents_are_drawn_for_an_item_from_its_number(name: str) -> None:
    model, batch = make(name), batch_of(name)
    if model.latents in ("codes", "none"):
        with pytest.raises(UsageError, match="no distribution over its latents"):
            model.sample_latents(batch, seed=1)
        return
    latents = model.sample_latents(batch, seed=1)
    assert latents.shape == model.latents_of(batch, seed=0).shape
    assert model.decode_batch(latents, batch, seed=0).shape[0] == 3
    for row in range(3):
        same_and_zero_behind(latents[row], model.sample_latents(alone(batch, row), seed=1)[0])
    assert not torch.equal(latents, model.sample_latents(batch, seed=2))
    assert not torch.equal(latents, model.sample_latents(replace(batch, items=batch.items + 1), seed=1))
    colder = model.sample_latents(batch, seed=1, temperature=0.5)
    if model.latents == "gaussian":
        same(colder, 0.5 * latents)
    else:
        assert torch.equal(
            model.sample_latents(batch, seed=1, top_k=1), model.sample_latents(batch, seed=1, temperature=0)
        )


@pytest.mark.parametrize("name", SOUNDS)
def test_padding_changes_nothing(name: str) -> None:
    model, batch, wider = make(name), batch_of(name), batch_of(name, width=133)
    assert torch.equal(model.latents_of(batch, seed=0), model.latents_of(wider, seed=0))
    assert torch.equal(
        model.score(batch, samples=2, seed=0).distortion, model.score(wider, samples=2, seed=0).distortion
    )
    latents = model.latents_of(batch, seed=0)
    padded = torch.nn.functional.pad(latents, (0, 2))
    assert torch.equal(model.log_prob_batch(batch, latents), model.log_prob_batch(batch, padded))
    wave = model.decode_batch(latents, batch, seed=3)
    assert torch.equal(wave, model.decode_batch(padded, batch, seed=3))
    assert wave.shape == (3, 80)
    assert wave.abs().max() <= 1
    assert not wave[2, 5:].any()
    with pytest.raises(UsageError, match="say how many samples"):
        model.dims_of(Asked(items=batch.items))


@pytest.mark.parametrize("name", IMAGES)
def test_images_score_and_decode_as_the_flat_methods(name: str) -> None:
    model, batch = make(name), batch_of(name)
    given = (batch.labels,) if model.classes else ()
    score, latents = model.score(batch, samples=3, seed=5), model.latents_of(batch, seed=0)
    if model.latents in ("codes", "none"):
        distortion, rate, tighter = -model.log_prob(batch.x, model.encode(batch.x)), None, None
    else:
        bounds = model.bounds(batch.x, *given, samples=3, seed=5, first_item=4)
        distortion, rate = -bounds.log_likelihood, bounds.kl
        tighter = -(bounds.multi_sample if name == "vimco" else bounds.importance_weighted)
    assert torch.equal(score.distortion, distortion)
    for found, expected in ((score.rate, rate), (score.tighter, tighter)):
        assert found is None if expected is None else torch.equal(found, expected)
    if isinstance(model, VQVAE | HierarchicalVQVAE):
        expected = model.decode(model.encode(batch.x), seed=2, first_item=4)
    else:
        expected = model.reconstruct(batch.x, *given, seed=2, first_item=4)
    assert torch.equal(model.decode_batch(latents, batch, seed=2), expected)
    if isinstance(model, VAE):
        drawn = 0.7 * item_noise(9, 4, 3, model.latent_shape)
        assert torch.equal(model.sample_latents(batch, seed=9, temperature=0.7), drawn)


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds_score_and_decode_as_the_flat_methods(name: str) -> None:
    model, batch = make(name), batch_of(name, width=80)
    sounds, speaker = (batch.x, batch.mask), batch.speakers if model.speakers else None
    given = (speaker, batch.labels if model.classes else None)
    score, latents = model.score(batch, samples=3, seed=5), model.latents_of(batch, seed=0)
    positions, inside = torch.tensor([3, 5, 1]), batch.mask
    if isinstance(model, WithDecoder):
        vectors = model.codec.condition_vectors(model.codec.encode(*sounds))
        assert torch.equal(score.distortion, -model.decoder.log_prob(*sounds, vectors, speaker))
        expected = waveform(model.decoder.sample(vectors, batch.lengths, speaker, seed=2, items=[7, 3, 12]))
    elif model.latents in ("codes", "none"):
        codes = model.encode(*sounds)
        assert torch.equal(score.distortion, -model.log_prob(*sounds, codes, speaker))
        expected = model.decode(codes, positions, speaker) * inside
    else:
        bounds = model.bounds(*sounds, *given, samples=3, seed=5, items_B=batch.items)
        assert torch.equal(score.distortion, -bounds.log_likelihood)
        assert torch.equal(score.rate, bounds.kl)
        assert torch.equal(score.tighter, -bounds.importance_weighted)
        expected = model.reconstruct(*sounds, *given) * inside
    assert torch.equal(model.decode_batch(latents, batch, seed=2), expected)


@pytest.mark.parametrize("name", [name for name, build in MODELS.items() if make(name).latents == "codes"])
def test_the_score_of_a_codec_is_that_of_an_items_own_codes(name: str) -> None:
    model, batch = make(name), batch_of(name)
    codes = model.latents_of(batch, seed=0)
    assert codes.dtype == torch.int64
    assert torch.equal(model.score(batch, samples=1, seed=0).distortion, -model.log_prob_batch(batch, codes))
    others = model.log_prob_batch(batch, (codes + 1) % 6)
    assert (others != model.log_prob_batch(batch, codes)).all()


def test_draws_of_a_wavenet_decoder_report_how_far_they_are() -> None:
    model, batch, said = make("with wavenet decoder"), batch_of("with wavenet decoder"), []
    model.progress = lambda done, total: said.append((done, total))
    model.decode_batch(model.latents_of(batch), batch, seed=0)
    assert said == [(done, 80) for done in range(1, 81)]


def test_items_of_images_follow_one_another() -> None:
    """Their noise is drawn from the number of the first."""
    with pytest.raises(ValueError, match="follow one another"):
        make("vae").score(replace(batch_of("vae"), items=torch.tensor([1, 3, 2])), samples=1, seed=0)
