"""WaveNet prior over sequences of integer codes with an end (van den Oord et al. 2016, arXiv 1609.03499).

p(codes, T) is a product over positions. Position t begins with the decision whether the sequence ends before it, after
t positions; if it goes on, its G codes follow in order, each a categorical over K codes. The codes are embedded (an
index carries no magnitude); a `DilatedStack` (`twostage.layers.dilated`, which lists how it departs from the paper)
turns the embeddings of all earlier positions into features, a `CodeHead` turns those into the logits of the position's
codes, and one linear layer into the log-odds of the end. `stage2_prior.condition` says how labels and speakers enter.

The paper's models have one code per position and no end: they are given a length. Here a sequence has 1 to `max_length`
positions, no end is possible before the first, and after `max_length` positions it is certain and free, so that the
probabilities of all sequences of all lengths sum to one. An untrained prior expects an end after every position with
probability 1 / `max_length`.

Shape suffixes: B items, G codebooks, T positions, K codes, A attributes, C channels, S features, L layers, D = 2 C.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage2_prior.condition import ConditionBias
from stage2_prior.heads import CodeHead, at_least_fp32, code_nats
from stage2_prior.prior import LogProbParts, check_codes, check_lengths
from stage2_prior.state import CodeState
from twostage.errors import UsageError
from twostage.grids import Grids
from twostage.layers.attention import AttentionBlocks
from twostage.layers.dilated import DilatedStack
from twostage.layers.dilated_step import DilatedStackState
from twostage.storage.from_folder import FromFolder


class WaveNet(FromFolder, nn.Module):
    """Autoregressive prior over codes [B, G, T] of variable length T; satisfies `stage2_prior.prior.Prior`.

    Args:
        codebook_size: K, codes run from 0 to K - 1.
        max_length: most positions of a sequence.
        codebooks: G codes per position.
        classes: number of classes of each attribute of the condition; empty for an unconditional prior.
        channels: width C of the stack; features and hidden layer of the head have 2 C.
        blocks, layers_per_block: repetitions of the dilations 1, 2, 4, ..., 2^(layers_per_block - 1).
        kernel: taps per layer, 2 or 3.
        dropout: probability of dropping a gated output in training mode.
        label_dropout: probability of hiding an item's condition in training mode; above 0 the condition may be None.
        attention_every: a block of causal attention after every so many gated layers, but not after the last; 0: none.
        attention_heads, attention_head_channels: heads of a block, and width of each.

    Raises:
        UsageError: a size is below 1, a kernel of other size, `attention_every` is not below the number of layers, or
            `label_dropout` is outside 0 <= p < 1.
    """

    kinds = ("wavenet",)
    stage = "prior"

    has_end = True
    offset_G: Tensor

    def __init__(
        self,
        *,
        codebook_size: int,
        max_length: int,
        codebooks: int = 1,
        classes: tuple[int, ...] = (),
        channels: int = 64,
        blocks: int = 2,
        layers_per_block: int = 10,
        kernel: int = 2,
        dropout: float = 0.0,
        label_dropout: float = 0.0,
        attention_every: int = 0,
        attention_heads: int = 4,
        attention_head_channels: int = 16,
    ) -> None:
        super().__init__()
        if min(codebook_size, max_length, codebooks, *classes, channels) < 1:
            raise UsageError(
                f"Expected codebook_size, max_length, codebooks, classes and channels of at least 1, got "
                f"{codebook_size}, {max_length}, {codebooks}, {tuple(classes)} and {channels}: enlarge the one that "
                "is not."
            )
        self.codebook_size = codebook_size
        self.code_shape: tuple[int, int] = (codebooks, max_length)
        self.classes = tuple(classes)
        self.embedding = nn.Embedding(codebooks * codebook_size, channels)
        nn.init.normal_(self.embedding.weight, std=codebooks**-0.5)
        self.register_buffer("offset_G", torch.arange(codebooks) * codebook_size, persistent=False)
        self.condition = ConditionBias(
            self.classes,
            layers=blocks * layers_per_block,
            gate_inputs=2 * channels,
            std=0.1,
            label_dropout=label_dropout,
        )
        self.stack = DilatedStack(
            channels=channels,
            skip_channels=2 * channels,
            blocks=blocks,
            layers_per_block=layers_per_block,
            kernel=kernel,
            dropout=dropout,
            attention=AttentionBlocks(
                every=attention_every, heads=attention_heads, head_channels=attention_head_channels
            ),
        )
        self.head = CodeHead(features=2 * channels, codebook_size=codebook_size, codebooks=codebooks)
        self.end = nn.Linear(2 * channels, 1)
        nn.init.normal_(self.end.weight, std=0.1 * (2 * channels) ** -0.5)
        nn.init.constant_(self.end.bias, -math.log(max(max_length - 1, 1)))  # log-odds of 1 / max_length

    @property
    def max_length(self) -> int:
        """Most positions of a sequence."""
        return self.code_shape[1]

    @property
    def grids(self) -> Grids:
        """The one grid, of `max_length` positions."""
        return (self.code_shape[1:],)

    @property
    def condition_optional(self) -> bool:
        """Whether a prior with classes also takes None, which means "no label": it was trained with label dropout."""
        return self.condition.optional

    def forward(self, codes_BGT: Tensor, condition_BA: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [B, G, T, K] of every code given all before it, and log-odds [B, T] of an end after each position.

        Both are given the condition, int64 [B, A] (None with label dropout, or without classes). In training mode the
        label dropout draws from torch's global generator.

        Raises:
            UsageError: the codes or the condition do not fit this prior (on the CPU values are checked as well).
        """
        self._check_codes(codes_BGT)
        bias_BLD = self.condition(condition_BA, batch_size=len(codes_BGT))
        x_BCT = self.embedding(codes_BGT + self.offset_G[:, None]).sum(dim=1).transpose(1, 2)
        # One position more, whose features see the last codes: an end after them is decided there.
        features_BST = self.stack(F.pad(x_BCT, (0, 1)), bias_BLD)
        logits_BGTK = self.head(features_BST[:, :, None, :-1], codes_BGT[:, :, None]).squeeze(2)
        return logits_BGTK, self.end(features_BST[:, :, 1:].transpose(1, 2)).squeeze(2)

    def log_prob(
        self, codes_BGT: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> Tensor:
        """Log-probability of each sequence, its end included, in nats, [B]; see `log_prob_parts`."""
        parts = self.log_prob_parts(codes_BGT, condition_BA, lengths_B)
        return parts.codes + parts.end

    def log_prob_parts(
        self, codes_BGT: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> LogProbParts:
        """Log-probabilities of the codes and of the length; the softmax is taken in at least fp32.

        Args:
            codes_BGT: int64, T from 1 to `max_length`; what lies beyond an item's length may be anything.
            condition_BA: int64, as for `forward`.
            lengths_B: positions of each item, int64, from 1 to T; None where all have T.

        Raises:
            UsageError: an argument does not fit this prior (on the CPU values are checked as well).
        """
        by_code = next(self.log_probs_by_code(codes_BGT, [condition_BA], lengths_B))
        return LogProbParts(codes=by_code.codes.sum(dim=(1, 2)), end=by_code.end.sum(dim=1))

    def log_probs_by_code(
        self, codes_BGT: Tensor, conditions: Iterable[Tensor | None], lengths_B: Tensor | None = None
    ) -> Iterator[LogProbParts]:
        """The same of every code, [B, G, T], and of the decision after every position, [B, T], by condition."""
        check_lengths(lengths_B, codes_BGT, ends=True)
        if lengths_B is None:
            lengths_B = torch.full((len(codes_BGT),), codes_BGT.shape[-1], device=codes_BGT.device)
        # The decision after position t is number t + 1; after the last possible position nothing is decided.
        number_T = torch.arange(codes_BGT.shape[-1], device=codes_BGT.device) + 1
        inside_BT, ends_BT = number_T <= lengths_B[:, None], number_T == lengths_B[:, None]
        codes_BGT = codes_BGT.where(inside_BT[:, None], 0)
        for condition_BA in conditions:
            logits_BGTK, end_BT = self(codes_BGT, condition_BA)
            log_prob_BGT = (-code_nats(logits_BGTK, codes_BGT)).where(inside_BT[:, None], 0)
            decided_BT = F.logsigmoid(at_least_fp32(torch.where(ends_BT, end_BT, -end_BT)))
            decided_BT = decided_BT.where(inside_BT & (number_T < self.max_length), 0)
            yield LogProbParts(codes=log_prob_BGT, end=decided_BT)

    @torch.no_grad()
    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> CodeState:
        """State before the first code, with a copy of the weights: it belongs to the weights of this moment."""
        bias_BLD = self.condition.shown(condition_BA, batch_size=batch_size)
        return CodeState(
            DilatedStackState(self.stack, batch_size=batch_size, bias_BLD=bias_BLD),
            head=self.head,
            embedding_GKC=self.embedding.weight.view(self.code_shape[0], self.codebook_size, -1),
            positions=self.max_length,
            batch_size=batch_size,
            condition_BA=condition_BA,
            end=self.end,
        )

    def step(
        self, state: CodeState, symbol_B: Tensor | None, condition_BA: Tensor | None = None
    ) -> tuple[Tensor, CodeState]:
        """Take in code n - 1 (int64 [B], None at n = 0); return the logits of code n, [B, K], and the state.

        The codes are ordered n = t G + g, and their logits are given that the sequence has a position t; `end_logit`
        says what that costs. The state is updated in place. Eval mode is implied: no dropout, no gradient. The
        condition went into the state; one given here must be the same.

        Raises:
            UsageError: the symbol or the condition does not fit the state, or there are `max_length` positions.
        """
        return state.advance(symbol_B, condition_BA), state

    def end_logit(self, state: CodeState) -> Tensor:
        """Log-odds, [B], that the sequence ends before the position of the logits that came last."""
        return state.end_logit_B

    def _check_codes(self, codes_BGT: Tensor) -> None:
        check_codes(codes_BGT, code_shape=self.code_shape, codebook_size=self.codebook_size, ends=self.has_end)
