"""Codes that pay for their bits: the choice against plain loops, and entropy against distortion on a known source."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.choose import make_quantiser
from stage1_vqvae.quantiser.codebook import LearnedCodebook
from twostage.errors import UsageError

KINDS = {"vq": {}, "residual": {}, "cosine": {"code_dim": 3}}


def quantiser(kind: str, **settings: Any) -> LearnedCodebook:
    """Seeded, of 2 codebooks of 7 codes on 6 channels, with a few batches of history; in eval mode."""
    torch.manual_seed(0)
    own = {"embedding_dim": 6, "codebook_size": 7, "codebooks": 2, "decay": 0.8, **KINDS[kind], **settings}
    module = make_quantiser(kind, **own)  # type: ignore[arg-type]
    assert isinstance(module, LearnedCodebook)
    module.initialise(torch.randn(300, 6), seed=0)
    for _ in range(5):
        found = module(torch.randn(4, 6, 5)).statistics
        assert found is not None
        module.update(found)
    return module.eval()


def plain_choice(z_D: Tensor, codebook_KD: Tensor, bits: list[float], price: float) -> int:
    costs = [float((z_D - e_D).square().sum()) + price * cost for e_D, cost in zip(codebook_KD, bits, strict=True)]
    return costs.index(min(costs))


@torch.no_grad()
def plain_codes(module: LearnedCodebook, kind: str, z_BDS: Tensor) -> Tensor:
    """Codes `[B, G, S]`, position by position, from the definition."""
    codebook_GKD, z_BDS = module.codebook.double(), z_BDS.double()
    if kind == "cosine":
        codebook_GKD = codebook_GKD / codebook_GKD.norm(dim=-1, keepdim=True)
        z_BDS = module.double().directions(z_BDS)  # type: ignore[operator]
    counted = [[float(usage) + 0.01 / 7 for usage in usage_K] for usage_K in module.usage]
    shares = [[part / sum(parts_K) for part in parts_K] for parts_K in counted]
    bits = [[-math.log2(share) for share in shares_K] for shares_K in shares]
    spread = 0.0
    for codebook_KD, shares_K in zip(codebook_GKD, shares, strict=True):
        mean_D = sum(share * e_D for share, e_D in zip(shares_K, codebook_KD, strict=True))
        for share, e_D in zip(shares_K, codebook_KD, strict=True):
            spread += share * float((e_D - mean_D).square().sum())
    codes_BGS = torch.zeros(len(z_BDS), 2, z_BDS.shape[2], dtype=torch.int64)
    for b, z_DS in enumerate(z_BDS):
        for s, z_D in enumerate(z_DS.t()):
            left_D = z_D
            for g in range(2):
                part_D = left_D if kind == "residual" else z_D.tensor_split(2)[g]
                code = plain_choice(part_D, codebook_GKD[g], bits[g], module.rate_weight * spread)
                codes_BGS[b, g, s] = code
                left_D = left_D - codebook_GKD[g, code] if kind == "residual" else left_D
    return codes_BGS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate_weight", [0.02, 0.2])
def test_codes_are_those_of_plain_loops(kind: str, rate_weight: float) -> None:
    module, z_BDS = quantiser(kind, rate_weight=rate_weight), torch.randn(30, 6, 4)
    codes_BGS = module(z_BDS).codes
    module.rate_weight = 0.0
    assert (codes_BGS != module(z_BDS).codes).any()
    module.rate_weight = rate_weight
    assert torch.equal(codes_BGS, plain_codes(module, kind, z_BDS))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_weight_nothing_changes(kind: str) -> None:
    """Not the vectors, not the averages, bit for bit: the frequencies are kept, but nobody asks them."""
    plain, weighted = quantiser(kind), quantiser(kind, rate_weight=0.0)
    assert weighted.penalties(weighted.codebook) is None
    for key, value in plain.state_dict().items():
        assert torch.equal(value, weighted.state_dict()[key]), key


def of_gaussian(rate_weight: float, codebook_size: int, *, update: str = "ema") -> tuple[float, float]:
    """Squared error and bits a sample of fresh samples of N(0, 1), after 300 batches."""
    torch.manual_seed(0)
    module = make_quantiser(
        "vq", embedding_dim=1, codebook_size=codebook_size, decay=0.97, rate_weight=rate_weight, revival_threshold=0.0
    )
    module.initialise(torch.randn(4000, 1), seed=0)
    for _ in range(300):
        found = module(torch.randn(2000, 1)).statistics
        assert found is not None
        module.update(found)
    quantised = module.eval()(torch.randn(40_000, 1))
    share_K = quantised.codes.flatten().bincount(minlength=codebook_size) / 40_000
    return float(quantised.commitment_loss), float(torch.special.entr(share_K).sum() / math.log(2))


def test_entropy_falls_and_distortion_rises_with_the_weight() -> None:
    points = [of_gaussian(weight, 16) for weight in (0.0, 0.01, 0.03, 0.1, 0.3)]
    distortions, entropies = zip(*points, strict=True)
    assert list(distortions) == sorted(distortions)
    assert list(entropies) == sorted(entropies, reverse=True)
    assert entropies[0] - entropies[-1] > 1.5


def test_entropy_coded_codes_beat_a_fixed_rate_and_plain_entropy_at_equal_distortion() -> None:
    """Lloyd-Max of 4 values: 2 bits fixed, 1.911 entropy-coded, 0.1175; the best scalar quantiser there: 1.80 bits."""
    # high-rate theory: dD/dR = -2 ln 2 D = -0.163
    fixed_distortion, plain_entropy = of_gaussian(0.0, 4)
    assert fixed_distortion == pytest.approx(0.1175, rel=0.03)
    distortion, entropy = of_gaussian(0.18, 16)
    assert distortion < fixed_distortion
    assert entropy < plain_entropy - 0.05
    assert entropy > 0.5 * math.log2(1 / distortion)  # Shannon's bound


def test_scaling_the_vectors_changes_no_code() -> None:
    """A bit is priced in units of the codes' own spread."""
    module, z_BDS = quantiser("vq", rate_weight=0.1), torch.randn(30, 6, 4)
    codes_BGS = module(z_BDS).codes
    module.codebook.mul_(64.0)
    assert torch.equal(module(64.0 * z_BDS).codes, codes_BGS)


