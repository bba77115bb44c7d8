"""Self-attention over the code grid of an image (as in Esser et al. 2021, "VQGAN", arXiv 2012.09841, appendix A).

Convolutions at the grid see a few positions around their own; attention brings what any position holds to any other.
Queries, keys and values are linear in the normalised features of a position, output i is the sum over all j of
softmax_j(q_i . k_j / sqrt(E)) v_j, per head, and a last product, zero at the start, brings the heads back to the
features, to which the block adds. Departure from the paper: several heads, where it has one of full width. Positions
have no code of their own, as there: the borders of the convolutions before tell them.

The matrix of all pairs of positions is never held where the device has a fused kernel (CPU and CUDA do): memory is
linear in the number of positions, time quadratic.

Shapes: B items, C channels, h x w grid, N positions, K heads, E channels of a head.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from twostage.layers.residual import group_norm

HEAD_CHANNELS = 32
"""E; narrower networks have one head."""


class GridAttention(nn.Module):
    """`[B, C, h, w]` to the same shape.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD_CHANNELS)
        inner = self.heads * min(HEAD_CHANNELS, channels)
        self.norm = group_norm(channels)
        self.inputs = nn.Conv2d(channels, 3 * inner, 1, bias=False)
        self.output = nn.Conv2d(inner, channels, 1)
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inputs = self.inputs(self.norm(x_BCHW)).unflatten(1, (3, self.heads, -1)).flatten(4)
        query_BKNE, key_BKNE, value_BKNE = inputs.transpose(-1, -2).unbind(1)
        seen_BKNE = F.scaled_dot_product_attention(query_BKNE, key_BKNE, value_BKNE)
        return x_BCHW + self.output(seen_BKNE.transpose(-1, -2).reshape(len(x_BCHW), -1, *x_BCHW.shape[2:]))
