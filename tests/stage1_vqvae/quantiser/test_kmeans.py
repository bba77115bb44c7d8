"""k-means: clusters found, counts consistent, too few distinct vectors, empty clusters, seeds."""

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.kmeans import BLOCK, _repair_empty, kmeans, vectors_wanted
from stage1_vqvae.quantiser.nearest import nearest_codes
from twostage.errors import UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs() -> tuple[Tensor, Tensor]:
    """Twelve tight clusters of 40 vectors, far from one another, and their centres."""
    torch.manual_seed(0)
    centres_KD = 10 * torch.randn(12, 5)
    return (centres_KD[:, None] + 0.05 * torch.randn(12, 40, 5)).reshape(-1, 5), centres_KD


@pytest.mark.parametrize("seed", range(5))
def test_finds_well_separated_clusters_from_any_seed(seed: int) -> None:
    vectors_ND, centres_KD = blobs()
    result = kmeans(vectors_ND, clusters=12, generator=generator(seed))
    assert sorted(result.counts_K.tolist()) == [40] * 12
    assert torch.cdist(centres_KD, result.centres_KD).min(dim=1).values.max() < 0.05


def test_centres_are_means_of_their_vectors_and_counts_belong_to_the_final_centres() -> None:
    torch.manual_seed(1)
    vectors_ND = torch.randn(600, 4)
    result = kmeans(vectors_ND, clusters=20, generator=generator(), iterations=200)
    codes_N = nearest_codes(vectors_ND, result.centres_KD)
    assert torch.equal(result.counts_K, torch.bincount(codes_N, minlength=20))
    for k in range(20):  # converged: a fixed point of Lloyd's rule
        torch.testing.assert_close(result.centres_KD[k], vectors_ND[codes_N == k].mean(dim=0))


def test_counts_belong_to_the_final_centres_before_convergence_too() -> None:
    torch.manual_seed(1)
    vectors_ND = torch.randn(600, 4)
    result = kmeans(vectors_ND, clusters=20, generator=generator(), iterations=1)
    expected_K = torch.bincount(nearest_codes(vectors_ND, result.centres_KD), minlength=20)
    assert torch.equal(result.counts_K, expected_K)


def test_lloyd_iterations_lower_the_distortion() -> None:
    torch.manual_seed(1)
    vectors_ND = torch.randn(2000, 8)

    def distortion(iterations: int) -> float:
        result = kmeans(vectors_ND, clusters=32, generator=generator(), iterations=iterations)
        return float(torch.cdist(vectors_ND, result.centres_KD).min(dim=1).values.square().mean())

    assert distortion(10) < 0.9 * distortion(0)


def test_fewer_distinct_vectors_than_clusters() -> None:
    """Each distinct vector gets a centre; the rest are finite, distinct, near the data, and count nothing."""
    distinct_ND = torch.tensor([[0.0, 1.0], [2.0, 3.0], [-4.0, 5.0]])
    result = kmeans(distinct_ND.repeat(10, 1), clusters=8, generator=generator())
    assert sorted(result.counts_K.tolist()) == [0] * 5 + [10] * 3
    used_KD = result.centres_KD[result.counts_K > 0]
    torch.testing.assert_close(used_KD.sort(dim=0).values, distinct_ND.sort(dim=0).values)
    assert len(torch.unique(result.centres_KD, dim=0)) == 8
    assert torch.cdist(result.centres_KD, distinct_ND).min(dim=1).values.max() < 0.05


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_one_distinct_vector(value: float) -> None:
    result = kmeans(torch.full((6, 2), value), clusters=4, generator=generator())
    assert int(result.counts_K.sum()) == 6
    assert (result.centres_KD - value).abs().max() < 0.05


def test_an_empty_cluster_moves_onto_the_worst_served_vectors() -> None:
    vectors_ND = torch.tensor([[0.0], [1.0], [9.0], [9.0], [30.0]])
    centres_KD = torch.tensor([[0.5], [100.0], [200.0], [300.0]])
    _repair_empty(centres_KD, torch.tensor([5, 0, 0, 0]), vectors_ND, torch.zeros(5, dtype=torch.int64))
    assert centres_KD[:3, 0].tolist() == [0.5, 30.0, 9.0]  # not 9 twice, though 9 comes twice
    assert centres_KD[3, 0] in (0.0, 1.0)


