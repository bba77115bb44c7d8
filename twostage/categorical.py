"""Draws of categorical variables from logits, one uniform number each.

The distribution is sharpened in this order: temperature, then top-k, then top-p on what is left; equal logits are
ranked by code number.

Shapes: B items, K codes.
"""

import torch
from torch import Tensor


def draw(logits_BK: Tensor, noise_B: Tensor, *, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Codes int64 [B] by inverting the cumulative distribution at the uniform numbers float64 [B]."""
    if temperature == 0:
        return logits_BK.argmax(dim=1)
    logits_BK = logits_BK.double()
    weights_BK = torch.exp((logits_BK - logits_BK.amax(dim=1, keepdim=True)) / temperature)
    if top_k or top_p < 1:
        weights_BK = _keep_most_probable(weights_BK, top_k=top_k or weights_BK.shape[1], top_p=top_p)
    cumulative_BK = weights_BK.cumsum(dim=1)
    # noise < 1 keeps the target below the total after rounding, and `right` skips codes of no weight.
    target_B1 = noise_B[:, None] * cumulative_BK[:, -1:]
    return torch.searchsorted(cumulative_BK, target_B1, right=True)[:, 0]


def _keep_most_probable(weights_BK: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Set to zero what lies outside the k most probable codes, and then outside the smallest set that reaches top_p."""
    ranked_BK, order_BK = weights_BK.sort(dim=1, descending=True, stable=True)
    ranked_BK[:, top_k:] = 0
    cumulative_BK = ranked_BK.cumsum(dim=1)
    before_BK = torch.nn.functional.pad(cumulative_BK[:, :-1], (1, 0))
    ranked_BK[before_BK >= top_p * cumulative_BK[:, -1:]] = 0
    return torch.zeros_like(weights_BK).scatter_(1, order_BK, ranked_BK)
