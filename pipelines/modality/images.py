"""Images: which networks a recipe asks for, what trains them, and how a split becomes codes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.baseline_tasks import AutoencoderTask, VIMCOTask
from stage1_vqvae.images.tasks import CodebookTask, GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vimco import VIMCO
from twostage.config.model_names import ModelSpec
from twostage.config.schema import Recipe
from twostage.data import ImageDataset
from twostage.distributed import own_batches, sum_over_ranks, world_size
from twostage.errors import RunError, UsageError
from twostage.progress import Progress
from twostage.training.task import Task

from .interface import as_arguments


def encode_images(
    model: VQVAE,
    images_NCHW: torch.Tensor,
    *,
    label: str,
    batch_size: int,
    device: torch.device,
    mirrored: bool = False,
) -> np.ndarray:
    """Codes `[N, G, h, w]`, int64, of integer images, in every process; `label` names the progress bar.

    Args:
        mirrored: encode the images mirrored left to right, batch by batch and without a second copy of all.
    """
    # int32: of several processes each sends all of it.
    codes_NGHW = torch.zeros(len(images_NCHW), *model.code_shape, dtype=torch.int32)
    with Progress(label, total=len(images_NCHW), unit="image") as progress:
        for rows in own_batches(len(images_NCHW), batch_size):
            images = images_NCHW[rows].flip(-1) if mirrored else images_NCHW[rows]
            codes_NGHW[rows] = model.encode(images.to(device)).to("cpu", torch.int32)
            progress.advance_shared(rows.stop - rows.start, world_size())
    return sum_over_ranks(codes_NGHW)[0].numpy().astype(np.int64)


Stage1 = VQVAE | VAE | Autoencoder | VIMCO
"""A model of images; a conditional VAE is a `VAE` with classes."""


def stage1_architecture(spec: ModelSpec, recipe: Recipe, dataset: ImageDataset) -> dict[str, Any]:
    """Keyword arguments of the model for this data set.

    Raises:
        UsageError: a conditional model is asked for, but the data set has no labels.
    """
    common = {"image_shape": dataset.shape, "levels": dataset.levels, **asdict(recipe.stage1)}
    quantiser, gaussian = asdict(recipe.quantiser), asdict(recipe.gaussian)
    if spec.kind == "vq-vae":
        return {**common, **_without(quantiser, "init"), "update": spec.codebook_update}
    if spec.kind == "vimco":
        shape = {key: quantiser[key] for key in ("codebook_size", "codebooks", "embedding_dim")}
        return {**common, **shape, **asdict(recipe.vimco)}
    if spec.kind == "ae":
        return {**common, **_without(gaussian, "kl_warmup_steps", "free_bits")}
    if spec.kind == "vae":
        return {**common, **gaussian, "beta": spec.beta}
    if not dataset.classes:
        raise UsageError(
            f"model {spec.name} is given the label of every image, but {dataset.name} has no labels: choose vae"
        )
    return {**common, **gaussian, "beta": spec.beta, "classes": len(dataset.classes)}


def _without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def prior_architecture(recipe: Recipe, stage1: VQVAE, classes: int) -> dict[str, Any]:
    """Keyword arguments of `PixelCNN` over the codes of `stage1`."""
    settings = asdict(recipe.prior)
    conditional = settings.pop("conditional")
    groups, *grid = stage1.code_shape
    return {
        "codebook_size": stage1.codebook_size,
        "codebooks": groups,
        "grid": tuple(grid),
        "classes": (classes,) if conditional and classes else (),
        **settings,
    }


_CLASSES: dict[str, type[Stage1]] = {"vq-vae": VQVAE, "ae": Autoencoder, "vae": VAE, "cvae": VAE, "vimco": VIMCO}


def build_stage1(kind: str, architecture: Mapping[str, Any]) -> Stage1:
    """A freshly initialised model (torch's global generator) of one of the known kinds."""
    if kind not in _CLASSES:
        raise RunError(f"this version knows the model kinds {', '.join(_CLASSES)}, not {kind!r}: update twostage")
    return _CLASSES[kind](**as_arguments(architecture))


def _tensor(array: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


def _stage1_task(model: Stage1, recipe: Recipe, dataset: ImageDataset, device: torch.device) -> Task:
    """What trains a model of that kind on the data, which go to the device."""
    source = dataset.train
    common: dict[str, Any] = {
        "train": TrainingImages(
            _tensor(source.images, device),
            horizontal_flips=recipe.data.horizontal_flips,
            intensities=None if source.intensities is None else _tensor(source.intensities, device),
            intensity_levels=dataset.intensity_levels,
        ),
        "validation": _tensor(dataset.validation.images, device),
        "evaluation_batch_size": recipe.evaluation.batch_size,
    }
    if isinstance(model, VQVAE):
        return CodebookTask(model, **common, kmeans=recipe.quantiser.init == "kmeans", seed=recipe.seed)
    if isinstance(model, Autoencoder):
        return AutoencoderTask(model, **common)
    if not isinstance(model, VAE):
        return VIMCOTask(model, **common)
    if model.classes:
        common["train_labels"] = _tensor(source.labels, device)
        common["validation_labels"] = _tensor(dataset.validation.labels, device)
    return GaussianTask(model, **common)
