"""Codes on a sphere: vectors and codebook of few channels and length one (Yu et al. 2022, ViT-VQGAN, arXiv 2110.04627).

A linear layer leads from the embedding to `code_dim` channels for each codebook, and one leads back; between them
vectors and codes are divided by their lengths, so that the nearest code is that of the largest cosine (section 3.2 of
the paper, "factorized codes" and "l2-normalized codes"). Commitment and codebook loss are those of eq. 3 of the VQ-VAE
between vectors of length one. The search is cheap, and no code can lose its tokens by being long or short.

With update="ema", which the paper does not have, a code follows the average direction of its vectors: what
`LearnedCodebook` keeps is the average of unit vectors, whose length is irrelevant wherever a code is used. k-means
starts on unit vectors, and dead codes move onto them, in the same way.

Shapes: B items, D channels of the embedding, S any spatial axes, G codebooks of K vectors, C = G * code_dim channels.
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.quantiser.assign import assign, squared_distances, vectors_of
from stage1_vqvae.quantiser.codebook import CodebookSettings, LearnedCodebook, check_vectors
from stage1_vqvae.quantiser.interface import Quantised
from stage1_vqvae.quantiser.kmeans import ITERATIONS
from stage1_vqvae.quantiser.layout import Split, check_channels, checked_codes, codes_by_item
from twostage.errors import UsageError


class CosineQuantiser(LearnedCodebook):
    """G codebooks of K directions in `code_dim` channels, between linear layers from and to `embedding_dim`.

    Raises:
        UsageError: impossible settings; a sphere needs a code_dim of at least 2.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        codebook_size: int = 512,
        codebooks: int = 1,
        code_dim: int = 32,
        **settings: Unpack[CodebookSettings],
    ) -> None:
        if codebook_size < 1 or codebooks < 1 or embedding_dim < 1 or code_dim < 2:
            raise UsageError(
                "The cosine quantiser expects codebook_size, codebooks and embedding_dim of at least 1 and a code_dim "
                f"of at least 2, got {codebook_size}, {codebooks}, {embedding_dim} and {code_dim}; change one of them."
            )
        super().__init__(codebook_size=codebook_size, codebooks=codebooks, width=code_dim, **settings)
        self.embedding_dim = embedding_dim
        self.lead_in = nn.Linear(embedding_dim, codebooks * code_dim)
        self.lead_out = nn.Linear(codebooks * code_dim, embedding_dim)

    def directions(self, z_BDS: Tensor) -> Tensor:
        """What is quantised of `[B, D, *S]`: `[B, C, *S]`, of length one in every codebook's channels."""
        z_BSC = self.lead_in(z_BDS.to(self.codebook.dtype).movedim(1, -1))
        return F.normalize(z_BSC.unflatten(-1, (self.codebooks, -1)), dim=-1).flatten(-2).movedim(-1, 1).contiguous()

    def forward(self, z_BDS: Tensor, items_B: Tensor | None = None) -> Quantised:
        """Quantise `[B, D, *S]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        # fp32 also under autocast: in bf16 neighbouring directions run together
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):
            codes_GKC = F.normalize(self.codebook, dim=-1)
            found = assign(
                self.directions(z_BDS),
                codes_GKC,
                codebook_learns=self.update_rule == "loss",
                rotate=self.gradient == "rotation",
                penalty_GK=self.penalties(codes_GKC),
            )
            vectors_BDS = self._lead_out(found.vectors)
        statistics = self.statistics_of(found.z_GND, found.codes_GN) if self.training else None
        codes_BGS = codes_by_item(found.codes_GN, z_BDS.shape)
        return Quantised(vectors_BDS, codes_BGS, found.commitment_loss, found.codebook_loss, statistics)

    def distances(self, z_BDS: Tensor) -> Tensor:
        """Squared, of the direction of every vector of `[B, D, *S]` to every code, `[G, N, K]`; see `Quantiser`."""
        check_channels(z_BDS, self.embedding_dim)
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):  # as in `forward`
            directions_GND = Split.apply(self.directions(z_BDS), self.codebooks)
            return squared_distances(directions_GND, F.normalize(self.codebook, dim=-1))

    @property
    def code_vectors(self) -> Tensor:
        """`[G, K, C/G]`, directions: the codebook, each vector of length one."""
        return F.normalize(self.codebook, dim=-1)

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Vectors `[B, D, *S]` of integer codes `[B, G, *S]`; raises UsageError for other shapes or values."""
        codes_BGS = checked_codes(codes_BGS, codebooks=self.codebooks, codebook_size=self.codebook_size)
        with torch.autocast(device_type=codes_BGS.device.type, enabled=False):  # as in `forward`
            return self._lead_out(vectors_of(codes_BGS, F.normalize(self.codebook, dim=-1)))

    @torch.no_grad()
    def initialise(self, vectors_ND: Tensor, *, seed: int, iterations: int = ITERATIONS) -> None:
        """Place the codebooks by k-means on the directions of encoder outputs `[N, D]`; see `VectorQuantiser`."""
        check_vectors(vectors_ND, self.embedding_dim)
        generator = torch.Generator().manual_seed(seed)
        for g, z_ND in enumerate(Split.apply(self.directions(vectors_ND), self.codebooks)):
            self.place(g, z_ND, generator, iterations=iterations)
        self.finish_placing()

    def _lead_out(self, e_BCS: Tensor) -> Tensor:
        return self.lead_out(e_BCS.movedim(1, -1)).movedim(-1, 1).contiguous()
