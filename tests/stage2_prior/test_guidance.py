"""Classifier-free guidance: the distribution it draws from, what it costs, what it leaves alone, what it needs."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stage2_prior import HierarchicalPrior, PixelCNN, Prior, WaveNet, sample
from stage2_prior.guidance import Walk
from twostage.errors import UsageError

DROPPED: dict[str, Any] = {"codebook_size": 4, "channels": 8, "label_dropout": 0.2}


def _far_from_uniform(prior: Any, heads: list[Any]) -> Any:
    for head in heads:
        torch.nn.init.normal_(head.output_weight_GSK, std=1.0)
    return prior.eval()


def pixelcnn(**changes: Any) -> PixelCNN:
    """Over 2x2 positions."""
    torch.manual_seed(0)
    prior = PixelCNN(**(DROPPED | {"grid": (2, 2), "classes": (3,), "layers": 2, "first_kernel": 3} | changes))
    return _far_from_uniform(prior, [prior.head])


def hierarchy() -> HierarchicalPrior:
    """Over 1x2 and 2x4 positions."""
    torch.manual_seed(0)
    prior = HierarchicalPrior(**DROPPED, grids=((1, 2), (2, 4)), classes=(3,), layers=2)
    return _far_from_uniform(prior, [prior.level(0).head, prior.level(1).head])


def wavenet() -> WaveNet:
    """Over up to 6 positions, with label and speaker."""
    torch.manual_seed(0)
    prior = WaveNet(**DROPPED, max_length=6, classes=(3, 2), blocks=1, layers_per_block=2)
    for table in prior.condition:
        torch.nn.init.normal_(table.weight)
    return _far_from_uniform(prior, [prior.head])


@pytest.mark.parametrize("make", [pixelcnn, hierarchy, wavenet])
@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guided_logits_are_the_mix_of_two_walks(make: Any, guidance: float) -> None:
    prior: Prior = make()
    condition = torch.tensor([[2] * len(prior.classes), [0] * len(prior.classes)])
    condition[0, -1] = 1
    walk = Walk(prior, 2, condition, guidance=guidance)
    given, free = prior.initial_state(2, condition), prior.initial_state(2, None)
    symbol: Tensor | None = None
    for n in range(6 if prior.has_end else 4):
        given_BK, given = prior.step(given, symbol, condition)
        free_BK, free = prior.step(free, symbol, None)
        assert not torch.allclose(given_BK, free_BK, atol=1e-2)
        mixed_BK = (1 - guidance) * free_BK + guidance * given_BK
        torch.testing.assert_close(walk.step(symbol), mixed_BK, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(walk.end_logit_B, prior.end_logit(given), atol=1e-5, rtol=1e-5)
        symbol = torch.tensor([n % 4, 3 - n % 4])


class TablePrior:
    """Two codes of 4 under each of 3 equally likely labels, every probability known; without a label their mixture."""

    codebook_size, code_shape, grids, classes, has_end = 4, (1, 2), ((2,),), (3,), False
    condition_optional = True

    def __init__(self) -> None:
        weights = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)) ** 2
        joint_L44 = weights / weights.sum(dim=(1, 2), keepdim=True)
        self.joint_R44 = torch.cat([joint_L44, joint_L44.mean(0)[None]])  # row -1: no label

    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> Tensor:
        rows_B = torch.full((batch_size,), -1) if condition_BA is None else condition_BA[:, 0]
        return self.joint_R44[rows_B]

    def step(self, state: Tensor, symbol_B: Tensor | None, condition_BA: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weights_BK = state.sum(2) if symbol_B is None else state[torch.arange(len(state)), symbol_B]
        return weights_BK.log(), state


def test_guidance_sharpens_the_label_that_a_sample_says() -> None:
    prior: Any = TablePrior()
    posterior_44 = prior.joint_R44[1] / prior.joint_R44[:3].sum(0)
    given_K, free_K = prior.joint_R44[1].sum(1), prior.joint_R44[-1].sum(1)
    said = []
    for guidance in (0.0, 1.0, 2.0, 4.0):
        drawn = sample(prior, count=8000, condition=torch.ones(8000, 1, dtype=torch.int64), guidance=guidance)
        first_B, second_B = drawn.codes[:, 0].T
        said.append(float(posterior_44[first_B, second_B].mean()))
        by_hand_K = free_K * (given_K / free_K) ** guidance
        shares_K = torch.bincount(first_B, minlength=4) / 8000
        assert (shares_K - by_hand_K / by_hand_K.sum()).abs().sum() / 2 < 0.02
    assert said[0] == pytest.approx(1 / 3, abs=0.01)  # whatever label was asked for
    assert said[0] + 0.05 < said[1] < said[2] - 0.05 < said[3] - 0.05


@pytest.mark.parametrize("make", [pixelcnn, hierarchy, wavenet])
def test_guidance_of_one_changes_nothing_and_takes_no_second_walk(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = make()
    condition = torch.arange(6)[:, None].expand(-1, len(prior.classes)) % 2
    arguments = {"count": 6, "condition": condition, "seed": 3}
    plain, begun = sample(prior, **arguments), []
    own = type(prior).initial_state
    monkeypatch.setattr(
        type(prior), "initial_state", lambda self, items, *more: begun.append(items) or own(self, items, *more)
    )
    assert torch.equal(sample(prior, **arguments, guidance=1.0).codes, plain.codes)
    assert set(begun) == {6}
    begun.clear()
    guided = sample(prior, **arguments, guidance=3.0)
    assert begun[0] == 12  # both walks in one batch
    assert not torch.equal(guided.codes, plain.codes)
    assert torch.equal(guided.codes, sample(prior, **arguments, guidance=3.0, batch_size=4).codes)


def test_guidance_keeps_known_codes_and_the_noise_of_every_item() -> None:
    prior = pixelcnn()
    condition = torch.ones(5, 1, dtype=torch.int64)
    whole = sample(prior, count=5, condition=condition, guidance=2.0, seed=7).codes
    again = sample(prior, count=5, condition=condition, guidance=2.0, seed=7, known=whole[:, :, :1]).codes
    assert torch.equal(whole, again)
    unguided = sample(prior, count=5, condition=condition, guidance=0.0, seed=7).codes
    assert torch.equal(unguided, sample(prior, count=5, seed=7).codes)


def test_no_label_of_single_items_is_no_label_of_all() -> None:
    prior = pixelcnn(classes=(3, 2))
    codes = torch.randint(4, (2, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        mixed_B = prior.log_prob(codes, torch.tensor([[-1, -1], [2, 1]]))
        free_B, given_B = prior.log_prob(codes, None), prior.log_prob(codes, torch.tensor([[2, 1], [2, 1]]))
    torch.testing.assert_close(mixed_B, torch.stack([free_B[0], given_B[1]]))
    with pytest.raises(UsageError, match=r"classes 0 to 2 for attribute 0.*got -1"):
        prior.log_prob(codes, torch.tensor([[-1, 1], [2, 1]]))  # all attributes or none
    with pytest.raises(UsageError, match=r"classes 0 to 2 for attribute 0.*got -1"):
        pixelcnn(label_dropout=0.0).log_prob(codes, torch.tensor([[-1], [1]]))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({}, {"guidance": -0.5}, "guidance 0 .*got -0.5"),
        ({}, {"guidance": float("inf")}, "guidance .*got inf"),
        ({}, {"condition": None, "guidance": 2.0}, "condition for the guidance to strengthen, got none"),
        ({"label_dropout": 0.0}, {"guidance": 2.0}, "trained with label dropout for guidance"),
    ],
)
def test_what_cannot_be_guided_is_refused(changes: Any, arguments: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sample(pixelcnn(**changes), **({"count": 2, "condition": torch.tensor([[0], [1]])} | arguments))
