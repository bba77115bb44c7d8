"""A learned codebook: its vectors, averages, k-means start and revival, apart from how codes are chosen.

- Usage is averaged as a *share of the batch's tokens*, with the accumulated weight of the average kept beside it
  (weight_t = decay weight_{t-1} + 1 - decay = 1 - decay^t from a random start). usage / weight is the bias-corrected
  share. Shares make k-means counts and training batches the same unit, whatever their sizes.
- A code's vector is sums / usage, where the bias correction cancels, so that the first batch that uses a fresh code
  determines it entirely. It is rewritten only in steps that used the code: an unused code keeps its vector bit for bit,
  and is never divided by a count near zero. There is no Laplace smoothing, which exists to hide that division.
- A code whose bias-corrected share falls below `revival_threshold` / K moves onto a vector of the current batch, after
  the averaging step, and its vector, sum and usage are set together, as if it had had its fair share all along.
  From a random start every code that the first batch does not use is therefore placed on data at once.
- With a `rate_weight`, the bits of a code count beside its distance (entropy-constrained vector quantisation [1]). They
  are those of the shares above, which are summed over ranks, kept in the checkpoint and left alone in eval mode.
- `update` moves all this once per optimiser step, so that a non-finite loss can stop the step first and accumulated
  batches can be added up.

Under torch.distributed the statistics are summed and revival draws from all ranks' vectors with rank 0's random
numbers: the codebook is the same on every rank and (up to the rounding of sums) the same as with one process.

[1] Chou, Lookabaugh, Gray, "Entropy-constrained vector quantization", IEEE Trans. ASSP 37(1), 1989.

Shapes: G codebooks, K codes, D channels of one codebook's vectors, N tokens.
"""

from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from stage1_vqvae.quantiser.interface import CodebookUpdate, Quantised, QuantiserStatistics, counted, perplexity
from stage1_vqvae.quantiser.kmeans import ITERATIONS, kmeans
from stage1_vqvae.quantiser.nearest import sum_by_code
from twostage.distributed import copy_from_first, draw_rows, sum_over_ranks
from twostage.errors import UsageError

Update = Literal["ema", "loss"]
Gradient = Literal["straight-through", "rotation"]

_UNSEEN = 0.01
"""Weight of equal shares beside the history of all batches (1): a code that was never used costs a few bits more than
log2 K, not infinitely many, so that it can be chosen again."""


class CodebookSettings(TypedDict, total=False):
    """What `LearnedCodebook` is given beside its sizes."""

    update: Update
    gradient: Gradient
    commitment_beta: float
    decay: float
    revival_threshold: float
    rate_weight: float


