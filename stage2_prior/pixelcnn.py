"""Gated PixelCNN prior over grids of integer codes (van den Oord et al. 2016, arXiv 1606.05328).

p(codes) is the product over raster positions, and inside a position over codebooks in order, of a categorical over K
codes. The codes are embedded (an index carries no magnitude); a `GatedStack` (`twostage.layers.causal`, which lists how
it departs from the paper) turns the embeddings of all earlier positions into features, and a `CodeHead` turns those
into the logits of the position's G codes. `stage2_prior.condition` says how labels enter.

Published models have G = 1. For G > 1 the codes of one position are summed after embedding (one table per codebook),
the trunk runs once per position whatever G is, and the head alone is autoregressive over g.

What is known of every position beforehand may be given as a map of features (section 2.3 of the paper); a linear layer
at every position turns it into biases of the first layer's gates, and the vertical stack carries it on.
`stage2_prior.hierarchical` makes such maps from coarser codes.

Shape suffixes: B items, G codebooks, H rows, W columns, K codes, A attributes, C channels, L layers, D = 4 C, F
features of a map.
"""

from collections.abc import Iterable, Iterator
from typing import TypedDict

import torch
from torch import Tensor, nn

from stage2_prior.condition import ConditionBias
from stage2_prior.heads import CodeHead, code_nats
from stage2_prior.prior import LogProbParts, check_codes, check_lengths
from stage2_prior.state import CodeState
from twostage.errors import UsageError
from twostage.grids import Grids
from twostage.layers.attention import AttentionBlocks
from twostage.layers.causal import GatedStack
from twostage.layers.causal_step import GatedStackState
from twostage.storage.from_folder import FromFolder


class GatedSettings(TypedDict, total=False):
    """Keyword arguments of a `PixelCNN` that say how large it is and how it is trained, as explained there."""

    channels: int
    layers: int
    first_kernel: int
    kernel: int
    dropout: float
    label_dropout: float
    attention_every: int
    attention_heads: int
    attention_head_channels: int


