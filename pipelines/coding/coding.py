"""`twostage encode`, `decode` and `reconstruct`: image files -> codes -> image files, together or one half at a time.

Shapes: N items, B items of a batch, C x H x W image, G codebooks per position, h x w grid of codes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from twostage.config.model_names import MAIN_MODEL, check_model
from twostage.config.schema import DataConfig
from twostage.errors import RunError, UsageError
from twostage.metrics.statistics import psnr_db
from twostage.printable import show
from twostage.progress import say
from twostage.storage.code_header import CodeHeader, is_plain_name
from twostage.storage.codes import CodeFile, check_codebook, load_codes, save_codes

from ..commands.samples import Decode, Encode, Reconstruct
from ..generate.decoding import decode_in_batches, reconstruct
from ..media.png import display_scale, fit_of, grid, read_image, to_bytes, write_png
from ..modality.images import Stage1, encode_images
from ..runs.class_numbers import class_number
from ..runs.device import pick_device, use_threads
from ..runs.loading import LoadedStage1
from ..runs.run import Run, check_folder

BOUND_SAMPLES = 16
"""Posterior samples behind the negative ELBO that is printed of a file."""


def read_images(paths: Sequence[Path], model: Stage1, data: DataConfig) -> np.ndarray:
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
def _reconstruct(
    model: Stage1, x_BCHW: Tensor, label: int | None, *, seed: int, first_item: int
) -> tuple[np.ndarray, list[str]]:
    """Reconstructions `[B, C, H, W]` in levels, and what there is to say of each: bits/dim, or PSNR without bits."""
    images, device = x_BCHW.cpu().numpy(), x_BCHW.device
    labels_B = np.full(len(images), label or 0)
    decoded = reconstruct(model, images, labels_B, seed=seed, device=device, first_item=first_item)
    if isinstance(model, Autoencoder) or not model.likelihood_is_discrete:
        errors = ((decoded - images).astype(np.float64) ** 2).reshape(len(images), -1).mean(1).tolist()
        return decoded, [_squared_error(error, model.levels) for error in errors]
    draws: dict[str, Any] = {"samples": BOUND_SAMPLES, "seed": seed, "first_item": first_item}
    measure = "negative ELBO in bits/dim"
    if isinstance(model, VQVAE):
        nats_B, measure = -model.log_prob(x_BCHW, model.encode(x_BCHW)), "distortion, bits/dim given the codes"
    elif isinstance(model, VAE) and model.classes:
        nats_B = -model.bounds(x_BCHW, torch.from_numpy(labels_B).to(device), **draws).elbo
        measure += " given the label"
    else:
        nats_B = -model.bounds(x_BCHW, **draws).elbo
    bits = (nats_B / (math.log(2) * model.dims)).tolist()
    return decoded, [f"{measure}: {value:.3f}" for value in bits]


def _label(command: Reconstruct, name: str, stage1: LoadedStage1) -> int | None:
    """Number of the class that a conditional VAE is given, None for other models.

    Raises:
        UsageError: the class is unknown or missing, or the model takes none.
    """
    conditional = isinstance(stage1.model, VAE) and stage1.model.classes > 0
    if not conditional and command.label is not None:
        raise UsageError(f"--label says what a conditional VAE is given, but {name} takes no label: leave it out")
    if not conditional:
        return None
    if command.label is None:
        raise UsageError(f"model {name} is given the label of every image: say --label CLASS, the class of these files")
    return class_number(command.label, tuple(stage1.record["classes"]), flag="--label")


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
    stage1 = run.stage1(name, device)
    model, label = stage1.model, _label(command, name, stage1)
    images = read_images(command.files, model, run.recipe.data)
    if command.dry_run:
        say(f"would reconstruct {len(images)} files with {name} into {command.folder}; nothing was done")
        return
    decoded, remarks = [], []
    batch_size = run.recipe.evaluation.batch_size
    for start in range(0, len(images), batch_size):
        x_BCHW = torch.from_numpy(images[start : start + batch_size]).to(device)
        pictures, said = _reconstruct(model, x_BCHW, label, seed=command.seed, first_item=start)
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


def check_free(folder: Path, names: Sequence[str]) -> None:
    """Raise UsageError where a folder already holds one of the files that are to be written into it."""
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise UsageError(
            f"{folder} already holds {show(there)}, which may be what was encoded: choose another folder, or remove "
            "them"
        )


def check_replaceable(path: Path, run: Run) -> None:
    """Raise UsageError where `path` is what a file of codes must not replace: a part of a run, or another file."""
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder, but one file of codes is written: name the file")
    if path.resolve().is_relative_to(run.path.resolve()):
        raise UsageError(f"--out {path} lies in the run folder {run.path}, whose files belong to the run: name another")
    if not path.exists():
        return
    try:
        load_codes(path)
    except RunError:
        raise UsageError(f"--out {path} is there and is no file of codes: remove it or name another") from None


def run_encode(command: Encode) -> None:
    """`twostage encode`."""
    run = Run.open(command.run)
    check_folder(command.out.parent)
    check_replaceable(command.out, run)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = run.stage1(name, device)
    model = stage1.model
    if not isinstance(model, VQVAE):
        raise UsageError(f"model {name} has no codebook and so no codes to keep; choose a vq-vae")
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
    overview = "grid"
    while overview in names:  # an image called grid keeps its name
        overview += "-of-all"
    if command.out is not None:  # the encoded images may lie there under the same names
        check_free(command.out, [f"{name}.png" for name in (*names, overview)])
    if command.dry_run:
        say(f"would decode {len(names)} images with {header.model} into {command.folder}; nothing was done")
        return
    codes = torch.from_numpy(file.codes).to(device)
    images = decode_in_batches(model, codes, batch_size=run.recipe.evaluation.batch_size, seed=command.seed)
    pixels_NCHW = to_bytes(images.cpu().numpy(), model.levels)
    for name, picture_CHW in zip(names, pixels_NCHW, strict=True):
        write_png(command.folder / f"{name}.png", picture_CHW)
    columns = math.ceil(math.sqrt(len(names)))
    write_png(
        command.folder / f"{overview}.png", grid(pixels_NCHW, columns=columns), scale=display_scale(images.shape[-1])
    )
    say(f"{len(names)} image{'s' if len(names) > 1 else ''} and {overview}.png in {command.folder}")
