"""A frozen prior as a price list: against its own log-probabilities, one code after another."""

from typing import Any

import pytest
import torch

from stage2_prior import HierarchicalPrior, PixelCNN, WaveNet
from stage2_prior.prices import FrozenPrior

SIZES: dict[str, Any] = {"codebook_size": 5, "codebooks": 2, "classes": (3,), "channels": 6}
PRIORS = {
    "grid": lambda: PixelCNN(**SIZES, layers=2, grid=(3, 4), dropout=0.5, label_dropout=0.5),
    "hierarchy": lambda: HierarchicalPrior(**SIZES, layers=2, grids=((1, 2), (2, 4))),
    "sequence": lambda: WaveNet(**SIZES, max_length=9, blocks=1, layers_per_block=2, dropout=0.5),
}


@pytest.mark.parametrize("kind", list(PRIORS))
def test_prices_are_those_of_the_codes_put_there(kind: str) -> None:
    """Every code in turn takes the place of one: what it costs there, given the same codes before it."""
    torch.manual_seed(0)
    prior = PRIORS[kind]()
    frozen = FrozenPrior(prior)
    codes = torch.randint(0, 5, (4, *prior.code_shape))
    labels, lengths = torch.tensor([[0], [1], [2], [2]]), None
    if kind == "sequence":
        lengths = torch.tensor([9, 1, 4, 6])
        codes[1, :, 1:] = 99  # behind its length anything may stand
    prices = frozen.of_all(codes, labels, lengths)
    assert prices.shape == (*codes.shape, 5)
    for code in range(5):
        for place in [(0, *([0] * (codes.ndim - 2))), (1, *(size - 1 for size in codes.shape[2:]))]:
            other = codes.clone()
            other[(slice(None), *place)] = code
            (parts,) = prior.log_probs_by_code(other, [labels], lengths)
            torch.testing.assert_close(prices[(slice(None), *place, code)], -parts.codes[(slice(None), *place)])
    if lengths is not None:
        assert prices[1, :, 1:].abs().max() == 0
    torch.testing.assert_close(frozen.of_items(codes, labels, lengths), -prior.log_prob(codes, labels, lengths))


def test_the_prior_is_frozen() -> None:
    prior = PRIORS["grid"]()
    frozen = FrozenPrior(prior.train())
    codes, labels = torch.zeros(2, *prior.code_shape, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64)
    assert frozen.of_all(codes, labels).equal(frozen.of_all(codes, labels))  # nothing is dropped
    assert not frozen.of_all(codes, labels).requires_grad
    assert not any(parameter.requires_grad for parameter in prior.parameters())
