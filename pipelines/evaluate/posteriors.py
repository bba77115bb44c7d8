"""q(z|x) of the items of a split, collected batch by batch and, of several processes, share by share.

An item of a fixed size is one vector of latents. A recording has as many vectors as positions, all of which mean the
same: there a latent is a channel, and its statistics are over the real positions of all recordings.

Shapes: N items, or positions of all recordings in the order of these; Z latents; B items of a batch.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stage1_vqvae.batch import Batch
from stage1_vqvae.gaussian import GaussianPosterior
from twostage.distributed import of_every_rank, sum_over_ranks, world_size
from twostage.errors import RunError
from twostage.progress import Progress

from ..runs.loading import Loaded
from ..runs.run import Run

Batches = Iterable[tuple[np.ndarray, Batch]]
"""This process's share of some items, with their numbers `[B]`."""


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


def posteriors_of_split(
    run: Run, name: str, stage1: Loaded[Any], split: str, batches: Batches, *, items: int
) -> Posteriors:
    """`posteriors_of` all items of a split of the run's data under the model of that name, found once per command."""
    key = ("posteriors", name, split, stage1.sha256)
    return run.once(key, lambda: posteriors_of(stage1.model, batches, items=items))


def posteriors_of(model: Any, batches: Batches, *, items: int, label: str = "posteriors") -> Posteriors:
    """q(z|x) of all items.

    Args:
        model: of the kind `gaussian`.
        batches: this process's share of the items, with their numbers `[B]`; how they are cut changes nothing.
        items: how many there are.
        label: names the progress bar.

    Raises:
        RunError: a posterior is not finite.
    """
    found: dict[int, np.ndarray] = {}
    latent_shape, sequences = tuple[int, ...](), False
    with Progress(label, total=items, unit="item") as progress:
        for places_B, batch in batches:
            posterior, sequences = posterior_of(model, batch), batch.lengths is not None
            latent_shape = tuple(posterior.mean.shape[1:2] if sequences else posterior.mean.shape[1:])
            vectors = torch.stack([posterior.mean, posterior.log_variance], 1)
            vectors_B2ZT = vectors.reshape(len(batch), 2, math.prod(latent_shape), -1).double().cpu().numpy()
            ends = model.positions_of(batch).tolist() if sequences else [1] * len(batch)
            for place, vectors_2ZT, end in zip(places_B.tolist(), vectors_B2ZT, ends, strict=True):
                found[place] = vectors_2ZT[:, :, :end].transpose(0, 2, 1)
            progress.advance_shared(len(batch), world_size())
    mean_NZ, log_variance_NZ = _of_all(found, items)
    bad = int((~np.isfinite(mean_NZ + log_variance_NZ)).any(1).sum())
    if bad:
        raise RunError(
            f"expected finite posteriors, but those of {bad} of {len(mean_NZ)} {'positions' if sequences else 'items'} "
            "are not: train the model again"
        )
    return Posteriors(mean_NZ, log_variance_NZ, latent_shape, len(mean_NZ) / items if sequences else None)


def _of_all(found: dict[int, np.ndarray], items: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors `[N, Z]` of all items, of which every process has some, `[2, vectors, Z]` each."""
    latents = int(max(of_every_rank(max((own.shape[2] for own in found.values()), default=0))))
    count_N = torch.zeros(items, dtype=torch.int64)
    for item, own in found.items():
        count_N[item] = own.shape[1]
    end_N = sum_over_ranks(count_N)[0].cumsum(0).tolist()
    both = torch.zeros(2, end_N[-1] if end_N else 0, latents, dtype=torch.float64)
    for item, own in found.items():
        both[:, end_N[item] - own.shape[1] : end_N[item]] = torch.from_numpy(own)
    mean_NZ, log_variance_NZ = sum_over_ranks(both)[0].numpy()
    return mean_NZ, log_variance_NZ
