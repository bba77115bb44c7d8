"""Codes of a trained codebook, written to disk: the only thing stage two sees of stage one."""

from pathlib import Path

import torch

from stage1_vqvae import VQVAE
from twostage.data import ImageDataset
from twostage.distributed import is_first, of_every_rank
from twostage.errors import RunError
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, load_codes, save_codes

from ..modality.images import encode_images
from .loading import LoadedStage1
from .run import Run

SPLITS = ("train", "validation", "test")
MIRRORED = "train-mirrored"
"""Codes of the mirrored training images, which the prior of a data set with horizontal flips sees too."""


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
