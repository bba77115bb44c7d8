"""How the codebook moves: averages by hand, unused codes, k-means start, accumulated batches, revival."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.interface import QuantiserStatistics
from stage1_vqvae.quantiser.quantiser import VectorQuantiser

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


# Moving averages


def test_two_moving_average_steps_by_hand() -> None:
    module = quantiser([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], decay=0.75)
    module.update(statistics(module, [[1.0, 1.0], [3.0, 1.0], [9.0, 1.0], [2.0, 1.0]]))
    # shares 3/4, 1/4, 0 with weight 1/4: the first batch that uses a code determines it
    torch.testing.assert_close(module.codebook[0], torch.tensor([[2.0, 1.0], [9.0, 1.0], [0.0, 10.0]]))
    torch.testing.assert_close(module.usage[0], torch.tensor([0.75, 0.25, 0.0]) / 4)
    assert module.weight.item() == 0.25
    module.update(statistics(module, [[6.0, 0.0], [0.0, 8.0]]))
    # |z - e|^2: [6, 0] is nearest to [9, 1] (10) before [2, 1] (17); [0, 8] to the third vector
    # usage: 0.75 (3/16, 1/16, 0) + 0.25 (0, 1/2, 1/2) = (9/64, 11/64, 8/64)
    # sum of code 1: 0.75 * (9, 1)/16 + 0.25 * (6, 0)/2 = (75, 3)/64; code 0 is unused, code 2 fresh
    torch.testing.assert_close(module.usage[0] * 64, torch.tensor([9.0, 11.0, 8.0]))
    torch.testing.assert_close(module.codebook[0], torch.tensor([[2.0, 1.0], [75 / 11, 3 / 11], [0.0, 8.0]]))
    assert module.weight.item() == pytest.approx(1 - 0.75**2)


def test_an_unused_code_keeps_its_vector_bit_for_bit() -> None:
    """It neither blows up (a count near zero under a full sum) nor collapses (a sum near zero over a full count)."""
    module = quantiser(codebook_size=16, embedding_dim=4)
    with torch.no_grad():
        module.codebook[0, 0] = 100.0  # never the nearest
    before = module.codebook.clone()
    for _ in range(3):
        batch = statistics(module, torch.randn(200, 4))
        unused_K = batch.counts_GK[0] == 0
        previous = module.codebook.clone()
        module.update(batch)
        assert torch.equal(module.codebook[0, unused_K], previous[0, unused_K])
        assert not torch.equal(module.codebook[0, ~unused_K], previous[0, ~unused_K])
    assert torch.equal(module.codebook[0, 0], before[0, 0])


def test_a_code_forgotten_for_long_is_neither_lost_nor_blown_up() -> None:
    """After 2000 steps its usage has underflowed to zero; the next batch that uses it determines it."""
    module = quantiser([[1.0], [9.0]], decay=0.9)
    module.update(statistics(module, [[1.5], [8.0]]))
    lone = statistics(module, [[1.5]])
    for _ in range(2000):
        module.update(lone)
    assert module.usage[0, 1] < 1e-38
    assert module.codebook[0, 1] == 8.0
    module.update(statistics(module, [[7.0]]))
    torch.testing.assert_close(module.codebook[0, 1], torch.tensor([7.0]))


def test_averages_converge_to_the_cluster_means() -> None:
    module = quantiser([[0.0], [10.0]], decay=0.9)
    torch.manual_seed(1)
    for _ in range(100):
        module.update(statistics(module, torch.cat([torch.randn(300, 1) + 2, torch.randn(100, 1) + 12])))
    torch.testing.assert_close(module.codebook[0, :, 0], torch.tensor([2.0, 12.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(module.usage[0] / module.weight, torch.tensor([0.75, 0.25]))


def test_random_start_is_small() -> None:
    assert quantiser(codebook_size=50, embedding_dim=8).codebook.abs().max() <= 1 / 50


def test_kmeans_start_sets_vectors_sums_and_usage_together() -> None:
    """The same data shown again must leave the codebook in place: with sums and counts that disagree it shrinks."""
    module = quantiser(codebook_size=16, embedding_dim=6, codebooks=2)
    vectors_ND = torch.randn(800, 6) + 3
    module.initialise(vectors_ND, seed=0, iterations=100)
    placed = module.codebook.clone()
    torch.testing.assert_close(module.sums, placed * module.usage[..., None])
    torch.testing.assert_close(module.usage.sum(dim=1) / module.weight, torch.ones(2))
    for _ in range(5):
        module.update(statistics(module, vectors_ND))
    torch.testing.assert_close(module.codebook, placed, atol=1e-5, rtol=0)
    module.update(statistics(module, vectors_ND[:10]))  # a small batch moves it a little: 1 % of the average
    assert 1e-4 < (module.codebook - placed).abs().max() < 0.5


def test_kmeans_start_lowers_the_loss_in_both_modes_and_follows_its_seed() -> None:
    z_BDS = torch.randn(6, 4, 50)
    vectors_ND = z_BDS.movedim(1, 2).reshape(-1, 4)
    for update in UPDATES:
        module = quantiser(codebook_size=32, embedding_dim=4, update=update)
        before = module(z_BDS).commitment_loss.item()
        module.initialise(vectors_ND, seed=1)
        after = module(z_BDS).commitment_loss.item()
        assert after < 0.4 * before
        first = module.codebook.detach().clone()
        module.initialise(vectors_ND, seed=1)
        assert torch.equal(first, module.codebook)


def test_accumulated_statistics_equal_those_of_one_large_batch() -> None:
    whole, parts = (quantiser(codebook_size=8, embedding_dim=3, revival_threshold=0.5) for _ in range(2))
    vectors_ND = torch.randn(30, 3)
    accumulated = statistics(parts, vectors_ND[:11]) + statistics(parts, vectors_ND[11:])
    torch.manual_seed(5)
    first = whole.update(statistics(whole, vectors_ND))
    torch.manual_seed(5)
    second = parts.update(accumulated)
    assert torch.equal(first.revived, second.revived)
    torch.testing.assert_close(whole.codebook, parts.codebook)


def test_only_moving_averages_need_the_sums() -> None:
    with_sums, without = (quantiser(codebook_size=8, embedding_dim=3, update=update) for update in UPDATES)
    batch = statistics(with_sums, torch.randn(30, 3))
    assert batch.sums_GKD is not None
    first, second = (statistics(without, torch.randn(30, 3)) for _ in range(2))
    assert first.sums_GKD is None
    both = first + second
    assert both.sums_GKD is None
    without.update(both)
    torch.testing.assert_close(without.usage[0] / without.weight, (first.counts_GK + second.counts_GK)[0] / 60)


# Revival


@pytest.mark.parametrize("update", UPDATES)
def test_a_revived_code_lies_on_a_batch_vector_and_survives_the_next_updates(update: Literal["ema", "loss"]) -> None:
    module = quantiser([[0.0, 0.0], [50.0, 50.0], [60.0, 60.0]], update=update, revival_threshold=0.03)
    vectors_ND = torch.randn(40, 2)
    result = module.update(statistics(module, vectors_ND))
    assert result.revived.tolist() == [[False, True, True]]
    revived_KD = module.codebook[0, 1:].detach().clone()
    for vector_D in revived_KD:
        assert (vectors_ND == vector_D).all(dim=1).any()
    assert not torch.equal(revived_KD[0], revived_KD[1])
    if update == "ema":
        torch.testing.assert_close(module.sums[0, 1:] / module.usage[0, 1:, None], revived_KD)
    # batches that do not touch them: they stay
    for _ in range(5):
        far = module.update(statistics(module, revived_KD.mean(dim=0) + 1000 * torch.ones(8, 2)))
        nearest = int(module(torch.full((1, 2), 1000.0)).codes)
        keep = [k for k in (1, 2) if k != nearest]
        assert torch.equal(module.codebook[0, keep], revived_KD[[k - 1 for k in keep]])
        assert not far.revived[0, keep].any()


def test_a_revived_code_takes_its_share_of_the_next_batch() -> None:
    module = quantiser(codebook_size=32, embedding_dim=2, revival_threshold=0.03, decay=0.9)
    torch.manual_seed(3)
    for _ in range(30):
        update = module.update(statistics(module, torch.randn(2000, 2)))
    codes = module(torch.randn(5000, 2)).codes
    assert not update.revived.any()
    assert len(torch.unique(codes)) == 32
    assert update.perplexity > 20


def test_without_revival_the_same_codebook_stays_collapsed() -> None:
    """The control of the test above: it is revival that fills the codebook."""
    module = quantiser(codebook_size=32, embedding_dim=2, revival_threshold=0.0, decay=0.9)
    with torch.no_grad():
        module.codebook[0, 4:] = 100.0
    torch.manual_seed(3)
    for _ in range(30):
        update = module.update(statistics(module, torch.randn(2000, 2)))
    assert not update.revived.any()
    assert update.perplexity <= 4.001


@pytest.mark.parametrize("tokens", [40, 4000])
def test_the_threshold_is_relative_to_the_tokens_expected_per_code(tokens: int) -> None:
    """Shares 0.80, 0.15, 0.05 of two batch sizes, K = 3: fair is 1/3, the threshold 0.3 lies at a share of 0.1."""
    module = quantiser([[0.0], [10.0], [20.0]], revival_threshold=0.3)
    values = [0.0] * (tokens * 80 // 100) + [10.0] * (tokens * 15 // 100) + [20.0] * (tokens * 5 // 100)
    result = module.update(statistics(module, torch.tensor(values)[:, None]))
    assert result.revived.tolist() == [[False, False, True]]


def test_usage_is_bias_corrected_before_it_is_judged() -> None:
    """After one step at decay 0.99 every raw average is a hundredth of its share; judged raw, all codes were dead."""
    module = quantiser(codebook_size=4, embedding_dim=4, revival_threshold=0.9, decay=0.99)
    with torch.no_grad():
        module.codebook[0] = torch.eye(4)
    assert not module.update(statistics(module, torch.eye(4).repeat(3, 1))).revived.any()


def test_no_two_codes_are_revived_onto_one_vector() -> None:
    """Blank background fills a batch with copies: one code may move there, the others wait for more vectors."""
    module = quantiser(codebook_size=10, embedding_dim=2, revival_threshold=0.03)
    blank = torch.ones(50, 2)
    first = statistics(module, blank)
    revived_K = module.update(first).revived[0]
    assert int(revived_K.sum()) == 1
    varied = statistics(module, torch.randn(50, 2))
    waiting_K = (first.counts_GK[0] + varied.counts_GK[0] == 0) & ~revived_K
    assert waiting_K.sum() >= 2
    assert torch.equal(module.update(varied).revived[0], waiting_K)
    assert len(torch.unique(module.codebook[0, waiting_K], dim=0)) == waiting_K.sum()


def test_fewer_vectors_than_dead_codes() -> None:
    module = quantiser(codebook_size=64, embedding_dim=2, revival_threshold=0.03)
    assert int(module.update(statistics(module, torch.randn(5, 2))).revived.sum()) == 5
    assert torch.isfinite(module.codebook).all()


def test_revival_follows_torchs_global_generator_and_nothing_else_draws() -> None:
    modules = [quantiser(codebook_size=16, embedding_dim=2, revival_threshold=0.03) for _ in range(3)]
    vectors_ND = torch.randn(500, 2)
    for module, seed in zip(modules, (7, 7, 8), strict=True):
        torch.manual_seed(seed)
        batch = statistics(module, vectors_ND)
        assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(seed).get_state())
        assert module.update(batch).revived.any()
    assert torch.equal(modules[0].codebook, modules[1].codebook)
    assert not torch.equal(modules[0].codebook, modules[2].codebook)


def test_loss_mode_moves_no_code_but_the_revived() -> None:
    module = quantiser([[0.0, 0.0], [50.0, 50.0]], update="loss", revival_threshold=0.03)
    parameter = module.codebook
    module.update(statistics(module, torch.randn(20, 2)))
    assert module.codebook is parameter  # the optimiser still holds it
    assert module.codebook[0, 0].tolist() == [0.0, 0.0]
    assert module.codebook[0, 1].abs().max() < 10
