"""The quantiser's values and gradients, purity, state, several codebooks, borders and errors."""

import copy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from stage1_vqvae.quantiser.interface import QuantiserStatistics
from stage1_vqvae.quantiser.quantiser import VectorQuantiser
from twostage.errors import UsageError

UPDATES: tuple[Literal["ema", "loss"], ...] = ("ema", "loss")


def quantiser(codebook: list[list[float]] | None = None, **settings: Any) -> VectorQuantiser:
    """A quantiser with one given codebook [K, D], or with a random one; without revival unless asked."""
    torch.manual_seed(0)
    if codebook is not None:
        settings |= {"codebook_size": len(codebook), "embedding_dim": len(codebook[0])}
    result = VectorQuantiser(**{"revival_threshold": 0.0, **settings})
    if codebook is not None:
        with torch.no_grad():
            result.codebook[0] = torch.tensor(codebook)
    return result


def statistics(module: VectorQuantiser, vectors_ND: list[list[float]] | Tensor) -> QuantiserStatistics:
    found = module(torch.as_tensor(vectors_ND)).statistics
    assert found is not None
    return found


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# Value and gradients


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("grid", [(), (7,), (3, 5)])
def test_vectors_are_those_of_the_codes_bit_for_bit(update: Literal["ema", "loss"], grid: tuple[int, ...]) -> None:
    module = quantiser(codebook_size=11, embedding_dim=6, codebooks=2, update=update)
    z_BDS = torch.randn(4, 6, *grid)
    quantised = module(z_BDS.requires_grad_())
    assert quantised.codes.shape == (4, 2, *grid)
    assert torch.equal(quantised.vectors, module.lookup(quantised.codes))
    # position by position, codebook by codebook: nearest of the K vectors to that group of channels
    z_BPD, e_BPD = (
        x.detach().flatten(2).transpose(1, 2) if grid else x.detach()[:, None] for x in (z_BDS, quantised.vectors)
    )
    for g, channels in enumerate((slice(0, 3), slice(3, 6))):
        distances = torch.cdist(z_BPD[..., channels].double(), module.codebook[g].detach().double().expand(4, 11, 3))
        assert torch.equal(quantised.codes[:, g].reshape(4, -1), distances.argmin(dim=2))
        assert torch.equal(e_BPD[..., channels], module.codebook[g][quantised.codes[:, g].reshape(4, -1)])


def test_straight_through_gradient_of_the_sum_is_exactly_one() -> None:
    module = quantiser(codebook_size=8, embedding_dim=4)
    z_BDS = torch.randn(2, 4, 3, 3, requires_grad=True)
    module(z_BDS).vectors.sum().backward()
    assert z_BDS.grad is not None
    assert torch.equal(z_BDS.grad, torch.ones_like(z_BDS))


def test_the_reconstruction_gradient_does_not_reach_the_codebook() -> None:
    module = quantiser(codebook_size=8, embedding_dim=4, update="loss")
    module(torch.randn(5, 4, requires_grad=True)).vectors.square().sum().backward()
    assert module.codebook.grad is None


def test_commitment_gradient_reaches_the_encoder_only() -> None:
    module = quantiser([[0.0, 0.0], [4.0, 4.0]], update="loss")
    z_BD = torch.tensor([[1.0, 0.0], [4.0, 2.0]], requires_grad=True)
    commitment_loss = module(z_BD).commitment_loss
    commitment_loss.backward()
    assert commitment_loss.item() == (1 + 4) / 4  # mean over the four elements
    assert z_BD.grad is not None
    assert z_BD.grad.tolist() == [[0.5, 0.0], [0.0, -1.0]]  # 2 (z - e) / 4
    assert module.codebook.grad is None


