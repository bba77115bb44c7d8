"""`twostage generate` and `twostage reconstruct`: prior sample -> decoder, and file -> codes -> decoder."""

import math
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.vae import item_noise
from twostage.errors import UsageError
from twostage.progress import Progress, say

from .commands import Generate, Reconstruct
from .device import pick_device, use_threads
from .models import MAIN_MODEL
from .pictures import display_scale, grid, read_image, to_bytes, write_png
from .run import Run, TwoStageModel, check_folder, load_run

DECODE_BATCH = 256
"""Images decoded side by side: the table of 256 masses per sub-pixel is what needs memory."""


_OWN_NAME = re.compile(r"\d{4,}(-label\d+)?\.png")


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
    """Mean images `[count, C, H, W]` in levels from z ~ N(0, temperature^2); item i depends on (seed, i) only."""
    latents = temperature * item_noise(seed, 0, count, model.latent_shape).to(device)
    return torch.cat([model.decode(part) for part in latents.split(DECODE_BATCH)])


@dataclass(frozen=True)
class Generated:
    """New images and what they were asked to be."""

    images: np.ndarray
    """Mean images `[N, C, H, W]` in levels."""
    labels: list[int]
    """One per image; empty where the model knows no labels."""
    levels: int


def generate_from_vae(model: VAE, command: Generate, device: torch.device) -> Generated | None:
    """Decoded draws from the Gaussian prior; None on a dry run.

    Raises:
        UsageError: a flag was given that only a prior over codes understands.
    """
    if command.label is not None or command.top_k or command.top_p < 1:
        raise UsageError("--label, --top-k and --top-p choose among codes, but a VAE draws continuous latents")
    if command.dry_run:
        return None
    images = sample_vae(model, command.count, temperature=command.temperature, seed=command.seed, device=device)
    return Generated(images=images.cpu().numpy(), labels=[], levels=model.levels)


def generate_from_prior(model: TwoStageModel, command: Generate) -> Generated | None:
    """Prior sample -> decoder; None on a dry run.

    Raises:
        UsageError: the label or --top-k is out of range.
    """
    prior = model.pixelcnn
    labels = labels_of(command.count, label=command.label, classes=model.classes if prior.classes else ())
    if command.top_k > prior.codebook_size:
        raise UsageError(f"--top-k {command.top_k} is more than the {prior.codebook_size} codes of this codebook")
    if command.dry_run:
        return None
    with Progress("generate", total=command.count * math.prod(prior.code_shape), unit="code") as progress:
        codes = model.sample_codes(
            command.count,
            labels=labels or None,
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            seed=command.seed,
            progress=lambda done, _total: progress.advance(done - progress.done),
        )
    return Generated(images=model.decode(codes).cpu().numpy(), labels=labels, levels=model.vqvae.levels)


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
    if made is None:
        say(f"would write {command.count} images and grid.png into {command.folder}; nothing was done")
        return
    if command.out is None:  # the run's own folder: images of an earlier call would look like this one's
        for path in command.folder.glob("*.png"):
            if _OWN_NAME.fullmatch(path.name):
                path.unlink()
    pixels_NCHW = to_bytes(made.images, made.levels)
    digits = max(4, len(str(command.count - 1)))
    for index, picture_CHW in enumerate(pixels_NCHW):
        suffix = f"-label{made.labels[index]}" if made.labels else ""
        write_png(command.folder / f"{index:0{digits}d}{suffix}.png", picture_CHW)
    by_class = made.labels and command.label is None
    columns = max(made.labels) + 1 if by_class else math.ceil(math.sqrt(command.count))
    write_png(
        command.folder / "grid.png", grid(pixels_NCHW, columns=columns), scale=display_scale(pixels_NCHW.shape[-1])
    )
    say(f"{command.count} images and grid.png in {command.folder}")


def run_reconstruct(command: Reconstruct) -> None:
    """`twostage reconstruct`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device = pick_device(command.device)
    name = command.model or MAIN_MODEL
    model = run.stage1(name, device).model
    doubled = {path.stem for path in command.files if [p.stem for p in command.files].count(path.stem) > 1}
    if doubled:
        raise UsageError(
            f"several files are named {', '.join(sorted(doubled))}: their pictures would overwrite one another"
        )
    images = np.stack([read_image(path, image_shape=model.image_shape, levels=model.levels) for path in command.files])
    if command.dry_run:
        say(f"would reconstruct {len(images)} files with {name} into {command.folder}; nothing was done")
        return
    x_BCHW = torch.from_numpy(images).to(device)
    if isinstance(model, VQVAE):
        codes = model.encode(x_BCHW)
        bits_B = -model.log_prob(x_BCHW, codes) / (math.log(2) * model.dims)
        means, measure = model.decode(codes), "distortion, bits/dim given the codes"
    else:
        bits_B = -model.bounds(x_BCHW, samples=16, seed=run.recipe.seed).elbo / (math.log(2) * model.dims)
        means, measure = model.reconstruct(x_BCHW), "negative ELBO in bits/dim"
    originals, reconstructions = to_bytes(images, model.levels), to_bytes(means.cpu().numpy(), model.levels)
    scale = display_scale(images.shape[-1])
    for path, picture_CHW, bits in zip(command.files, reconstructions, bits_B.tolist(), strict=True):
        target = command.folder / f"{path.stem}-reconstructed.png"
        write_png(target, picture_CHW)
        say(f"{path} -> {target} ({measure}: {bits:.3f})")
    pairs = np.stack([originals, reconstructions], 1).reshape(-1, *images.shape[1:])
    write_png(command.folder / "reconstructions.png", grid(pairs, columns=2), scale=scale)
    say(f"originals beside reconstructions in {command.folder / 'reconstructions.png'}")
