"""Residual quantisation against plain loops: codes, sums, losses, start, averages, prefixes and dropout."""

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.interface import QuantiserStatistics
from stage1_vqvae.quantiser.kmeans import kmeans
from stage1_vqvae.quantiser.quantiser import VectorQuantiser
from stage1_vqvae.quantiser.residual import ResidualQuantiser
from twostage.errors import UsageError
from twostage.noise import seed_step

UPDATES: tuple[Literal["ema", "loss"], ...] = ("ema", "loss")


def quantiser(**settings: Any) -> ResidualQuantiser:
    """Three levels of 7 vectors over 4 channels, at scales that make every level matter; without revival."""
    torch.manual_seed(0)
    module = ResidualQuantiser(
        **{"embedding_dim": 4, "codebook_size": 7, "codebooks": 3, "revival_threshold": 0.0, **settings}
    )
    with torch.no_grad():
        for g in range(module.codebooks):
            module.codebook[g] = torch.randn(module.codebook.shape[1:]) / 2**g
    return module


def statistics(module: ResidualQuantiser, z_BDS: Tensor) -> QuantiserStatistics:
    found = module(z_BDS).statistics
    assert found is not None
    return found


def plain(z_D: Tensor, codebook_GKD: Tensor) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """Of one vector: codes, residuals that the levels are given, and partial sums."""
    residual_D, sum_D = z_D, torch.zeros_like(z_D)
    codes, residuals, sums = [], [], []
    for codebook_KD in codebook_GKD:
        distances = [float((residual_D - e_D).square().sum()) for e_D in codebook_KD]
        code = distances.index(min(distances))
        residuals.append(residual_D)
        sum_D, residual_D = sum_D + codebook_KD[code], residual_D - codebook_KD[code]
        codes.append(code)
        sums.append(sum_D)
    return codes, residuals, sums


@pytest.mark.parametrize("update", UPDATES)
def test_codes_vectors_losses_and_statistics_equal_those_of_plain_loops(update: Literal["ema", "loss"]) -> None:
    module = quantiser(update=update)
    z_BDS = torch.randn(6, 4, 5)
    quantised = module(z_BDS)
    codebook_GKD = module.codebook.detach()
    squared, counts, sums = 0.0, torch.zeros(3, 7), torch.zeros(3, 7, 4)
    for b in range(6):
        for s in range(5):
            codes, residuals, partial = plain(z_BDS[b, :, s], codebook_GKD)
            assert quantised.codes[b, :, s].tolist() == codes
            torch.testing.assert_close(quantised.vectors[b, :, s], partial[-1])
            for g, code in enumerate(codes):
                squared += float((z_BDS[b, :, s] - partial[g]).square().sum())
                counts[g, code] += 1
                sums[g, code] += residuals[g]
    assert quantised.commitment_loss.item() == pytest.approx(squared / z_BDS.numel(), rel=1e-5)
    assert quantised.codebook_loss.item() == pytest.approx(squared / z_BDS.numel(), rel=1e-5)
    assert quantised.statistics is not None
    assert torch.equal(quantised.statistics.counts_GK, counts)
    if update == "ema":
        torch.testing.assert_close(quantised.statistics.sums_GKD, sums)


@pytest.mark.parametrize("grid", [(), (5,), (2, 3)])
def test_lookup_gives_the_vectors_of_forward_bit_for_bit(grid: tuple[int, ...]) -> None:
    module = quantiser()
    quantised = module(torch.randn(6, 4, *grid))
    assert quantised.codes.shape == (6, 3, *grid)
    assert torch.equal(module.lookup(quantised.codes), quantised.vectors)


def test_one_level_is_the_vector_quantiser() -> None:
    single, vq = quantiser(codebooks=1), VectorQuantiser(embedding_dim=4, codebook_size=7, revival_threshold=0.0)
    vq.codebook.copy_(single.codebook)
    z_BDS = torch.randn(6, 4, 5)
    for _ in range(2):
        first, second = single(z_BDS), vq(z_BDS)
        assert torch.equal(first.codes, second.codes)
        assert torch.equal(first.vectors, second.vectors)
        torch.testing.assert_close(first.commitment_loss, second.commitment_loss)
        assert first.statistics is not None
        assert second.statistics is not None
        single.update(first.statistics)
        vq.update(second.statistics)
        assert torch.equal(single.codebook, vq.codebook)


# Prefixes


def test_a_prefix_of_the_codes_is_the_sum_of_those_levels_and_no_other_number_of_codes_is_one() -> None:
    module = quantiser()
    quantised = module(torch.randn(6, 4, 5))
    for levels in (1, 2, 3):
        chosen = [module.codebook[g][quantised.codes[:, g]] for g in range(levels)]
        torch.testing.assert_close(module.lookup(quantised.codes[:, :levels]), sum(chosen).transpose(1, 2))
    for levels in (0, 4):
        with pytest.raises(UsageError, match="1 to 3 codebooks"):
            module.lookup(torch.zeros(2, levels, 5, dtype=torch.int64))
    with pytest.raises(UsageError, match="0 to 6"):
        module.lookup(torch.full((2, 1), 7))