def test_codebook_gradient_reaches_the_codebook_only() -> None:
    module = quantiser([[0.0, 0.0], [4.0, 4.0], [9.0, 9.0]], update="loss")
    z_BD = torch.tensor([[1.0, 0.0], [4.0, 2.0]], requires_grad=True)
    codebook_loss = module(z_BD).codebook_loss
    codebook_loss.backward()
    assert codebook_loss.item() == (1 + 4) / 4
    assert module.codebook.grad is not None
    assert module.codebook.grad[0].tolist() == [[-0.5, 0.0], [0.0, 1.0], [0.0, 0.0]]
    assert z_BD.grad is None


def test_beta_stands_on_the_commitment_term() -> None:
    z_BD = torch.tensor([[1.0, 0.0], [4.0, 2.0]], requires_grad=True)
    for update, expected in (("ema", 0.5 * 1.25), ("loss", 0.5 * 1.25 + 1.25)):
        module = quantiser([[0.0, 0.0], [4.0, 4.0]], update=update, commitment_beta=0.5)
        z_BD.grad = None
        loss = module.loss(module(z_BD))
        loss.backward()
        assert loss.item() == expected
        assert z_BD.grad is not None
        assert z_BD.grad.tolist() == [[0.25, 0.0], [0.0, -0.5]]


def test_the_moving_average_codebook_is_not_trainable() -> None:
    module = quantiser(codebook_size=8, embedding_dim=4)
    assert list(module.parameters()) == []
    assert not module(torch.randn(3, 4, requires_grad=True)).codebook_loss.requires_grad
    assert [name for name, _ in quantiser(codebook_size=8, embedding_dim=4, update="loss").named_parameters()] == [
        "codebook"
    ]


