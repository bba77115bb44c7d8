"""Recordings: which networks a recipe asks for."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from stage1_vqvae import AudioAutoencoder, AudioVAE, AudioVQVAE
from twostage.config.model_names import ModelSpec
from twostage.config.schema import Recipe
from twostage.data.audio import AudioDataset
from twostage.errors import RunError, UsageError

from .checks import check_labels_exist

AudioStage1 = AudioVQVAE | AudioVAE | AudioAutoencoder
"""A model of sound; a conditional VAE is an `AudioVAE` with classes."""

_KINDS: dict[str, type[AudioStage1]] = {
    kind: cls for cls in (AudioVQVAE, AudioAutoencoder, AudioVAE) for kind in cls.kinds
}


def stage1_architecture(spec: ModelSpec, recipe: Recipe, dataset: AudioDataset) -> dict[str, Any]:
    """Keyword arguments of the model for this data set.

    Raises:
        UsageError: a model of images, or a conditional model of recordings without labels.
    """
    if f"audio-{spec.kind}" not in _KINDS:
        raise UsageError(f"{spec.name} is a model of images: recordings have vq-vae, ae, vae, beta-vae-B and cvae")
    check_labels_exist(spec, dataset, item="recording")
    common = {key: value for key, value in asdict(recipe.audio).items() if key != "segment_samples"}
    common["speakers"] = len(dataset.speakers)
    if spec.kind == "vq-vae":
        return {**common, **recipe.quantiser.arguments(update=spec.codebook_update)}
    gaussian, classes = recipe.gaussian, len(dataset.classes) if spec.kind == "cvae" else 0
    common["latent_channels"] = gaussian.latent_channels
    if spec.kind == "ae":
        return common
    training = {"beta": spec.beta, "kl_warmup_steps": gaussian.kl_warmup_steps, "free_bits": gaussian.free_bits}
    return {**common, **training, "classes": classes}


def build_stage1(kind: str, architecture: Mapping[str, Any]) -> AudioStage1:
    """A freshly initialised model (torch's global generator) of one of the known kinds."""
    if kind not in _KINDS:
        raise RunError(
            f"this version knows the kinds of sound models {', '.join(_KINDS)}, not {kind!r}: update twostage"
        )
    return _KINDS[kind](**architecture)


def decoder_architecture(recipe: Recipe, stage1: AudioVQVAE) -> dict[str, Any]:
    """Keyword arguments of `WaveNetDecoder` on the codes of `stage1`."""
    settings = {key: value for key, value in asdict(recipe.wavenet_decoder).items() if key != "segment_samples"}
    return {
        **settings,
        "condition_channels": recipe.quantiser.embedding_dim,
        "stride": stage1.stride,
        "speakers": stage1.speakers,
        "speaker_channels": recipe.audio.speaker_channels,
    }


def most_codes(recipe: Recipe, dataset: AudioDataset, *, stride: int) -> int:
    """Codes of the longest sound that has a probability: as the recipe says, or of twice the longest training one.

    Raises:
        UsageError: a recording is longer.
    """
    rate, seconds = dataset.sample_rate_hz, recipe.wavenet_prior.max_seconds
    samples = seconds * rate if seconds else 2 * int(dataset.train.lengths.max())
    longest = max(int(dataset.split(split).lengths.max()) for split in ("train", "validation", "test"))
    if samples < longest:
        raise UsageError(
            f"wavenet_prior.max_seconds admits {samples / rate:.2f} s, but a recording of {longest / rate:.2f} s would "
            "have no probability: set it to more"
        )
    return -(-int(np.ceil(samples)) // stride)


def prior_architecture(recipe: Recipe, stage1: AudioVQVAE, dataset: AudioDataset) -> dict[str, Any]:
    """Keyword arguments of `WaveNet` over the codes of `stage1`.

    Raises:
        UsageError: recordings are longer than the prior can be.
    """
    settings = asdict(recipe.wavenet_prior)
    conditional = settings.pop("conditional")
    del settings["max_seconds"]
    classes = (len(dataset.classes), len(dataset.speakers)) if conditional else ()
    return {
        "codebook_size": stage1.codebook_size,
        "codebooks": stage1.codebooks,
        "max_length": most_codes(recipe, dataset, stride=stage1.stride),
        "classes": tuple(size for size in classes if size),
        **settings,
    }
