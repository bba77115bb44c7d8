"""Codes on a sphere against plain loops over cosines: codes, vectors, losses, gradients, averages, start."""

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae.quantiser.cosine import CosineQuantiser
from stage1_vqvae.quantiser.interface import QuantiserStatistics
from twostage.errors import UsageError

UPDATES: tuple[Literal["ema", "loss"], ...] = ("ema", "loss")


def quantiser(**settings: Any) -> CosineQuantiser:
    """Two codebooks of 9 directions in 3 channels each; without revival."""
    torch.manual_seed(0)
    sizes = {"embedding_dim": 5, "codebook_size": 9, "codebooks": 2, "code_dim": 3, "revival_threshold": 0.0}
    module = CosineQuantiser(**{**sizes, **settings})
    with torch.no_grad():
        module.codebook.normal_()
    return module


def statistics(module: CosineQuantiser, z_BDS: Tensor) -> QuantiserStatistics:
    found = module(z_BDS).statistics
    assert found is not None
    return found


@pytest.mark.parametrize("update", UPDATES)
@torch.no_grad()
def test_codes_vectors_and_losses_equal_those_of_plain_loops(update: Literal["ema", "loss"]) -> None:
    module = quantiser(update=update)
    z_BDS = 3 * torch.randn(4, 5, 6)
    quantised = module(z_BDS)
    assert quantised.codes.shape == (4, 2, 6)
    squared = 0.0
    for b in range(4):
        for s in range(6):
            low_C, chosen = module.lead_in(z_BDS[b, :, s]), []
            for g in range(2):
                z_W = low_C[3 * g : 3 * g + 3]
                cosines = [float(torch.cosine_similarity(z_W, e_W, dim=0)) for e_W in module.codebook[g]]
                code = cosines.index(max(cosines))
                assert quantised.codes[b, g, s] == code
                chosen.append(module.codebook[g, code] / module.codebook[g, code].norm())
                squared += float((z_W / z_W.norm() - chosen[-1]).square().sum())
            torch.testing.assert_close(quantised.vectors[b, :, s], module.lead_out(torch.cat(chosen)))
    elements = 4 * 6 * 6
    assert quantised.commitment_loss.item() == pytest.approx(squared / elements, rel=1e-5)
    assert quantised.codebook_loss.item() == pytest.approx(squared / elements, rel=1e-5)


@pytest.mark.parametrize("grid", [(), (5,), (2, 3)])
def test_lookup_gives_the_vectors_of_forward(grid: tuple[int, ...]) -> None:
    module = quantiser()
    quantised = module(torch.randn(6, 5, *grid))
    assert torch.equal(module.lookup(quantised.codes), quantised.vectors)


