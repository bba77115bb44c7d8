"""A flag for another kind of quantiser than the recipe's: what only that reads goes, and a line says so."""

import pytest

from twostage.config.quantiser import QUANTISERS, QuantiserConfig
from twostage.errors import UsageError
from twostage_pipelines.cli.main import parse


@pytest.mark.parametrize("recipe", ["digits", "mnist", "fsdd"])
@pytest.mark.parametrize("kind", QUANTISERS)
def test_every_recipe_takes_every_kind_by_a_single_flag(recipe: str, kind: str) -> None:
    assert parse("train", [recipe, "--quantiser.kind", kind]).recipe.quantiser.kind == kind


def test_what_the_kind_does_not_read_is_left_out_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = parse("train", ["digits", "--quantiser.kind", "fsq"]).recipe
    assert recipe.quantiser.codebook_size == QuantiserConfig().codebook_size
    assert recipe.models == ("vq-vae", "vae")
    assert capsys.readouterr().err.splitlines() == [
        "quantiser.codebook_size of the recipe, 12, is left out, because quantiser.kind is fsq",
        "vq-vae-loss is left out of the recipe's models, because quantiser.kind is fsq",
    ]
    parse("train", ["digits", "--quantiser.kind", "vq"])
    assert capsys.readouterr().err == ""


def test_what_a_flag_asks_for_is_refused_and_not_left_out() -> None:
    fsq = ["digits", "--quantiser.kind", "fsq"]
    with pytest.raises(UsageError, match=r"codebook_size is not read by .* fsq, but is 30"):
        parse("train", [*fsq, "--quantiser.codebook-size", "30"])
    with pytest.raises(UsageError, match="vq-vae-loss says how a codebook learns"):
        parse("train", [*fsq, "--models", "vq-vae-loss"])


def test_a_kind_of_levels_gets_two_of_them_unless_a_flag_says_how_many(capsys: pytest.CaptureFixture[str]) -> None:
    residual = ["mnist", "--quantiser.kind", "residual"]
    assert parse("train", residual).recipe.quantiser.codebooks == 2
    said = (
        "quantiser.codebooks of the recipe, 1, becomes 2, because quantiser.kind is residual, of which a single level"
    )
    assert capsys.readouterr().err.splitlines() == [f"{said} is the kind vq"]
    assert parse("train", [*residual, "--quantiser.codebooks", "3"]).recipe.quantiser.codebooks == 3
    with pytest.raises(UsageError, match="residual with a single level is the kind vq"):
        parse("train", [*residual, "--quantiser.codebooks", "1"])
