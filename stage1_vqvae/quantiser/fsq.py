"""Finite scalar quantisation (Mentzer et al. 2024, arXiv 2309.15505): every channel rounded to a few levels.

A channel z_i of L_i levels is bounded to f(z_i) = h tanh(z_i + s) - o, with h = (L_i - 1)(1 - eps)/2, and rounded; for
even L_i the half-shift o = 1/2 (else 0) with s = tan(o / h) makes room for L_i integers, one more below zero than above
(appendix A.1 of the paper). The values are those integers divided by floor(L_i / 2), in [-1, 1]; the gradient of the
rounding is one. The codebook is the grid of all values: nothing is learned, so there is no codebook loss, no start and
no revival.

A code is one integer per position by default, sum_i d_i prod_{j<i} L_j with the digits d_i from 0, so that K is the
product of the levels; 8, 5, 5, 5 give 1000. With G codebooks the channels are split into G equal consecutive groups,
each with a code of its own: G = channels gives every channel its own alphabet, for which a prior needs an output of L_i
rather than of K. All groups must have the same K: what reads codes (uniform rates, priors, range coder) charges log2 K
for each, and a prior over a larger common alphabet would give probability to codes that do not exist.

Departures, and what to expect:

- Where the embedding has another width than there are channels to round, a linear layer leads in and one leads out, as
  the paper's encoders end in one; they are part of the quantiser here, so that encoder and decoder need not know.
- In the paper nothing holds vectors to the levels, and in short trainings they run into the ends of tanh, where its
  gradient is lost, as far as to a single code. Here beta times the commitment, a penalty, holds them: the mean of the
  squared way by which |z_i + s| exceeds artanh(1 - 1/(2 (L_i - 1))), which is where a quarter of the outermost level
  lies behind. It is zero where a vector is within the levels; beta = 0 is the paper.
- No averages are kept: the perplexity of an update is that of its batch.

Shapes: B items, D channels of the embedding, S any spatial axes, C rounded channels, G codebooks, K codes in each.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.quantiser.codebook import check_past_quantiser
from stage1_vqvae.quantiser.gradients import StraightThrough
from stage1_vqvae.quantiser.interface import CodebookUpdate, Quantised, QuantiserStatistics, counted, counts_alone
from stage1_vqvae.quantiser.layout import check_channels, checked_codes
from twostage.config.quantiser import size_of_levels
from twostage.errors import UsageError

_EPSILON = 1e-3
"""By this share the bound stays within the outermost half-integers, which rounding must never leave."""


class FiniteScalarQuantiser(nn.Module):
    """Rounds C channels to `fsq_levels` values each.

    Args:
        embedding_dim: D; where it is not C, linear layers lead in and out.
        fsq_levels: of every channel, at least 2.
        codebooks: G, codes per position.
        commitment_beta: weight of the penalty beyond the outermost levels.

    Raises:
        UsageError: levels that are none, or that do not split into G groups of the same size and K; a negative weight.
    """

    update_rule = "fixed"
    levels_C: Tensor
    place_C: Tensor  # what a digit counts in the code of its group

    def __init__(
        self,
        *,
        embedding_dim: int,
        fsq_levels: Sequence[int] = (8, 5, 5, 5),
        codebooks: int = 1,
        commitment_beta: float = 0.25,
    ) -> None:
        super().__init__()
        check_past_quantiser("straight-through", commitment_beta)
        self.commitment_beta = commitment_beta
        codebook_size = size_of_levels(fsq_levels, codebooks)
        self.embedding_dim, levels = embedding_dim, tuple(fsq_levels)
        self.codebooks, self.codebook_size = codebooks, codebook_size
        width = len(levels) // codebooks
        place = [math.prod(levels[channel - channel % width : channel]) for channel in range(len(levels))]
        self.register_buffer("levels_C", torch.tensor(levels), persistent=False)
        self.register_buffer("place_C", torch.tensor(place), persistent=False)
        needed = embedding_dim != len(levels)
        self.lead_in = nn.Linear(embedding_dim, len(levels)) if needed else nn.Identity()
        self.lead_out = nn.Linear(len(levels), embedding_dim) if needed else nn.Identity()

    @property
    def codebook(self) -> Tensor:
        """The grid that the levels imply, `[G, K, C/G]`, fp32."""
        codes_GK = torch.arange(self.codebook_size, device=self.levels_C.device).expand(self.codebooks, -1)
        values_KGW = self._values(codes_GK.t()).unflatten(-1, (self.codebooks, -1))
        return values_KGW.transpose(0, 1).contiguous()

    def bound(self, z_XC: Tensor) -> tuple[Tensor, Tensor]:
        """f(z), `[..., C]`, between the outermost half-integers that rounding takes to the L_i levels; and the mean of
        the squared way that z is too far out for it, a scalar."""
        half_C = (self.levels_C - 1) * (1 - _EPSILON) / 2
        offset_C = torch.where(self.levels_C % 2 == 0, 0.5, 0.0)
        shifted_XC = z_XC + torch.tan(offset_C / half_C)
        reach_C = torch.atanh(1 - 0.5 / (self.levels_C - 1))
        beyond = F.relu(shifted_XC.abs() - reach_C).square().sum() / max(1, z_XC.numel())
        return torch.tanh(shifted_XC) * half_C - offset_C, beyond

    def forward(self, z_BDS: Tensor, items_B: Tensor | None = None) -> Quantised:
        """Round `[B, D, *S]`; the commitment is what lies beyond the levels, the codebook loss zero."""
        check_channels(z_BDS, self.embedding_dim)
        # fp32 also under autocast: in bf16 neighbouring levels run together
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):
            bounded_BSC, beyond = self.bound(self.lead_in(z_BDS.float().movedim(1, -1)))
            whole_BSC, half_C = bounded_BSC.detach().round(), self.levels_C // 2
            vectors_BDS = self._lead_out(StraightThrough.apply(bounded_BSC / half_C, whole_BSC / half_C))
        # a NaN passes through the vectors to the loss, which the training loop looks at, but is no code
        digits_BSC = whole_BSC.nan_to_num().long() + half_C
        codes_BSG = (digits_BSC * self.place_C).unflatten(-1, (self.codebooks, -1)).sum(-1)
        codes_GN = codes_BSG.flatten(0, -2).t()
        statistics = counted(codes_GN, self.codebook_size) if self.training else None
        zero = vectors_BDS.new_zeros(())
        return Quantised(vectors_BDS, codes_BSG.movedim(-1, 1).contiguous(), beyond, zero, statistics)

    def loss(self, quantised: Quantised) -> Tensor:
        """Scalar: beta * commitment."""
        return self.commitment_beta * quantised.commitment_loss

    def distances(self, z_BDS: Tensor) -> Tensor:
        """There are none; raises UsageError."""
        raise UsageError("The quantiser fsq rounds its channels and knows no distances to codes; choose another kind.")

    @property
    def code_vectors(self) -> Tensor:
        """`[G, K, C/G]`, the codebook."""
        return self.codebook

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Vectors `[B, D, *S]` of integer codes `[B, G, *S]`; raises UsageError for other shapes or values."""
        codes_BGS = checked_codes(codes_BGS, codebooks=self.codebooks, codebook_size=self.codebook_size)
        with torch.autocast(device_type=codes_BGS.device.type, enabled=False):  # as in `forward`
            return self._lead_out(self._values(codes_BGS.movedim(1, -1)))

    def update(self, statistics: QuantiserStatistics) -> CodebookUpdate:
        """Nothing moves; the perplexity is that of the batch."""
        return counts_alone(statistics)

    def initialise(self, vectors_ND: Tensor, *, seed: int) -> None:
        """Nothing to place."""

    def _values(self, codes_XG: Tensor) -> Tensor:
        """Values `[..., C]` of codes."""
        digits_XC = codes_XG.repeat_interleave(len(self.levels_C) // self.codebooks, -1) // self.place_C % self.levels_C
        half_C = self.levels_C // 2
        return (digits_XC - half_C).float() / half_C

    def _lead_out(self, values_BSC: Tensor) -> Tensor:
        return self.lead_out(values_BSC).movedim(-1, 1).contiguous()
