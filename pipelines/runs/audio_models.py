"""Models of sound: built from a recipe or a record, and loaded from a run folder."""

from pathlib import Path
from typing import Any

import torch

from stage1_vqvae import SoundVQVAE, WaveNetDecoder
from stage2_prior import WaveNet
from twostage.errors import RunError, UsageError

from ..modality.audio import build_stage1
from ..modality.interface import as_arguments
from .loading import Loaded, LoadedDecoder, LoadedSound, LoadedWaveNet, check_made_for, load_model
from .run import Run, is_finished


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
