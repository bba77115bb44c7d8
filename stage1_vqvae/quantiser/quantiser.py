"""Vector quantiser: nearest code, a gradient past it, and a codebook kept by moving averages or by its own loss.

What it is [1]: each group of channels at a position is replaced by the nearest of K codebook vectors (eq. 1-2); the
decoder's gradient is copied to the encoder as if nothing had happened (gradient="straight-through"), or turned and
scaled as the vector was (gradient="rotation", see `stage1_vqvae.quantiser.gradients`); the commitment term beta |z -
sg(e)|^2 pulls the encoder towards its codes, and the codebook follows the encoder either through |sg(z) - e|^2 (eq. 3,
update="loss") or through exponential moving averages (appendix A.1 of [1] and [2], update="ema").

Departures, and why:

- beta stands on the commitment term, as in eq. 3; several libraries put it on the codebook term.
- Usage is averaged as a *share of the batch's tokens*, with the accumulated weight of the average kept beside it
  (weight_t = decay weight_{t-1} + 1 - decay = 1 - decay^t from a random start). usage / weight is the bias-corrected
  share. Shares make k-means counts and training batches the same unit, whatever their sizes.
- A code's vector is sums / usage, where the bias correction cancels, so that the first batch that uses a fresh code
  determines it entirely. It is rewritten only in steps that used the code: an unused code keeps its vector bit for bit,
  and is never divided by a count near zero. There is no Laplace smoothing, which exists to hide that division.
- A code whose bias-corrected share falls below `revival_threshold` / K moves onto a vector of the current batch, after
  the averaging step, and its vector, sum and usage are set together, as if it had had its fair share all along.
  From a random start every code that the first batch does not use is therefore placed on data at once.
- `forward` never changes the codebook. `update` does, once per optimiser step, so that a non-finite loss can stop the
  step first and accumulated batches can be added up.

Under torch.distributed the statistics are summed and revival draws from all ranks' vectors with rank 0's random
numbers: the codebook is the same on every rank and (up to the rounding of sums) the same as with one process.

[1] van den Oord, Vinyals, Kavukcuoglu, "Neural discrete representation learning", arXiv 1711.00937.
[2] Razavi, van den Oord, Vinyals, "Generating diverse high-fidelity images with VQ-VAE-2", arXiv 1906.00446.

Shape letters: B items, D channels, S any spatial axes, G codebooks of K vectors, N = B * prod(S) tokens. In a `_GKD` or
`_GND` tensor the last axis is D/G, one codebook's channels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae.quantiser.gradients import Rotation, SquaredError, StraightThrough
from stage1_vqvae.quantiser.kmeans import ITERATIONS, kmeans
from stage1_vqvae.quantiser.layout import Join, Split, replace
from stage1_vqvae.quantiser.nearest import nearest_codes, sum_by_code
from twostage.distributed import copy_from_first, draw_rows, sum_over_ranks
from twostage.errors import UsageError


@dataclass(frozen=True)
class QuantiserStatistics:
    """What one training batch says about the codebook; detached. Add those of accumulated batches with `+`."""

    counts_GK: Tensor
    """Tokens assigned to each code, float."""
    sums_GKD: Tensor | None
    """Sum of the vectors assigned to each code; None with update="loss", which does not need it."""
    candidates_GND: Tensor
    """The batch's vectors, onto which a dead code may move; shares memory with the forward pass."""

    def __add__(self, other: "QuantiserStatistics") -> "QuantiserStatistics":
        sums_GKD = None
        if self.sums_GKD is not None and other.sums_GKD is not None:
            sums_GKD = self.sums_GKD + other.sums_GKD
        return QuantiserStatistics(
            self.counts_GK + other.counts_GK,
            sums_GKD,
            torch.cat([self.candidates_GND, other.candidates_GND], dim=1),
        )


@dataclass(frozen=True)
class Quantised:
    """Result of quantising one batch."""

    vectors: Tensor
    """`[B, D, *S]` codebook vectors exactly as `lookup(codes)` gives them; gradient to the input only."""
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
    """Scalar, exp(entropy) of the running usage, from 1 to K; the geometric mean over codebooks."""


