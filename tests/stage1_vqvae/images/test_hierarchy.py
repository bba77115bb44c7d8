"""The hierarchy of code grids against the same steps written out, and what every level learns from."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stage1_vqvae import VQVAE, HierarchicalVQVAE
from stage1_vqvae.images.networks import hierarchy_grids
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from twostage.errors import UsageError
from twostage.grids import split_levels

KINDS: dict[str, dict[str, Any]] = {
    "ema": {"codebook_size": 6, "codebooks": 2},
    "loss": {"codebook_size": 6, "update": "loss", "gradient": "rotation"},
    "residual": {"quantiser": "residual", "codebook_size": 6, "codebooks": 3, "quantiser_dropout": 0.5},
    "cosine": {"quantiser": "cosine", "codebook_size": 6, "code_dim": 2},
    "simvq": {"quantiser": "simvq", "codebook_size": 6},
    "fsq": {"quantiser": "fsq", "fsq_levels": (4, 3)},
}


def build(*, side: int = 8, hierarchy: int = 2, **settings: Any) -> HierarchicalVQVAE:
    torch.manual_seed(0)
    sizes = {"image_shape": (1, side, side), "levels": 5, "downsampling": 2, "channels": 8, "residual_channels": 4}
    model = HierarchicalVQVAE(
        **{
            **sizes,
            "head_channels": 6,
            "embedding_dim": 4,
            "hierarchy": hierarchy,
            **(settings or {"codebook_size": 6}),
        }
    )
    with torch.no_grad():  # at their start all codes are nearly one vector, and all vectors round to 0
        for weight in model.parameters():
            weight.mul_(2)
        for quantiser in model.quantisers:
            if isinstance(quantiser.codebook, Tensor) and "quantiser" not in settings:
                quantiser.codebook.copy_(torch.randn_like(quantiser.codebook))
    return model


def images(count: int, side: int = 8) -> Tensor:
    return torch.randint(0, 5, (count, 1, side, side), generator=torch.Generator().manual_seed(1))


def nearest(vectors: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Codes `[B, h, w]` and vectors `[B, D, h, w]` of one codebook, position by position."""
    batch, _, height, width = vectors.shape
    codes, found = torch.zeros(batch, height, width, dtype=torch.int64), torch.zeros_like(vectors)
    for item in range(batch):
        for row in range(height):
            for column in range(width):
                distances = (codebook - vectors[item, :, row, column]).pow(2).sum(1)
                codes[item, row, column] = distances.argmin()
                found[item, :, row, column] = codebook[distances.argmin()]
    return codes, found


@torch.no_grad()
def test_two_levels_are_those_of_algorithm_1_written_out() -> None:
    model, x = build(codebook_size=6, commitment_beta=0.7).eval(), images(3)
    bottom = model.encoder[1](x.float() * 0.5 - 1.0)
    z_top = model.encoder[0](F.relu(bottom))
    top_codes, top = nearest(z_top, model.quantisers[0].codebook[0])
    z_bottom = model.project[0](torch.cat([F.relu(bottom), model.coarser[0](top)], 1))
    bottom_codes, fine = nearest(z_bottom, model.quantisers[1].codebook[0])
    codes = torch.cat([top_codes.flatten(1), bottom_codes.flatten(1)], 1)[:, None]
    assert torch.equal(model.encode(x), codes)
    assert codes.shape == (3, *model.code_shape) == (3, 1, 4 + 16)
    vectors = torch.cat([model.enlarge[0](top), fine], 1)
    log_prob = model.decoder.log_prob(vectors, x).flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(x, codes), log_prob)
    output = model(x)
    squared = (z_top - top).pow(2).mean() + (z_bottom - fine).pow(2).mean()
    assert output.loss.item() == pytest.approx((-log_prob.mean() / 64 + 0.7 * squared).item(), rel=1e-5)
    torch.testing.assert_close(output.log_likelihood_nats, log_prob)