def test_k_means_starts_every_level_on_what_is_left_over_and_each_prefix_is_nearer() -> None:
    module = quantiser(codebook_size=16)
    vectors_ND = torch.randn(600, 4) + 2
    module.initialise(vectors_ND, seed=3)
    generator, residual_ND = torch.Generator().manual_seed(3), vectors_ND
    for g in range(3):
        clusters = kmeans(residual_ND, clusters=16, generator=generator)
        torch.testing.assert_close(module.codebook[g], clusters.centres_KD)
        nearest_N = torch.cdist(residual_ND, clusters.centres_KD).argmin(1)
        residual_ND = residual_ND - clusters.centres_KD[nearest_N]
    torch.testing.assert_close(module.sums, module.codebook * module.usage[..., None])
    assert module.weight == 1
    codes = module(vectors_ND).codes
    errors = [float((module.lookup(codes[:, :n]) - vectors_ND).square().mean()) for n in (1, 2, 3)]
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


# Gradients


def test_the_decoders_gradient_is_copied_or_turned_and_never_reaches_the_codebook() -> None:
    for gradient in ("straight-through", "rotation"):
        module = quantiser(update="loss", gradient=gradient)
        z_BD = torch.randn(9, 4, requires_grad=True)
        weights = torch.randn(9, 4)
        quantised = module(z_BD)
        (quantised.vectors * weights).sum().backward()
        assert module.codebook.grad is None
        assert z_BD.grad is not None
        if gradient == "straight-through":
            assert torch.equal(z_BD.grad, weights)
        else:  # scaled as the vector was, and turned with it
            scale = quantised.vectors.detach().norm(dim=1) / z_BD.detach().norm(dim=1)
            torch.testing.assert_close(z_BD.grad.norm(dim=1), scale * weights.norm(dim=1))
            products = (z_BD.grad * z_BD.detach()).sum(1), (weights * quantised.vectors.detach()).sum(1)
            torch.testing.assert_close(*products)


def test_commitment_and_codebook_gradients_are_those_of_plain_autograd() -> None:
    module = quantiser(update="loss")
    z_BD = torch.randn(9, 4, requires_grad=True)
    quantised = module(z_BD)
    quantised.commitment_loss.backward()
    assert module.codebook.grad is None
    assert z_BD.grad is not None
    found = z_BD.grad.clone()
    module(z_BD.detach()).codebook_loss.backward()
    again_BD, codebook_GKD = z_BD.detach().clone().requires_grad_(), module.codebook.detach().clone().requires_grad_()
    sum_BD, codebook_loss, commitment_loss = torch.zeros(9, 4), torch.zeros(()), torch.zeros(())
    for g in range(3):
        e_BD = codebook_GKD[g][quantised.codes[:, g]]
        codebook_loss = codebook_loss + (e_BD - (again_BD - sum_BD).detach()).square().mean()
        sum_BD = sum_BD + e_BD.detach()
        commitment_loss = commitment_loss + (again_BD - sum_BD).square().mean()
    (codebook_loss + commitment_loss).backward()
    torch.testing.assert_close(found, again_BD.grad)
    torch.testing.assert_close(module.codebook.grad, codebook_GKD.grad)


def test_beta_stands_on_the_commitment_term() -> None:
    z_BD = torch.randn(9, 4)
    ema, loss = (quantiser(update=update, commitment_beta=0.5) for update in UPDATES)
    squared = ema(z_BD).commitment_loss.item()
    assert ema.loss(ema(z_BD)).item() == pytest.approx(0.5 * squared)
    assert loss.loss(loss(z_BD)).item() == pytest.approx(1.5 * squared)
    assert not ema(z_BD).codebook_loss.requires_grad


# Updates


def test_one_moving_average_step_by_hand() -> None:
    module = quantiser(codebook_size=2, embedding_dim=1, codebooks=2, decay=0.75)
    module.codebook.copy_(torch.tensor([[[0.0], [10.0]], [[-1.0], [1.0]]]))
    module.update(statistics(module, torch.tensor([[2.0], [9.0], [12.0], [-3.0]])))
    # level 0: 2 and -3 go to 0, 9 and 12 to 10; left over: 2, -1, 2, -3, of which 2 and 2 go to 1, the others to -1
    torch.testing.assert_close(module.codebook[..., 0], torch.tensor([[-0.5, 10.5], [-2.0, 2.0]]))
    torch.testing.assert_close(module.usage, torch.full((2, 2), 0.5 / 4))


