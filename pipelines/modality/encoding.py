"""Items of any kind to codes: of a split of a data set, or of single files.

Shapes: N items, B items of a batch, G codebooks, T the axes of the codes of an item.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from stage1_vqvae.batch import Asked
from stage1_vqvae.interface import Codec
from twostage.config.schema import Recipe
from twostage.distributed import sum_over_ranks, world_size
from twostage.grids import axes_of
from twostage.progress import Progress

from .files import Files


@torch.no_grad()
def encode_split(
    files: Files,
    model: Codec,
    split: Any,
    *,
    label: str,
    recipe: Recipe,
    device: torch.device,
    mirrored: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Codes `[N, G, *T]`, int64, 0 behind the end of an item, and their lengths `[N]` where items have one.

    Several processes encode a batch each in turn, and all of them get all codes.

    Args:
        files: how items of this kind are batched.
        model: the codebook.
        split: the items.
        label: names the progress bar.
        recipe: says how many are encoded side by side.
        device: where to compute.
        mirrored: encode images mirrored left to right, batch by batch and without a second copy of all.
    """
    # int32: of several processes each sends all of it.
    codes_NGT = torch.zeros(len(split), model.codebooks, *axes_of(files.grids_of(split, model)), dtype=torch.int32)
    with Progress(label, total=len(split), unit=files.source) as progress:
        for items_B, batch in files.batches(split, model, recipe=recipe, device=device):
            given = replace(batch, x=batch.x.flip(-1)) if mirrored else batch
            found = model.latents_of(given, seed=0).to("cpu", torch.int32)
            codes_NGT[torch.from_numpy(items_B), ..., : found.shape[-1]] = found
            progress.advance_shared(len(items_B), world_size())
    sizes = files.lengths_of(split)
    lengths = None if sizes is None else positions_of(model, sizes)
    return sum_over_ranks(codes_NGT)[0].numpy().astype(np.int64), lengths


def positions_of(model: Codec, lengths_N: np.ndarray) -> np.ndarray:
    """Positions of the codes of items of so many samples, int64 `[N]`."""
    asked = Asked(items=torch.arange(len(lengths_N)), lengths=torch.from_numpy(lengths_N))
    return model.positions_of(asked).numpy()