def test_the_length_of_vectors_and_codes_does_not_matter() -> None:
    module = quantiser()
    with torch.no_grad():
        module.lead_in.bias.zero_()
    z_BDS = torch.randn(6, 5, 4)
    first = module(z_BDS)
    module.codebook.mul_(torch.rand(2, 9, 1) * 5 + 0.1)
    second = module(z_BDS * 70)
    assert torch.equal(first.codes, second.codes)
    torch.testing.assert_close(first.vectors, second.vectors)


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
def test_gradients_are_those_of_plain_autograd(gradient: Literal["straight-through", "rotation"]) -> None:
    """The layers learn by the reconstruction, the encoder through both layers and the sphere, no code by it."""
    module = quantiser(update="loss", gradient=gradient)
    z_BD = torch.randn(8, 5, requires_grad=True)
    weights = torch.randn(8, 5)
    quantised = module(z_BD)
    (quantised.vectors * weights).sum().backward()
    assert module.codebook.grad is None
    found = {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
    assert z_BD.grad is not None
    found_z = z_BD.grad.clone()
    module.zero_grad()
    again_BD = z_BD.detach().clone().requires_grad_()
    unit_BGW = F.normalize(module.lead_in(again_BD).unflatten(1, (2, 3)), dim=-1)
    e_BGW = F.normalize(torch.stack([module.codebook[g][quantised.codes[:, g]] for g in range(2)], 1), dim=-1).detach()
    if gradient == "rotation":  # I - 2 r r^T + 2 e z^T, which takes z to e, held constant
        r_BGW = F.normalize(unit_BGW + e_BGW, dim=-1).detach()
        through = unit_BGW - 2 * (unit_BGW * r_BGW).sum(-1, keepdim=True) * r_BGW
        through = through + 2 * (unit_BGW * unit_BGW.detach()).sum(-1, keepdim=True) * e_BGW
    else:
        through = unit_BGW + (e_BGW - unit_BGW).detach()
    (module.lead_out(through.flatten(1)) * weights).sum().backward()
    torch.testing.assert_close(found_z, again_BD.grad, atol=1e-5, rtol=1e-4)
    for name, grad in found.items():
        torch.testing.assert_close(grad, dict(module.named_parameters())[name].grad, atol=1e-5, rtol=1e-4)
    assert found.keys() == {"lead_in.weight", "lead_in.bias", "lead_out.weight", "lead_out.bias"}


def test_commitment_and_codebook_gradients_are_those_of_plain_autograd() -> None:
    module = quantiser(update="loss", commitment_beta=0.5)
    z_BD = torch.randn(8, 5, requires_grad=True)
    quantised = module(z_BD)
    module.loss(quantised).backward()
    assert module.codebook.grad is not None
    found_codebook, found_z = module.codebook.grad.clone(), z_BD.grad
    codebook_GKW, again_BD = module.codebook.detach().clone().requires_grad_(), z_BD.detach().clone().requires_grad_()
    unit_BGW = F.normalize(module.lead_in(again_BD).unflatten(1, (2, 3)), dim=-1)
    e_BGW = F.normalize(torch.stack([codebook_GKW[g][quantised.codes[:, g]] for g in range(2)], 1), dim=-1)
    ((e_BGW - unit_BGW.detach()).square().mean() + 0.5 * (e_BGW.detach() - unit_BGW).square().mean()).backward()
    torch.testing.assert_close(found_codebook, codebook_GKW.grad)
    torch.testing.assert_close(found_z, again_BD.grad)
    assert not quantiser()(z_BD).codebook_loss.requires_grad


def test_averages_follow_the_mean_direction_of_the_vectors_of_a_code() -> None:
    module = quantiser(decay=0.9, codebooks=1)
    z_BD = torch.randn(400, 5)
    before = module.codebook.clone()
    codes_N = module(z_BD).codes[:, 0]
    module.update(statistics(module, z_BD))
    unit_NW = F.normalize(module.lead_in(z_BD), dim=-1).detach()
    for k in range(9):
        own = unit_NW[codes_N == k]
        expected = own.mean(0) if len(own) else before[0, k]
        torch.testing.assert_close(module.codebook[0, k], expected)
    for _ in range(30):
        module.update(statistics(module, z_BD))
    assert module(z_BD).commitment_loss < 0.1


@pytest.mark.parametrize("update", UPDATES)
def test_k_means_starts_on_directions_and_dead_codes_move_onto_them(update: Literal["ema", "loss"]) -> None:
    module = quantiser(update=update, revival_threshold=0.03, decay=0.5)
    z_BD = 10 * torch.randn(500, 5)
    before = module(z_BD).commitment_loss.item()
    module.initialise(z_BD, seed=0)
    placed = module(z_BD)
    assert placed.commitment_loss.item() < 0.7 * before
    assert module.codebook.norm(dim=-1).max() < 1 + 1e-5
    with torch.no_grad():
        module.codebook[:, 1:] = -module.codebook[:, :1]  # all alike: but for the first of them they lose their tokens
    for _ in range(8):
        revived = module.update(statistics(module, z_BD)).revived
        for g in range(2):
            norms = module.codebook[g][revived[g]].norm(dim=-1)
            torch.testing.assert_close(norms, torch.ones_like(norms))
    assert len(module(z_BD).codes[:, 0].unique()) == 9


@pytest.mark.parametrize("update", UPDATES)
def test_forward_changes_nothing_and_an_empty_batch_works(update: Literal["ema", "loss"]) -> None:
    module = quantiser(update=update)
    module.update(statistics(module, torch.randn(20, 5)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    quantised = module(torch.zeros(0, 5, 3))
    assert quantised.vectors.shape == (0, 5, 3)
    assert quantised.codes.shape == (0, 2, 3)
    assert module.loss(quantised).item() == 0.0
    module.update(quantised.statistics)
    assert module.eval()(torch.randn(20, 5)).statistics is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_low_precision_encoder_gets_the_codes_of_its_exact_values() -> None:
    module = quantiser()
    z_BDS = torch.randn(4, 5, 20).bfloat16()
    expected = module(z_BDS.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantised = module(z_BDS)
    assert torch.equal(quantised.codes, expected.codes)
    assert torch.equal(quantised.vectors, expected.vectors)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"code_dim": 1}, "code_dim of at least 2"), ({"codebooks": 0}, "of at least 1"), ({"update": "x"}, "'ema' or")],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantiser(**settings)


def test_wrong_channels_and_codes_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"5 channels.*\(2, 4, 3\)"):
        quantiser()(torch.zeros(2, 4, 3))
    with pytest.raises(UsageError, match=r"\[N, 5\]"):
        quantiser().initialise(torch.zeros(20, 3), seed=0)
    with pytest.raises(UsageError, match="0 to 8"):
        quantiser().lookup(torch.full((1, 2), 9))
