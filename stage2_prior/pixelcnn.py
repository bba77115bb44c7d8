"""Gated PixelCNN prior over grids of integer codes (van den Oord et al. 2016, arXiv 1606.05328).

p(codes) is the product over raster positions, and inside a position over codebooks in order, of a categorical over K
codes. The codes are embedded (an index carries no magnitude); a `GatedStack` (`twostage.causal`, which lists how it
departs from the paper) turns the embeddings of all earlier positions into features, and a `CodeHead` turns those into
the logits of the position's G codes. The condition enters as in equation 3: a bias of every gate, the sum of one
embedding per attribute.

Label dropout (as in Ho and Salimans 2022, arXiv 2207.12598, here without their guidance): in training each item's
condition is replaced, all attributes at once, by one more embedding per attribute that means "no label". One prior then
models both p(codes | label) and, with the condition None, p(codes).

Published models have G = 1. For G > 1 the codes of one position are summed after embedding (one table per codebook),
the trunk runs once per position whatever G is, and the head alone is autoregressive over g.

Shape suffixes: B items, G codebooks, H rows, W columns, K codes, A attributes, C channels, L layers, D = 4 C.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_prior.heads import CodeHead, CodeHeadState
from stage2_prior.prior import check_condition
from twostage.causal import GatedStack
from twostage.causal_step import GatedStackState
from twostage.errors import UsageError


class PixelCNN(nn.Module):
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

    Raises:
        UsageError: a size is below 1, or `label_dropout` is outside 0 <= p < 1.
    """

    offset_G: Tensor
    no_label_A: Tensor

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
    ) -> None:
        super().__init__()
        if min(codebook_size, codebooks, *grid, *classes, channels) < 1:
            raise UsageError(
                f"Expected codebook_size, codebooks, grid, classes and channels of at least 1, got {codebook_size}, "
                f"{codebooks}, {tuple(grid)}, {tuple(classes)} and {channels}: enlarge the one that is not."
            )
        if not 0 <= label_dropout < 1:
            raise UsageError(f"Expected label_dropout of at least 0 and below 1, got {label_dropout}: change it.")
        self.codebook_size = codebook_size
        self.code_shape: tuple[int, int, int] = (codebooks, grid[0], grid[1])
        self.classes = tuple(classes)
        self.embedding = nn.Embedding(codebooks * codebook_size, channels)
        nn.init.normal_(self.embedding.weight, std=codebooks**-0.5)
        self.register_buffer("offset_G", torch.arange(codebooks) * codebook_size, persistent=False)
        self.label_dropout = label_dropout
        self.condition_optional = bool(classes) and label_dropout > 0
        # Row `size` of an attribute's table, there only with label dropout, means "no label".
        self.condition = nn.ModuleList(
            nn.Embedding(size + self.condition_optional, layers * 4 * channels) for size in self.classes
        )
        self.register_buffer("no_label_A", torch.tensor(self.classes, dtype=torch.int64), persistent=False)
        for weight in self.condition.parameters():
            nn.init.normal_(weight, std=0.1)
        self.stack = GatedStack(
            channels=channels,
            skip_channels=2 * channels,
            layers=layers,
            first_kernel=first_kernel,
            kernel=kernel,
            dropout=dropout,
        )
        self.head = CodeHead(features=2 * channels, codebook_size=codebook_size, codebooks=codebooks)

    def forward(self, codes_BGHW: Tensor, condition_BA: Tensor | None = None) -> Tensor:
        """Logits [B, G, H, W, K] of every code given the codes before it and the condition, int64 [B, A].

        With label dropout the condition may be None. In training mode the dropout draws from torch's global generator.

        Raises:
            UsageError: the codes or the condition do not fit this prior (on the CPU values are checked as well).
        """
        self._check_codes(codes_BGHW)
        rows_BA = self._condition_rows(condition_BA, batch_size=len(codes_BGHW))
        if self.training and self.condition_optional:
            hidden_B1 = torch.rand(len(rows_BA), 1, device=rows_BA.device) < self.label_dropout
            rows_BA = torch.where(hidden_B1, self.no_label_A, rows_BA)
        x_BCHW = self.embedding(codes_BGHW + self.offset_G[:, None, None]).sum(dim=1).permute(0, 3, 1, 2)
        return self.head(self.stack(x_BCHW, self._bias(rows_BA)), codes_BGHW)

    def log_prob(self, codes_BGHW: Tensor, condition_BA: Tensor | None = None) -> Tensor:
        """Log-probability of each item in nats, [B]; the softmax is taken in at least fp32 whatever the autocast."""
        logits_BGHWK = self(codes_BGHW, condition_BA)
        logits_XK = logits_BGHWK.to(torch.promote_types(logits_BGHWK.dtype, torch.float32)).flatten(0, 3)
        nats_X = F.cross_entropy(logits_XK, codes_BGHW.flatten(), reduction="none")
        return -nats_X.view(len(codes_BGHW), -1).sum(dim=1)

    @torch.no_grad()
    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> "PixelCNNState":
        """State before the first code, with a copy of the weights: it belongs to the weights of this moment."""
        bias_BLD = self._bias(self._condition_rows(condition_BA, batch_size=batch_size))
        return PixelCNNState(self, batch_size=batch_size, condition_BA=condition_BA, bias_BLD=bias_BLD)

    def step(
        self, state: "PixelCNNState", symbol_B: Tensor | None, condition_BA: Tensor | None = None
    ) -> tuple[Tensor, "PixelCNNState"]:
        """Take in code n - 1 (int64 [B], None at n = 0); return the logits of code n, [B, K], and the state.

        The codes are ordered n = (h W + w) G + g. The state is updated in place. Eval mode is implied: no dropout, no
        gradient. The condition went into the state; one given here must be the same.

        Raises:
            UsageError: the symbol or the condition does not fit the state, or the grid is complete.
        """
        return state.advance(symbol_B, condition_BA), state

    def _condition_rows(self, condition_BA: Tensor | None, *, batch_size: int) -> Tensor:
        """Row of each attribute's table for each item, int64 [B, A]; [B, 0] for an unconditional prior."""
        check_condition(condition_BA, classes=self.classes, optional=self.condition_optional, batch_size=batch_size)
        return self.no_label_A.expand(batch_size, -1) if condition_BA is None else condition_BA

    def _bias(self, rows_BA: Tensor) -> Tensor | None:
        """[B, L, D]: equation 3's V h for every gate, summed over the attributes; None without attributes."""
        if not self.classes:
            return None
        biases = [table(rows_BA[:, attribute]) for attribute, table in enumerate(self.condition)]
        return torch.stack(biases).sum(dim=0).unflatten(1, (len(self.stack.layers), -1))

    def _check_codes(self, codes_BGHW: Tensor) -> None:
        if tuple(codes_BGHW.shape[1:]) != self.code_shape or codes_BGHW.dtype != torch.int64:
            raise UsageError(
                f"Expected codes of shape [B, {', '.join(map(str, self.code_shape))}] and type int64, got "
                f"{list(codes_BGHW.shape)} and {codes_BGHW.dtype}: use codes of the codebook this prior was built for."
            )
        if codes_BGHW.device.type != "cpu" or codes_BGHW.numel() == 0:
            return  # looking at values would stall every step of an accelerator
        low, high = (int(value) for value in codes_BGHW.aminmax())
        if low < 0 or high >= self.codebook_size:
            raise UsageError(
                f"Expected codes 0 to {self.codebook_size - 1}, got {low if low < 0 else high}: "
                f"use codes of the codebook this prior was built for."
            )


