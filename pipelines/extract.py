"""Codes of a trained codebook, written to disk: the only thing stage two sees of stage one."""

from pathlib import Path

import numpy as np
import torch

from stage1_vqvae import VQVAE
from twostage.codes import CodeFile, CodeHeader, load_codes, save_codes
from twostage.data import ImageDataset
from twostage.distributed import is_first, of_every_rank, own_batches, sum_over_ranks, world_size
from twostage.errors import RunError
from twostage.progress import Progress

from .models import LoadedStage1
from .run import Run

SPLITS = ("train", "validation", "test")
MIRRORED = "train-mirrored"
"""Codes of the mirrored training images, which the prior of a data set with horizontal flips sees too."""


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


def stored_codes(path: Path, *, stage1_sha256: str, dataset: str, split: str, items: int) -> CodeFile | None:
    """The file of these very codes, None if they must be made (anew) or any process does not see it whole."""
    found = None
    if path.is_file():
        try:
            found = load_codes(path, expect_stage1_sha256=stage1_sha256)
        except RunError:
            pass  # damaged, or of an earlier codebook
        else:
            if (found.header.dataset, found.header.split, len(found.codes)) != (dataset, split, items):
                found = None
    return None if 0 in of_every_rank(found is not None) else found


def keep_codes(path: Path, codes: CodeFile) -> None:
    """Write codes in place of what may be there; of several processes the first does."""
    if is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        save_codes(path, codes)


def extract_codes(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, device: torch.device, *, batch_size: int
) -> dict[str, CodeFile]:
    """Codes and labels of every split, in fp32; files of this very codebook are read back instead of made again.

    Where the recipe mirrors training images, the codes of all training images mirrored come as `MIRRORED`.
    """
    model = stage1.model
    assert isinstance(model, VQVAE)
    files: dict[str, CodeFile] = {}
    for split in (*SPLITS, MIRRORED) if run.recipe.data.horizontal_flips else SPLITS:
        path = run.codes_file(name, split)
        source = dataset.train if split == MIRRORED else dataset.split(split)
        images = torch.from_numpy(source.images)
        stored = stored_codes(path, stage1_sha256=stage1.sha256, dataset=dataset.name, split=split, items=len(images))
        if stored is not None:
            files[split] = stored
            continue
        codes = encode_images(
            model,
            images,
            label=f"{name} codes, {split}",
            batch_size=batch_size,
            device=device,
            mirrored=split == MIRRORED,
        )
        header = CodeHeader(
            dataset=dataset.name,
            split=split,
            model=name,
            codebook_size=model.codebook_size,
            codebooks=model.code_shape[0],
            grid=tuple(model.code_shape[1:]),
            classes=len(dataset.classes),
            stage1_sha256=stage1.sha256,
        )
        files[split] = CodeFile(codes=codes, labels=source.labels, header=header)
        keep_codes(path, files[split])
    return files
