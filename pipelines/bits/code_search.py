"""Test-time code search: other codes of the same image that make its two-part code shorter.

The encoder picks the nearest code at every position, which says nothing about what p(x|z) and p(z) charge for it. The
bound -log2 p(x|z) - log2 p(z) holds for *any* z, so a better z may be searched at evaluation time and the result is
still a length that could be written. Coordinate descent: position after position (codebook after codebook), the codes
nearest to the encoder's vector are tried, and the one with the fewest total bits stays.

With a label-conditional prior the search charges p(z | y), y being the label under which the encoder's codes are most
probable; the final score marginalises as always. An item whose exact score did not fall keeps the encoder's codes.

Shapes: B items, M candidates, C x H x W image, G codebooks, h x w grid, T the axes
of the codes, P all their positions, D vector channels.
"""

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.images.codec import ImageCodec
from stage2_prior import Prior
from twostage.distributed import sum_over_ranks, world_size
from twostage.progress import Progress

from .distortion import Batches
from .rate import label_frequencies, learned_log_prob


@torch.no_grad()
def search_codes(
    model: ImageCodec,
    prior: Prior,
    batches: Batches,
    *,
    items: int,
    train_labels: np.ndarray,
    candidates: int,
    sweeps: int,
) -> np.ndarray:
    """Codes `[N, G, *T]` of images with at most as many total bits as the encoder's.

    Args:
        model, prior: on one device.
        batches: the images; of each, candidates - 1 are evaluated side by side.
        items: how many there are.
        train_labels: `[N_train]`, whose frequencies weigh the labels of a conditional prior.
        candidates: codes tried per position, the nearest ones; at most K.
        sweeps: passes over all positions.
    """
    frequency = label_frequencies(prior, train_labels)
    candidates = min(candidates, model.codebook_size)
    codes_NGT = torch.zeros(items, *model.code_shape, dtype=torch.int64)
    with Progress("code search", total=items, unit="item") as progress:
        for places_B, batch in batches:
            codes = _search_batch(model, prior, batch.x, frequency=frequency, candidates=candidates, sweeps=sweeps)
            codes_NGT[torch.from_numpy(places_B)] = codes.cpu()
            progress.advance_shared(len(batch), world_size())
    return sum_over_ranks(codes_NGT)[0].numpy()


def _search_batch(
    model: ImageCodec, prior: Prior, x_BCHW: Tensor, *, frequency: np.ndarray | None, candidates: int, sweeps: int
) -> Tensor:
    before_BGT, nearest_MBGP = model.encode(x_BCHW), _candidates(model, x_BCHW, count=candidates)
    exact_before_B, per_label_YB = learned_log_prob(prior, before_BGT, frequency)
    exact_before_B = exact_before_B + model.log_prob(x_BCHW, before_BGT).double()
    condition_BA = per_label_YB.argmax(0)[:, None] if prior.classes else None
    # What stands at a position has its score already: only the others are evaluated.
    others = candidates - 1
    repeated_XCHW = x_BCHW.repeat(others, 1, 1, 1)
    repeated_XA = None if condition_BA is None else condition_BA.repeat(others, 1)
    codes_BGT = before_BGT.clone()
    score_B = model.log_prob(x_BCHW, codes_BGT) + prior.log_prob(codes_BGT, condition_BA)
    flat_BGP = codes_BGT.flatten(2)  # the same memory
    _, groups, positions = flat_BGP.shape
    places = [(g, position) for position in range(positions) for g in range(groups)]
    for g, position in places * sweeps:
        at = (..., g, position)
        tried_OB = _alternatives(nearest_MBGP[at], flat_BGP[at])
        tried_OBGP = flat_BGP.repeat(others, 1, 1, 1)
        tried_OBGP[at] = tried_OB
        tried_XGT = tried_OBGP.view(-1, *codes_BGT.shape[1:])
        score_X = model.log_prob(repeated_XCHW, tried_XGT) + prior.log_prob(tried_XGT, repeated_XA)
        best_B, choice_B = score_X.view(others, -1).max(0)
        better_B = best_B > score_B
        flat_BGP[at] = torch.where(better_B, tried_OB.gather(0, choice_B[None])[0], flat_BGP[at])
        score_B = torch.where(better_B, best_B, score_B)
    exact_after_B = learned_log_prob(prior, codes_BGT, frequency)[0] + model.log_prob(x_BCHW, codes_BGT).double()
    worse_B = exact_after_B < exact_before_B
    return torch.where(worse_B.view(-1, *[1] * (codes_BGT.ndim - 1)), before_BGT, codes_BGT)


def _candidates(model: ImageCodec, x_BCHW: Tensor, *, count: int) -> Tensor:
    """The `count` nearest codes at every position, nearest first, `[M, B, G, P]`; finer vectors of a hierarchy are
    those that follow the encoder's own coarser codes."""
    given, _ = model.quantised_levels(x_BCHW)
    levels = zip(given, model.quantisers, strict=True)
    return torch.cat([nearest_codes(vectors, level.codebook, count=count).flatten(3) for vectors, level in levels], 3)


def _alternatives(nearest_MB: Tensor, current_B: Tensor) -> Tensor:
    """The nearest codes without the current one, or without the furthest where it is none of them, `[M - 1, B]`."""
    last_first = (nearest_MB == current_B).long().argsort(dim=0, stable=True)
    return nearest_MB.gather(0, last_first)[:-1]


def nearest_codes(vectors_BDHW: Tensor, codebook_GKD: Tensor, *, count: int) -> Tensor:
    """The `count` nearest codes of every vector, nearest first, `[M, B, G, h, w]`, int64."""
    groups, _, width = codebook_GKD.shape
    vectors_BGHWD = vectors_BDHW.unflatten(1, (groups, width)).movedim(2, -1)
    per_group = []
    for group in range(groups):
        distance_BHWK = torch.cdist(vectors_BGHWD[:, group].flatten(1, 2), codebook_GKD[group])
        nearest_BPM = distance_BHWK.topk(count, largest=False).indices
        per_group.append(nearest_BPM.unflatten(1, tuple(vectors_BDHW.shape[2:])).movedim(-1, 0))
    return torch.stack(per_group, 2)