class VectorQuantiser(nn.Module):
    """G codebooks of K vectors over `embedding_dim` channels, split into G equal consecutive parts.

    `codebook` is a parameter with update="loss" and a buffer with update="ema". It starts uniform in +-1/K, drawn from
    torch's global generator; `initialise_kmeans` places it on data. Raises UsageError for impossible settings.
    """

    codebook: Tensor  # [G, K, D/G]
    usage: Tensor  # [G, K] moving average of each code's share of the tokens, not bias-corrected
    sums: Tensor  # [G, K, D/G] moving average of the assigned vectors' sum per token; only with update="ema"
    weight: Tensor  # scalar, total weight in these averages: 0 for none yet, 1 for a long history

    def __init__(
        self,
        *,
        codebook_size: int,
        embedding_dim: int,
        codebooks: int = 1,
        update: Literal["ema", "loss"] = "ema",
        gradient: Literal["straight-through", "rotation"] = "straight-through",
        commitment_beta: float = 0.25,
        decay: float = 0.99,
        revival_threshold: float = 0.03,
    ) -> None:
        super().__init__()
        if codebook_size < 1 or codebooks < 1 or embedding_dim < 1 or embedding_dim % codebooks:
            raise UsageError(
                "The quantiser expects codebook_size >= 1 and an embedding_dim that codebooks divides, got "
                f"{codebook_size=}, {embedding_dim=}, {codebooks=}; change one of them."
            )
        if update not in ("ema", "loss"):
            raise UsageError(f"The codebook update is 'ema' or 'loss', got {update!r}; choose one of them.")
        if gradient not in ("straight-through", "rotation"):
            raise UsageError(f"The gradient is 'straight-through' or 'rotation', got {gradient!r}; choose one of them.")
        if not (0 <= decay < 1 and 0 <= revival_threshold < 1 and commitment_beta >= 0):
            raise UsageError(
                "The quantiser expects 0 <= decay < 1, 0 <= revival_threshold < 1 and commitment_beta >= 0, got "
                f"{decay}, {revival_threshold} and {commitment_beta}; correct these."
            )
        self.codebook_size, self.embedding_dim, self.codebooks = codebook_size, embedding_dim, codebooks
        self.update_rule, self.gradient, self.commitment_beta = update, gradient, commitment_beta
        self.decay, self.revival_threshold = decay, revival_threshold
        codebook_GKD = torch.empty(codebooks, codebook_size, embedding_dim // codebooks)
        codebook_GKD.uniform_(-1 / codebook_size, 1 / codebook_size)
        if update == "loss":
            self.codebook = nn.Parameter(codebook_GKD)
        else:
            self.register_buffer("codebook", codebook_GKD)
            self.register_buffer("sums", torch.zeros_like(codebook_GKD))
        self.register_buffer("usage", torch.zeros(codebooks, codebook_size))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, z_BDS: Tensor) -> Quantised:
        """Quantise `[B, D, *S]`. Pure: neither codebook nor counts change, in either mode; see `update`."""
        if z_BDS.ndim < 2 or z_BDS.shape[1] != self.embedding_dim:
            raise UsageError(
                f"The quantiser expects [batch, {self.embedding_dim} channels, ...], got shape {tuple(z_BDS.shape)}; "
                "give the encoder's last layer that many channels."
            )
        # fp32 from here on, also under autocast: scores, sums and losses lose codes in bf16
        with torch.autocast(device_type=z_BDS.device.type, enabled=False):
            z_BDS = z_BDS.to(self.codebook.dtype)
            z_GND = Split.apply(z_BDS, self.codebooks)
            codes_GN = torch.stack([nearest_codes(z_GND[g], self.codebook[g]) for g in range(self.codebooks)])
            e_BDS, squared = replace(z_GND, codes_GN, self.codebook, z_BDS.shape)
            mean_squared = squared / max(1, z_BDS.numel())
            commitment_loss = SquaredError.apply(z_BDS, e_BDS, mean_squared)
            codebook_loss = mean_squared
            if self.update_rule == "loss":
                codebook_loss = SquaredError.apply(self._gather(codes_GN), z_GND.detach(), mean_squared)
            if self.gradient == "rotation":
                vectors_BDS = Rotation.apply(z_GND, e_BDS)
            else:
                vectors_BDS = StraightThrough.apply(z_BDS, e_BDS)
        codes_BGS = codes_GN.reshape(self.codebooks, len(z_BDS), *z_BDS.shape[2:]).transpose(0, 1).contiguous()
        statistics = self._statistics(z_GND.detach(), codes_GN) if self.training else None
        return Quantised(vectors_BDS, codes_BGS, commitment_loss, codebook_loss, statistics)

    def loss(self, quantised: Quantised) -> Tensor:
        """Scalar: beta * commitment, plus the codebook loss with update="loss"; eq. 3 without the reconstruction."""
        commitment = self.commitment_beta * quantised.commitment_loss
        return commitment + quantised.codebook_loss if self.update_rule == "loss" else commitment

    def lookup(self, codes_BGS: Tensor) -> Tensor:
        """Codebook vectors `[B, D, *S]` of integer codes `[B, G, *S]`; raises UsageError for other shapes or values."""
        unfit = codes_BGS.is_floating_point() or codes_BGS.is_complex() or codes_BGS.dtype == torch.bool
        if unfit or codes_BGS.ndim < 2 or codes_BGS.shape[1] != self.codebooks:
            raise UsageError(
                f"Lookup expects integer codes [batch, {self.codebooks} codebooks, ...], got {codes_BGS.dtype} "
                f"{tuple(codes_BGS.shape)}; pass codes of this model."
            )
        codes_BGS = codes_BGS.long()
        if codes_BGS.numel() and not 0 <= int(codes_BGS.min()) <= int(codes_BGS.max()) < self.codebook_size:
            raise UsageError(
                f"Lookup expects codes from 0 to {self.codebook_size - 1}, got {int(codes_BGS.min())} to "
                f"{int(codes_BGS.max())}; they belong to another codebook."
            )
        batch, grid = codes_BGS.shape[0], codes_BGS.shape[2:]
        e_GND = self._gather(codes_BGS.transpose(0, 1).reshape(self.codebooks, batch * grid.numel()))
        return Join.apply(e_GND, torch.Size((batch, self.embedding_dim, *grid)))

    @torch.no_grad()
    def update(self, statistics: QuantiserStatistics) -> CodebookUpdate:
        """Move averages, codebook (update="ema") and dead codes; call once per optimiser step, after the step.

        Under torch.distributed every rank must call it. Statistics without a token change nothing.
        """
        sums = () if statistics.sums_GKD is None else (statistics.sums_GKD,)
        counts_GK, *batch_sums = sum_over_ranks(statistics.counts_GK, *sums)
        revived_GK = torch.zeros_like(counts_GK, dtype=torch.bool)
        tokens = counts_GK[0].sum()
        if float(tokens) > 0:
            fresh = 1 - self.decay
            self.weight.mul_(self.decay).add_(fresh)
            self.usage.mul_(self.decay).add_(counts_GK / tokens, alpha=fresh)
            if self.update_rule == "ema":
                (batch_sums_GKD,) = batch_sums
                self.sums.mul_(self.decay).add_(batch_sums_GKD / tokens, alpha=fresh)
                means_GKD = self.sums / self.usage[..., None]
                # where() drops the 0 / 0 of codes never used
                self.codebook.copy_(torch.where(counts_GK[..., None] > 0, means_GKD, self.codebook))
            dead_GK = self.usage < self.revival_threshold * self.weight / self.codebook_size
            for g in torch.nonzero(dead_GK.any(dim=1))[:, 0].tolist():
                self._revive(g, torch.nonzero(dead_GK[g])[:, 0], statistics.candidates_GND[g], revived_GK)
        share_GK = self.usage / self.usage.sum(dim=1, keepdim=True)
        return CodebookUpdate(revived_GK, torch.special.entr(share_GK).nansum(dim=1).mean().exp())

    @torch.no_grad()
    def initialise_kmeans(self, vectors_ND: Tensor, *, seed: int, iterations: int = ITERATIONS) -> None:
        """Place the codebook on encoder outputs `[N, D]` (all codebooks' channels): vectors, sums and usage together.

        Vectors of many items should come shuffled (see `kmeans`).

        The counts weigh as much as a long history of batches with the same shares. With fewer distinct vectors than
        codes, the codes left over are jittered copies with usage zero. Under torch.distributed every rank must call it;
        rank 0's result counts. Raises UsageError for fewer vectors than codes, a wrong width or non-finite values.
        """
        if vectors_ND.ndim != 2 or vectors_ND.shape[1] != self.embedding_dim:
            raise UsageError(
                f"k-means expects vectors [N, {self.embedding_dim}], got shape {tuple(vectors_ND.shape)}; "
                "pass encoder outputs with the channels last."
            )
        generator = torch.Generator().manual_seed(seed)
        z_GND = Split.apply(vectors_ND.detach().to(self.codebook), self.codebooks)
        for g in range(self.codebooks):
            clusters = kmeans(z_GND[g], clusters=self.codebook_size, generator=generator, iterations=iterations)
            self.codebook[g] = clusters.centres_KD
            self.usage[g] = clusters.counts_K / clusters.counts_K.sum()
        copy_from_first(self.codebook.detach(), self.usage)
        if self.update_rule == "ema":
            self.sums.copy_(self.codebook * self.usage[..., None])
        self.weight.fill_(1.0)

    def _revive(self, g: int, dead: Tensor, candidates_ND: Tensor, revived_GK: Tensor) -> None:
        """Move dead codes of codebook g onto distinct random vectors of the batch; any without one wait a step."""
        # unique: of codes on copies of one vector (blank background, say) only one can ever be nearest
        rows_MD = torch.unique(draw_rows(candidates_ND, len(dead)), dim=0)
        moved = dead[: len(rows_MD)]
        fair_usage = self.weight / self.codebook_size
        self.codebook[g, moved] = rows_MD
        self.usage[g, moved] = fair_usage
        if self.update_rule == "ema":
            self.sums[g, moved] = rows_MD * fair_usage
        revived_GK[g, moved] = True

    def _statistics(self, z_GND: Tensor, codes_GN: Tensor) -> QuantiserStatistics:
        counts = [torch.bincount(codes_N, minlength=self.codebook_size) for codes_N in codes_GN]
        sums_GKD = None
        if self.update_rule == "ema":
            sums_GKD = torch.stack(
                [sum_by_code(z_GND[g], codes_GN[g], self.codebook_size) for g in range(self.codebooks)]
            )
        return QuantiserStatistics(torch.stack(counts).to(z_GND.dtype), sums_GKD, z_GND)

    def _gather(self, codes_GN: Tensor) -> Tensor:
        """One embedding lookup for all codebooks, in a table of G * K rows."""
        offsets_G1 = self.codebook_size * torch.arange(self.codebooks, device=codes_GN.device)[:, None]
        return F.embedding(codes_GN + offsets_G1, self.codebook.flatten(0, 1))