class PixelCNN(FromFolder, nn.Module):
    """Autoregressive prior over codes [B, G, H, W]; satisfies `stage2_prior.prior.Prior`.

    Args:
        codebook_size: K, codes run from 0 to K - 1.
        grid: (H, W).
        codebooks: G codes per position.
        classes: number of classes of each attribute of the condition; empty for an unconditional prior.
        channels: width C of both stacks; features and hidden layer of the head have 2 C.
        layers: gated layers, the first included.
        first_kernel, kernel: odd kernel sides of the first and the later layers.
        dropout: probability of dropping a gated output in training mode.
        label_dropout: probability of hiding an item's condition in training mode; above 0 the condition may be None.
        attention_every: a block of causal attention after every so many gated layers, but not after the last; 0: none.
        attention_heads, attention_head_channels: heads of a block, and width of each.
        map_channels: F, width of the map that every method is then to be given as its last argument; 0: no map.

    Raises:
        UsageError: a size is below 1, `attention_every` is not below `layers`, or `label_dropout` is outside
            0 <= p < 1.
    """

    kinds = ("pixelcnn",)
    stage = "prior"

    has_end = False
    offset_G: Tensor

    def __init__(
        self,
        *,
        codebook_size: int,
        grid: tuple[int, int],
        codebooks: int = 1,
        classes: tuple[int, ...] = (),
        channels: int = 64,
        layers: int = 15,
        first_kernel: int = 7,
        kernel: int = 3,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
        attention_every: int = 0,
        attention_heads: int = 4,
        attention_head_channels: int = 16,
        map_channels: int = 0,
    ) -> None:
        super().__init__()
        if min(codebook_size, codebooks, *grid, *classes, channels) < 1:
            raise UsageError(
                f"Expected codebook_size, codebooks, grid, classes and channels of at least 1, got {codebook_size}, "
                f"{codebooks}, {tuple(grid)}, {tuple(classes)} and {channels}: enlarge the one that is not."
            )
        self.codebook_size = codebook_size
        self.code_shape: tuple[int, int, int] = (codebooks, grid[0], grid[1])
        self.classes = tuple(classes)
        self.embedding = nn.Embedding(codebooks * codebook_size, channels)
        nn.init.normal_(self.embedding.weight, std=0.5 * codebooks**-0.5)
        self.register_buffer("offset_G", torch.arange(codebooks) * codebook_size, persistent=False)
        self.condition = ConditionBias(
            self.classes, layers=layers, gate_inputs=4 * channels, std=1.0, label_dropout=label_dropout
        )
        self.condition_optional = self.condition.optional
        self.stack = GatedStack(
            channels=channels,
            skip_channels=2 * channels,
            layers=layers,
            first_kernel=first_kernel,
            kernel=kernel,
            dropout=dropout,
            attention=AttentionBlocks(
                every=attention_every, heads=attention_heads, head_channels=attention_head_channels
            ),
        )
        self.head = CodeHead(features=2 * channels, codebook_size=codebook_size, codebooks=codebooks)
        self.map = nn.Conv2d(map_channels, 4 * channels, 1) if map_channels else None

    @property
    def grids(self) -> Grids:
        """The one grid."""
        return (self.code_shape[1:],)

    def forward(self, codes_BGHW: Tensor, condition_BA: Tensor | None = None, map_BFHW: Tensor | None = None) -> Tensor:
        """Logits [B, G, H, W, K] of every code given the codes before it and the condition, int64 [B, A].

        With label dropout the condition may be None. In training mode the dropout draws from torch's global generator.

        Raises:
            UsageError: the codes or the condition do not fit this prior (on the CPU values are checked as well).
        """
        self._check_codes(codes_BGHW)
        bias_BLD = self.condition(condition_BA, batch_size=len(codes_BGHW))
        return self.head(self.stack(self._embed(codes_BGHW), bias_BLD, self._map(map_BFHW)), codes_BGHW)

    def log_prob(
        self,
        codes_BGHW: Tensor,
        condition_BA: Tensor | None = None,
        lengths_B: Tensor | None = None,
        map_BFHW: Tensor | None = None,
    ) -> Tensor:
        """Log-probability of each item in nats, [B]; the softmax is taken in at least fp32 whatever the autocast."""
        check_lengths(lengths_B, codes_BGHW, ends=False)
        return -code_nats(self(codes_BGHW, condition_BA, map_BFHW), codes_BGHW).flatten(1).sum(dim=1)

    def log_prob_parts(
        self,
        codes_BGHW: Tensor,
        condition_BA: Tensor | None = None,
        lengths_B: Tensor | None = None,
        map_BFHW: Tensor | None = None,
    ) -> LogProbParts:
        """`log_prob`, and nothing for an end."""
        return LogProbParts.of_grid(self.log_prob(codes_BGHW, condition_BA, lengths_B, map_BFHW))

    def log_probs_by_code(
        self,
        codes_BGHW: Tensor,
        conditions: Iterable[Tensor | None],
        lengths_B: Tensor | None = None,
        map_BFHW: Tensor | None = None,
    ) -> Iterator[LogProbParts]:
        """Log-probability in nats of every code given those before it, [B, G, H, W], under one condition after another.

        What does not see the condition is computed once: the embedding, the map and the convolutions of the first
        layer. Every later layer sees it.
        """
        self._check_codes(codes_BGHW)
        check_lengths(lengths_B, codes_BGHW, ends=False)
        x_BCHW = self._embed(codes_BGHW)
        first_inputs = self.stack.first_inputs(x_BCHW, self._map(map_BFHW))
        for condition_BA in conditions:
            bias_BLD = self.condition(condition_BA, batch_size=len(codes_BGHW))
            features_BSHW = self.stack(x_BCHW, bias_BLD, first_inputs=first_inputs)
            yield LogProbParts.of_grid(-code_nats(self.head(features_BSHW, codes_BGHW), codes_BGHW))

    def _map(self, map_BFHW: Tensor | None) -> Tensor | None:
        """Biases [B, D, H, W] of the first layer's gates; None without a map."""
        if (map_BFHW is None) != (self.map is None):
            raise UsageError(
                f"Expected {'no map' if self.map is None else 'a map'} beside the codes, got "
                f"{'none' if map_BFHW is None else 'one'}: give one where map_channels is above 0, and there alone."
            )
        return None if self.map is None else self.map(map_BFHW)

    def _embed(self, codes_BGHW: Tensor) -> Tensor:
        """[B, C, H, W]; the codes of one position are summed."""
        return self.embedding(codes_BGHW + self.offset_G[:, None, None]).sum(dim=1).permute(0, 3, 1, 2)

    @torch.no_grad()
    def initial_state(
        self, batch_size: int, condition_BA: Tensor | None = None, map_BFHW: Tensor | None = None
    ) -> CodeState:
        """State before the first code, with a copy of the weights: it belongs to the weights of this moment."""
        codebooks, height, width = self.code_shape
        bias_BLD = self.condition.shown(condition_BA, batch_size=batch_size)
        return CodeState(
            GatedStackState(
                self.stack,
                batch_size=batch_size,
                grid=(height, width),
                bias_BLD=bias_BLD,
                map_BDHW=self._map(map_BFHW),
            ),
            head=self.head,
            embedding_GKC=self.embedding.weight.view(codebooks, self.codebook_size, -1),
            positions=height * width,
            batch_size=batch_size,
            condition_BA=condition_BA,
        )

    def step(
        self, state: CodeState, symbol_B: Tensor | None, condition_BA: Tensor | None = None
    ) -> tuple[Tensor, CodeState]:
        """Take in code n - 1 (int64 [B], None at n = 0); return the logits of code n, [B, K], and the state.

        The codes are ordered n = (h W + w) G + g. The state is updated in place. Eval mode is implied: no dropout, no
        gradient. The condition went into the state; one given here must be the same.

        Raises:
            UsageError: the symbol or the condition does not fit the state, or the grid is complete.
        """
        return state.advance(symbol_B, condition_BA), state

    def end_logit(self, state: CodeState) -> Tensor:
        """Minus infinity, [B]: a grid has no end before its last position."""
        return state.end_logit_B

    def _check_codes(self, codes_BGHW: Tensor) -> None:
        check_codes(codes_BGHW, code_shape=self.code_shape, codebook_size=self.codebook_size, ends=self.has_end)