@torch.no_grad()
def test_the_finest_of_three_levels_is_given_the_vectors_of_both_coarser_ones() -> None:
    model, x = build(side=16, hierarchy=3).eval(), images(2, 16)
    assert model.grids == ((2, 2), (4, 4), (8, 8))
    codes = model.encode(x)
    assert codes.shape == (2, *model.code_shape) == (2, 1, 4 + 16 + 64)
    low, middle, fine = (
        quantiser.lookup(level)
        for quantiser, level in zip(model.quantisers, split_levels(codes, model.grids), strict=True)
    )
    both = torch.cat([model.enlarge[0](low), middle], 1)
    bottom = model.encoder[2](x.float() * 0.5 - 1.0)
    given = model.project[1](torch.cat([F.relu(bottom), model.coarser[1](both)], 1))
    torch.testing.assert_close(nearest(given, model.quantisers[2].codebook[0])[1], fine)
    torch.testing.assert_close(model.decoder_input(codes), torch.cat([model.enlarge[1](both), fine], 1))
    assert model.decode(codes).shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_part_of_every_level(kind: str) -> None:
    model = build(auxiliary_weight=0.5, autoregressive_layers=1, autoregressive_channels=4, **KINDS[kind])
    model(images(8)).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@pytest.mark.parametrize("level", [0, 1])
