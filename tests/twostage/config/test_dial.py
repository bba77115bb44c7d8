"""The dial: what a size makes of a recipe."""

import itertools
import math

import pytest

from twostage.config.check import check_recipe
from twostage.config.dial import (
    IMAGES,
    SMALLEST_GRID,
    SOUND,
    Asked,
    Dialled,
    Size,
    codebook_size,
    dial_images,
    dial_sound,
    downsampling,
)
from twostage.config.load import dump_recipe, load_recipe, parse_recipe
from twostage.config.schema import Recipe

SIZES: tuple[Size, ...] = ("small", "medium", "large")
TRAININGS = ("codebook_training", "decoder_training", "prior_training", "baseline_training")
NETWORKS = {
    "stage1": ("channels", "residual_blocks", "residual_channels", "head_channels"),
    "audio": ("channels", "residual_blocks", "residual_channels", "head_channels"),
    "prior": ("layers", "channels"),
    "wavenet_decoder": ("blocks", "layers_per_block", "channels", "head_channels"),
    "wavenet_prior": ("blocks", "layers_per_block", "channels"),
    "quantiser": ("codebook_size", "embedding_dim"),
}


def of_images(size: Size, side: int, items: int, *given: str, recipe: Recipe | None = None) -> Dialled:
    asked = Asked(recipe=load_recipe("images") if recipe is None else recipe, size=size, given=given)
    return dial_images(asked, height=side, width=side, items=items)


def of_sound(size: Size, rate: int, items: int, seconds: float) -> Dialled:
    asked = Asked(recipe=load_recipe("fsdd"), size=size, given=())
    return dial_sound(asked, sample_rate_hz=rate, samples=int(items * seconds * rate), items=items)


def numbers(recipe: Recipe) -> list[int]:
    """All that a larger size has at least as much of."""
    sizes = [getattr(getattr(recipe, section), key) for section, keys in NETWORKS.items() for key in keys]
    work = [getattr(recipe, name).steps * getattr(recipe, name).batch_size for name in TRAININGS]
    return [*sizes, *work, -recipe.stage1.downsampling]


@pytest.mark.parametrize(("side", "items"), [*itertools.product((8, 28, 32, 64, 96, 128, 256), (40, 800, 50_000))])
def test_a_larger_size_of_images_is_larger_in_everything(side: int, items: int) -> None:
    found = [numbers(of_images(size, side, items).recipe) for size in SIZES]
    for less, more in itertools.pairwise(found):
        assert all(low <= high for low, high in zip(less, more, strict=True))
        assert less != more


@pytest.mark.parametrize(("rate", "items", "seconds"), [(8000, 480, 0.4), (8000, 2400, 0.4), (22050, 10_000, 6.0)])
def test_a_larger_size_of_sound_is_larger_in_everything(rate: int, items: int, seconds: float) -> None:
    found = [numbers(of_sound(size, rate, items, seconds).recipe) for size in SIZES]
    for less, more in itertools.pairwise(found):
        assert all(low <= high for low, high in zip(less, more, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(14, 14), (28, 28), (32, 32), (48, 64), (64, 64), (96, 96), (100, 100), (160, 128)])
def test_the_grid_of_codes_has_a_sensible_size(size: Size, shape: tuple[int, int]) -> None:
    factor = downsampling(*shape, largest_grid=IMAGES[size].largest_grid)
    assert factor is not None
    assert shape[0] % factor == shape[1] % factor == 0
    assert min(shape) // factor >= SMALLEST_GRID
    assert max(shape) // factor <= 32


def test_known_factors() -> None:
    sides = {8: (2, 2, 2), 28: (4, 4, 4), 32: (4, 4, 4), 64: (8, 4, 4), 20: (2, 2, 2)}
    sides |= {96: (8, 8, 4), 128: (8, 8, 4), 256: (8, 8, 8), 512: (16, 16, 16)}  # up to 256, 8 pixels or less a code
    for side, factors in sides.items():
        assert tuple(downsampling(side, side, largest_grid=IMAGES[s].largest_grid) for s in SIZES) == factors
    assert downsampling(25, 25, largest_grid=16) is None


