"""Codes of a trained codebook: of a data set, which are all that stage two sees of stage one, and of single files.

Shapes: N items.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostage.data.interface import Dataset
from twostage.distributed import is_first, of_every_rank
from twostage.errors import RunError, UsageError
from twostage.printable import shown
from twostage.storage.code_header import FILES, CodeHeader, is_plain_name
from twostage.storage.codes import CodeFile, check_codebook, save_codes

from ..modality.choose import modality_of
from ..modality.encoding import encode_split
from ..modality.interface import MIRRORED
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
    files = dict[str, CodeFile]()
    for split in modality_of(run.recipe).code_splits(run.recipe):
        items = dataset.train if split == MIRRORED else dataset.split(split)
        found = _stored(run, name, split, stage1_sha256=stage1.sha256, dataset=dataset.name, items=len(items))
        if found is None:
            found = _encoded(
                run,
                stage1,
                items,
                label=f"{name} codes, {split}",
                device=device,
                labels=items.labels,
                speakers_N=items.speakers if dataset.speakers else None,
                dataset=dataset.name,
                split=split,
                model=name,
                classes=len(dataset.classes),
                speakers=len(dataset.speakers),
            )
            keep_codes(run.codes_file(name, split), found)
        files[split] = found
    return files


def _encoded(
    run: Run,
    stage1: Loaded[Any],
    items: Any,
    *,
    label: str,
    device: torch.device,
    labels: np.ndarray,
    speakers_N: np.ndarray | None,
    split: str,
    **header: Any,
) -> CodeFile:
    """Codes of a split's items; `label` names the progress bar, `header` is what the header says beside."""
    files, model = modality_of(run.recipe).files, stage1.model
    mirrored = split == MIRRORED
    codes, lengths_N = encode_split(
        files, model, items, label=label, recipe=run.recipe, device=device, mirrored=mirrored
    )
    return CodeFile(
        codes=codes,
        labels=labels,
        header=CodeHeader(
            split=split,
            codebook_size=model.codebook_size,
            codebooks=model.codebooks,
            grids=files.grids_of(items, model),
            stage1_sha256=stage1.sha256,
            **header,
        ),
        lengths=lengths_N,
        speakers=speakers_N,
        samples=files.lengths_of(items),
    )


def check_plain_names(names: Sequence[str], *, source: str) -> None:
    """Raise UsageError where a file of codes cannot hold one of the names; `source` is what the named are called."""
    strange = [each for each in names if not is_plain_name(each)]
    if strange:
        raise UsageError(f"a file of codes cannot hold the name {shown(strange[0])}; rename the {source}")


def encode_items(
    run: Run,
    name: str,
    stage1: Loaded[Any],
    split: Any,
    *,
    speakers_N: np.ndarray | None,
    names: tuple[str, ...],
    device: torch.device,
) -> CodeFile:
    """Codes of items that are no part of a data set, with their exact lengths where they have one.

    Args:
        run: the run.
        name: of the model.
        stage1: its codebook.
        split: the items; its labels, speakers and names are not looked at.
        speakers_N: who speaks, -1 where that is not known; None exactly where the data have no speakers.
        names: plain names without suffix, all different, one for each; or none.
        device: where to compute.

    Raises:
        UsageError: the model has no codes, or the names cannot be kept in a file of codes.
    """
    record, source = stage1.record, modality_of(run.recipe).files.source
    if stage1.model.latents != "codes":
        raise UsageError(f"model {name} has no codebook and so no codes to keep; choose a vq-vae")
    check_plain_names(names, source=source)
    if names and (len(names) != len(split) or len(set(names)) < len(names)):
        raise UsageError(f"expected {len(split)} different names, one for each {source}, got {shown(names)}")
    return _encoded(
        run,
        stage1,
        split,
        label="codes",
        device=device,
        labels=np.zeros(len(split), np.int64),
        speakers_N=speakers_N,
        dataset=record["dataset"],
        split=FILES,
        model=name,
        classes=0,
        speakers=len(record.get("speakers", ())),
        names=names,
    )


def check_codes(
    codes: CodeFile, run: Run, name: str, stage1: Loaded[Any], *, source: str = "what came", remedy: str = ""
) -> None:
    """Whether `stage1` can decode codes, and whether they say whose they are and how long.

    Args:
        codes: what is to be decoded.
        run: the run.
        name: of the model.
        stage1: its codebook.
        source: name of the codes in errors.
        remedy: what the user can do, the end of the sentence; unless given, to encode again.

    Raises:
        RunError: they are codes of another codebook, or do not say.
    """
    header, model, files = codes.header, stage1.model, modality_of(run.recipe).files
    end = remedy or f"encode the {files.source}s again"
    check_codebook(header, path=source, stage1_sha256=stage1.sha256, remedy=end)
    shape = (header.codebook_size, header.codebooks)
    if model.latents != "codes" or shape != (model.codebook_size, model.codebooks) or not len(codes.codes):
        raise RunError(f"expected codes that fit model {name}, but {source} holds others: {end}")
    files.check_codes(codes, model, stage1.record, name=name, source=source, remedy=end)
