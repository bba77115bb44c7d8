"""A finished prior as a price list of codes, for whoever is trained with it while it stays as it is.

Shapes: B items, A attributes of the condition, G codebooks of K codes, S the axes of the codes.
"""

import torch
from torch import Tensor

from stage2_prior.heads import at_least_fp32
from stage2_prior.hierarchical import HierarchicalPrior
from stage2_prior.pixelcnn import PixelCNN
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
            UsageError: codes or condition do not fit the prior.
        """
        prior = self.prior
        if not isinstance(prior, WaveNet):
            return -torch.log_softmax(at_least_fp32(prior(codes_BGS, condition_BA)), dim=-1)
        inside_BT = None
        if lengths_B is not None:
            inside_BT = torch.arange(codes_BGS.shape[-1], device=codes_BGS.device) < lengths_B[:, None]
            codes_BGS = codes_BGS.where(inside_BT[:, None], 0)
        nats_BGTK = -torch.log_softmax(at_least_fp32(prior(codes_BGS, condition_BA)[0]), dim=-1)
        return nats_BGTK if inside_BT is None else nats_BGTK.where(inside_BT[:, None, :, None], 0)

    @torch.no_grad()
    def of_items(self, codes_BGS: Tensor, condition_BA: Tensor | None, lengths_B: Tensor | None = None) -> Tensor:
        """-log p, `[B]`, of an item's codes, the end of a sequence included.

        Raises:
            UsageError: codes, condition or lengths do not fit the prior.
        """
        return -self.prior.log_prob(codes_BGS, condition_BA, lengths_B)