@pytest.mark.parametrize("update", UPDATES)
def test_dead_codes_move_onto_residuals_of_their_level(update: Literal["ema", "loss"]) -> None:
    module = quantiser(update=update, revival_threshold=0.03)
    with torch.no_grad():
        module.codebook[:, 5:] = 1000.0
    z_BD = torch.randn(60, 4)
    found = statistics(module, z_BD)
    assert found.candidates_GND is not None
    revived = module.update(found).revived
    assert revived[:, 5:].all()
    for g in range(3):
        for vector_D in module.codebook[g][revived[g]]:
            assert (found.candidates_GND[g] == vector_D).all(1).any()
    assert torch.equal(found.candidates_GND[0], z_BD)


@pytest.mark.parametrize("update", UPDATES)
def test_forward_changes_nothing_and_eval_has_no_statistics_and_drops_nothing(update: Literal["ema", "loss"]) -> None:
    module = quantiser(update=update, quantiser_dropout=1.0)
    module.update(statistics(module, torch.randn(20, 4)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module(torch.randn(20, 4))
    quantised = module.eval()(torch.randn(20, 4))
    assert quantised.statistics is None
    assert torch.equal(quantised.vectors, module.lookup(quantised.codes))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# Dropout


def shown_levels(module: ResidualQuantiser, vectors: Tensor, codes: Tensor) -> list[int]:
    """How many levels each item's vectors are the sum of: the same at all its positions."""
    prefixes = [module.lookup(codes[:, :n]) for n in range(1, module.codebooks + 1)]
    return [next(n for n, p in enumerate(prefixes, 1) if torch.equal(p[b], vectors[b])) for b in range(len(codes))]


def test_dropout_shows_the_decoder_a_random_prefix_and_the_rest_sees_everything() -> None:
    whole, module = quantiser(), quantiser(quantiser_dropout=0.6)
    z_BDS = torch.randn(3000, 4, 2)
    expected, quantised = whole(z_BDS), module(z_BDS)
    assert torch.equal(quantised.codes, expected.codes)
    assert torch.equal(quantised.commitment_loss, expected.commitment_loss)
    assert quantised.statistics is not None
    assert expected.statistics is not None
    assert torch.equal(quantised.statistics.counts_GK, expected.statistics.counts_GK)
    levels = torch.tensor(shown_levels(module, quantised.vectors, quantised.codes))
    shares = levels.bincount(minlength=4)[1:] / 3000
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.2, 0.6]), atol=0.03, rtol=0)  # 3.4 standard errors


def test_rows_of_one_item_share_a_prefix() -> None:
    """As in sound, whose rows are positions of unequally long items."""
    module = quantiser(quantiser_dropout=1.0)
    items_B = torch.arange(200).repeat_interleave(torch.arange(200) % 4 + 1)
    quantised = module(torch.randn(len(items_B), 4), items_B)
    levels = shown_levels(module, quantised.vectors, quantised.codes)
    by_item = [{level for level, item in zip(levels, items_B.tolist(), strict=True) if item == i} for i in range(200)]
    assert all(len(found) == 1 for found in by_item)
    assert set().union(*by_item) == {1, 2, 3}


def test_dropout_follows_torchs_generator_and_without_it_nothing_is_drawn() -> None:
    module, z_BDS, vectors = quantiser(quantiser_dropout=0.5), torch.randn(50, 4, 2), []
    for step in (1, 1, 2):
        seed_step(7, step)
        vectors.append(module(z_BDS).vectors)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    without, before = quantiser(), torch.get_rng_state()
    without(z_BDS)
    assert torch.equal(before, torch.get_rng_state())


# Borders and errors


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_an_empty_batch_works_and_changes_nothing(dropout: float) -> None:
    module = quantiser(quantiser_dropout=dropout)
    for z_BDS, items_B in ((torch.zeros(0, 4, 3), None), (torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))):
        quantised = module(z_BDS, items_B)
        assert quantised.vectors.shape == z_BDS.shape
        assert quantised.codes.shape == (0, 3, *z_BDS.shape[2:])
        assert module.loss(quantised).item() == 0.0
        assert quantised.statistics is not None
        assert not module.update(quantised.statistics).revived.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebooks": 0}, "of at least 1, got 7, 0 and 4"),
        ({"codebook_size": 0}, "of at least 1, got 0, 3 and 4"),
        ({"quantiser_dropout": 1.5}, "from 0 to 1.*1.5 with 3"),
        ({"quantiser_dropout": 0.5, "codebooks": 1}, "0 with a single level"),
        ({"update": "sgd"}, "'ema' or 'loss'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantiser(**settings)


def test_wrong_channels_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"4 channels.*\(2, 5, 3\)"):
        quantiser()(torch.zeros(2, 5, 3))
    with pytest.raises(UsageError, match=r"\[N, 4\]"):
        quantiser().initialise(torch.zeros(6, 3), seed=0)
