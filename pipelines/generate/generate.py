"""`twostage generate`: prior sample -> decoder, and completions of an image in code space.

Baselines draw from what they have: a VAE from its Gaussian, by label where it is conditional, VIMCO from its table of
probabilities. An autoencoder has nothing to draw from.

Shapes: N items, C x H x W image, G codebooks per position, h x w grid of codes, n of its rows.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO
from twostage.class_names import as_file_name
from twostage.config.model_names import MAIN_MODEL
from twostage.errors import UsageError
from twostage.progress import Progress, say

from ..commands.samples import Generate
from ..media.png import display_scale, fit_of, grid, read_image, to_bytes, write_png
from ..runs.class_numbers import labels_of
from ..runs.device import pick_device, use_threads
from ..runs.run import Run, check_folder
from .decoding import sample_vae, sample_vimco
from .two_stage import TwoStageModel, load_image_run

DEFAULT_COUNT = 64


def count_of(command: Generate) -> int:
    """Images to make."""
    return DEFAULT_COUNT if command.count is None else command.count


@dataclass(frozen=True)
class Generated:
    """New images and what they were asked to be."""

    images: np.ndarray
    """`[N, C, H, W]` in levels: mean images, or samples from an autoregressive decoder."""
    labels: list[int]
    """One per image; empty where they were made without."""
    levels: int
    original: np.ndarray | None = None
    """`[C, H, W]` integer levels of the image that was completed."""


def generate_from_vae(
    model: VAE, command: Generate, device: torch.device, *, record: Mapping[str, Any]
) -> Generated | None:
    """Decoded draws from the Gaussian prior, of a conditional VAE with labels; None on a dry run.

    Raises:
        UsageError: a flag was given that only a prior over codes understands, or a label that the model has not met.
    """
    if command.top_k or command.top_p < 1:
        raise UsageError("--top-k and --top-p choose among codes, but a VAE draws continuous latents: leave them out")
    if command.complete is not None:
        raise UsageError(
            "--complete keeps rows of codes, but a VAE has continuous latents and no prior over their rows"
        )
    if model.classes and command.unlabelled:
        raise UsageError("--unlabelled needs a model that can do without a label, but a conditional VAE is given one")
    if not model.classes and (command.label is not None or command.unlabelled):
        raise UsageError("--label and --unlabelled are for models with labels, but this VAE knows none: see cvae")
    count = count_of(command)
    labels = labels_of(count, label=command.label, record=record) if model.classes else []
    if command.dry_run:
        return None
    images = sample_vae(
        model,
        count,
        labels_N=torch.tensor(labels) if labels else None,
        temperature=command.temperature,
        seed=command.seed,
        device=device,
    )
    return Generated(images=images.cpu().numpy(), labels=labels, levels=model.levels)


def generate_from_vimco(model: VIMCO, command: Generate, device: torch.device) -> Generated | None:
    """Decoded draws from the factorised prior; None on a dry run.

    Raises:
        UsageError: a flag was given that only a learned prior over grids of codes understands, or a top-k out of range.
    """
    if command.label is not None or command.unlabelled or command.complete is not None:
        raise UsageError(
            "--label, --unlabelled and --complete need a prior in which codes know of labels and of one another, but "
            "that of VIMCO is a table of probabilities for each position: choose a vq-vae"
        )
    _check_top_k(command, model.codebook_size)
    if command.dry_run:
        return None
    images = sample_vimco(
        model,
        count_of(command),
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        seed=command.seed,
        device=device,
    )
    return Generated(images=images.cpu().numpy(), labels=[], levels=model.levels)


def _check_top_k(command: Generate, codebook_size: int) -> None:
    if command.top_k > codebook_size:
        raise UsageError(f"--top-k {command.top_k} is more than the {codebook_size} codes of this codebook")


def _labels(model: TwoStageModel, command: Generate) -> list[int]:
    """Label of every image; empty for none.

    Raises:
        UsageError: the prior has no such label, or cannot do without one.
    """
    prior = model.pixelcnn
    completes_freely = command.complete is not None and command.label is None and prior.condition_optional
    if completes_freely or (command.unlabelled and (prior.condition_optional or not prior.classes)):
        return []
    if command.unlabelled:
        raise UsageError(
            "--unlabelled needs a prior trained with label dropout, which this one was not: remove "
            f"{model.prior.checkpoint.path.parent}, run train-prior with --prior.label-dropout 0.1, and generate again"
        )
    return labels_of(count_of(command), label=command.label, record=model.prior.record, told=bool(prior.classes))


@dataclass(frozen=True)
class Opening:
    """What is kept of an image that is completed."""

    image: np.ndarray
    """`[C, H, W]` integer levels."""
    codes: Tensor
    """`[1, G, n, w]`, the first rows of its codes."""


def _opening(model: TwoStageModel, path: Path, rows: int) -> Opening:
    """Read an image and keep the first rows of its codes.

    Raises:
        UsageError: there are not more than `rows` rows.
        DataError: the file is no image of the model's size.
    """
    _, all_rows, _ = model.vqvae.code_shape
    height = model.vqvae.image_shape[1] // all_rows
    if rows >= all_rows:
        raise UsageError(
            f"--keep-rows must be less than the {all_rows} rows of codes (one is {height} image rows), but is {rows}"
        )
    fit = fit_of(model.run.recipe.data)
    image = read_image(path, image_shape=model.vqvae.image_shape, levels=model.vqvae.levels, fit=fit)
    codes = model.vqvae.encode(torch.from_numpy(image)[None].to(model.device))
    say(f"keeping {rows} of {all_rows} rows of codes of {path}: {rows * height} of {height * all_rows} image rows")
    return Opening(image=image, codes=codes[:, :, :rows])


def generate_from_prior(model: TwoStageModel, command: Generate) -> Generated | None:
    """Prior sample -> decoder; None on a dry run.

    Raises:
        UsageError: the labels, --top-k or --keep-rows do not fit the model.
        DataError: the image to complete cannot be used.
    """
    prior, count = model.pixelcnn, count_of(command)
    labels = _labels(model, command)
    _check_top_k(command, prior.codebook_size)
    opening = None
    if command.complete is not None and command.keep_rows is not None:
        opening = _opening(model, command.complete, command.keep_rows)
    if command.dry_run:
        return None
    with Progress("generate", total=count * math.prod(prior.code_shape), unit="code") as progress:
        codes = model.sample_codes(
            count,
            labels=labels or None,
            known=None if opening is None else opening.codes.expand(count, -1, -1, -1),
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            seed=command.seed,
            progress=lambda done, _total: progress.advance(done - progress.done),
        )
    return Generated(
        images=model.decode(codes, seed=command.seed).cpu().numpy(),
        labels=labels,
        levels=model.vqvae.levels,
        original=None if opening is None else opening.image,
    )


def run_generate(command: Generate) -> None:
    """`twostage generate`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device = pick_device(command.device)
    name = command.model or MAIN_MODEL
    stage1 = run.stage1(name, device)
    if isinstance(stage1.model, Autoencoder):
        raise UsageError(
            f"model {name} is an autoencoder and has no distribution over latents to draw from: choose another model, "
            "or see in the report what a Gaussian fitted to its latents gives"
        )
    if isinstance(stage1.model, VAE):
        made = generate_from_vae(stage1.model, command, device, record=stage1.record)
    elif isinstance(stage1.model, VIMCO):
        made = generate_from_vimco(stage1.model, command, device)
    else:
        made = generate_from_prior(load_image_run(run, name, device), command)
    file = command.complete
    count = count_of(command)
    what = ("image" if file is None else "completion") + ("s" if count > 1 else "")
    what = f"{count} {what}" if file is None else f"{count} {what} of {file}"
    if made is None:
        say(f"would write {what} into {command.folder}, with an overview of them; nothing was done")
        return
    prefix, classes = "" if file is None else f"{file.stem}-completed-", tuple(stage1.record["classes"])
    if command.out is None:  # the run's own folder: images of an earlier call would look like this one's
        _remove_images(command.folder, prefix, classes)
    overview = "grid.png" if file is None else f"{file.stem}-completions.png"
    by_class = command.label is None
    _write_images(made, command.folder, classes, prefix=prefix, overview=overview, by_class=by_class)
    said = f"{what} and {overview} in {command.folder}"
    say(said if made.original is None else f"{said}; its first picture is the original")


