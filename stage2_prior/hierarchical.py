"""Prior over a hierarchy of codes (Razavi et al. 2019, "VQ-VAE-2", arXiv 1906.00446).

p(codes) = p(level 0) p(level 1 | level 0) p(level 2 | levels 0, 1) ..., coarsest level first. Every level is a
`PixelCNN` of the same size; those of the finer levels are given a map of features that a conditioning stack makes from
all coarser codes: their embeddings and residual convolutions at the coarsest grid, a transposed convolution to the
next one, where that level's embeddings are added, and so on to the level's own grid.

Departures from the paper, and why:
- A transposed convolution with kernel = stride brings a map to the next grid: each fine position under a coarse one has
  weights of its own, so that they differ from the start.
- Attention, where it is asked for, stands in all levels; the paper has it in the coarsest alone.
- All levels are trained at once, with one optimiser; their terms of the likelihood share no weight.

Shape suffixes: B items, G codebooks, N positions of all levels in a row, K codes, A attributes, F features of a map, H,
W grid of a level.
"""

import copy
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn

from stage2_prior.pixelcnn import GatedSettings, PixelCNN
from stage2_prior.prior import LogProbParts, check_codes
from stage2_prior.state import check_same_condition, check_step
from twostage.errors import UsageError
from twostage.grids import Grids, axes_of, positions_of, split_levels
from twostage.layers.residual import ResidualBlock
from twostage.storage.from_folder import FromFolder