class LearnedCodebook(nn.Module):
    """G codebooks of K vectors of `width` channels.

    `codebook` is a parameter with update="loss" and a buffer with update="ema". It starts uniform in +-1/K, drawn from
    torch's global generator. Raises UsageError for impossible settings.
    """

    codebook: Tensor  # [G, K, D]
    usage: Tensor  # [G, K] moving average of each code's share of the tokens, not bias-corrected
    sums: Tensor  # [G, K, D] moving average of the assigned vectors' sum per token; only with update="ema"
    weight: Tensor  # scalar, total weight in these averages: 0 for none yet, 1 for a long history

    def __init__(
        self,
        *,
        codebook_size: int,
        codebooks: int,
        width: int,
        update: Update = "ema",
        gradient: Gradient = "straight-through",
        commitment_beta: float = 0.25,
        decay: float = 0.99,
        revival_threshold: float = 0.03,
        rate_weight: float = 0.0,
    ) -> None:
        super().__init__()
        if update not in ("ema", "loss"):
            raise UsageError(f"The codebook update is 'ema' or 'loss', got {update!r}; choose one of them.")
        check_past_quantiser(gradient, commitment_beta)
        if not (0 <= decay < 1 and 0 <= revival_threshold < 1):
            raise UsageError(
                "The quantiser expects 0 <= decay < 1 and 0 <= revival_threshold < 1, got "
                f"{decay} and {revival_threshold}; correct these."
            )
        if not rate_weight >= 0:
            raise UsageError(f"The quantiser expects rate_weight >= 0, got {rate_weight}; correct it.")
        self.codebook_size, self.codebooks, self.rate_weight = codebook_size, codebooks, rate_weight
        self.update_rule, self.gradient, self.commitment_beta = update, gradient, commitment_beta
        self.decay, self.revival_threshold = decay, revival_threshold
        codebook_GKD = torch.empty(codebooks, codebook_size, width)
        codebook_GKD.uniform_(-1 / codebook_size, 1 / codebook_size)
        if update == "loss":
            self.codebook = nn.Parameter(codebook_GKD)
        else:
            self.register_buffer("codebook", codebook_GKD)
            self.register_buffer("sums", torch.zeros_like(codebook_GKD))
        self.register_buffer("usage", torch.zeros(codebooks, codebook_size))
        self.register_buffer("weight", torch.zeros(()))

    def loss(self, quantised: Quantised) -> Tensor:
        """Scalar: beta * commitment, plus the codebook loss with update="loss"; eq. 3 without the reconstruction."""
        commitment = self.commitment_beta * quantised.commitment_loss
        return commitment + quantised.codebook_loss if self.update_rule == "loss" else commitment

    def bits(self) -> Tensor:
        """What each code costs by the running shares, -log2 share, `[G, K]`; log2 K before the first batch.

        Codes that were revived have a fair share on top of what the batches counted, so the sum divides, not the
        weight of the average: 2 ** -bits adds up to one.
        """
        share_GK = self.usage + _UNSEEN / self.codebook_size
        return -(share_GK / share_GK.sum(1, keepdim=True)).log2()

    @torch.no_grad()
    def penalties(self, codebook_GKD: Tensor) -> Tensor | None:
        """What the bits of each code add to its squared distance, `[G, K]`; None with a `rate_weight` of 0.

        A bit costs `rate_weight` times the spread of the codes' vectors: their variance by the running shares, over all
        channels, added up over codebooks. In units of its own the encoder could outgrow any price of a bit; and while
        codes collapse, the price falls with their spread.

        Args:
            codebook_GKD: vectors among which codes are chosen.
        """
        if not self.rate_weight:
            return None
        bits_GK = self.bits()
        share_GK1 = bits_GK.neg().exp2()[:, :, None]
        mean_G1D = (share_GK1 * codebook_GKD).sum(1, keepdim=True)
        spread = (share_GK1 * (codebook_GKD - mean_G1D).square()).sum()
        return self.rate_weight * spread * bits_GK

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
            assert statistics.candidates_GND is not None
            for g in torch.nonzero(dead_GK.any(dim=1))[:, 0].tolist():
                self._revive(g, torch.nonzero(dead_GK[g])[:, 0], statistics.candidates_GND[g], revived_GK)
        return CodebookUpdate(revived_GK, perplexity(self.usage))

    def statistics_of(self, z_GND: Tensor, codes_GN: Tensor) -> QuantiserStatistics:
        """What `update` is to know of a batch, whose vectors are detached."""
        counts_GK = counted(codes_GN, self.codebook_size).counts_GK.to(z_GND.dtype)
        sums_GKD = None
        if self.update_rule == "ema":
            sums_GKD = torch.stack(
                [sum_by_code(z_GND[g], codes_GN[g], self.codebook_size) for g in range(self.codebooks)]
            )
        return QuantiserStatistics(counts_GK, sums_GKD, z_GND)

    @torch.no_grad()
    def place(self, g: int, vectors_ND: Tensor, generator: torch.Generator, *, iterations: int = ITERATIONS) -> None:
        """Put codebook g onto cluster centres of these vectors; `finish_placing` after the last one.

        The counts weigh as much as a long history of batches with the same shares. With fewer distinct vectors than
        codes, the codes left over are jittered copies with usage zero. Raises UsageError for fewer vectors than codes,
        or non-finite values.
        """
        clusters = kmeans(vectors_ND, clusters=self.codebook_size, generator=generator, iterations=iterations)
        self.codebook[g] = clusters.centres_KD
        self.usage[g] = clusters.counts_K / clusters.counts_K.sum()

    @torch.no_grad()
    def finish_placing(self) -> None:
        """Take rank 0's codebooks, and set sums and weight with them."""
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


def check_sizes(*, codebook_size: int, codebooks: int, embedding_dim: int) -> None:
    """Raise UsageError for sizes that no G product codebooks over `embedding_dim` channels can have."""
    if codebook_size < 1 or codebooks < 1 or embedding_dim < 1 or embedding_dim % codebooks:
        raise UsageError(
            "The quantiser expects codebook_size >= 1 and an embedding_dim that codebooks divides, got "
            f"{codebook_size=}, {embedding_dim=}, {codebooks=}; change one of them."
        )


def check_past_quantiser(gradient: str, commitment_beta: float) -> None:
    """Raise UsageError for an unknown gradient past the quantiser, or a commitment of negative weight."""
    if gradient not in ("straight-through", "rotation"):
        raise UsageError(f"The gradient is 'straight-through' or 'rotation', got {gradient!r}; choose one of them.")
    if not commitment_beta >= 0:
        raise UsageError(f"The quantiser expects commitment_beta >= 0, got {commitment_beta}; correct it.")


def check_vectors(vectors_ND: Tensor, embedding_dim: int) -> None:
    """Raise UsageError unless the vectors of a k-means start are `[N, embedding_dim]`."""
    if vectors_ND.ndim != 2 or vectors_ND.shape[1] != embedding_dim:
        raise UsageError(
            f"k-means expects vectors [N, {embedding_dim}], got shape {tuple(vectors_ND.shape)}; "
            "pass encoder outputs with the channels last."
        )
