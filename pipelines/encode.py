"""`twostage encode`, `decode` and `reconstruct`: image files -> codes -> image files, together or one half at a time.

Shapes: N items, B items of a batch, C x H x W image, G codebooks per position, h x w grid of codes.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE
from twostage.codes import CodeFile, CodeHeader, check_codebook, is_plain_name, load_codes, save_codes
from twostage.config.check import check_model
from twostage.config.schema import DataConfig
from twostage.errors import RunError, UsageError
from twostage.progress import say

from .bits import psnr_db
from .commands import Decode, Encode, Reconstruct
from .device import pick_device, use_threads
from .extract import encode_images
from .models import MAIN_MODEL
from .pictures import display_scale, fit_of, grid, read_image, to_bytes, write_png
from .run import Run, check_folder, decode_in_batches

BOUND_SAMPLES = 16
"""Posterior samples behind the negative ELBO that is printed of a file."""


def read_images(paths: Sequence[Path], model: VQVAE | VAE, data: DataConfig) -> np.ndarray:
    """Image files as integer levels `[N, C, H, W]`, uint8; brought to size as those of a folder that was trained on.

    Raises:
        UsageError: two files have the same name without suffix, which is what their outputs are named after.
        DataError: a file is no image of the model's size.
    """
    stems = [path.stem for path in paths]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise UsageError(f"several files are named {', '.join(doubled)}: their pictures would overwrite one another")
    fit = fit_of(data)
    return np.stack([read_image(path, image_shape=model.image_shape, levels=model.levels, fit=fit) for path in paths])


@torch.no_grad()
def _reconstruct(model: VQVAE | VAE, x_BCHW: Tensor, *, seed: int, first_item: int) -> tuple[np.ndarray, list[str]]:
    """Reconstructions `[B, C, H, W]` in levels, and what there is to say of each: bits/dim, or PSNR without bits."""
    latents = model.encode(x_BCHW) if isinstance(model, VQVAE) else model.posterior(x_BCHW).mean
    decoded_BCHW = model.decode(latents, seed=seed, first_item=first_item)
    if not model.likelihood_is_discrete:
        errors = (decoded_BCHW - x_BCHW).double().pow(2).flatten(1).mean(1).tolist()
        return decoded_BCHW.cpu().numpy(), [_squared_error(error, model.levels) for error in errors]
    if isinstance(model, VQVAE):
        nats_B, measure = -model.log_prob(x_BCHW, latents), "distortion, bits/dim given the codes"
    else:
        bounds = model.bounds(x_BCHW, samples=BOUND_SAMPLES, seed=seed, first_item=first_item)
        nats_B, measure = -bounds.elbo, "negative ELBO in bits/dim"
    bits = (nats_B / (math.log(2) * model.dims)).tolist()
    return decoded_BCHW.cpu().numpy(), [f"{measure}: {value:.3f}" for value in bits]


def _squared_error(error: float, levels: int) -> str:
    psnr = psnr_db(error, 1, levels)
    shown = "no error" if psnr is None else f"PSNR {psnr:.2f} dB"
    return f"mean squared error {error:.2f} of {levels} levels, {shown}"


def run_reconstruct(command: Reconstruct) -> None:
    """`twostage reconstruct`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    model = run.stage1(name, device).model
    images = read_images(command.files, model, run.recipe.data)
    if command.dry_run:
        say(f"would reconstruct {len(images)} files with {name} into {command.folder}; nothing was done")
        return
    decoded, remarks = [], []
    batch_size = run.recipe.evaluation.batch_size
    for start in range(0, len(images), batch_size):
        x_BCHW = torch.from_numpy(images[start : start + batch_size]).to(device)
        pictures, said = _reconstruct(model, x_BCHW, seed=command.seed, first_item=start)
        decoded.append(pictures)
        remarks += said
    reconstructions = to_bytes(np.concatenate(decoded), model.levels)
    for path, picture_CHW, remark in zip(command.files, reconstructions, remarks, strict=True):
        target = command.folder / f"{path.stem}-reconstructed.png"
        write_png(target, picture_CHW)
        say(f"{path} -> {target} ({remark})")
    pairs = np.stack([to_bytes(images, model.levels), reconstructions], 1).reshape(-1, *images.shape[1:])
    overview = command.folder / "reconstructions.png"
    write_png(overview, grid(pairs, columns=2), scale=display_scale(images.shape[-1]))
    kind = f"reconstructions drawn under seed {command.seed}" if model.autoregressive else "mean reconstructions"
    say(f"originals beside {kind} in {overview}")


