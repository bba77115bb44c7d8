"""Codebook as a learned linear map of fixed random vectors (Zhu et al. 2024, SimVQ, arXiv 2411.02038).

The vectors of the codes are C W, with C drawn once and never changed and W learned: every token's loss moves W and by
it all codes together, so that none is left behind where no vector is near. Search, commitment and codebook loss are
those of the vector quantiser, |z - sg(cW)|^2 and |sg(z) - cW|^2, the latter with its gradient to W alone. There are no
averages, no start from data and no revival.

Departures, and why:

- W starts as the identity, so that the first codes are the random vectors themselves; the authors' program draws it as
  any linear layer, with a bias, which the paper's equations do not have.
- beta stands on the commitment term, as everywhere here.
- No averages are kept: the perplexity of an update is that of its batch.

Shapes: B items, D channels, S any spatial axes, G codebooks, each of K vectors over W = D/G channels and a map.
"""

import torch
from torch import Tensor, nn

from stage1_vqvae.quantiser.assign import assign, squared_distances, vectors_of
from stage1_vqvae.quantiser.codebook import Gradient, check_past_quantiser, check_sizes
from stage1_vqvae.quantiser.interface import CodebookUpdate, Quantised, QuantiserStatistics, counted, counts_alone
from stage1_vqvae.quantiser.layout import Split, check_channels, checked_codes, codes_by_item


class SimVQ(nn.Module):
    """G codebooks of K mapped random vectors over `embedding_dim` channels, split into G equal consecutive parts.

    Raises:
        UsageError: impossible settings.
    """

    update_rule = "loss"
    codebook: Tensor  # [G, K, W], the random vectors, before the map

    def __init__(
        self,
        *,
        embedding_dim: int,
        codebook_size: int = 512,
        codebooks: int = 1,
        gradient: Gradient = "straight-through",
        commitment_beta: float = 0.25,
    ) -> None:
        super().__init__()
        check_sizes(codebook_size=codebook_size, codebooks=codebooks, embedding_dim=embedding_dim)
        check_past_quantiser(gradient, commitment_beta)
        self.codebook_size, self.codebooks, self.embedding_dim = codebook_size, codebooks, embedding_dim
        self.gradient, self.commitment_beta = gradient, commitment_beta
        width = embedding_dim // codebooks
        self.register_buffer("codebook", torch.randn(codebooks, codebook_size, width) * width**-0.5)
        self.map_GWW = nn.Parameter(torch.eye(width).repeat(codebooks, 1, 1))

    def vectors(self) -> Tensor:
        """Vectors of all codes, `[G, K, W]`, with gradient to the map."""
        return self.codebook @ self.map_GWW

    def forward(self, z_BDS: Tensor, items_B: Tensor | None = None) -> Quantised:
        """Quantise `[B, D, *S]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        # fp32 from here on, also under autocast: scores and losses lose codes in bf16
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):
            rotate = self.gradient == "rotation"
            found = assign(z_BDS.to(self.codebook.dtype), self.vectors(), codebook_learns=True, rotate=rotate)
        statistics = counted(found.codes_GN, self.codebook_size) if self.training else None
        codes_BGS = codes_by_item(found.codes_GN, z_BDS.shape)
        return Quantised(found.vectors, codes_BGS, found.commitment_loss, found.codebook_loss, statistics)

    def loss(self, quantised: Quantised) -> Tensor:
        """Scalar: beta * commitment + codebook loss."""
        return self.commitment_beta * quantised.commitment_loss + quantised.codebook_loss

    def distances(self, z_BDS: Tensor) -> Tensor:
        """Squared, of every vector of `[B, D, *S]` to every mapped one, `[G, N, K]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):  # as in `forward`
            return squared_distances(Split.apply(z_BDS.to(self.codebook.dtype), self.codebooks), self.vectors())

    @property
    def code_vectors(self) -> Tensor:
        """`[G, K, W]`, mapped."""
        return self.vectors()

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Vectors `[B, D, *S]` of integer codes `[B, G, *S]`; raises UsageError for other shapes or values."""
        codes_BGS = checked_codes(codes_BGS, codebooks=self.codebooks, codebook_size=self.codebook_size)
        with torch.autocast(device_type=codes_BGS.device.type, enabled=False):  # as in `forward`
            return vectors_of(codes_BGS, self.vectors())

    def update(self, statistics: QuantiserStatistics) -> CodebookUpdate:
        """Nothing moves beside the optimiser's step; the perplexity is that of the batch."""
        return counts_alone(statistics)

    def initialise(self, vectors_ND: Tensor, *, seed: int) -> None:
        """Nothing to place."""
