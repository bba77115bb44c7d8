"""From the features of a grid position to the logits of its G codes, in order.

One codebook: 1x1, ReLU, 1x1. (Van den Oord et al. 2016 begin with a ReLU; a sum of gated skips has no need of one, and
without it a prior learns faster: docs/log.md.) With G > 1, code g may depend on codes 0 .. g - 1 of
the same position. The trunk runs once per position, and this head alone runs once per code: the embeddings of the
earlier codes are summed and enter the hidden layer directly and through a gated unit that also reads the features, so
that they change what the features mean and are not merely added to the logits. Every codebook has its own weights.

The hidden layer preserves variance from the start. The last layer starts small, so that an untrained prior costs about
log K nats per code.

Shape suffixes: N items times positions, B items, G codebooks, J = G - 1 of them (those with a predecessor), H, W grid,
S features, K codes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CodeHead(nn.Module):
    """Logits of the codes of one position given its features and the codes before each.

    Args:
        features: S, channels of the trunk's features and of the hidden layer.
        codebook_size: K.
        codebooks: G.
    """

    offset_J: Tensor

    def __init__(self, *, features: int, codebook_size: int, codebooks: int) -> None:
        super().__init__()
        self.features = features
        self.codebooks = codebooks
        self.first_layer = nn.Linear(features, codebooks * features)
        nn.init.kaiming_normal_(self.first_layer.weight, nonlinearity="linear")
        nn.init.zeros_(self.first_layer.bias)
        self.output_weight_GSK = nn.Parameter(torch.randn(codebooks, features, codebook_size) * 0.15 * features**-0.5)
        self.output_bias_GK = nn.Parameter(torch.zeros(codebooks, codebook_size))
        if codebooks > 1:
            earlier = codebooks - 1
            self.register_buffer("offset_J", torch.arange(earlier) * codebook_size, persistent=False)
            self.embedding = nn.Embedding(earlier * codebook_size, features)
            nn.init.normal_(self.embedding.weight, std=earlier**-0.5)
            self.gate_features = nn.Linear(features, earlier * 2 * features)
            self.gate_context_JST = nn.Parameter(torch.randn(earlier, features, 2 * features) * features**-0.5)

    def forward(self, features_BSHW: Tensor, codes_BGHW: Tensor) -> Tensor:
        """Logits [B, G, H, W, K]."""
        batch_size, _, height, width = features_BSHW.shape
        features_NS = features_BSHW.permute(0, 2, 3, 1).reshape(-1, self.features)
        hidden_NGS = self.first_layer(features_NS).view(-1, self.codebooks, self.features)
        if self.codebooks > 1:
            earlier_NJ = codes_BGHW[:, :-1].permute(0, 2, 3, 1).reshape(-1, self.codebooks - 1)
            context_NJS = self.embedding(earlier_NJ + self.offset_J).cumsum(dim=1)
            gate_in_NJT = self.gate_features(features_NS).view(-1, self.codebooks - 1, 2 * self.features)
            gate_in_NJT = gate_in_NJT + torch.einsum("njs,jst->njt", context_NJS, self.gate_context_JST)
            value, opening = gate_in_NJT.chunk(2, dim=-1)
            extra_NJS = context_NJS + torch.tanh(value) * torch.sigmoid(opening)
            hidden_NGS = hidden_NGS + F.pad(extra_NJS, (0, 0, 1, 0))
        logits_NGK = torch.einsum("ngs,gsk->ngk", F.relu(hidden_NGS), self.output_weight_GSK) + self.output_bias_GK
        return logits_NGK.view(batch_size, height, width, self.codebooks, -1).permute(0, 3, 1, 2, 4)


def code_nats(logits: Tensor, codes: Tensor) -> Tensor:
    """-log p of every code, in the shape of the codes, from logits [*shape, K]; the softmax has at least fp32."""
    logits_XK = at_least_fp32(logits).flatten(0, -2)
    return F.cross_entropy(logits_XK, codes.flatten(), reduction="none").view_as(codes)


def at_least_fp32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


class CodeHeadState:
    """A copy of a head's weights and what is known about the codes of the current position."""

    @torch.no_grad()
    def __init__(self, head: CodeHead) -> None:
        self._codebooks = head.codebooks
        self._hidden_weight = head.first_layer.weight.T.clone()
        self._hidden_bias = head.first_layer.bias.clone()
        self._output_weight = [weight.clone() for weight in head.output_weight_GSK]
        self._output_bias = [bias.clone() for bias in head.output_bias_GK]
        if head.codebooks > 1:
            self._embedding = head.embedding.weight.clone().view(head.codebooks - 1, -1, head.features)
            self._gate_weight = head.gate_features.weight.T.clone()
            self._gate_bias = head.gate_features.bias.clone()
            self._gate_context = head.gate_context_JST.clone()

    @torch.no_grad()
    def first(self, features_BS: Tensor) -> Tensor:
        """Start a position: logits of its first code, [B, K]."""
        hidden_BX = torch.addmm(self._hidden_bias, features_BS, self._hidden_weight)
        if self._codebooks > 1:
            self._hidden = hidden_BX.chunk(self._codebooks, dim=1)
            gate_in_BX = torch.addmm(self._gate_bias, features_BS, self._gate_weight)
            self._gate_in = gate_in_BX.chunk(self._codebooks - 1, dim=1)
            self._context_BS = torch.zeros_like(features_BS)
            hidden_BX = self._hidden[0]
        return torch.addmm(self._output_bias[0], hidden_BX.relu(), self._output_weight[0])

    @torch.no_grad()
    def following(self, codebook: int, code_B: Tensor) -> Tensor:
        """Logits of code g = `codebook` >= 1, [B, K], given code g - 1 of the same position."""
        earlier = codebook - 1
        self._context_BS += self._embedding[earlier].index_select(0, code_B)
        gate_in_BT = torch.addmm(self._gate_in[earlier], self._context_BS, self._gate_context[earlier])
        value, opening = gate_in_BT.chunk(2, dim=1)
        hidden_BS = self._hidden[codebook] + self._context_BS + torch.tanh(value) * torch.sigmoid(opening)
        return torch.addmm(self._output_bias[codebook], hidden_BS.relu_(), self._output_weight[codebook])
