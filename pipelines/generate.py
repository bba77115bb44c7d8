"""`twostage generate`: prior sample -> decoder, and completions of an image in code space.

Shapes: N items, C x H x W image, G codebooks per position, h x w grid of codes, n of its rows.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE
from stage1_vqvae.vae import item_noise
from twostage.errors import UsageError
from twostage.progress import Progress, say

from .commands import Generate
from .device import pick_device, use_threads
from .models import MAIN_MODEL
from .pictures import display_scale, fit_of, grid, read_image, to_bytes, write_png
from .run import Run, TwoStageModel, check_folder, decode_in_batches, load_run

DECODE_BATCH = 256
"""Images decoded side by side: the table of 256 masses per sub-pixel is what needs memory."""


def labels_of(count: int, *, label: int | None, classes: tuple[str, ...]) -> list[int]:
    """Label of every image: the one asked for, or the classes in turn.

    Raises:
        UsageError: the data set has no such label.
    """
    if label is None:
        return [index % len(classes) for index in range(count)] if classes else []
    if not 0 <= label < len(classes):
        expected = f"0 to {len(classes) - 1} ({', '.join(classes)})" if classes else "none, its data have no labels"
        raise UsageError(f"--label {label} is out of range: this model's labels are {expected}")
    return [label] * count


@torch.no_grad()
def sample_vae(model: VAE, count: int, *, temperature: float, seed: int, device: torch.device) -> Tensor:
    """Images `[count, C, H, W]` in levels from z ~ N(0, temperature^2); item i depends on (seed, i) only."""
    latents = temperature * item_noise(seed, 0, count, model.latent_shape).to(device)
    return decode_in_batches(model, latents, batch_size=DECODE_BATCH, seed=seed)


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


def generate_from_vae(model: VAE, command: Generate, device: torch.device) -> Generated | None:
    """Decoded draws from the Gaussian prior; None on a dry run.

    Raises:
        UsageError: a flag was given that only a prior over codes understands.
    """
    if command.label is not None or command.unlabelled or command.top_k or command.top_p < 1:
        raise UsageError(
            "--label, --unlabelled, --top-k and --top-p choose among codes, but a VAE draws continuous latents"
        )
    if command.complete is not None:
        raise UsageError(
            "--complete keeps rows of codes, but a VAE has continuous latents and no prior over their rows"
        )
    if command.dry_run:
        return None
    images = sample_vae(model, command.count, temperature=command.temperature, seed=command.seed, device=device)
    return Generated(images=images.cpu().numpy(), labels=[], levels=model.levels)


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
    return labels_of(command.count, label=command.label, classes=model.classes if prior.classes else ())


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
    prior, count = model.pixelcnn, command.count
    labels = _labels(model, command)
    if command.top_k > prior.codebook_size:
        raise UsageError(f"--top-k {command.top_k} is more than the {prior.codebook_size} codes of this codebook")
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
    stage1 = run.stage1(name, device).model
    if isinstance(stage1, VAE):
        made = generate_from_vae(stage1, command, device)
    else:
        made = generate_from_prior(load_run(run.path, model=name, device=device), command)
    file = command.complete
    what = f"{command.count} images" if file is None else f"{command.count} completions of {file}"
    if made is None:
        say(f"would write {what} into {command.folder}, with an overview of them; nothing was done")
        return
    prefix = "" if file is None else f"{file.stem}-completed-"
    if command.out is None:  # the run's own folder: images of an earlier call would look like this one's
        _remove_images(command.folder, prefix)
    overview = "grid.png" if file is None else f"{file.stem}-completions.png"
    _write_images(made, command.folder, prefix=prefix, overview=overview, by_class=command.label is None)
    said = f"{what} and {overview} in {command.folder}"
    say(said if made.original is None else f"{said}; its first picture is the original")


def _write_images(made: Generated, folder: Path, *, prefix: str, overview: str, by_class: bool) -> None:
    """One PNG per image and all of them in one picture, one class a column if they are asked for `by_class`."""
    pixels_NCHW = to_bytes(made.images, made.levels)
    digits = max(4, len(str(len(pixels_NCHW) - 1)))
    for index, picture_CHW in enumerate(pixels_NCHW):
        suffix = f"-label{made.labels[index]}" if made.labels else ""
        write_png(folder / f"{prefix}{index:0{digits}d}{suffix}.png", picture_CHW)
    if made.original is not None:
        pixels_NCHW = np.concatenate([to_bytes(made.original[None], made.levels), pixels_NCHW])
    columns = math.ceil(math.sqrt(len(pixels_NCHW)))
    if by_class and made.labels and made.original is None:
        columns = max(made.labels) + 1
    write_png(folder / overview, grid(pixels_NCHW, columns=columns), scale=display_scale(pixels_NCHW.shape[-1]))


def _remove_images(folder: Path, prefix: str) -> None:
    """Remove the images of an earlier call, and nothing else."""
    own_name = re.compile(re.escape(prefix) + r"\d{4,}(-label\d+)?\.png")
    for path in folder.glob("*.png"):
        if own_name.fullmatch(path.name):
            path.unlink()
