"""What codes are expected to cost under given prices, with a gradient through distances to the encoder.

A code is the nearest vector, and no gradient passes such a choice. In its place stands a softmax over all K codes,
p(k|z) = exp(-|z - e_k|^2 / T) / sum: the expectation of the prices under it falls when z moves away from dear codes
towards cheap ones. T is twice the mean squared distance of an item's own vectors to their codes, so that the softmax is
as wide as the error that quantising leaves, and neither the scale of the vectors nor the progress of the training
changes what it means. T is a constant to the gradient.

The mean is taken over one item and not over the batch, so that a batch that several processes share, or that is worked
through in parts, has the gradient of the whole one.

Shapes: B items, G codebooks of K codes, N tokens of all items.
"""

import torch
from torch import Tensor


def expected_nats(
    distances_GNK: Tensor, codes_GN: Tensor, prices_GNK: Tensor, items_N: Tensor, *, items: int
) -> Tensor:
    """Expected price of every item's codes, all codebooks together, in nats, `[items]`.

    Args:
        distances_GNK: squared, of every vector to every code, with gradient.
        codes_GN: the codes that were chosen, int64.
        prices_GNK: of every code at every place, nats; taken as constants.
        items_N: number of the item of every token, int64, from 0 to `items` - 1; each has a token.
        items: B.
    """
    with torch.autocast(device_type=distances_GNK.device.type, enabled=False):
        chosen_GN = distances_GNK.detach().gather(2, codes_GN[:, :, None])[:, :, 0].clamp_min(0)
        totals_GB = chosen_GN.new_zeros(len(codes_GN), items).index_add_(1, items_N, chosen_GN)
        means_GB = totals_GB / torch.bincount(items_N, minlength=items)
        # vectors exactly on their codes leave a width of zero: then nothing but those codes counts
        widths_GN = (2 * means_GB).clamp_min(torch.finfo(means_GB.dtype).tiny)[:, items_N]
        shares_GNK = torch.softmax(-distances_GNK / widths_GN[:, :, None], dim=2)
        nats_N = (shares_GNK * prices_GNK.detach()).sum(dim=(0, 2))
        return nats_N.new_zeros(items).index_add(0, items_N, nats_N)
