"""`twostage generate` and `twostage reconstruct`: prior sample -> decoder, and file -> codes -> decoder."""

import math

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
from .run import Run, load_run


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
    return model.decode(temperature * item_noise(seed, 0, count, model.latent_shape).to(device))


def _generate_images(command: Generate, run: Run, device: torch.device) -> tuple[np.ndarray, list[int], int]:
    """Mean images in levels, their labels, and the number of levels."""
    name = command.model or MAIN_MODEL
    stage1 = run.stage1(name, device)
    if isinstance(stage1.model, VAE):
        if command.label is not None:
            raise UsageError(f"--label needs a prior that knows labels; model {name} generates without")
        if command.top_k or command.top_p < 1:
            raise UsageError(f"--top-k and --top-p choose among codes; model {name} has continuous latents")
        images = sample_vae(
            stage1.model, command.count, temperature=command.temperature, seed=command.seed, device=device
        )
        return images.cpu().numpy(), [], stage1.model.levels
    two_stage = load_run(run.path, model=name, device=device)
    conditional = bool(two_stage.pixelcnn.classes)
    labels = labels_of(command.count, label=command.label, classes=two_stage.classes if conditional else ())
    symbols = command.count * math.prod(two_stage.pixelcnn.code_shape)
    with Progress("generate", total=symbols, unit="code") as progress:
        codes = two_stage.sample_codes(
            command.count,
            labels=torch.tensor(labels) if labels else None,
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            seed=command.seed,
            progress=lambda done, _total: progress.advance(done - progress.done),
        )
    return two_stage.vqvae.decode(codes).cpu().numpy(), labels, two_stage.vqvae.levels


def run_generate(command: Generate) -> None:
    """`twostage generate`."""
    run = Run.open(command.run)
    use_threads(run.recipe.threads)
    device = pick_device(command.device)
    if command.dry_run:
        run.stage1(command.model or MAIN_MODEL, device)
        say(f"would write {command.count} images and grid.png into {command.folder}; nothing was done")
        return
    images, labels, levels = _generate_images(command, run, device)
    pixels_NCHW = to_bytes(images, levels)
    digits = len(str(command.count - 1))
    for index, picture_CHW in enumerate(pixels_NCHW):
        suffix = f"-label{labels[index]}" if labels else ""
        write_png(command.folder / f"{index:0{digits}d}{suffix}.png", picture_CHW)
    columns = math.ceil(math.sqrt(command.count)) if command.label is not None or not labels else max(labels) + 1
    sheet = grid(pixels_NCHW, columns=columns)
    write_png(command.folder / "grid.png", sheet, scale=display_scale(pixels_NCHW.shape[-1]))
    say(f"{command.count} images and grid.png in {command.folder}")


def run_reconstruct(command: Reconstruct) -> None:
    """`twostage reconstruct`."""
    run = Run.open(command.run)
    use_threads(run.recipe.threads)
    device = pick_device(command.device)
    name = command.model or MAIN_MODEL
    model = run.stage1(name, device).model
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