def _write_images(
    made: Generated, folder: Path, classes: Sequence[str], *, prefix: str, overview: str, by_class: bool
) -> None:
    """One PNG per image, named after its class, and all in one picture, one class a column if asked for `by_class`."""
    pixels_NCHW = to_bytes(made.images, made.levels)
    digits = max(4, len(str(len(pixels_NCHW) - 1)))
    for index, picture_CHW in enumerate(pixels_NCHW):
        suffix = f"-{as_file_name(classes[made.labels[index]])}" if made.labels else ""
        write_png(folder / f"{prefix}{index:0{digits}d}{suffix}.png", picture_CHW)
    if made.original is not None:
        pixels_NCHW = np.concatenate([to_bytes(made.original[None], made.levels), pixels_NCHW])
    columns = math.ceil(math.sqrt(len(pixels_NCHW)))
    if by_class and made.labels and made.original is None:
        columns = len(set(made.labels))
    write_png(folder / overview, grid(pixels_NCHW, columns=columns), scale=display_scale(pixels_NCHW.shape[-1]))


def _remove_images(folder: Path, prefix: str, classes: Sequence[str]) -> None:
    """Remove the images of an earlier call, and nothing else."""
    named = "|".join(re.escape(as_file_name(name)) for name in classes)
    own_name = re.compile(re.escape(prefix) + rf"[0-9]{{4,}}(-({named}))?\.png")
    for path in folder.glob("*.png"):
        if own_name.fullmatch(path.name):
            path.unlink()