def test_a_cluster_that_starts_empty_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds as bad as can be: all centres but one far outside the data."""
    vectors_ND, centres_KD = blobs()
    bad_KD = torch.cat([centres_KD[:1], 1e4 + torch.arange(11.0)[:, None].expand(11, 5)])
    monkeypatch.setattr("stage1_vqvae.quantiser.kmeans._seed", lambda *_: bad_KD)
    result = kmeans(vectors_ND, clusters=12, generator=generator())
    assert sorted(result.counts_K.tolist()) == [40] * 12


def test_the_seed_decides() -> None:
    torch.manual_seed(2)
    vectors_ND = torch.randn(300, 4)
    first, again, other = (kmeans(vectors_ND, clusters=9, generator=generator(s)).centres_KD for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_refuses_fewer_vectors_than_clusters_and_non_finite_ones() -> None:
    with pytest.raises(UsageError, match=r"for 7 codes expects at least as many .* got shape \(6, 3\)"):
        kmeans(torch.randn(6, 3), clusters=7, generator=generator())
    with pytest.raises(UsageError, match=r"\(0, 3\)"):
        kmeans(torch.zeros(0, 3), clusters=2, generator=generator())
    with pytest.raises(UsageError, match="NaN or infinity"):
        kmeans(torch.tensor([[1.0], [float("nan")]]), clusters=2, generator=generator())


def in_blocks(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("stage1_vqvae.quantiser.kmeans.BLOCK", size)


def test_blocks_find_the_clusters_that_the_whole_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """480 vectors in 4 blocks: every iteration sees a quarter, and the centres are means over all of them."""
    vectors_ND, centres_KD = blobs()
    vectors_ND = vectors_ND[torch.randperm(len(vectors_ND))]
    in_blocks(monkeypatch, 120)
    result = kmeans(vectors_ND, clusters=12, generator=generator(), iterations=4)
    assert sorted(result.counts_K.tolist()) == [40] * 12
    for k in range(12):
        own_ND = vectors_ND[torch.cdist(vectors_ND, centres_KD[k : k + 1])[:, 0] < 1]
        nearest = torch.cdist(centres_KD[k : k + 1], result.centres_KD).argmin()
        torch.testing.assert_close(result.centres_KD[nearest], own_ND.mean(dim=0), rtol=0, atol=1e-4)


def test_more_blocks_serve_unseen_vectors_better_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vectors_ND, held_out_ND = torch.randn(8000, 8), torch.randn(2000, 8)
    in_blocks(monkeypatch, 800)

    def distortion(count: int) -> float:
        centres_KD = kmeans(vectors_ND[:count], clusters=200, generator=generator()).centres_KD
        return float(torch.cdist(held_out_ND, centres_KD).min(dim=1).values.square().mean())

    assert distortion(8000) < 0.95 * distortion(800)


def test_no_more_vectors_are_looked_at_than_an_iteration_has(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "stage1_vqvae.quantiser.kmeans.nearest_codes",
        lambda z, codebook: seen.append(len(z)) or nearest_codes(z, codebook),
    )
    in_blocks(monkeypatch, 100)
    kmeans(torch.randn(1000, 3), clusters=20, generator=generator(), iterations=10)
    assert seen == [100] * 10


def test_a_block_is_never_smaller_than_the_number_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    in_blocks(monkeypatch, 10)
    result = kmeans(torch.randn(70, 3), clusters=40, generator=generator())
    assert int((result.counts_K > 0).sum()) == 40


def test_the_vectors_wanted_are_bounded_and_enough() -> None:
    assert vectors_wanted(16) == 16 * 64
    assert vectors_wanted(8192) == vectors_wanted(16_384) == 10 * BLOCK
    assert vectors_wanted(10**6) == 10**6