def test_the_gradient_passes_straight_through_a_level(level: int) -> None:
    """Of the likelihood alone, without commitment: what a level's vectors get its inputs get."""
    model = build(codebook_size=6, commitment_beta=0.0)
    given, found = model.quantised_levels(images(4))
    for vectors in (given[level], found[level].vectors):
        vectors.retain_grad()
    model.decoder.training_nats(model.joined_vectors([each.vectors for each in found]), images(4))[0].sum().backward()
    through = given[level].grad
    assert through is not None
    assert through.abs().sum() > 0
    torch.testing.assert_close(through, found[level].vectors.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_quantiser_encodes_decodes_and_updates_every_level(kind: str) -> None:
    model, x = build(**KINDS[kind]), images(32)
    model.initialise_codebook(x, seed=0)
    assert model.training
    before = [quantiser.codebook.clone() for quantiser in model.quantisers]
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    output = model(x)
    assert all(torch.equal(own, quantiser.codebook) for own, quantiser in zip(before, model.quantisers, strict=True))
    output.loss.backward()
    optimiser.step()
    updates = model.update_codebook(output)
    assert len(updates) == 2
    if kind not in ("fsq", "simvq"):
        moved = [not torch.equal(own, q.codebook) for own, q in zip(before, model.quantisers, strict=True)]
        assert moved == [True, True]
    codes = model.eval().encode(x)
    assert codes.shape == (32, *model.code_shape)
    assert model.decode(codes).shape == x.shape
    torch.testing.assert_close(model.log_prob(x, codes), model(x).log_likelihood_nats)
    if kind == "residual":
        assert model.decode(codes[:, :1]).shape == x.shape
    with pytest.raises(RuntimeError, match="training mode"):
        model.update_codebook(model(x))


def test_kmeans_places_every_level_on_what_it_is_given() -> None:
    plain, placed, x = build(codebook_size=16), build(codebook_size=16), images(64)
    placed.initialise_codebook(x, seed=0, batch_size=10)
    for before, after in zip(plain(x).levels, placed(x).levels, strict=True):
        assert after.commitment_loss < 0.5 * before.commitment_loss
    given, found = placed.eval().quantised_levels(x)
    for vectors, level, quantiser in zip(given, found, placed.quantisers, strict=True):
        # Centres of clusters: the last step of k-means moves them a little.
        for code in range(16):
            own = vectors.movedim(1, -1)[level.codes[:, 0] == code]
            if len(own):
                torch.testing.assert_close(quantiser.codebook[0, code], own.mean(0), atol=0.15, rtol=0.15)


def test_a_level_of_many_positions_is_placed_on_as_few_images_as_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of what the coarsest level takes would be sixteen times as many vectors as the finest of three can use."""
    model, given = build(side=16, hierarchy=3, codebook_size=2), []
    for quantiser in model.quantisers:
        monkeypatch.setattr(quantiser, "initialise", lambda vectors_ND, seed: given.append(len(vectors_ND)))
    model.initialise_codebook(images(40, side=16), seed=0, batch_size=3)
    assert given == [32 * 2 * 2, 8 * 4 * 4, 2 * 8 * 8]


def test_both_levels_say_something_of_the_image() -> None:
    model, x = build().eval(), images(1)
    codes = model.encode(x)
    for position in (0, 4):  # the first of each level
        other = codes.clone()
        other[0, 0, position] = (codes[0, 0, position] + 1) % 6
        assert not torch.equal(model.decode(codes), model.decode(other))


def test_numbers_of_a_training_name_the_levels() -> None:
    x = images(16)
    task = CodebookTask(
        build(codebook_size=6, update="loss"),
        train=TrainingImages(x),
        validation=x,
        kmeans=True,
        evaluation_batch_size=5,
        seed=0,
    )
    task.start()
    optimiser = torch.optim.Adam(task.model.parameters(), 1e-3)
    result = task.loss(torch.arange(8).numpy())
    result.loss.backward()
    optimiser.step()
    numbers = task.after_step(result, optimiser)
    assert {name for name in numbers if "2x2" in name} == {"running_perplexity_2x2", "revived_2x2"}
    assert {name for name in numbers if "4x4" in name} == {"running_perplexity_4x4", "revived_4x4"}
    task.model.eval()
    found = task.validate()
    assert found["used"] == found["used_2x2"] + found["used_4x4"]
    assert 1 <= found["perplexity_2x2"] <= 6
    total = found["distortion_bits_per_dim"] + 20 * torch.tensor(6.0).log2().item() / 64
    assert found["bits_per_dim"] == pytest.approx(total)


def test_revived_codes_of_either_level_lose_their_moments() -> None:
    x = images(16)
    model = build(update="loss", codebook_size=40, revival_threshold=0.5)
    task = CodebookTask(model, train=TrainingImages(x), validation=x, kmeans=False, evaluation_batch_size=5, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    result = task.loss(torch.arange(16).numpy())
    result.loss.backward()
    optimiser.step()
    before = [quantiser.codebook.detach().clone() for quantiser in model.quantisers]
    numbers = task.after_step(result, optimiser)
    for grid, quantiser, own in zip(("2x2", "4x4"), model.quantisers, before, strict=True):
        moved = (quantiser.codebook != own).any(2)
        assert int(moved.sum()) == numbers[f"revived_{grid}"] > 0
        assert isinstance(quantiser.codebook, torch.nn.Parameter)
        assert not optimiser.state[quantiser.codebook]["exp_avg_sq"][moved].any()


@pytest.mark.parametrize(
    ("finest", "levels", "sentence"),
    [
        ((4, 4), 3, "of 3 levels halves the 4x4 grid of codes 2 times, but 2x2 .* choose at most 2 levels"),
        ((6, 8), 3, "but 3x4 does not halve to 2x2 or more: choose at most 2 levels"),
        ((7, 7), 2, "but 7x7 does not halve to 2x2 or more: choose no hierarchy"),
        ((2, 2), 2, "choose no hierarchy, or less downsampling"),
        ((8, 8), 2**31 - 1, "choose at most 3 levels"),
        ((8, 8), 1, "at least 2 levels, not 1"),
    ],
)
def test_a_hierarchy_deeper_than_the_image_allows_is_refused(
    finest: tuple[int, int], levels: int, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        hierarchy_grids(finest, levels)


def test_grids_halve_from_the_finest_on() -> None:
    assert hierarchy_grids((16, 8), 3) == ((4, 2), (8, 4), (16, 8))


def test_codes_of_other_shapes_and_values_are_refused() -> None:
    model = build().eval()
    for shape in ((2, 1, 19), (2, 1, 4, 5), (2, 1, 4, 4)):
        with pytest.raises(UsageError, match=r"codes \[B, G, 20\] of the grids 2x2\+4x4"):
            model.decode(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(UsageError, match="0 to 5"):
        model.decode(torch.full((2, 1, 20), 6))
    with pytest.raises(UsageError, match="got levels 5 to 5"):
        model.encode(torch.full((1, 1, 8, 8), 5))


def test_one_grid_draws_the_numbers_that_it_always_drew() -> None:
    """The same weights from the same seed: the state names, their order and their sizes are those of before."""
    torch.manual_seed(0)
    names = list(VQVAE(image_shape=(1, 8, 8), channels=8, codebook_size=4).state_dict())
    assert names[0] == "encoder.layers.0.weight"
    assert [name for name in names if name.startswith("quantiser")] == [
        f"quantiser.{name}" for name in ("codebook", "sums", "usage", "weight")
    ]
