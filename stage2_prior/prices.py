"""A finished prior as a price list of codes, for whoever is trained with it while it stays as it is.

Shapes: B items, A attributes of the condition, G codebooks of K codes, S the axes of the codes.
"""

import torch
from torch import Tensor

from stage2_prior.heads import at_least_fp32
from stage2_prior.hierarchical import HierarchicalPrior
from stage2_prior.pixelcnn import PixelCNN
from stage2_prior.prior import check_lengths
from stage2_prior.wavenet import WaveNet


class FrozenPrior:
    """Prices in nats under a prior, which is put into eval mode and never gets a gradient.

    Args:
        prior: on the device of the codes; nobody else may train it.
    """

    def __init__(self, prior: PixelCNN | HierarchicalPrior | WaveNet) -> None:
        self.prior = prior.eval().requires_grad_(False)

    @torch.no_grad()
    def of_all(self, codes_BGS: Tensor, condition_BA: Tensor | None, lengths_B: Tensor | None = None) -> Tensor:
        """-log p, `[B, G, *S, K]` in at least fp32, of every code at every place given the codes before it.

        The ends of sequences have no price here, and what lies behind `lengths_B` costs nothing.

        Raises:
            UsageError: codes, condition or lengths do not fit the prior.
        """
        if lengths_B is None:
            return self._nats(codes_BGS, condition_BA)
        check_lengths(lengths_B, codes_BGS, ends=self.prior.has_end)
        inside_BT = torch.arange(codes_BGS.shape[-1], device=codes_BGS.device) < lengths_B[:, None]
        nats_BGTK = self._nats(codes_BGS.where(inside_BT[:, None], 0), condition_BA)
        return nats_BGTK.where(inside_BT[:, None, :, None], 0)

    @torch.no_grad()
    def of_items(self, codes_BGS: Tensor, condition_BA: Tensor | None, lengths_B: Tensor | None = None) -> Tensor:
        """-log p, `[B]`, of an item's codes, the end of a sequence included.

        Raises:
            UsageError: codes, condition or lengths do not fit the prior.
        """
        return -self.prior.log_prob(codes_BGS, condition_BA, lengths_B)

    def _nats(self, codes_BGS: Tensor, condition_BA: Tensor | None) -> Tensor:
        found = self.prior(codes_BGS, condition_BA)
        logits_BGSK = found[0] if self.prior.has_end else found  # the others are those of the ends
        return -torch.log_softmax(at_least_fp32(logits_BGSK), dim=-1)