class CoarserCodes(nn.Module):
    """The conditioning stack of a level: codes [B, G, H, W] of all coarser levels to a map [B, F, H, W] on its grid.

    Args:
        codebook_size, codebooks: K and G of every level.
        grids: of the coarser levels, coarsest first, and of the level itself.
        channels: F.
        blocks: residual blocks at the grid of every coarser level.
    """

    offset_G: Tensor

    def __init__(self, *, codebook_size: int, codebooks: int, grids: Grids, channels: int, blocks: int) -> None:
        super().__init__()
        self.register_buffer("offset_G", torch.arange(codebooks) * codebook_size, persistent=False)
        self.embeddings = nn.ModuleList(nn.Embedding(codebooks * codebook_size, channels) for _ in grids[:-1])
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=codebooks**-0.5)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels=channels, residual_channels=channels) for _ in range(blocks)))
            for _ in grids[:-1]
        )
        factors = [(fine[0] // coarse[0], fine[1] // coarse[1]) for coarse, fine in pairwise(grids)]
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(channels, channels, factor, factor) for factor in factors)

    def forward(self, coarser: list[Tensor]) -> Tensor:
        """The map, from the codes of every coarser level, coarsest first."""
        map_BFHW: Tensor | None = None
        for codes_BGHW, embedding, blocks, enlarge in zip(
            coarser, self.embeddings, self.blocks, self.enlarge, strict=True
        ):
            x_BFHW = embedding(codes_BGHW + self.offset_G[:, None, None]).sum(dim=1).permute(0, 3, 1, 2)
            map_BFHW = enlarge(blocks(x_BFHW if map_BFHW is None else map_BFHW + x_BFHW))
        assert map_BFHW is not None  # the coarsest level has no such stack
        return map_BFHW


class HierarchicalPrior(FromFolder, nn.Module):
    """Autoregressive prior over the codes [B, G, N] of a hierarchy; satisfies `stage2_prior.prior.Prior`.

    Args:
        codebook_size: K of every level, codes run from 0 to K - 1.
        grids: (H, W) of every level, coarsest first; the sides of each are whole multiples of those of the one before.
        codebooks: G codes per position, of every level.
        classes: number of classes of each attribute of the condition; empty for an unconditional prior.
        level_blocks: residual blocks over the codes of every coarser level, before their map is enlarged.
        settings: size and training of every level, as of a `PixelCNN`; its channels are also those of the maps.

    Raises:
        UsageError: there is one grid alone, or one that does not fit the one before; or as of a `PixelCNN`.
    """

    kinds = ("hierarchical-pixelcnn",)
    stage = "prior"

    has_end = False

    def __init__(
        self,
        *,
        codebook_size: int,
        grids: tuple[tuple[int, int], ...],
        codebooks: int = 1,
        classes: tuple[int, ...] = (),
        level_blocks: int = 2,
        **settings: Unpack[GatedSettings],
    ) -> None:
        super().__init__()
        self.grids: Grids = tuple(tuple(grid) for grid in grids)
        _check_grids(self.grids)
        if level_blocks < 0:
            raise UsageError(f"Expected level_blocks of at least 0, got {level_blocks}: enlarge it.")
        self.codebook_size = codebook_size
        self.code_shape: tuple[int, ...] = (codebooks, *axes_of(self.grids))
        self.classes = tuple(classes)
        sizes = {"codebook_size": codebook_size, "codebooks": codebooks}
        coarsest = PixelCNN(**sizes, grid=grids[0], classes=self.classes, **settings)
        channels = coarsest.stack.channels
        finer = (
            PixelCNN(**sizes, grid=grid, classes=self.classes, map_channels=channels, **settings) for grid in grids[1:]
        )
        self.levels = nn.ModuleList([coarsest, *finer])
        self.coarser = nn.ModuleList(
            CoarserCodes(**sizes, grids=self.grids[: level + 1], channels=channels, blocks=level_blocks)
            for level in range(1, len(grids))
        )

    @property
    def condition_optional(self) -> bool:
        """Whether a prior with classes also takes None, which means "no label": it was trained with label dropout."""
        return self.level(0).condition_optional

    def forward(self, codes_BGN: Tensor, condition_BA: Tensor | None = None) -> Tensor:
        """Logits [B, G, N, K] of every code given the codes before it and the condition, int64 [B, A].

        With label dropout the condition may be None. In training mode the dropout draws from torch's global generator,
        and every level hides the labels of items of its own choice.

        Raises:
            UsageError: the codes or the condition do not fit this prior (on the CPU values are checked as well).
        """
        logits = [level(codes, condition_BA, given) for level, codes, given in self._by_level(codes_BGN)]
        return torch.cat([logits_BGHWK.flatten(2, 3) for logits_BGHWK in logits], dim=2)

    def log_prob(
        self, codes_BGN: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> Tensor:
        """Log-probability of each item in nats, [B]; the softmax is taken in at least fp32 whatever the autocast."""
        levels = self._by_level(codes_BGN)
        terms = [level.log_prob(codes, condition_BA, lengths_B, given) for level, codes, given in levels]
        return torch.stack(terms).sum(dim=0)

    def log_prob_parts(
        self, codes_BGN: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> LogProbParts:
        """`log_prob`, and nothing for an end."""
        return LogProbParts.of_grid(self.log_prob(codes_BGN, condition_BA, lengths_B))

    def log_probs_by_code(
        self, codes_BGN: Tensor, conditions: Iterable[Tensor | None], lengths_B: Tensor | None = None
    ) -> Iterator[LogProbParts]:
        """Log-probability in nats of every code given those before it, [B, G, N], under one condition after another.

        What does not see the condition is computed once: the maps, and what `PixelCNN` computes once.
        """
        conditions, levels = list(conditions), self._by_level(codes_BGN)
        found = [level.log_probs_by_code(codes, conditions, lengths_B, given) for level, codes, given in levels]
        for by_level in zip(*found, strict=True):
            yield LogProbParts.of_grid(torch.cat([parts.codes.flatten(2) for parts in by_level], dim=2))

    @torch.no_grad()
    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> "HierarchicalState":
        """State before the first code, with a copy of the weights: it belongs to the weights of this moment."""
        return HierarchicalState(self, batch_size=batch_size, condition_BA=condition_BA)

    def step(
        self, state: "HierarchicalState", symbol_B: Tensor | None, condition_BA: Tensor | None = None
    ) -> tuple[Tensor, "HierarchicalState"]:
        """Take in code n - 1 (int64 [B], None at n = 0); return the logits of code n, [B, K], and the state.

        The codes are ordered n = p G + g for position p of all levels in a row. The state is updated in place. Eval
        mode is implied: no dropout, no gradient. The condition went into the state; one given here must be the same.

        Raises:
            UsageError: the symbol or the condition does not fit the state, or all levels are complete.
        """
        return state.advance(symbol_B, condition_BA), state

    def end_logit(self, state: "HierarchicalState") -> Tensor:
        """Minus infinity, [B]: a hierarchy has no end before its last position."""
        return state.end_logit_B

    def level(self, index: int) -> PixelCNN:
        """The prior of one level, 0 for the coarsest; of the others given the map of the coarser codes."""
        level = self.levels[index]
        assert isinstance(level, PixelCNN)
        return level

    def _by_level(self, codes_BGN: Tensor) -> list[tuple[PixelCNN, Tensor, Tensor | None]]:
        """Every level with its own codes and the map of the coarser ones."""
        check_codes(codes_BGN, code_shape=self.code_shape, codebook_size=self.codebook_size, ends=self.has_end)
        codes = split_levels(codes_BGN, self.grids)
        maps = [None, *(stack(codes[: index + 1]) for index, stack in enumerate(self.coarser))]
        return [(self.level(index), codes[index], maps[index]) for index in range(len(codes))]


class HierarchicalState:
    """Progress of a batch through the levels, one after the other; updated in place.

    Args:
        prior: its levels and conditioning stacks are copied, so that the state belongs to the weights of this moment.
        batch_size: items B walked side by side.
        condition_BA: the condition of every level.
    """

    @torch.no_grad()
    def __init__(self, prior: HierarchicalPrior, *, batch_size: int, condition_BA: Tensor | None) -> None:
        self._finer = [copy.deepcopy(prior.level(index)) for index in range(1, len(prior.grids))]
        self._coarser = copy.deepcopy(prior.coarser)
        self._grids, self._codebooks = prior.grids, prior.code_shape[0]
        self._batch_size, self._condition_BA = batch_size, condition_BA
        self._symbol, self._symbols = 0, self._codebooks * prior.code_shape[1]
        self._known: list[Tensor] = []  # codes [B, G, H, W] of the levels that are complete
        self._drawn: list[Tensor] = []  # of the current level so far
        self._state = prior.level(0).initial_state(batch_size, condition_BA)

    @property
    def end_logit_B(self) -> Tensor:
        """Minus infinity after the first step."""
        return self._state.end_logit_B

    @torch.no_grad()
    def advance(self, symbol_B: Tensor | None, condition_BA: Tensor | None) -> Tensor:
        """Take in code n - 1 (int64 [B], None at n = 0); return the logits of code n, [B, K].

        Raises:
            UsageError: the symbol or the condition does not fit the state, or all levels are complete.
        """
        check_step(self._symbol, self._symbols, symbol_B, batch_size=self._batch_size)
        check_same_condition(condition_BA, self._condition_BA)
        self._symbol += 1
        if symbol_B is not None:
            self._drawn.append(symbol_B)
            if len(self._drawn) == self._codebooks * positions_of(self._grids)[len(self._known)]:
                self._begin_level()
                symbol_B = None
        return self._state.advance(symbol_B, condition_BA)

    def _begin_level(self) -> None:
        """Go on to the next level, which sees the codes of the one that is complete."""
        level = len(self._known)
        codes_BPG = torch.stack(self._drawn, dim=1).unflatten(1, (-1, self._codebooks))
        self._known.append(codes_BPG.transpose(1, 2).unflatten(2, self._grids[level]))
        self._drawn = []
        given = self._coarser[level](self._known)
        self._state = self._finer[level].initial_state(self._batch_size, self._condition_BA, given)


def _check_grids(grids: Grids) -> None:
    if len(grids) < 2:
        raise UsageError(f"Expected the grids of at least two levels, got {grids}: a single grid takes a PixelCNN.")
    for coarse, fine in pairwise(grids):
        sides = list(zip(coarse, fine, strict=True)) if len(coarse) == len(fine) == 2 else []
        if not sides or any(a < 1 or b % a for a, b in sides) or coarse == fine:
            raise UsageError(
                f"Expected grids of two sides, each a whole multiple of those before it and larger, got {coarse} and "
                f"{fine}: order them from the coarsest to the finest."
            )
