"""Vector quantiser: nearest code, a gradient past it, and a codebook kept by moving averages or by its own loss.

What it is [1]: each group of channels at a position is replaced by the nearest of K codebook vectors (eq. 1-2); the
decoder's gradient is copied to the encoder as if nothing had happened (gradient="straight-through"), or turned and
scaled as the vector was (gradient="rotation", see `stage1_vqvae.quantiser.gradients`); the commitment term beta |z -
sg(e)|^2 pulls the encoder towards its codes, and the codebook follows the encoder either through |sg(z) - e|^2 (eq. 3,
update="loss") or through exponential moving averages (appendix A.1 of [1] and [2], update="ema").

With a `rate_weight` the codes pay for themselves: each group takes the code of the least |z - e|^2 + lambda * bits, see
`LearnedCodebook.penalties`.

Departures: beta stands on the commitment term, as in eq. 3; several libraries put it on the codebook term. `forward`
never changes the codebook. How averages are kept and dead codes revived, and why, stands in
`stage1_vqvae.quantiser.codebook`.

[1] van den Oord, Vinyals, Kavukcuoglu, "Neural discrete representation learning", arXiv 1711.00937.
[2] Razavi, van den Oord, Vinyals, "Generating diverse high-fidelity images with VQ-VAE-2", arXiv 1906.00446.

Shape letters: B items, D channels, S any spatial axes, G codebooks of K vectors, N = B * prod(S) tokens. In a `_GKD` or
`_GND` tensor the last axis is D/G, one codebook's channels.
"""

from typing import Unpack

import torch
from torch import Tensor

from stage1_vqvae.quantiser.assign import assign, squared_distances, vectors_of
from stage1_vqvae.quantiser.codebook import CodebookSettings, LearnedCodebook, check_sizes, check_vectors
from stage1_vqvae.quantiser.interface import Quantised
from stage1_vqvae.quantiser.kmeans import ITERATIONS
from stage1_vqvae.quantiser.layout import Split, check_channels, checked_codes, codes_by_item


class VectorQuantiser(LearnedCodebook):
    """G codebooks of K vectors over `embedding_dim` channels, split into G equal consecutive parts.

    `initialise` places the codebooks on data. Raises UsageError for impossible settings.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        codebook_size: int = 512,
        codebooks: int = 1,
        **settings: Unpack[CodebookSettings],
    ) -> None:
        check_sizes(codebook_size=codebook_size, codebooks=codebooks, embedding_dim=embedding_dim)
        width = embedding_dim // codebooks
        super().__init__(codebook_size=codebook_size, codebooks=codebooks, width=width, **settings)
        self.embedding_dim = embedding_dim

    def forward(self, z_BDS: Tensor, items_B: Tensor | None = None) -> Quantised:
        """Quantise `[B, D, *S]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        # fp32 from here on, also under autocast: scores, sums and losses lose codes in bf16
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):
            found = assign(
                z_BDS.to(self.codebook.dtype),
                self.codebook,
                codebook_learns=self.update_rule == "loss",
                rotate=self.gradient == "rotation",
                penalty_GK=self.penalties(self.codebook),
            )
        statistics = self.statistics_of(found.z_GND, found.codes_GN) if self.training else None
        codes_BGS = codes_by_item(found.codes_GN, z_BDS.shape)
        return Quantised(found.vectors, codes_BGS, found.commitment_loss, found.codebook_loss, statistics)

    def distances(self, z_BDS: Tensor) -> Tensor:
        """Squared, of every vector of `[B, D, *S]` to every code, `[G, N, K]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):  # as in `forward`
            return squared_distances(Split.apply(z_BDS.to(self.codebook.dtype), self.codebooks), self.codebook)

    @property
    def code_vectors(self) -> Tensor:
        """`[G, K, W]`, the codebook."""
        return self.codebook

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Codebook vectors `[B, D, *S]` of integer codes `[B, G, *S]`; raises UsageError for other shapes or values."""
        codes_BGS = checked_codes(codes_BGS, codebooks=self.codebooks, codebook_size=self.codebook_size)
        return vectors_of(codes_BGS, self.codebook)

    @torch.no_grad()
    def initialise(self, vectors_ND: Tensor, *, seed: int, iterations: int = ITERATIONS) -> None:
        """Place the codebooks by k-means on encoder outputs `[N, D]`: vectors, sums and usage together.

        Vectors of many items should come shuffled (see `kmeans`). Under torch.distributed every rank must call it; rank
        0's result counts. Raises UsageError for fewer vectors than codes, a wrong width or non-finite values.
        """
        check_vectors(vectors_ND, self.embedding_dim)
        generator = torch.Generator().manual_seed(seed)
        for g, z_ND in enumerate(Split.apply(vectors_ND.detach().to(self.codebook), self.codebooks)):
            self.place(g, z_ND, generator, iterations=iterations)
        self.finish_placing()