@pytest.mark.parametrize("size", SIZES)
def test_larger_images_have_smaller_batches_and_as_many_steps(size: Size) -> None:
    row, halved = IMAGES[size], {64: 1, 100: 1, 128: 2, 256: 4}
    for side, divisor in halved.items():
        recipe = of_images(size, side, 50_000).recipe
        for section, budget in row.budgets.items():
            training = getattr(recipe, section)
            assert (training.steps, training.batch_size) == (budget.steps(50_000), budget.batch_size // divisor)
        assert recipe.stage1.head_channels == max(16, row.settings["stage1"]["head_channels"] // divisor)
        assert recipe.evaluation.batch_size * side**2 <= 128 * 64**2
    assert of_images(size, 32, 50_000).recipe.evaluation == load_recipe("images").evaluation
    asked = Asked(recipe=load_recipe("images"), size=size, given=())
    wide = dial_images(asked, height=64, width=256, items=800).recipe
    assert wide.codebook_training.batch_size == row.budgets["codebook_training"].batch_size // 2


@pytest.mark.parametrize(("size", "items"), [*itertools.product(SIZES, (2, 3, 10, 100, 10_000))])
def test_there_are_never_more_codes_than_vectors(size: Size, items: int) -> None:
    recipe = of_images(size, 8, items).recipe
    vectors = items * 16
    assert 2 <= recipe.quantiser.codebook_size <= vectors
    assert recipe.quantiser.codebook_size <= max(2, vectors / 32)
    assert math.log2(recipe.quantiser.codebook_size).is_integer()


def test_known_codebooks() -> None:
    assert codebook_size(1297 * 16, largest=128) == 128
    assert codebook_size(160 * 64, largest=512) == 256
    assert codebook_size(1, largest=512) == 2


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["digits", "images", "mnist", "natural32", "fsdd", "vowels"])
@pytest.mark.parametrize("items", [3, 1000])
def test_every_choice_is_a_recipe_that_can_be_kept(size: Size, name: str, items: int) -> None:
    asked = Asked(recipe=load_recipe(name), size=size, given=())
    if name in ("fsdd", "vowels"):
        found = dial_sound(asked, sample_rate_hz=8000, samples=items * 3000, items=items)
    else:
        found = dial_images(asked, height=32, width=32, items=items)
    check_recipe(found.recipe, source="dial")
    assert parse_recipe(dump_recipe(found.recipe), source="dump") == found.recipe
    for training in (getattr(found.recipe, section) for section in TRAININGS):
        assert training.batch_size <= items or training == type(training)()  # of sound alone


def test_what_a_flag_gave_stands_and_the_rest_follows_it() -> None:
    given = ("stage1.downsampling", "codebook_training.steps", "prior.channels")
    recipe = load_recipe("natural32")  # downsampling 4, 16000 steps, 64 channels
    found = of_images("small", 64, 20, *given, recipe=recipe).recipe
    assert (found.stage1.downsampling, found.codebook_training.steps, found.prior.channels) == (4, 16_000, 64)
    assert found.prior.layers == IMAGES["small"].settings["prior"]["layers"]
    assert found.quantiser.codebook_size == 128  # 20 * 16 * 16 vectors, not 20 * 8 * 8
    assert of_images("small", 64, 20, recipe=recipe).recipe.quantiser.codebook_size == 32
    assert found.codebook_training.validate_every == 1600


def test_a_quantiser_without_a_codebook_keeps_what_it_has() -> None:
    recipe = parse_recipe('models = ["vq-vae"]\n[data]\nname = "images"\n[quantiser]\nkind = "fsq"\n', source="t")
    found = of_images("medium", 32, 1000, recipe=recipe).recipe
    check_recipe(found, source="dial")
    assert found.quantiser.codebook_size == recipe.quantiser.codebook_size


def test_the_rest_of_the_recipe_is_left_alone() -> None:
    before, after = load_recipe("images"), of_images("medium", 64, 800).recipe
    assert (after.data, after.models, after.seed, after.threads) == (
        before.data,
        before.models,
        before.seed,
        before.threads,
    )
    assert after.stage1.likelihood == before.stage1.likelihood
    assert after.codebook_training.learning_rate == before.codebook_training.learning_rate
    assert after.prior.dropout == before.prior.dropout


def test_the_reasons_name_what_was_counted() -> None:
    text = "\n".join(of_images("medium", 64, 800).reasons)
    for part in ("64x64", "16x16", "K 512", "204,800", "3,500 x 16"):
        assert part in text
    assert "125 codes a second" in of_sound("small", 8000, 100, 1.0).reasons[0]


def test_both_tables_have_every_size() -> None:
    assert tuple(IMAGES) == tuple(SOUND) == SIZES
