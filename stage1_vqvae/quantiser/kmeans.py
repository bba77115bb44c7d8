"""k-means for the codebook's first vectors: k-means++ seeding [1], Lloyd iterations, empty clusters repaired.

Fewer than two blocks of vectors are all seen by every iteration. Of more, the seeds are drawn from the first block and
every iteration sees the next one, the centres being means over all blocks so far [2]: seeding and an iteration cost
`BLOCK` distances a cluster however many vectors there are, so that the whole is linear in K, and ten blocks serve 8192
clusters better than ten passes over four blocks together do, in a quarter of the time.

Departures from the textbook: a cluster that loses all its vectors moves onto the vector farthest from its own centre
(Lloyd's rule leaves it undefined); and when the data holds fewer distinct vectors than clusters, the clusters left over
become jittered copies of data vectors with a count of zero, so that every codebook row is finite and near the data.

[1] Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007.
[2] Sculley, "Web-scale k-means clustering", WWW 2010.

Shape letters: N vectors, K clusters, D channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stage1_vqvae.quantiser.nearest import nearest_codes, sum_by_code
from twostage.errors import UsageError

BLOCK = 32_768
"""Vectors that seeding or one iteration sees, where there are twice as many or more; never fewer than clusters."""
ITERATIONS = 10
_PER_CLUSTER = 64
# Relative to the root-mean-square spread of the data: far below any quantisation error, far above rounding.
_JITTER = 1e-3


def vectors_wanted(clusters: int) -> int:
    """As many vectors as it pays to encode for a start of that many clusters."""
    return min(_PER_CLUSTER * clusters, max(ITERATIONS * BLOCK, clusters))


@dataclass(frozen=True)
class KMeansResult:
    """Clusters of one data set."""

    centres_KD: Tensor
    counts_K: Tensor
    """Vectors nearest to each *final* centre, int64; zero for a leftover cluster. Of several blocks, the vectors
    that were nearest to it when its block was seen."""


@torch.no_grad()
def kmeans(
    vectors_ND: Tensor, *, clusters: int, generator: torch.Generator, iterations: int = ITERATIONS
) -> KMeansResult:
    """Cluster the rows of `vectors_ND` (fp32 or fp64, any device) around `clusters` centres.

    All random choices are drawn on the CPU from `generator`. Of several blocks the order counts: shuffle the items that
    the vectors come from. Cost: `clusters` passes over a block to seed, then one nearest-vector search of a block per
    iteration. Raises UsageError for fewer vectors than clusters or one that is not finite.
    """
    if vectors_ND.ndim != 2 or len(vectors_ND) < clusters:
        raise UsageError(
            f"k-means for {clusters} codes expects at least as many encoded vectors, [N, D], but got shape "
            f"{tuple(vectors_ND.shape)}: choose a smaller codebook_size, or encode more data."
        )
    if not bool(torch.isfinite(vectors_ND).all()):
        raise UsageError("k-means expects finite vectors, got NaN or infinity; check the encoder's input and weights.")
    blocks = vectors_ND.tensor_split(max(1, len(vectors_ND) // max(BLOCK, clusters)))
    whole = len(blocks) == 1
    centres_KD = _seed(blocks[0], clusters, generator)
    sums_KD = torch.zeros_like(centres_KD)
    counts_K = torch.zeros(clusters, dtype=torch.int64, device=centres_KD.device)
    for iteration in range(iterations):
        block_ND = blocks[iteration % len(blocks)]
        codes_N = nearest_codes(block_ND, centres_KD)
        block_sums_KD, block_counts_K = sum_by_code(block_ND, codes_N, clusters), codes_N.bincount(minlength=clusters)
        sums_KD, counts_K = (
            (block_sums_KD, block_counts_K) if whole else (sums_KD + block_sums_KD, counts_K + block_counts_K)
        )
        means_KD = sums_KD / counts_K.clamp(min=1)[:, None]
        moved_KD = torch.where(counts_K[:, None] > 0, means_KD, centres_KD)
        _repair_empty(moved_KD, counts_K, block_ND, codes_N)
        if whole and torch.equal(moved_KD, centres_KD):
            break
        centres_KD = moved_KD
    if whole or iterations == 0:
        counts_K = nearest_codes(blocks[0], centres_KD).bincount(minlength=clusters)
    return KMeansResult(centres_KD, counts_K)


def _seed(vectors_ND: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre is a vector drawn with probability proportional to its squared distance so far."""
    centres_KD = torch.empty(clusters, vectors_ND.shape[1], dtype=vectors_ND.dtype, device=vectors_ND.device)
    first = int(torch.randint(len(vectors_ND), (1,), generator=generator))
    centres_KD[0] = vectors_ND[first]
    squared_N = _squared_distances(vectors_ND, centres_KD[0])
    for k in range(1, clusters):
        cumulative_N = squared_N.double().cumsum(dim=0)
        if float(cumulative_N[-1]) == 0.0:  # every distinct vector is already a centre
            centres_KD[k:] = _jittered_copies(vectors_ND, clusters - k, generator)
            break
        drawn = torch.rand(1, dtype=torch.float64, generator=generator).to(vectors_ND.device) * cumulative_N[-1]
        # right=True: never a vector at distance zero, whose interval is empty
        chosen = torch.searchsorted(cumulative_N, drawn, right=True).clamp(max=len(vectors_ND) - 1)
        centres_KD[k] = vectors_ND[chosen[0]]
        squared_N = torch.minimum(squared_N, _squared_distances(vectors_ND, centres_KD[k]))
    return centres_KD


def _squared_distances(vectors_ND: Tensor, centre_D: Tensor) -> Tensor:
    """Direct differences rather than expanded squares: a copy of the centre is at exactly zero."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(vectors_ND, centre_D[None], compute_mode=mode)[:, 0].square()


def _jittered_copies(vectors_ND: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Random data vectors, moved by a thousandth of the data's spread (of its size where there is no spread)."""
    rows = torch.randint(len(vectors_ND), (count,), generator=generator).to(vectors_ND.device)
    noise = torch.randn(count, vectors_ND.shape[1], dtype=vectors_ND.dtype, generator=generator)
    spread = float((vectors_ND - vectors_ND.mean(dim=0)).square().mean().sqrt())
    scale = spread or float(vectors_ND.square().mean().sqrt()) or 1.0
    return vectors_ND[rows] + _JITTER * scale * noise.to(vectors_ND.device)


def _repair_empty(centres_KD: Tensor, counts_K: Tensor, vectors_ND: Tensor, codes_N: Tensor) -> None:
    """Move empty clusters, in place, onto the vectors farthest from their centres; none moves onto a centre."""
    empty = torch.nonzero(counts_K == 0)[:, 0]
    if len(empty) == 0:
        return
    squared_N = (vectors_ND - centres_KD[codes_N]).square().sum(dim=1)
    for k in empty.tolist():
        farthest = int(squared_N.argmax())
        if float(squared_N[farthest]) == 0.0:
            return
        centres_KD[k] = vectors_ND[farthest]
        squared_N = torch.minimum(squared_N, _squared_distances(vectors_ND, centres_KD[k]))