class PixelCNNState:
    """Progress of one batch through the codes, made by `PixelCNN.initial_state` and updated in place by `step`."""

    @torch.no_grad()
    def __init__(
        self, prior: PixelCNN, *, batch_size: int, condition_BA: Tensor | None, bias_BLD: Tensor | None
    ) -> None:
        codebooks, height, width = prior.code_shape
        self._codebooks = codebooks
        self._symbols = codebooks * height * width
        self._position = 0
        self._batch_size = batch_size
        self._condition_BA = condition_BA
        self._embedding_GKC = prior.embedding.weight.clone().view(codebooks, prior.codebook_size, -1)
        self._x_BC = self._embedding_GKC.new_zeros(batch_size, self._embedding_GKC.shape[2])
        self._stack = GatedStackState(prior.stack, batch_size=batch_size, grid=(height, width), bias_BLD=bias_BLD)
        self._head = CodeHeadState(prior.head)

    @torch.no_grad()
    def advance(self, symbol_B: Tensor | None, condition_BA: Tensor | None) -> Tensor:
        """What `PixelCNN.step` does; returns the logits."""
        self._check(symbol_B, condition_BA)
        codebook = self._position % self._codebooks
        self._position += 1
        if symbol_B is None:
            return self._head.first(self._stack.advance(None))
        previous = codebook - 1 if codebook else self._codebooks - 1
        embedded_BC = self._embedding_GKC[previous].index_select(0, symbol_B)
        self._x_BC = embedded_BC if previous == 0 else self._x_BC + embedded_BC
        if codebook:
            return self._head.following(codebook, symbol_B)
        return self._head.first(self._stack.advance(self._x_BC))

    def _check(self, symbol_B: Tensor | None, condition_BA: Tensor | None) -> None:
        if self._position == self._symbols:
            raise UsageError(f"Expected at most {self._symbols} steps per state, got one more: make a new state.")
        if (symbol_B is None) != (self._position == 0):
            came = "none" if symbol_B is None else "one"
            raise UsageError(
                f"Expected no symbol at the first step and one at every other, got {came} at step {self._position}: "
                f"hand in the symbol drawn last."
            )
        if symbol_B is not None and (symbol_B.shape != (self._batch_size,) or symbol_B.dtype != torch.int64):
            raise UsageError(
                f"Expected a symbol of shape [{self._batch_size}] and type int64, got {list(symbol_B.shape)} and "
                f"{symbol_B.dtype}: hand in one code per item."
            )
        if condition_BA is None or condition_BA is self._condition_BA:
            return
        if self._condition_BA is None or not torch.equal(condition_BA, self._condition_BA):
            raise UsageError(
                "Expected the condition that the state was made with, got another one: make a new state for it."
            )