def test_a_code_that_was_never_used_can_be_chosen_again() -> None:
    module = quantiser("vq", rate_weight=0.01)
    with torch.no_grad():
        module.usage[:, 3] = 0.0
        assert bool(module.bits().isfinite().all())
        far_GD = module.codebook[:, 3] + 10 * module.codebook[:, 3].sign()
        module.codebook[:, 3] = far_GD
    assert (module(far_GD.flatten()[None, :, None]).codes == 3).all()


def test_the_price_of_a_bit_follows_the_spread_where_codes_die_and_are_revived_far_from_the_origin() -> None:
    """Shares that add up to more than one would take the distance from the origin for spread."""
    torch.manual_seed(0)
    module = make_quantiser("vq", embedding_dim=2, codebook_size=64, rate_weight=0.1)
    assert isinstance(module, LearnedCodebook)
    module.initialise(20 + torch.randn(1024, 2), seed=0)
    revived = 0
    for _ in range(700):
        found = module(20 + torch.randn(8, 2, 64)).statistics
        assert found is not None
        revived += int(module.update(found).revived.sum())
    assert revived > 10
    torch.testing.assert_close(module.bits().neg().exp2().sum(1), torch.ones(1))
    codes = module(20 + torch.randn(64, 2, 64)).codes.flatten()
    spread = float(module.codebook[0, codes].var(0).sum())
    penalty_GK = module.penalties(module.codebook)
    assert penalty_GK is not None
    assert float((penalty_GK / module.bits()).mean()) == pytest.approx(0.1 * spread, rel=0.2)


def test_before_the_first_batch_all_codes_cost_the_same() -> None:
    module = make_quantiser("vq", embedding_dim=4, codebook_size=8, rate_weight=0.3)
    assert isinstance(module, LearnedCodebook)
    torch.testing.assert_close(module.bits(), torch.full((1, 8), 3.0))


def test_eval_mode_freezes_what_codes_cost() -> None:
    module = quantiser("vq", rate_weight=0.1)
    before, z_BDS = module.bits().clone(), torch.randn(30, 6, 4)
    codes_BGS = module(z_BDS).codes
    for _ in range(3):
        assert module(torch.randn(30, 6, 4) + 2).statistics is None
    assert torch.equal(module.bits(), before)
    assert torch.equal(module(z_BDS).codes, codes_BGS)


def test_the_checkpoint_carries_what_codes_cost() -> None:
    module, z_BDS = quantiser("residual", rate_weight=0.1), torch.randn(30, 6, 4)
    other = quantiser("residual", rate_weight=0.1, decay=0.5)
    assert not torch.equal(other.bits(), module.bits())
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(z_BDS).codes, module(z_BDS).codes)


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(UsageError, match="rate_weight >= 0"):
        make_quantiser("vq", embedding_dim=4, rate_weight=weight)


@pytest.mark.parametrize("kind", ["fsq", "simvq"])
def test_kinds_without_frequencies_refuse_it(kind: str) -> None:
    with pytest.raises(UsageError, match="does not read rate_weight"):
        make_quantiser(kind, embedding_dim=4, rate_weight=0.1)  # type: ignore[arg-type]
