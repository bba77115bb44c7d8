"""Sheets of small pictures for the report: samples, reconstructions, and samples beside their nearest training images.

Shapes: N samples, M training images, C x H x W image.
"""

from dataclasses import dataclass

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from twostage.data import ImageDataset
from twostage.metrics.memorisation import Neighbours, WithMirrored, memorisation, nearest_images
from twostage.metrics.statistics import evenly
from twostage.printable import show

from ..media.png import grid, to_bytes
from ..runs.class_numbers import trained_numbers
from ..runs.loading import LoadedStage1
from ..runs.run import Run
from .decoding import reconstruct, sample_autoencoder, sample_vae, sample_vimco, to_levels
from .two_stage import open_model as load_image_run

ROWS = 10
"""Samples per class, or rows of ten where there are no classes."""
MOST_CLASSES = 16
RECONSTRUCTIONS = 16
COMPARED = 100
"""Samples, and as many test images, whose nearest training images are looked up."""
SHOWN = 16
NEIGHBOURS = 3
FITTED = 5000
"""Most training images behind the Gaussian that stands in for an autoencoder's missing prior."""


@dataclass(frozen=True)
class Sheet:
    """One picture made of many, uint8 `[C, H', W']`."""

    kind: str
    """What it shows, in one word: part of its file name."""
    picture_CHW: np.ndarray
    caption: str


@dataclass(frozen=True)
class ReferenceImages:
    """What samples are compared with: integer levels `[M, C, H, W]`, and how near test images come to them."""

    images_MCHW: np.ndarray | WithMirrored
    held_out: Neighbours


def reference_images(run: Run, dataset: ImageDataset) -> ReferenceImages:
    """The run's training images, mirrored ones too where it trains on them."""
    train = dataset.train.images
    images_MCHW = WithMirrored(train) if run.recipe.data.horizontal_flips else train
    test_images = dataset.test.images[evenly(len(dataset.test), COMPARED)]
    return ReferenceImages(images_MCHW=images_MCHW, held_out=nearest_images(test_images, images_MCHW, count=1))


def model_sheets(
    run: Run,
    name: str,
    stage1: LoadedStage1,
    dataset: ImageDataset,
    reference: ReferenceImages,
    *,
    device: torch.device,
    seed: int,
) -> list[Sheet]:
    """All sheets of one model; a VQ-VAE needs its prior, draws of an autoencoder more than one training image."""
    levels = stage1.model.levels
    if isinstance(stage1.model, Autoencoder) and len(dataset.train) < 2:
        return [_reconstructions(name, stage1, dataset, device=device, seed=seed)]
    samples_NCHW, columns, caption = _samples(run, name, stage1, dataset, device=device, seed=seed)
    return [
        Sheet("samples", grid(to_bytes(samples_NCHW, levels), columns=columns), caption),
        _reconstructions(name, stage1, dataset, device=device, seed=seed),
        neighbour_sheet(name, to_levels(samples_NCHW[:COMPARED], levels), reference, levels=levels),
    ]


def _samples(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, *, device: torch.device, seed: int
) -> tuple[np.ndarray, int, str]:
    """Images `[N, C, H, W]` in levels, columns of their sheet, and its caption."""
    model, count = stage1.model, 10 * ROWS
    how = ", pixels sampled" if model.autoregressive else ""
    if isinstance(model, Autoencoder):
        images_MCHW = dataset.train.images[evenly(len(dataset.train), FITTED)]
        images = sample_autoencoder(model, images_MCHW, count, seed=seed, device=device)
        source = "a Gaussian fitted to the latents of training images, because an autoencoder has no prior"
        return images.cpu().numpy(), 10, f"{name}: decoded draws from {source}{how}."
    if not isinstance(model, VAE | VQVAE):
        images = sample_vimco(model, count, seed=seed, device=device)
        return images.cpu().numpy(), 10, f"{name}: decoded draws from its factorised prior{how}, temperature 1."
    two_stage = load_image_run(run, name, device) if isinstance(model, VQVAE) else None
    conditional = two_stage.pixelcnn.classes if two_stage is not None else isinstance(model, VAE) and model.classes
    record = stage1.record if two_stage is None else two_stage.prior.record
    trained = trained_numbers(record, "labels") if conditional else []
    columns = min(len(trained), MOST_CLASSES) or 10
    labels = torch.tensor(trained[:columns]).repeat(ROWS) if trained else None
    if two_stage is not None:
        images, source = two_stage.generate(columns * ROWS, labels=labels, seed=seed), "prior sample -> decoder"
    else:
        assert isinstance(model, VAE)
        images = sample_vae(model, columns * ROWS, labels_N=labels, seed=seed, device=device)
        source = "decoded draws from the Gaussian prior"
    named = show([record["classes"][number] for number in trained[:columns]], most=MOST_CLASSES)
    by_class = f", one class a column, from the left {named}" if trained else ""
    if len(trained) > columns:
        by_class += f" (the first {columns} of {len(trained)})"
    return images.cpu().numpy(), columns, f"{name}: {source}{how}{by_class}, temperature 1."


def _reconstructions(
    name: str, stage1: LoadedStage1, dataset: ImageDataset, *, device: torch.device, seed: int
) -> Sheet:
    model = stage1.model
    chosen = evenly(len(dataset.test), RECONSTRUCTIONS)
    originals = dataset.test.images[chosen]
    decoded = reconstruct(model, originals, dataset.test.labels[chosen], seed=seed, device=device)
    pairs = np.stack([to_bytes(originals, model.levels), to_bytes(decoded, model.levels)], 1)
    what = "sampled reconstructions" if model.autoregressive else "reconstructions"
    return Sheet(
        "reconstructions",
        grid(pairs.reshape(-1, *originals.shape[1:]), columns=8),
        f"{name}: test images (left of each pair) and {what}.",
    )


def neighbour_sheet(name: str, samples_NCHW: np.ndarray, reference: ReferenceImages, *, levels: int) -> Sheet:
    """Strips of a sample and its nearest training images, and in the caption whether the model repeats them.

    Args:
        name: of the model.
        samples_NCHW: uint8 levels; all are compared, evenly chosen ones shown.
        reference: what they are compared with.
        levels: size of the alphabet.
    """
    count = min(NEIGHBOURS, len(reference.images_MCHW))
    found = nearest_images(samples_NCHW, reference.images_MCHW, count=count)
    strips = []
    for index in evenly(len(samples_NCHW), SHOWN):
        strip_NCHW = np.concatenate([samples_NCHW[index : index + 1], reference.images_MCHW[found.indices_Nk[index]]])
        strips.append(grid(to_bytes(strip_NCHW, levels), columns=1 + count))
    which = "is the nearest training image" if count == 1 else f"are the {count} nearest training images"
    return Sheet(
        "neighbours",
        grid(np.stack(strips), columns=4, border=3, background=255),
        f"{name}: in each strip a sample, left; beside it {which}. {memorisation(found, reference.held_out).sentence}",
    )
