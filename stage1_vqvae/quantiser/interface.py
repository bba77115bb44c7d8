"""What every quantiser answers: vectors to codes and back, its part of the loss, and its step beside the optimiser's.

Models, tasks and pipelines know quantisers through this file alone; which ones there are stands in
`stage1_vqvae.quantiser.choose`. Codes are `[B, G, *S]` integers whatever the kind, 0..K-1 in each of G codebooks, so
that code files, priors, range coder and diagnosis need not ask how they were made.

Shapes: B items, D channels of the bottleneck, S any spatial axes, G codebooks of K codes, N = B * prod(S) tokens, W
channels that a code's vector has where codes are chosen.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from twostage.distributed import sum_over_ranks


@dataclass(frozen=True)
class QuantiserStatistics:
    """What one training batch says about the codebook; detached. Add those of accumulated batches with `+`."""

    counts_GK: Tensor
    """Tokens assigned to each code, float."""
    sums_GKD: Tensor | None = None
    """Sum of the vectors assigned to each code; None where nothing is averaged."""
    candidates_GND: Tensor | None = None
    """The batch's vectors, onto which a dead code may move; shares memory with the forward pass. None where no code
    ever moves."""

    def __add__(self, other: "QuantiserStatistics") -> "QuantiserStatistics":
        sums_GKD, candidates_GND = None, None
        if self.sums_GKD is not None and other.sums_GKD is not None:
            sums_GKD = self.sums_GKD + other.sums_GKD
        if self.candidates_GND is not None and other.candidates_GND is not None:
            candidates_GND = torch.cat([self.candidates_GND, other.candidates_GND], dim=1)
        return QuantiserStatistics(self.counts_GK + other.counts_GK, sums_GKD, candidates_GND)


@dataclass(frozen=True)
class LevelStatistics:
    """The same about the codebooks of every level of a hierarchy, coarsest first; of other models of the only one."""

    levels: tuple[QuantiserStatistics, ...]

    def __add__(self, other: "LevelStatistics") -> "LevelStatistics":
        pairs = zip(self.levels, other.levels, strict=True)
        return LevelStatistics(tuple(own + theirs for own, theirs in pairs))


@dataclass(frozen=True)
class Quantised:
    """Result of quantising one batch."""

    vectors: Tensor
    """`[B, D, *S]` vectors exactly as `lookup(codes)` gives them; gradient to the input (and to layers behind the
    codes), never to a codebook."""
    codes: Tensor
    """`[B, G, *S]` int64."""
    commitment_loss: Tensor
    """Scalar, mean over elements of |sg(e) - z|^2, not multiplied by beta; gradient to the input only."""
    codebook_loss: Tensor
    """Scalar of the same value, |e - sg(z)|^2; gradient to the codebook only, and none with update="ema"."""
    statistics: QuantiserStatistics | None
    """For `update`; None in eval mode."""


@dataclass(frozen=True)
class CodebookUpdate:
    """What one `update` did."""

    revived: Tensor
    """`[G, K]` bool: codes that were moved. With update="loss", zero the optimiser's moments of these rows."""
    perplexity: Tensor
    """Scalar, exp(entropy) of the running usage (of the batch's, where nothing is averaged), from 1 to K; the geometric
    mean over codebooks."""


class Quantiser(Protocol):
    """A `torch.nn.Module` between encoder and decoder."""

    codebook_size: int
    """K."""
    codebooks: int
    """G."""
    embedding_dim: int
    """D."""

    @property
    def update_rule(self) -> str:
        """How the codebook learns: `ema`, `loss`, or `fixed` where there is nothing to learn."""

    @property
    def codebook(self) -> Tensor:
        """`[G, K, W]`, a row a code, as it is kept. Where a parameter, zero the optimiser's moments of revived rows."""

    @property
    def code_vectors(self) -> Tensor:
        """`[G, K, W]`, what each code stands for, as codes are told apart by it: mapped or of length one where that is
        what the kind compares."""

    def __call__(self, z_BDS: Tensor, items_B: Tensor | None = None) -> Quantised:
        """Quantise `[B, D, *S]`. Pure: neither codebook nor counts change, in either mode; see `update`.

        Args:
            items_B: number of the item that each row is of, in order from 0; None: every row is an item.
        """

    def loss(self, quantised: Quantised) -> Tensor:
        """Scalar to minimise beside the reconstruction."""

    def distances(self, z_BDS: Tensor) -> Tensor:
        """Squared distance of every vector of `[B, D, *S]` to every code, `[G, N, K]` fp32, as codes are chosen by it.

        N runs over items, then positions. The gradient goes to the input, to layers in front of the choice, and to the
        codebook where it learns by gradients.

        Raises:
            UsageError: this kind chooses codes by something else.
        """

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Vectors `[B, D, *S]` of integer codes `[B, G, *S]`; raises UsageError for other shapes or values."""

    def update(self, statistics: QuantiserStatistics) -> CodebookUpdate:
        """Move what does not learn by gradients; call once per optimiser step, after the step, on every rank."""

    def initialise(self, vectors_ND: Tensor, *, seed: int) -> None:
        """Start from encoder outputs `[N, D]` in random order; call on every rank. Changes nothing where there is
        nothing to place."""


def perplexity(usage_GK: Tensor) -> Tensor:
    """Scalar, exp(entropy) of shares that are proportional to `usage_GK`; the geometric mean over codebooks."""
    share_GK = usage_GK / usage_GK.sum(dim=1, keepdim=True)
    return torch.special.entr(share_GK).nansum(dim=1).mean().exp()


def counted(codes_GN: Tensor, codebook_size: int) -> QuantiserStatistics:
    """What a quantiser that keeps no averages says of a batch."""
    return QuantiserStatistics(torch.stack([codes_N.bincount(minlength=codebook_size) for codes_N in codes_GN]).float())


@torch.no_grad()
def counts_alone(statistics: QuantiserStatistics) -> CodebookUpdate:
    """The `update` of a quantiser that keeps no averages: it measures the usage of this batch, of all ranks."""
    (counts_GK,) = sum_over_ranks(statistics.counts_GK)
    return CodebookUpdate(torch.zeros_like(counts_GK, dtype=torch.bool), perplexity(counts_GK))
