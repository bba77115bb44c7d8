"""Models of sound: built from a recipe or a record, and loaded from a run folder."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_vqvae import SoundVAE, SoundVQVAE, WaveNetDecoder
from stage2_prior import WaveNet
from twostage.audio import AudioDataset
from twostage.config.schema import Recipe
from twostage.errors import RunError, UsageError

from ..models import Loaded, ModelSpec, as_arguments, check_made_for, load_model
from ..run import Run, is_finished

LoadedSound = Loaded[SoundVQVAE | SoundVAE]
LoadedDecoder = Loaded[WaveNetDecoder]
LoadedWaveNet = Loaded[WaveNet]
_KINDS: dict[str, type[SoundVQVAE] | type[SoundVAE]] = {"sound-vq-vae": SoundVQVAE, "sound-vae": SoundVAE}


def stage1_architecture(spec: ModelSpec, recipe: Recipe, dataset: AudioDataset) -> dict[str, Any]:
    """Keyword arguments of `SoundVQVAE` or `SoundVAE`.

    Raises:
        UsageError: a model of images.
    """
    if spec.kind not in ("vq-vae", "vae"):
        raise UsageError(f"{spec.name} is a model of images: recordings have vq-vae, vae and beta-vae-B")
    common = {key: value for key, value in asdict(recipe.sound).items() if key != "segment_samples"}
    common["speakers"] = len(dataset.speakers)
    if spec.kind == "vae":
        return {**common, "latent_channels": recipe.gaussian.latent_channels, "beta": spec.beta}
    quantiser = {k: v for k, v in asdict(recipe.quantiser).items() if k not in ("init", "auxiliary_weight")}
    return {**common, **quantiser, "update": spec.codebook_update}


def build_stage1(kind: str, architecture: Mapping[str, Any]) -> SoundVQVAE | SoundVAE:
    """A freshly initialised model (torch's global generator) of one of the known kinds."""
    if kind not in _KINDS:
        raise RunError(
            f"this version knows the kinds of sound models {', '.join(_KINDS)}, not {kind!r}: update twostage"
        )
    return _KINDS[kind](**architecture)


def decoder_architecture(recipe: Recipe, stage1: SoundVQVAE) -> dict[str, Any]:
    """Keyword arguments of `WaveNetDecoder` on the codes of `stage1`."""
    settings = {key: value for key, value in asdict(recipe.wavenet_decoder).items() if key != "segment_samples"}
    return {
        **settings,
        "condition_channels": recipe.quantiser.embedding_dim,
        "stride": stage1.stride,
        "speakers": stage1.speakers,
        "speaker_channels": recipe.sound.speaker_channels,
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


def prior_architecture(recipe: Recipe, stage1: SoundVQVAE, dataset: AudioDataset) -> dict[str, Any]:
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


def condition_of(labels: np.ndarray, speakers: np.ndarray, dataset_sizes: tuple[int, int]) -> np.ndarray:
    """`[N, A]` what a conditional prior is told: the label and the speaker, each where there are several."""
    classes, voices = dataset_sizes
    columns = [column for column, size in ((labels, classes), (speakers, voices)) if size]
    return np.stack(columns, 1) if columns else np.zeros((len(labels), 0), np.int64)


def sound_stage1(run: Run, name: str, device: torch.device) -> LoadedSound:
    """The trained stage one of a model.

    Raises:
        RunError: it is missing, unfinished or damaged.
    """
    folder = run.stage1_folder(name)
    if not is_finished(folder):
        verb = "train-codebook" if name.startswith("vq-vae") else "train-baseline"
        trained = ", ".join(run.trained_models()) or "none"
        raise RunError(
            f"{run.path} holds no finished stage one of model {name} (finished: {trained}); run {verb} first"
        )
    return load_model(folder, device, lambda record: build_stage1(record["kind"], record["architecture"]))


def codebook_stage1(run: Run, name: str, device: torch.device) -> Loaded[SoundVQVAE]:
    """The same, which must have codes.

    Raises:
        UsageError: the model is continuous.
        RunError: it is missing, unfinished or damaged.
    """
    loaded = sound_stage1(run, name, device)
    if not isinstance(loaded.model, SoundVQVAE):
        raise UsageError(f"model {name} has continuous latents and no codes; choose a vq-vae")
    return Loaded(model=loaded.model, checkpoint=loaded.checkpoint)


def _follower(run: Run, folder: Path, what: str) -> None:
    if not is_finished(folder):
        raise RunError(f"{folder} holds no finished {what}; run train-{what} {run.path} first")


def sound_prior(run: Run, name: str, stage1: Loaded[Any], device: torch.device) -> LoadedWaveNet:
    """The trained prior of a model.

    Raises:
        RunError: it is missing, unfinished, damaged, or belongs to another codebook.
    """
    _follower(run, run.prior_folder(name), "prior")
    prior = load_model(run.prior_folder(name), device, lambda record: WaveNet(**as_arguments(record["architecture"])))
    check_made_for(prior, stage1, "prior")
    return prior


def sound_decoder(run: Run, name: str, stage1: Loaded[Any], device: torch.device) -> LoadedDecoder:
    """The trained WaveNet decoder of a model.

    Raises:
        RunError: it is missing, unfinished, damaged, or belongs to another codebook.
    """
    _follower(run, run.decoder_folder(name), "decoder")
    decoder = load_model(run.decoder_folder(name), device, lambda record: WaveNetDecoder(**record["architecture"]))
    check_made_for(decoder, stage1, "decoder")
    return decoder


def sound_parameters(model: torch.nn.Module) -> int:
    """Numbers a model consists of, an EMA codebook included."""
    codebook = model.quantiser.codebook if isinstance(model, SoundVQVAE) else None
    buffered = 0 if codebook is None or isinstance(codebook, torch.nn.Parameter) else codebook.numel()
    return sum(parameter.numel() for parameter in model.parameters()) + buffered
