"""Images: which networks a recipe asks for, and what trains them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from stage1_vqvae import VAE, VQVAE, HierarchicalVQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.baseline_tasks import AutoencoderTask, VIMCOTask
from stage1_vqvae.images.codec import ImageCodec
from stage1_vqvae.images.networks import image_tensor
from stage1_vqvae.images.picture_decoder import PictureDecoder
from stage1_vqvae.images.picture_task import PictureDecoderTask
from stage1_vqvae.images.tasks import CodebookTask, GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vimco import VIMCO
from stage1_vqvae.images.with_picture import WithPictureDecoder
from stage1_vqvae.interface import Codec
from stage1_vqvae.priced import Priced
from stage2_prior import HierarchicalPrior, PixelCNN
from stage2_prior.prices import FrozenPrior
from stage2_prior.training import PriorTask
from twostage.config.dial import Asked, Dialled, dial_images
from twostage.config.model_names import ModelSpec
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data import ImageDataset, load_dataset
from twostage.errors import RunError
from twostage.grids import positions_of
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from .checks import as_arguments, check_codebook_size, check_free_bits, check_labels_exist
from .files import Files
from .image_files import ImageFiles
from .image_measures import ImageMeasures
from .image_pictures import ImagePictures
from .interface import MIRRORED, SPLITS, Stage
from .pictures import Pictures

Stage1 = VQVAE | HierarchicalVQVAE | VAE | Autoencoder | VIMCO
"""A model of images; a conditional VAE is a `VAE` with classes."""
ImagePrior = PixelCNN | HierarchicalPrior
"""A prior over codes of one grid, or of several."""


def stage1_architecture(spec: ModelSpec, recipe: Recipe, dataset: ImageDataset) -> dict[str, Any]:
    """Keyword arguments of the model for this data set.

    Raises:
        UsageError: a conditional model is asked for, but the data set has no labels.
    """
    common = {"image_shape": dataset.shape, "levels": dataset.levels, **recipe.stage1.networks}
    gaussian = asdict(recipe.gaussian)
    if spec.kind == "vq-vae":
        auxiliary_weight = recipe.quantiser.auxiliary_weight
        arguments = recipe.quantiser.arguments(update=spec.codebook_update)
        grids = {"hierarchy": recipe.stage1.hierarchy} if recipe.stage1.hierarchy > 1 else {}
        return {**common, "auxiliary_weight": auxiliary_weight, **arguments, **grids}
    if spec.kind == "vimco":
        quantiser = recipe.quantiser
        shape = {
            "codebook_size": quantiser.size,
            "codebooks": quantiser.codebooks,
            "embedding_dim": quantiser.embedding_dim,
        }
        return {**common, **shape, **asdict(recipe.vimco)}
    if spec.kind == "ae":
        return {**common, **_without(gaussian, "kl_warmup_steps", "free_bits")}
    if spec.kind == "vae":
        return {**common, **gaussian, "beta": spec.beta}
    check_labels_exist(spec, dataset, item="image")
    return {**common, **gaussian, "beta": spec.beta, "classes": len(dataset.classes)}


def _without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


def prior_architecture(recipe: Recipe, stage1: ImageCodec, classes: int) -> dict[str, Any]:
    """Keyword arguments of `PixelCNN`, or of several grids of `HierarchicalPrior`, over the codes of `stage1`."""
    settings = asdict(recipe.prior)
    conditional = settings.pop("conditional")
    return {
        "codebook_size": stage1.codebook_size,
        "codebooks": stage1.codebooks,
        **({"grid": stage1.grids[0]} if len(stage1.grids) == 1 else {"grids": stage1.grids}),
        "classes": (classes,) if conditional and classes else (),
        **settings,
    }


_OF_PICTURE_TRAINING = ("feature_weight", "adversarial_weight", "adversarial_start")
"""Settings of the picture decoder that its task reads, and no network."""


def decoder_architecture(recipe: Recipe, dataset: ImageDataset) -> dict[str, Any]:
    """Keyword arguments of `PictureDecoder` on the codes of a codebook of the recipe."""
    return {
        **_without(asdict(recipe.picture_decoder), *_OF_PICTURE_TRAINING),
        "image_shape": dataset.shape,
        "levels": dataset.levels,
        "in_channels": recipe.quantiser.embedding_dim * recipe.stage1.hierarchy,
        "downsampling": recipe.stage1.downsampling,
    }


_CLASSES: dict[str, type[Stage1]] = {
    kind: cls for cls in (VQVAE, HierarchicalVQVAE, Autoencoder, VAE, VIMCO) for kind in cls.kinds
}
_PRIORS: dict[str, type[ImagePrior]] = {kind: cls for cls in (PixelCNN, HierarchicalPrior) for kind in cls.kinds}


def build_stage1(kind: str, architecture: Mapping[str, Any]) -> Stage1:
    """A freshly initialised model (torch's global generator) of one of the known kinds."""
    if kind not in _CLASSES:
        raise RunError(f"this version knows the model kinds {', '.join(_CLASSES)}, not {kind!r}: update twostage")
    return _CLASSES[kind](**as_arguments(architecture))


def _tensor(array: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array).to(device)


class Images:
    """Images as a `Modality`: encoder, codebook and decoder on grids, and a PixelCNN over the codes."""

    sections: Mapping[Stage, str] = {"stage1": "stage1", "decoder": "picture_decoder", "prior": "prior"}
    files: Files = ImageFiles()
    decoders: Mapping[str, str] = {"convolutional": "likelihood decoder", "picture": "picture decoder"}

    def load(self, recipe: Recipe) -> ImageDataset:
        return load_dataset(recipe.data)

    def describe(self, dataset: ImageDataset) -> str:
        return f"images of shape {dataset.shape}, {dataset.levels} levels"

    def facts(self, dataset: ImageDataset) -> dict[str, Any]:
        return {}

    def stages(self, spec: ModelSpec, recipe: Recipe) -> tuple[Stage, ...]:
        return ("stage1", "prior") if spec.kind == "vq-vae" else ("stage1",)

    def stage1(self, spec: ModelSpec, recipe: Recipe, dataset: ImageDataset) -> tuple[str, dict[str, Any]]:
        hierarchical = spec.kind == "vq-vae" and recipe.stage1.hierarchy > 1
        kind = "hierarchical-vq-vae" if hierarchical else spec.kind
        return kind, stage1_architecture(spec, recipe, dataset)

    def follower(
        self, stage: Stage, recipe: Recipe, codebook: ImageCodec, dataset: ImageDataset
    ) -> tuple[str, dict[str, Any]]:
        if stage == "decoder":
            return "picture-decoder", decoder_architecture(recipe, dataset)
        kind = "pixelcnn" if len(codebook.grids) == 1 else "hierarchical-pixelcnn"
        return kind, prior_architecture(recipe, codebook, len(dataset.classes))

    def build(self, kind: str, arguments: Mapping[str, Any]) -> nn.Module:
        if kind in _PRIORS:
            return _PRIORS[kind](**as_arguments(arguments))
        if kind == "picture-decoder":
            return PictureDecoder(**as_arguments(arguments))
        return build_stage1(kind, arguments)

    def with_decoder(
        self, codebook: ImageCodec, decoder: PictureDecoder, progress: Callable[[int, int], None] | None = None
    ) -> Codec:
        return WithPictureDecoder(codebook, decoder)

    def dial(self, asked: Asked, dataset: ImageDataset) -> Dialled:
        _, height, width = dataset.shape
        return dial_images(asked, height=height, width=width, items=len(dataset.train))

    def check(self, model: Any, recipe: Recipe, dataset: ImageDataset, training: TrainingConfig, *, label: str) -> None:
        if model.latents == "codes":
            vectors = len(dataset.train) * min(positions_of(model.grids))
            check_codebook_size(model.codebook_size, vectors, f"{len(dataset.train)} training images", label=label)
        if model.latents == "gaussian":
            check_free_bits(model.free_bits, training, label=label)

    def stage1_task(
        self,
        model: Any,
        recipe: Recipe,
        dataset: ImageDataset,
        device: torch.device,
        prior: nn.Module | None = None,
    ) -> Task:
        source = dataset.train
        common: dict[str, Any] = {
            "train": TrainingImages(
                image_tensor(source.images).to(device),
                horizontal_flips=recipe.data.horizontal_flips,
                intensities=None if source.intensities is None else image_tensor(source.intensities).to(device),
                intensity_levels=dataset.intensity_levels,
            ),
            "validation": image_tensor(dataset.validation.images).to(device),
            "evaluation_batch_size": recipe.evaluation.batch_size,
        }
        if model.latents == "codes":
            return CodebookTask(model, **common, **self._beginning(recipe, dataset, device, prior))
        if model.latents == "none":
            return AutoencoderTask(model, **common)
        if model.latents == "table":
            return VIMCOTask(model, **common)
        if model.classes:
            common["train_labels"] = _tensor(source.labels, device)
            common["validation_labels"] = _tensor(dataset.validation.labels, device)
        return GaussianTask(model, **common)

    def _beginning(
        self, recipe: Recipe, dataset: ImageDataset, device: torch.device, prior: Any | None
    ) -> dict[str, Any]:
        """How the training of a codebook begins: from data, or from what there is, with a price on its codes."""
        if prior is None:
            return {"kmeans": recipe.quantiser.starts_from_data, "seed": recipe.seed}
        train, validation = (
            _tensor(split.labels, device)[:, None] if prior.classes else None
            for split in (dataset.train, dataset.validation)
        )
        priced = Priced(FrozenPrior(prior), train_condition=train, validation_condition=validation)
        return {"kmeans": False, "seed": recipe.seed, "priced": priced}

    def follower_task(
        self,
        model: ImagePrior | PictureDecoder,
        codebook: ImageCodec,
        codes: Mapping[str, CodeFile],
        recipe: Recipe,
        dataset: ImageDataset,
    ) -> Task:
        device = next(model.parameters()).device
        files, validation = [codes[split] for split in ("train", MIRRORED) if split in codes], codes["validation"]
        train_codes = _tensor(np.concatenate([file.codes for file in files]), device)
        if isinstance(model, PictureDecoder):
            return PictureDecoderTask(
                model,
                codec=codebook,
                train=image_tensor(dataset.train.images).to(device),
                train_codes=train_codes,
                validation=image_tensor(dataset.validation.images).to(device),
                validation_codes=_tensor(validation.codes, device),
                evaluation_batch_size=recipe.evaluation.batch_size,
                **{key: getattr(recipe.picture_decoder, key) for key in _OF_PICTURE_TRAINING},
            )

        def condition(*files: CodeFile) -> torch.Tensor | None:
            labels = np.concatenate([file.labels for file in files])
            return _tensor(labels, device)[:, None] if model.classes else None

        return PriorTask(
            model,
            train=train_codes,
            train_condition=condition(*files),
            validation=_tensor(validation.codes, device),
            validation_condition=condition(validation),
            evaluation_batch_size=recipe.evaluation.batch_size,
        )

    def code_splits(self, recipe: Recipe) -> tuple[str, ...]:
        return (*SPLITS, MIRRORED) if recipe.data.horizontal_flips else SPLITS

    def measures(self, recipe: Recipe, dataset: ImageDataset, split: str) -> ImageMeasures:
        return ImageMeasures(dataset, split, downsampling=recipe.stage1.downsampling)

    def pictures(self, recipe: Recipe, dataset: ImageDataset) -> Pictures:
        return ImagePictures(recipe, dataset)
