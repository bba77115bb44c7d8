"""q(z|x) of the items of a split, collected batch by batch and, of several processes, share by share.

An item of a fixed size is one vector of latents. A recording has as many vectors as positions, all of which mean the
same: there a latent is a channel, and its statistics are over the real positions of all recordings.

Shapes: N items, or positions of all recordings in the order of these; Z latents; B items of a batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stage1_vqvae.gaussian import GaussianPosterior
from stage1_vqvae.interface import Batch
from twostage.distributed import sum_over_ranks, world_size
from twostage.errors import RunError
from twostage.progress import Progress


@dataclass(frozen=True)
class Posteriors:
    """q(z|x) of every item of a split, or of every position of its recordings."""

    mean_NZ: np.ndarray
    """float64."""
    log_variance_NZ: np.ndarray
    """float64."""
    latent_shape: tuple[int, ...]
    """Of one item before it was flattened, or of one position: its product is Z."""
    positions: float | None = None
    """Of a recording, in the mean; None where N are items."""

    def __len__(self) -> int:
        return len(self.mean_NZ)

    def kl_nats(self) -> np.ndarray:
        """KL(q(z|x) || N(0, I)) of every item and latent, `[N, Z]`."""
        return 0.5 * (self.mean_NZ**2 + np.exp(self.log_variance_NZ) - 1.0 - self.log_variance_NZ)


@torch.no_grad()
def posterior_of(model: Any, batch: Batch) -> GaussianPosterior:
    """q(z|x) of a batch, given the labels that a model of the kind `gaussian` is conditioned on."""
    inputs = (batch.x,) if batch.lengths is None else model.sounds_of(batch)
    posterior: GaussianPosterior = model.posterior(*inputs, *([batch.labels] if model.classes else []))
    return posterior


def posteriors_of(
    model: Any, batches: Iterable[tuple[np.ndarray, Batch]], *, items: int, label: str = "posteriors"
) -> Posteriors:
    """q(z|x) of all items.

    Args:
        model: of the kind `gaussian`.
        batches: this process's share of the items with their numbers, `[B]` from 0 on; how they are cut changes nothing.
        items: how many there are.
        label: names the progress bar.

    Raises:
        RunError: a posterior is not finite.
    """
    found: dict[int, np.ndarray] = {}
    latent_shape, sequences = tuple[int, ...](), False
    vectors_N = torch.zeros(items, dtype=torch.int64)
    with Progress(label, total=items, unit="item") as progress:
        for places_B, batch in batches:
            posterior, sequences = posterior_of(model, batch), batch.lengths is not None
            both = torch.stack([posterior.mean, posterior.log_variance], 1).double().cpu().numpy()
            latent_shape = both.shape[2:3] if sequences else both.shape[2:]
            ends = model.positions_of(batch).tolist() if sequences else [1] * len(batch)
            for place, numbers, end in zip(places_B.tolist(), both, ends, strict=True):
                # [2, vectors, Z]
                found[place] = numbers[..., :end].transpose(0, 2, 1) if sequences else numbers.reshape(2, 1, -1)
                vectors_N[place] = end
            progress.advance_shared(len(batch), world_size())
    ...