def test_a_low_precision_encoder_gets_the_codes_of_its_exact_values() -> None:
    module = quantiser(codebook_size=256, embedding_dim=8)
    module.initialise(torch.randn(2000, 8), seed=0, iterations=1)
    z_BDS = torch.randn(4, 8, 20).bfloat16().requires_grad_()
    expected = module(z_BDS.detach().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantised = module(z_BDS)
    assert torch.equal(quantised.codes, expected.codes)
    assert torch.equal(quantised.statistics.sums_GKD, expected.statistics.sums_GKD)
    assert quantised.commitment_loss.dtype == torch.float32
    assert torch.equal(quantised.commitment_loss, expected.commitment_loss)
    quantised.vectors.sum().backward()
    assert z_BDS.grad is not None
    assert torch.equal(z_BDS.grad, torch.ones_like(z_BDS))


# Purity and state


@pytest.mark.parametrize("update", UPDATES)
def test_forward_changes_nothing_and_eval_has_no_statistics(update: Literal["ema", "loss"]) -> None:
    module = quantiser(codebook_size=8, embedding_dim=4, update=update, revival_threshold=0.5)
    module.update(statistics(module, torch.randn(20, 4)))
    before = state(module)
    assert module(torch.randn(20, 4)).statistics is not None
    assert same(before, state(module))
    module.eval()
    assert module(torch.randn(20, 4)).statistics is None
    assert same(before, state(module))


@pytest.mark.parametrize("update", UPDATES)
def test_state_dict_round_trip_continues_bit_for_bit(update: Literal["ema", "loss"]) -> None:
    module = quantiser(codebook_size=12, embedding_dim=4, codebooks=2, update=update, revival_threshold=0.3)
    batches = torch.randn(6, 50, 4)

    def advance(target: VectorQuantiser, chosen: Tensor, seed: int) -> None:
        torch.manual_seed(seed)
        for vectors_ND in chosen:
            target.update(statistics(target, vectors_ND))

    advance(module, batches[:3], seed=1)
    saved = state(module)
    advance(module, batches[3:], seed=2)
    resumed = quantiser(codebook_size=12, embedding_dim=4, codebooks=2, update=update, revival_threshold=0.3)
    resumed.load_state_dict(saved)
    advance(resumed, batches[3:], seed=2)
    assert not same(saved, state(module))
    assert same(state(resumed), state(module))


def test_state_dict_keys_are_a_promise_to_checkpoints() -> None:
    assert sorted(quantiser(codebook_size=4, embedding_dim=2).state_dict()) == ["codebook", "sums", "usage", "weight"]
    loss_keys = sorted(quantiser(codebook_size=4, embedding_dim=2, update="loss").state_dict())
    assert loss_keys == ["codebook", "usage", "weight"]


# Several codebooks


def test_codebooks_are_independent_and_keep_channel_order() -> None:
    """G = 2 equals two quantisers on the two halves of the channels, through an update with revival-free averages."""
    joint = quantiser(codebook_size=9, embedding_dim=6, codebooks=2)
    halves = [quantiser(codebook_size=9, embedding_dim=3) for _ in range(2)]
    for g, half in enumerate(halves):
        half.codebook.copy_(joint.codebook[g : g + 1])
    z_BDS = torch.randn(4, 6, 5, 2)
    for _ in range(2):
        quantised = joint(z_BDS)
        assert quantised.statistics is not None
        joint.update(quantised.statistics)
        for g, half in enumerate(halves):
            expected = half(z_BDS[:, 3 * g : 3 * g + 3])
            assert torch.equal(quantised.codes[:, g : g + 1], expected.codes)
            assert torch.equal(quantised.vectors[:, 3 * g : 3 * g + 3], expected.vectors)
            half.update(expected.statistics)
            assert torch.equal(joint.codebook[g : g + 1], half.codebook)


def test_perplexity_is_the_geometric_mean_over_codebooks() -> None:
    module = quantiser(codebook_size=2, embedding_dim=2, codebooks=2)
    module.codebook.copy_(torch.tensor([[[0.0], [1.0]], [[0.0], [1.0]]]))
    # codebook 0 evenly used (perplexity 2), codebook 1 always code 0 (perplexity 1)
    result = module.update(statistics(module, [[0.0, 0.0], [1.0, 0.0]]))
    assert result.perplexity.item() == pytest.approx(2**0.5)


# Borders and errors


@pytest.mark.parametrize("update", UPDATES)
def test_an_empty_batch_works_and_changes_nothing(update: Literal["ema", "loss"]) -> None:
    module = quantiser(codebook_size=8, embedding_dim=4, update=update, revival_threshold=0.3)
    module.update(statistics(module, torch.randn(20, 4)))
    before = state(module)
    quantised = module(torch.zeros(0, 4, 3, 3, requires_grad=True))
    assert quantised.vectors.shape == (0, 4, 3, 3)
    assert quantised.codes.shape == (0, 1, 3, 3)
    assert module.loss(quantised).item() == 0.0
    assert quantised.statistics is not None
    assert not module.update(quantised.statistics).revived.any()
    assert same(before, state(module))
    assert module.lookup(quantised.codes).shape == (0, 4, 3, 3)


def test_wrong_channels_are_refused_with_both_numbers() -> None:
    module = quantiser(codebook_size=8, embedding_dim=4)
    with pytest.raises(UsageError, match=r"4 channels.*\(2, 5, 3\)"):
        module(torch.zeros(2, 5, 3))
    with pytest.raises(UsageError, match=r"\[N, 4\]"):
        module.initialise(torch.zeros(6, 3), seed=0)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([[0, 8]]), "0 to 7"),
        (torch.tensor([[-1, 0]]), "0 to 7"),
        (torch.tensor([[0, 1, 2]]), "2 codebooks"),
        (torch.tensor([[0.0, 1.0]]), "integer codes"),
    ],
)
def test_lookup_refuses_what_is_no_code(codes: Tensor, message: str) -> None:
    module = quantiser(codebook_size=8, embedding_dim=4, codebooks=2)
    with pytest.raises(UsageError, match=message):
        module.lookup(codes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebooks": 3}, "codebooks divides"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"update": "sgd"}, "'ema' or 'loss'"),
        ({"decay": 1.0}, "decay"),
        ({"revival_threshold": 1.5}, "revival_threshold"),
        ({"commitment_beta": -1.0}, "commitment_beta"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        VectorQuantiser(**{"codebook_size": 8, "embedding_dim": 4, **settings})
