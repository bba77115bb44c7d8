"""Residual vector quantiser: each code quantises what the codes before it have left over.

With r_1 = z, level g picks the vector e_g of its codebook that is nearest to r_g, and leaves r_{g+1} = r_g - e_g [1,
algorithm 1; 2, section 3.1]. A position's vector is the sum of its G codes' vectors, and the sum of the first n is a
coarser one: a prefix of the codes decodes by itself, so that one model serves G bitrates. The commitment term is that
of every partial sum, sum_g |z - sg(e_1 + ... + e_g)|^2 [2, section 3.1], and codebook g follows its residuals by
|sg(r_g) - e_g|^2 or by moving averages. k-means starts level by level, each on the residuals that the levels before it
leave; dead codes move onto residuals of their level.

With a `rate_weight` every level takes the code of the least |r_g - e_g|^2 + lambda * bits, one after the other, see
`LearnedCodebook.penalties`.

Quantiser dropout trains prefixes [1, section III-C]: for a share `quantiser_dropout` of the items of a batch, the
decoder is given the first n levels alone at all positions of the item, with n uniform in 1..G.

Departures, and why:

- Dropout hides levels from the decoder only. Codebooks and commitment see every level of every item: what a level
  leaves over does not depend on what the decoder is shown, and all levels learn from as many vectors.
- Every level has a codebook of its own, as in [1]; [2] shares one among them.

[1] Zeghidour, Luebs, Omran, Skoglund, Tagliasacchi, "SoundStream", 2021, arXiv 2107.03312.
[2] Lee, Kim, Kim, Cho, Han, "Autoregressive image generation using residual quantization", 2022, arXiv 2203.01941.

Shapes: B items, D channels, S any spatial axes, G levels of K vectors over all D channels, N = B * prod(S) tokens.
"""

import math
from itertools import accumulate
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantiser.assign import squared_distances
from stage1_vqvae.quantiser.codebook import CodebookSettings, LearnedCodebook, check_vectors
from stage1_vqvae.quantiser.gradients import Rotation, SquaredError, StraightThrough
from stage1_vqvae.quantiser.interface import Quantised
from stage1_vqvae.quantiser.kmeans import ITERATIONS
from stage1_vqvae.quantiser.layout import Join, Split, check_channels, checked_codes, codes_by_item
from stage1_vqvae.quantiser.nearest import nearest_codes
from twostage.errors import UsageError
from twostage.noise import batch_uniform


