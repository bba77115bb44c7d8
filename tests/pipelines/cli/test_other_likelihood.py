"""A flag for another likelihood or decoder than the recipe's: its mean weight goes, and a line says so."""

from pathlib import Path

import pytest

from twostage.errors import UsageError
from twostage_pipelines.cli.main import parse


@pytest.fixture
def weighed(tmp_path: Path) -> str:
    """A recipe with a mean weight."""
    path = tmp_path / "weighed.toml"
    path.write_text('[stage1]\nlikelihood = "logistic-mixture"\nmean_weight = 3.0\n', encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("flag", "value", "why"),
    [
        ("--stage1.likelihood", "mse", "mse with 0 autoregressive layers"),
        ("--stage1.autoregressive-layers", "2", "logistic-mixture with 2 autoregressive layers"),
    ],
)
def test_a_weight_that_does_not_fit_is_left_out_in_a_line(
    weighed: str, flag: str, value: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse("train", [weighed, flag, value]).recipe.stage1.mean_weight == 0.0
    line = f"stage1.mean_weight of the recipe, 3.0, is left out, because stage1.likelihood is {why}"
    assert capsys.readouterr().err.splitlines() == [line]


def test_a_weight_that_fits_stays(weighed: str, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["--stage1.likelihood", "logistic-mixture"]):
        assert parse("train", [weighed, *flags]).recipe.stage1.mean_weight == 3.0
    assert capsys.readouterr().err == ""


def test_a_weight_of_a_flag_is_refused_and_not_left_out(weighed: str) -> None:
    with pytest.raises(UsageError, match=r"mean_weight is for logistic-mixture .* is mse with 0 of them: set it to 0"):
        parse("train", [weighed, "--stage1.likelihood", "mse", "--stage1.mean-weight", "2"])


def test_a_recipe_whose_weight_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faulty.toml"
    path.write_text("[stage1]\nmean_weight = 3.0\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"mean_weight is for logistic-mixture .* is categorical with 0 of them"):
        parse("train", [str(path)])
