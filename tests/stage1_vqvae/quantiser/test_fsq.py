"""Finite scalar quantisation against plain loops over scalars, its gradient, its codes and its borders."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.fsq import FiniteScalarQuantiser
from twostage.errors import UsageError

LEVELS = (8, 5, 2, 3)


def quantiser(**settings: Any) -> FiniteScalarQuantiser:
    torch.manual_seed(0)
    return FiniteScalarQuantiser(**{"embedding_dim": 4, "fsq_levels": LEVELS, **settings})


def plain(z_D: list[float], levels: tuple[int, ...]) -> tuple[int, list[float]]:
    """Code and values of one vector, scalar by scalar."""
    code, place, values = 0, 1, []
    for z, count in zip(z_D, levels, strict=True):
        half = (count - 1) * 0.999 / 2
        offset = 0.5 if count % 2 == 0 else 0.0
        whole = round(math.tanh(z + math.tan(offset / half)) * half - offset)
        values.append(whole / (count // 2))
        code += (whole + count // 2) * place
        place *= count
    return code, values


def test_codes_and_values_equal_those_of_plain_loops() -> None:
    module = quantiser()
    z_BDS = 2 * torch.randn(5, 4, 3, 2)
    quantised = module(z_BDS)
    assert quantised.codes.shape == (5, 1, 3, 2)
    for b, y, x in itertools.product(range(5), range(3), range(2)):
        code, values = plain(z_BDS[b, :, y, x].tolist(), LEVELS)
        assert quantised.codes[b, 0, y, x] == code
        torch.testing.assert_close(quantised.vectors[b, :, y, x], torch.tensor(values))


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16])
def test_every_level_is_reached_and_none_beyond(count: int) -> None:
    module = quantiser(embedding_dim=1, fsq_levels=(count,))
    z_BD = torch.cat([torch.linspace(-8, 8, 4001), torch.tensor([-1e30, 1e30, math.inf, -math.inf])])[:, None]
    quantised = module(z_BD)
    assert quantised.codes.unique().tolist() == list(range(count))
    assert torch.equal(quantised.codes[:4001, 0], quantised.codes[:4001, 0].sort().values)  # in the order of the values
    whole = torch.arange(count) - count // 2
    torch.testing.assert_close(quantised.vectors.unique(), whole / (count // 2))


@pytest.mark.parametrize(("codebooks", "levels"), [(1, LEVELS), (2, (3, 4, 4, 3)), (4, (5, 5, 5, 5))])
@pytest.mark.parametrize("embedding_dim", [4, 6])
def test_lookup_gives_the_vectors_of_forward_for_any_number_of_codebooks(
    codebooks: int, levels: tuple[int, ...], embedding_dim: int
) -> None:
    module = quantiser(codebooks=codebooks, fsq_levels=levels, embedding_dim=embedding_dim)
    quantised = module(torch.randn(7, embedding_dim, 5))
    assert quantised.codes.shape == (7, codebooks, 5)
    assert torch.equal(quantised.vectors, module.lookup(quantised.codes))


def test_the_groups_of_several_codebooks_are_quantisers_of_their_own() -> None:
    joint, halves = quantiser(fsq_levels=(3, 4, 4, 3), codebooks=2), [(3, 4), (4, 3)]
    z_BDS = torch.randn(6, 4, 5)
    for g, levels in enumerate(halves):
        half = quantiser(embedding_dim=2, fsq_levels=levels)
        expected = half(z_BDS[:, 2 * g : 2 * g + 2])
        assert torch.equal(joint(z_BDS).codes[:, g : g + 1], expected.codes)
        assert torch.equal(joint.codebook[g], half.codebook[0])


def test_the_implied_codebook_has_every_combination_once_in_the_order_of_the_codes() -> None:
    module = quantiser()
    assert module.codebook.shape == (1, 240, 4)
    assert len(module.codebook[0].unique(dim=0)) == 240
    codes = torch.arange(240)[:, None]
    assert torch.equal(module.lookup(codes), module.codebook[0])


def test_the_gradient_is_that_of_the_bound() -> None:
    """Straight through the rounding: d value / d z = h (1 - tanh(z + s)^2) / floor(L / 2), channel by channel."""
    module = quantiser()
    z_BD = torch.randn(9, 4, requires_grad=True)
    weights = torch.randn(9, 4)
    (module(z_BD).vectors * weights).sum().backward()
    for channel, count in enumerate(LEVELS):
        half = (count - 1) * 0.999 / 2
        shift = math.tan((0.5 if count % 2 == 0 else 0.0) / half)
        slope = half * (1 - torch.tanh(z_BD[:, channel].detach() + shift).square()) / (count // 2)
        assert z_BD.grad is not None
        torch.testing.assert_close(z_BD.grad[:, channel], slope * weights[:, channel])


def test_what_lies_beyond_the_levels_is_pulled_back_by_plain_arithmetic() -> None:
    module = quantiser(commitment_beta=0.5)
    z_BD = (4 * torch.randn(9, 4)).requires_grad_()
    quantised = module(z_BD)
    squares, slopes = [], torch.zeros(9, 4)
    for b, i in itertools.product(range(9), range(4)):
        shift = math.tan((0.5 if LEVELS[i] % 2 == 0 else 0.0) / ((LEVELS[i] - 1) * 0.999 / 2))
        u = float(z_BD[b, i].detach()) + shift
        excess = max(0.0, abs(u) - math.atanh(1 - 0.5 / (LEVELS[i] - 1)))
        squares.append(excess**2)
        slopes[b, i] = math.copysign(2 * excess, u) / 36
    assert 5 < sum(square > 0 for square in squares) < 36
    assert quantised.commitment_loss.item() == pytest.approx(sum(squares) / 36)
    assert quantised.codebook_loss.item() == 0.0
    assert module.loss(quantised).item() == pytest.approx(0.5 * sum(squares) / 36)
    quantised.commitment_loss.backward()
    torch.testing.assert_close(z_BD.grad, slopes)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 16, 255])
def test_within_the_levels_there_is_no_pull_and_all_of_them_are_within(count: int) -> None:
    module = quantiser(embedding_dim=1, fsq_levels=(count,))
    z_BD = torch.linspace(-8, 8, 16001)[:, None].requires_grad_()
    quantised = module(z_BD)
    quantised.commitment_loss.backward()
    assert z_BD.grad is not None
    pulled_B, codes_B = z_BD.grad[:, 0] != 0, quantised.codes[:, 0]
    assert codes_B[pulled_B].unique().tolist() == [0, count - 1]
    assert codes_B[~pulled_B].unique().tolist() == list(range(count))


def test_vectors_that_ran_into_one_end_come_back() -> None:
    """Without the penalty the gradient of tanh is gone there, and one code is left for good."""
    used, wanted_BD = {}, torch.rand(64, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for beta in (0.0, 0.25):
        module, z_BD = quantiser(commitment_beta=beta), (torch.randn(64, 4) + 12).requires_grad_()
        optimiser = torch.optim.Adam([z_BD], lr=0.2)
        for _ in range(200):
            quantised = module(z_BD)
            optimiser.zero_grad()
            ((quantised.vectors - wanted_BD).square().mean() + module.loss(quantised)).backward()
            optimiser.step()
        used[beta] = len(module(z_BD).codes.unique())
    assert used[0.0] == 1
    assert used[0.25] > 30


def test_layers_in_and_out_learn_by_the_reconstruction_alone() -> None:
    module = quantiser(embedding_dim=6)
    assert [name for name, _ in quantiser().named_parameters()] == []
    z_BDS = torch.randn(5, 6, 3, requires_grad=True)
    quantised = module(z_BDS)
    quantised.vectors.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0
    assert z_BDS.grad is not None
    assert z_BDS.grad.abs().sum() > 0


def test_a_low_precision_encoder_gets_the_codes_of_its_exact_values() -> None:
    module = quantiser(embedding_dim=6)
    z_BDS = torch.randn(4, 6, 20).bfloat16()
    expected = module(z_BDS.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantised = module(z_BDS)
    assert torch.equal(quantised.codes, expected.codes)
    assert torch.equal(quantised.vectors, expected.vectors)


def test_updates_measure_the_batch_and_change_nothing() -> None:
    module = quantiser(fsq_levels=(2, 2), embedding_dim=2)
    before = module.state_dict()
    module.initialise(torch.randn(10, 2), seed=0)
    parts = [module(torch.tensor(rows)).statistics for rows in ([[-9.0, -9.0], [9.0, 9.0]], [[9.0, -9.0], [9.0, 9.0]])]
    assert parts[0].counts_GK.tolist() == [[1, 0, 0, 1]]
    update = module.update(parts[0] + parts[1])
    shares = torch.tensor([0.25, 0.25, 0.5])
    assert update.perplexity.item() == pytest.approx(float(torch.special.entr(shares).sum().exp()))
    assert update.revived.shape == (1, 4)
    assert not update.revived.any()
    assert before.keys() == module.state_dict().keys() == set()
    assert module.eval()(torch.randn(3, 2)).statistics is None


def test_what_is_not_finite_reaches_the_vectors_and_is_still_a_code() -> None:
    z_BD = torch.randn(3, 4)
    z_BD[1, 2] = math.nan
    quantised = quantiser()(z_BD)
    assert quantised.vectors[1, 2].isnan()
    assert 0 <= quantised.codes.min() <= quantised.codes.max() < 240


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"commitment_beta": -0.1}, "commitment_beta >= 0"),
        ({"fsq_levels": ()}, "at least 2 in every channel"),
        ({"fsq_levels": (3, 1)}, r"at least 2 in every channel.*\(3, 1\)"),
        ({"fsq_levels": (3, 3, 3), "codebooks": 2}, r"codebooks \(2\) divides"),
        ({"fsq_levels": (3, 5), "codebooks": 2}, "give 3 or 5"),
        ({"fsq_levels": (64, 64, 64)}, "at most 65536.*give more"),
    ],
)
def test_impossible_levels_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantiser(**settings)


@pytest.mark.parametrize(
    ("codes", "message"),
    [(torch.tensor([[240]]), "0 to 239"), (torch.tensor([[0, 1]]), "1 codebooks"), (torch.ones(1, 1), "integer codes")],
)
def test_lookup_refuses_what_is_no_code(codes: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantiser().lookup(codes)


def test_wrong_channels_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"4 channels.*\(2, 5, 3\)"):
        quantiser()(torch.zeros(2, 5, 3))
