"""`data.image_size`: a side, or height and width, and nothing else, in files and as flags."""

from pathlib import Path

import pytest

from twostage.config.image_size import in_pixels, sides_of
from twostage.config.load import dump_recipe, parse_recipe
from twostage.config.schema import DataConfig
from twostage.errors import UsageError
from twostage_pipelines.cli.main import main, parse


@pytest.mark.parametrize(("given", "sides"), [(64, (64, 64)), ("64x96", (64, 96)), ("4096x2", (4096, 2)), (2, (2, 2))])
def test_a_side_or_height_and_width(given: int | str, sides: tuple[int, int]) -> None:
    assert sides_of(given) == sides


@pytest.mark.parametrize(
    "given",
    [1, 4097, True, "64", "64X96", "64x96x3", "1x64", "64x4097", "64x", " 64x64", "-64x64", "\uff164x64", "9" * 99],
)
def test_anything_else_is_refused_with_what_is_expected(given: int | str) -> None:
    with pytest.raises(UsageError, match=r"must be a side or HEIGHTxWIDTH, such as 64 or 64x96, of 2 to 4096 pixels"):
        sides_of(given)


def test_sizes_are_said_with_their_order_where_it_matters() -> None:
    assert in_pixels(64, 64) == "64x64 pixels"
    assert in_pixels(64, 96) == "64x96 pixels (height x width)"


@pytest.mark.parametrize(("text", "value"), [("64", 64), ('"64x96"', "64x96")])
def test_files_hold_a_number_or_a_string(text: str, value: int | str) -> None:
    recipe = parse_recipe(f'[data]\nname = "images"\nimage_size = {text}\n', source="x.toml")
    assert recipe.data.image_size == value
    assert parse_recipe(dump_recipe(recipe), source="x.toml") == recipe


@pytest.mark.parametrize(("text", "value"), [("64x64", 64), ("064x64", 64), ("064x96", "64x96")])
def test_one_size_is_one_setting_however_it_is_written(text: str, value: int | str) -> None:
    as_file = parse_recipe(f'[data]\nname = "images"\nimage_size = "{text}"\n', source="x.toml")
    as_flag = parse("train", ["images", "--data.image-size", text, "--data.path", "x"]).recipe
    assert as_file.data.image_size == as_flag.data.image_size == DataConfig(image_size=text).image_size == value
    assert "image_size = " + (f'"{value}"' if isinstance(value, str) else str(value)) in dump_recipe(as_file)


@pytest.mark.parametrize("text", ["64.0", '"64"', "[64, 96]", "0", "true"])
def test_files_with_other_values_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"x\.toml: data\.image_size must be"):
        parse_recipe(f'[data]\nname = "images"\nimage_size = {text}\n', source="x.toml")


@pytest.mark.parametrize(("flag", "code"), [("64x96", 1), ("64", 1), ("64x", 2), ("1x9", 2), ("big", 2)])
def test_flags_are_checked_before_the_data_are_looked_for(
    tmp_path: Path, flag: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train-codebook", "images", "--data.path", str(tmp_path / "none"), "--data.image-size", flag]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == code
    said = capsys.readouterr().err
    assert ("data.image_size must be" in said) == (code == 2)
