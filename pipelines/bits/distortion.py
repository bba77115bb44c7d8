"""Bits and errors of items, batch by batch, in fp32: what was measured of any stage one, before it becomes rows.

Models of codes are scored as an exact two-part code, bits(x) = -log2 p(x|z(x)) - log2 p(z(x)), whose second part is
that of `rate`. Latent variable models are scored by the ELBO and by the tighter bound of several samples, all at
beta = 1; those given the label by bounds on log p(x|y), without the bits of the label.

Shapes: N items, B items of a batch, G codebooks, T the axes of the codes, R arrays of codes.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Codec, Stage1Model
from twostage.distributed import sum_over_ranks
from twostage.metrics.statistics import swap_partners

from .batches import over_batches

Batches = Iterable[tuple[np.ndarray, Batch]]
"""The share of this process of some items: places `[B]` of the items among them, and the items."""


def swapped_codes(codes_NGT: np.ndarray, lengths_N: np.ndarray | None) -> np.ndarray:
    """Codes of another item for every item, repeated or cut to its own length; of a single item its own."""
    partners_N = swap_partners(len(codes_NGT))
    if lengths_N is None:
        return codes_NGT[partners_N]
    result_NGT = np.zeros_like(codes_NGT)
    for item, partner in enumerate(partners_N):
        theirs_TG, length = codes_NGT[partner, :, : lengths_N[partner]].T, int(lengths_N[item])
        result_NGT[item, :, :length] = np.resize(theirs_TG, (length, codes_NGT.shape[1])).T
    return result_NGT


@torch.no_grad()
def distortion_bits(model: Codec, batches: Batches, *codes: np.ndarray, label: str) -> np.ndarray:
    """Bits `[R, N]` of the items given each of R arrays of codes `[N, G, *T]`; `label` names the progress bar.

    Of the likelihood `mse`, which has no bits, the halved squared error over log 2.
    """

    def measure(places_B: np.ndarray, batch: Batch) -> list[np.ndarray]:
        each = (torch.from_numpy(own[places_B]).to(batch.x.device) for own in codes)
        return [_bits(-model.log_prob_batch(batch, codes_BGT)) for codes_BGT in each]

    return over_batches(
        label, len(codes), len(codes[0]), ((places, measure(places, batch)) for places, batch in batches)
    )


def _bits(nats_B: Tensor) -> np.ndarray:
    return nats_B.double().cpu().numpy() / math.log(2)


@dataclass(frozen=True)
class BoundBits:
    """Two bounds on every item from the same draws, bits `[N]` float64: one that splits, and a tighter one."""

    distortion: np.ndarray
    """A mean over the draws."""
    rate: np.ndarray
    """The exact KL, of Gaussians as of tables."""
    tighter: np.ndarray
    """Importance-weighted or multi-sample: the same estimate, of continuous and of discrete latents."""


@torch.no_grad()
def bound_bits(model: Stage1Model, batches: Batches, *, items: int, samples: int, seed: int) -> BoundBits:
    """Both bounds at beta = 1 from `samples` draws per item of a model of the kind `gaussian` or `table`."""

    def measure(batch: Batch) -> list[np.ndarray]:
        score = model.score(batch, samples=samples, seed=seed)
        assert score.rate is not None
        assert score.tighter is not None
        return [_bits(nats_B) for nats_B in (score.distortion, score.rate, score.tighter)]

    label = f"bounds of {samples} samples"
    return BoundBits(*over_batches(label, 3, items, ((places, measure(batch)) for places, batch in batches)))


@torch.no_grad()
def reconstruction_numbers(
    model: Stage1Model,
    batches: Batches,
    compare: Callable[[Batch, Tensor], Tensor],
    *,
    numbers: int,
    items: int,
    seed: int,
    codes: np.ndarray | None = None,
) -> np.ndarray:
    """Numbers `[R, N]` float64 of every item, decoded from its codes or from what the model says stands for it.

    Args:
        model: that decodes, and of which an autoregressive decoder draws.
        batches: the items.
        compare: the numbers `[R, B]` of items and of what was decoded of them.
        numbers: R.
        items: how many there are.
        seed: of what is drawn.
        codes: `[N, G, *T]`; None: what stands for an item is asked of the model.
    """

    def measure(places_B: np.ndarray, batch: Batch) -> list[np.ndarray]:
        if codes is None:
            latents = model.latents_of(batch, seed=seed)
        else:
            latents = torch.from_numpy(codes[places_B]).to(batch.x.device)
        return list(compare(batch, model.decode_batch(latents, batch, seed=seed)).double().cpu().numpy())

    measured = ((places, measure(places, batch)) for places, batch in batches)
    return over_batches("reconstructions", numbers, items, measured)


class DrawsCodes(Protocol):
    """A model of the kind `table`."""

    @property
    def code_shape(self) -> tuple[int, ...]:
        """(G, *T) of an item."""

    def sample_codes(self, x: Tensor, /, *, seed: int, first_item: int) -> Tensor:
        """One draw of q(z|x) per item, `[B, G, *T]`."""


def drawn_codes(model: DrawsCodes, batches: Batches, *, items: int, seed: int) -> np.ndarray:
    """One draw of q(z|x) per item, `[N, G, *T]` int64: the first of those behind `bound_bits` under the same seed."""
    codes = torch.zeros(items, *model.code_shape, dtype=torch.int64)
    for places_B, batch in batches:
        codes[torch.from_numpy(places_B)] = model.sample_codes(batch.x, seed=seed, first_item=batch.first_item).cpu()
    return sum_over_ranks(codes)[0].numpy()
