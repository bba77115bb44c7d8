"""The expected price of codes: against plain loops, for every kind with distances, and where its gradient goes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.choose import make_quantiser
from stage1_vqvae.quantiser.expected_cost import expected_nats
from twostage.errors import UsageError

G, K, ITEMS = 2, 5, 3
WIDTH = 4
KINDS: dict[str, dict[str, Any]] = {
    "vq": {"codebooks": G},
    "residual": {"codebooks": G},
    "cosine": {"codebooks": G, "code_dim": 3},
    "simvq": {"codebooks": G},
}


def _quantiser(kind: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    quantiser: Any = make_quantiser(kind, embedding_dim=G * WIDTH, codebook_size=K, **KINDS[kind], **settings)  # type: ignore[arg-type]
    if kind != "simvq":
        with torch.no_grad():
            quantiser.codebook.normal_()
    return quantiser.eval()


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Vectors `[B, D, 2, 3]`, prices `[G, N, K]` and the item of every token."""
    generator = torch.Generator().manual_seed(1)
    z_BDhw = torch.randn(ITEMS, G * WIDTH, 2, 3, generator=generator)
    prices_GNK = torch.rand(G, ITEMS * 6, K, generator=generator) * 4
    return z_BDhw, prices_GNK, torch.arange(ITEMS).repeat_interleave(6)


def _expected(quantiser: Any, z_BDhw: Tensor, prices_GNK: Tensor, items_N: Tensor) -> Tensor:
    codes_GN = quantiser(z_BDhw).codes.transpose(0, 1).flatten(1)
    return expected_nats(quantiser.distances(z_BDhw), codes_GN, prices_GNK, items_N, items=len(z_BDhw))


@pytest.mark.parametrize("rate_weight", [0.0, 0.3])
def test_the_expectation_is_that_of_plain_loops(rate_weight: float) -> None:
    quantiser, (z_BDhw, prices_GNK, items_N) = _quantiser("vq", rate_weight=rate_weight), _batch()
    codes_BGhw, codebook_GKD = quantiser(z_BDhw).codes, quantiser.codebook.tolist()
    expected = []
    for item in range(ITEMS):
        total = 0.0
        for g in range(G):
            parts = z_BDhw[item, g * WIDTH : (g + 1) * WIDTH].flatten(1).t().tolist()
            distances = [[math.dist(z, e) ** 2 for e in codebook_GKD[g]] for z in parts]
            codes = codes_BGhw[item, g].flatten().tolist()
            width = 2 * sum(row[code] for row, code in zip(distances, codes, strict=True)) / len(parts)
            for position, row in enumerate(distances):
                shares = [math.exp(-distance / width) for distance in row]
                prices = prices_GNK[g, item * 6 + position].tolist()
                total += sum(s * p for s, p in zip(shares, prices, strict=True)) / sum(shares)
        expected.append(total)
    assert _expected(quantiser, z_BDhw, prices_GNK, items_N).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_codes_are_the_nearest_by_the_distances(kind: str) -> None:
    quantiser, (z_BDhw, _, _) = _quantiser(kind), _batch()
    assert quantiser.distances(z_BDhw).argmin(2).equal(quantiser(z_BDhw).codes.transpose(0, 1).flatten(1))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_step_down_the_gradient_costs_less(kind: str) -> None:
    """The gradient is that of the whole expectation but for the width, which is a constant."""
    quantiser, (z_BDhw, prices_GNK, items_N) = _quantiser(kind), _batch()
    z_BDhw.requires_grad_()
    before_B = _expected(quantiser, z_BDhw, prices_GNK, items_N)
    (gradient,) = torch.autograd.grad(before_B.sum(), z_BDhw)
    assert gradient.flatten(1).abs().amax(1).min() > 1e-3
    after_B = _expected(quantiser, z_BDhw.detach() - 0.02 * gradient, prices_GNK, items_N)
    assert (after_B < before_B).all()


def test_the_gradient_reaches_a_codebook_that_learns_by_it_and_never_the_prices() -> None:
    z_BDhw, prices_GNK, items_N = _batch()
    prices_GNK.requires_grad_()
    learned = _quantiser("vq", update="loss")
    _expected(learned, z_BDhw, prices_GNK, items_N).sum().backward()
    assert learned.codebook.grad.abs().max() > 1e-3
    assert prices_GNK.grad is None
    assert not _expected(_quantiser("vq"), z_BDhw, prices_GNK, items_N).requires_grad


def test_an_item_is_priced_by_itself_whatever_the_scale() -> None:
    """So that the parts of a batch add up to the whole, and an encoder gains nothing by larger vectors."""
    quantiser, (z_BDhw, prices_GNK, items_N) = _quantiser("vq"), _batch()
    whole_B = _expected(quantiser, z_BDhw, prices_GNK, items_N)
    alone_B = _expected(quantiser, z_BDhw[1:2], prices_GNK[:, 6:12], torch.zeros(6, dtype=torch.int64))
    torch.testing.assert_close(alone_B, whole_B[1:2])
    with torch.no_grad():
        quantiser.codebook.mul_(30)
    torch.testing.assert_close(_expected(quantiser, 30 * z_BDhw, prices_GNK, items_N), whole_B)


def test_vectors_on_their_codes_cost_what_these_cost() -> None:
    distances_GNK = torch.tensor([[[0.0, 1.0, 4.0], [1.0, 0.0, 1.0]]], requires_grad=True)
    prices_GNK = torch.tensor([[[3.0, 1.0, 1.0], [1.0, 2.0, 1.0]]])
    codes_GN, items_N = torch.tensor([[0, 1]]), torch.zeros(2, dtype=torch.int64)
    found_B = expected_nats(distances_GNK, codes_GN, prices_GNK, items_N, items=1)
    assert found_B.tolist() == [5.0]
    (gradient,) = torch.autograd.grad(found_B.sum(), distances_GNK)
    assert gradient.isfinite().all()


def test_finite_scalars_have_no_distances() -> None:
    with pytest.raises(UsageError, match="knows no distances to codes; choose another kind"):
        make_quantiser("fsq", embedding_dim=4, fsq_levels=(3, 3)).distances(torch.zeros(1, 4))