def run_encode(command: Encode) -> None:
    """`twostage encode`."""
    run = Run.open(command.run)
    check_folder(command.out.parent)
    if command.out.is_dir():
        raise UsageError(f"--out {command.out} is a folder, but one file of codes is written: name the file")
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = run.stage1(name, device)
    model = stage1.model
    if not isinstance(model, VQVAE):
        raise UsageError(f"model {name} has continuous latents and no codes; choose a vq-vae")
    images = read_images(command.files, model, run.recipe.data)
    names = tuple(path.stem for path in command.files)
    strange = [each for each in names if not is_plain_name(each)]
    if strange:
        raise UsageError(f"a file of codes cannot hold the name {strange[0]!r}; rename the image")
    if command.dry_run:
        say(f"would encode {len(images)} files with {name} into {command.out}; nothing was done")
        return
    batch_size = run.recipe.evaluation.batch_size
    codes = encode_images(model, torch.from_numpy(images), label="encode", batch_size=batch_size, device=device)
    header = CodeHeader(
        dataset=stage1.record["dataset"],
        split="files",
        model=name,
        codebook_size=model.codebook_size,
        codebooks=model.code_shape[0],
        grid=tuple(model.code_shape[1:]),
        classes=0,
        stage1_sha256=stage1.sha256,
        names=names,
    )
    command.out.parent.mkdir(parents=True, exist_ok=True)
    save_codes(command.out, CodeFile(codes=codes, labels=np.zeros(len(codes), np.int64), header=header))
    say(f"{len(codes)} files in {command.out}: {_size(codes, model, command.out.stat().st_size)}")


def _size(codes: np.ndarray, model: VQVAE, stored_bytes: int) -> str:
    """What the codes take: at log2 K bits each, and as stored."""
    per_item = math.prod(codes.shape[1:])
    bits = per_item * math.log2(model.codebook_size)
    return (
        f"{per_item} codes per file, {bits:.0f} bits at log2 {model.codebook_size} each ({bits / model.dims:.3f} "
        f"bits/dim, before the decoder's distortion); {stored_bytes} bytes stored, header and whole bytes per code "
        "included"
    )


def run_decode(command: Decode) -> None:
    """`twostage decode`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device = pick_device(command.device)
    remedy = f"encode the images again with twostage encode {run.path}"
    file = load_codes(command.codes, remedy=remedy)
    header = file.header
    check_model(header.model, source=str(command.codes))  # it becomes part of a path
    stage1 = run.stage1(header.model, device)
    check_codebook(header, path=command.codes, stage1_sha256=stage1.sha256, remedy=remedy)
    model = stage1.model
    shape = (header.codebook_size, header.codebooks, *header.grid)
    if not isinstance(model, VQVAE) or shape != (model.codebook_size, *model.code_shape) or not len(file.codes):
        raise RunError(f"expected codes that fit model {header.model}, but {command.codes} holds others: {remedy}")
    digits = max(4, len(str(len(file.codes) - 1)))
    names = header.names or [f"{index:0{digits}d}" for index in range(len(file.codes))]
    if command.dry_run:
        say(f"would decode {len(names)} images with {header.model} into {command.folder}; nothing was done")
        return
    codes = torch.from_numpy(file.codes).to(device)
    images = decode_in_batches(model, codes, batch_size=run.recipe.evaluation.batch_size, seed=command.seed)
    pixels_NCHW = to_bytes(images.cpu().numpy(), model.levels)
    for name, picture_CHW in zip(names, pixels_NCHW, strict=True):
        write_png(command.folder / f"{name}.png", picture_CHW)
    overview = "grid"
    while overview in names:  # an image called grid keeps its name
        overview += "-of-all"
    columns = math.ceil(math.sqrt(len(names)))
    write_png(
        command.folder / f"{overview}.png", grid(pixels_NCHW, columns=columns), scale=display_scale(images.shape[-1])
    )
    say(f"{len(names)} images and {overview}.png in {command.folder}")
