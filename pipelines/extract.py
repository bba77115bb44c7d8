"""Codes of a trained codebook, written to disk: the only thing stage two sees of stage one."""

import numpy as np
import torch

from stage1_vqvae import VQVAE
from stage1_vqvae.training import batches
from twostage.codes import CodeFile, CodeHeader, load_codes, save_codes
from twostage.data import ImageDataset
from twostage.errors import RunError
from twostage.progress import Progress

from .models import LoadedStage1
from .run import Run

SPLITS = ("train", "validation", "test")
MIRRORED = "train-mirrored"
"""Codes of the mirrored training images, which the prior of a data set with horizontal flips sees too."""


def encode_images(
    model: VQVAE, images_NCHW: torch.Tensor, *, label: str, batch_size: int, device: torch.device
) -> np.ndarray:
    """Codes `[N, G, h, w]`, int64, of integer images; `label` names the progress bar."""
    parts = []
    with Progress(label, total=len(images_NCHW), unit="image") as progress:
        for x_BCHW in batches(images_NCHW, batch_size):
            parts.append(model.encode(x_BCHW.to(device)).cpu().numpy())
            progress.advance(len(x_BCHW))
    return np.concatenate(parts)


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
        if split == MIRRORED:
            images = images.flip(-1)
        if path.is_file():
            try:
                existing = load_codes(path, expect_stage1_sha256=stage1.sha256)
            except RunError:
                path.unlink()  # damaged, or of an earlier codebook: made again below
            else:
                made_of = (existing.header.dataset, existing.header.split, len(existing.codes))
                if made_of == (dataset.name, split, len(images)):
                    files[split] = existing
                    continue
        codes = encode_images(model, images, label=f"{name} codes, {split}", batch_size=batch_size, device=device)
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
        path.parent.mkdir(parents=True, exist_ok=True)
        save_codes(path, files[split])
    return files
