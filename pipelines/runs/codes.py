"""Codes of a trained codebook, written to disk: the only thing stage two sees of stage one."""

from pathlib import Path
from typing import Any

import torch

from twostage.data.interface import Dataset
from twostage.distributed import is_first, of_every_rank
from twostage.errors import RunError
from twostage.storage.codes import CodeFile, save_codes

from ..modality.choose import modality_of
from .loading import Loaded
from .run import Run


def _stored(run: Run, name: str, split: str, *, stage1_sha256: str, dataset: str, items: int) -> CodeFile | None:
    """The run's own file of these very codes; None if they must be made (anew) or any process does not see it whole."""
    found = None
    if run.codes_file(name, split).is_file():
        try:
            found = run.codes(name, split, stage1_sha256=stage1_sha256)
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
    run: Run, name: str, stage1: Loaded[Any], dataset: Dataset, device: torch.device
) -> dict[str, CodeFile]:
    """Codes of every split (`Modality.code_splits`), in fp32; files of this very codebook are read back."""
    modality, files = modality_of(run.recipe), dict[str, CodeFile]()
    for split in modality.code_splits(run.recipe):
        items = modality.items(dataset, split)
        found = _stored(run, name, split, stage1_sha256=stage1.sha256, dataset=dataset.name, items=items)
        if found is None:
            found = modality.encode(
                stage1.model, dataset, split, run.recipe, name=name, sha256=stage1.sha256, device=device
            )
            keep_codes(run.codes_file(name, split), found)
        files[split] = found
    return files