class ResidualQuantiser(LearnedCodebook):
    """G = `codebooks` levels of K vectors over all `embedding_dim` channels.

    Args:
        quantiser_dropout: share of the training items that the decoder sees a random prefix of.

    Raises:
        UsageError: impossible settings, or dropout without a level to drop.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        codebook_size: int = 512,
        codebooks: int = 1,
        quantiser_dropout: float = 0.0,
        **settings: Unpack[CodebookSettings],
    ) -> None:
        if codebook_size < 1 or codebooks < 1 or embedding_dim < 1:
            raise UsageError(
                "The residual quantiser expects codebook_size, codebooks and embedding_dim of at least 1, got "
                f"{codebook_size}, {codebooks} and {embedding_dim}; change one of them."
            )
        if not 0 <= quantiser_dropout <= (1 if codebooks > 1 else 0):
            raise UsageError(
                "The residual quantiser expects a quantiser_dropout from 0 to 1, and 0 with a single level, got "
                f"{quantiser_dropout} with {codebooks}; correct these."
            )
        super().__init__(codebook_size=codebook_size, codebooks=codebooks, width=embedding_dim, **settings)
        self.embedding_dim, self.quantiser_dropout = embedding_dim, quantiser_dropout

    def forward(self, z_BDS: Tensor, items_B: Tensor | None = None) -> Quantised:
        """Quantise `[B, D, *S]`; see `Quantiser`. With dropout, the vectors of an item may be those of a prefix."""
        check_channels(z_BDS, self.embedding_dim)
        # fp32 from here on, also under autocast: scores, sums and losses lose codes in bf16
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):
            z_BDS = z_BDS.to(self.codebook.dtype)
            z_ND = Split.apply(z_BDS, 1)[0]
            residuals, codes, chosen = self._descend(z_ND.detach())
            sums = list(accumulate((e_ND.detach() for e_ND in chosen), torch.add))
            commitment_loss = codebook_loss = z_ND.new_zeros(())
            for residual_ND, e_ND, sum_ND in zip(residuals, chosen, sums, strict=True):
                mean_squared = (z_ND.detach() - sum_ND).square().sum() / max(1, z_ND.numel())
                commitment_loss = commitment_loss + SquaredError.apply(z_ND, sum_ND, mean_squared)
                if self.update_rule == "loss":
                    codebook_loss = codebook_loss + SquaredError.apply(e_ND, residual_ND, mean_squared)
                else:
                    codebook_loss = codebook_loss + mean_squared
            e_BDS = Join.apply(self._shown(sums, z_BDS.shape, items_B)[None], z_BDS.shape)
            rotate = self.gradient == "rotation"
            vectors_BDS = Rotation.apply(z_ND[None], e_BDS) if rotate else StraightThrough.apply(z_BDS, e_BDS)
        codes_GN = torch.stack(codes)
        statistics = self.statistics_of(torch.stack(residuals), codes_GN) if self.training else None
        codes_BGS = codes_by_item(codes_GN, z_BDS.shape)
        return Quantised(vectors_BDS, codes_BGS, commitment_loss, codebook_loss, statistics)

    def distances(self, z_BDS: Tensor) -> Tensor:
        """Squared, of what the levels before left over of `[B, D, *S]` to every code, `[G, N, K]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):  # as in `forward`
            z_ND = Split.apply(z_BDS.to(self.codebook.dtype), 1)[0]
            residuals_GND = torch.stack(self._descend(z_ND.detach())[0])
            return squared_distances(z_ND + (residuals_GND - z_ND.detach()), self.codebook)

    @property
    def code_vectors(self) -> Tensor:
        """`[G, K, W]`, the codebook."""
        return self.codebook

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Vectors `[B, D, *S]` of integer codes `[B, n, *S]` of the first n levels, 1 <= n <= G.

        Raises:
            UsageError: other shapes or values.
        """
        codes_BGS = checked_codes(codes_BGS, codebooks=self.codebooks, codebook_size=self.codebook_size, fewer=True)
        levels = zip(codes_BGS.unbind(1), self.codebook, strict=False)
        *_, sum_BSD = accumulate((F.embedding(codes_BS, codebook_KD) for codes_BS, codebook_KD in levels), torch.add)
        return sum_BSD.movedim(-1, 1).contiguous()

    @torch.no_grad()
    def initialise(self, vectors_ND: Tensor, *, seed: int, iterations: int = ITERATIONS) -> None:
        """Place the levels by k-means, one after the other, on what encoder outputs `[N, D]` leave over.

        Vectors of many items should come shuffled (see `kmeans`). Under torch.distributed every rank must call it; rank
        0's result counts. Raises UsageError for fewer vectors than codes, a wrong width or non-finite values.
        """
        check_vectors(vectors_ND, self.embedding_dim)
        generator = torch.Generator().manual_seed(seed)
        residual_ND = vectors_ND.detach().to(self.codebook)
        for g, codebook_KD in enumerate(self.codebook):
            self.place(g, residual_ND, generator, iterations=iterations)
            residual_ND = residual_ND - codebook_KD[nearest_codes(residual_ND, codebook_KD)]
        self.finish_placing()

    def _descend(self, z_ND: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of every level: what it is given, `[N, D]`, its codes, `[N]`, and their vectors, with gradient."""
        residuals, codes, chosen = [z_ND], [], []
        penalty_GK = self.penalties(self.codebook)
        for g, codebook_KD in enumerate(self.codebook):
            codes.append(nearest_codes(residuals[-1], codebook_KD, None if penalty_GK is None else penalty_GK[g]))
            chosen.append(F.embedding(codes[-1], codebook_KD))
            residuals.append(residuals[-1] - chosen[-1].detach())
        return residuals[:-1], codes, chosen

    def _shown(self, sums: list[Tensor], shape: torch.Size, items_B: Tensor | None) -> Tensor:
        """What the decoder sees, `[N, D]`: the last of the partial sums, or with dropout that of a random prefix."""
        shown_ND = sums[-1]
        if self.training and self.quantiser_dropout and shown_ND.numel():
            items = shape[0] if items_B is None else int(items_B[-1]) + 1
            # rows of the step's batch draw what they would in a batch of any parts
            drop_I, length_I = batch_uniform(items, 2, device=shown_ND.device).unbind(1)
            levels_I = torch.where(drop_I < self.quantiser_dropout, 1 + (length_I * len(sums)).long(), len(sums))
            levels_B = levels_I if items_B is None else levels_I[items_B]
            levels_N1 = levels_B.repeat_interleave(math.prod(shape[2:]))[:, None]
            for level, sum_ND in enumerate(sums[:-1], start=1):
                shown_ND = torch.where(levels_N1 == level, sum_ND, shown_ND)
        return shown_ND
