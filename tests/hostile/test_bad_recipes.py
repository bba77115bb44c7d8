"""Recipes that are broken or built to hurt: one printable sentence, of bounded length, without delay."""

import os
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from twostage.config.load import dump_recipe, dump_run_recipe, load_recipe, load_run_recipe
from twostage.config.schema import Recipe
from twostage.errors import RunError, TwoStageError, UsageError

RECIPES: dict[str, tuple[str, str]] = {
    "nothing": ("", "holds no setting"),
    "no TOML": ("<html>", "is not valid TOML"),
    "NUL bytes": ("\0" * 100, "is not valid TOML"),
    "a key twice": ("seed = 1\nseed = 2", "is not valid TOML: Cannot overwrite a value"),
    "a table twice": ("[data]\n[data]", "is not valid TOML: Cannot declare"),
    "an unknown key": ("sede = 1", "unknown key sede (= 1). Did you mean seed?"),
    "a line break in a key": ('"a\\nb" = 1', r"unknown key a\nb (= 1)"),
    "a turned key": ('"\u202etxt" = 1', r"unknown key \u202etxt (= 1)"),
    "an escape sequence": ('"\\u001b[2J" = 1', r"unknown key \x1b[2J (= 1)"),
    "a long key": ("x" * 60_000 + " = 1", "unknown key xxx"),
    "2^64": ("seed = 18446744073709551616", "seed must be at least 0 and at most 4294967295"),
    "5000 digits": ("seed = " + "9" * 5000, "holds a number of several thousand digits"),
    "50000 hexadecimal digits": ("seed = 0x" + "f" * 50_000, "holds a number of several thousand digits"),
    "NaN": (
        "[quantiser]\ncommitment_beta = nan",
        "quantiser.commitment_beta must be at least 0 and at most 1e+18, but is nan",
    ),
    "infinity": (
        "[quantiser]\ncommitment_beta = 1e999",
        "quantiser.commitment_beta must be at least 0 and at most 1e+18, but is inf",
    ),
    "lists in lists": ("models = " + "[" * 3000 + "]" * 3000, "nests tables or lists too deeply"),
    "400 lists in lists": ("models = " + "[" * 400 + "]" * 400, "nests tables or lists too deeply"),
    "tables in tables": ("data = " + "{a = " * 3000 + "1" + "}" * 3000, "nests tables or lists too deeply"),
    "a key of 20000 parts": ("a" + ".a" * 20_000 + " = 1", "has a line with more than 100 dots"),
    "a table of 20000 parts": ("[a" + ".a" * 20_000 + "]", "has a line with more than 100 dots"),
    "a string of 10 MB": ("name = '" + "x" * 10_000_000 + "'", "is larger than the 65536 bytes"),
    "a million keys": ("\n".join(f"k{number} = 1" for number in range(1_000_000)), "is larger than the 65536 bytes"),
    "a list of 5000 lists": ("models = [" + "[]," * 5_000 + "]", "models must be a list of strings"),
    "a table for a number": ("[seed]\nx = 1", "seed must be a whole number"),
    "a list of tables": ("[[data]]\nname = 'digits'", "data must be a table of settings"),
    "a date": ("seed = 1979-05-27", "seed must be a whole number"),
    "a text for a number": ("seed = '1'", "seed must be a whole number"),
    "a text for one of two numbers": ('[wavenet_decoder]\nkernel = "2"', "wavenet_decoder.kernel must be one of 2, 3"),
    "true for a number": ("seed = true", "seed must be a whole number"),
    "a name that is a path": ("name = '../../x'", "name must be made of letters"),
    "a model that is a path": ("models = ['../../x']", "models: expected a model"),
    "NUL in a path": ('[data]\nname = "images"\npath = "a\\u0000b"', "data.path must not hold the character U+0000"),
    "NUL in a list": (
        '[data]\nname = "recordings"\n[recordings]\nignore = ["a\\u0000"]',
        "recordings.ignore must not hold the character U+0000",
    ),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_bad_recipes(tmp_path: Path, kind: str) -> None:
    text, said = RECIPES[kind]
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as raised:
        load_recipe(path)
    message = str(raised.value)
    assert said in message
    assert message.isprintable()
    assert len(message) < 1000 + len(str(path))
    path.rename(tmp_path / "config.toml")
    with pytest.raises(RunError):
        load_run_recipe(tmp_path)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("folder", "is a folder"),
        ("pipe", "it is no regular file"),
        ("device", "it is no regular file"),
        ("absent", "No recipe"),
        ("loop", "Too many levels of symbolic links"),
        ("no UTF-8", "byte 2 is not UTF-8 text"),
        ("no permission", "Permission denied"),
    ],
)
def test_what_is_no_file_to_read(tmp_path: Path, place: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    makers: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
        "no UTF-8": lambda: path.write_bytes(b"# \xff\xfe"),
        "no permission": lambda: monkeypatch.setattr(os, "open", refuse),
    }

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    makers.get(place, lambda: None)()
    with pytest.raises(UsageError) as raised:
        load_recipe(path)
    assert said in str(raised.value)


def test_a_recipe_takes_little_memory_whatever_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    load_recipe("digits")
    path.write_text("a" + ".a" * 8000 + " = 1", encoding="utf-8")  # 256 MB of keys for tomllib
    tracemalloc.start()
    with pytest.raises(UsageError):
        load_recipe(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


class TestSealedConfig:
    """`config.toml` of a run: a changed digit is another valid recipe, and only the digest shows it."""

    def test_it_comes_back(self, tmp_path: Path) -> None:
        recipe = load_recipe("digits")
        (tmp_path / "config.toml").write_text(dump_run_recipe(recipe))
        assert load_run_recipe(tmp_path) == recipe
        assert load_recipe(tmp_path / "config.toml") == recipe

    def test_a_change_by_hand_is_refused_until_the_first_line_is_removed(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        text = dump_run_recipe(load_recipe("digits")).replace("iwae_samples = 64", "iwae_samples = 65")
        assert "iwae_samples = 65" in text
        path.write_text(text)
        with pytest.raises(RunError, match=r"damaged or was changed by hand: .* remove its first line"):
            load_run_recipe(tmp_path)
        path.write_text(text.split("\n", 1)[1])
        assert load_run_recipe(tmp_path).evaluation.iwae_samples == 65

    def test_half_of_the_line_is_not_none_of_it(self, tmp_path: Path) -> None:
        text = dump_run_recipe(load_recipe("digits"))
        for cut in (1, 30, 100):
            (tmp_path / "config.toml").write_text("# " + text[cut:])
            with pytest.raises(RunError, match="changed by hand"):
                load_run_recipe(tmp_path)

    def test_runs_from_before_there_was_one_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "config.toml").write_text(dump_recipe(Recipe()))
        assert load_run_recipe(tmp_path) == Recipe()

    def test_every_flipped_bit_is_refused_or_changes_nothing(self, tmp_path: Path) -> None:
        recipe = load_recipe("digits")
        whole = dump_run_recipe(recipe).encode()
        for place in range(0, len(whole), 31):
            (tmp_path / "config.toml").write_bytes(
                whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :]
            )
            with suppress(TwoStageError):
                assert load_run_recipe(tmp_path) == recipe


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8-sig", None), ("utf-16", "is UTF-16 text, but TOML files are UTF-8"), ("utf-16-be", "is not UTF-8 text")],
)
def test_marks_at_the_beginning(tmp_path: Path, encoding: str, said: str | None) -> None:
    """Some editors write one, and `>` of some shells writes UTF-16."""
    path = tmp_path / "mine.toml"
    path.write_bytes("seed = 7  # für\n".encode(encoding))
    if said is None:
        assert load_recipe(path).seed == 7
        path.write_bytes(dump_run_recipe(Recipe()).encode(encoding))
        path.rename(tmp_path / "config.toml")
        assert load_run_recipe(tmp_path) == Recipe()
    else:
        with pytest.raises(UsageError, match=said):
            load_recipe(path)


@pytest.mark.parametrize("place", ["pipe", "device", "6 GiB"])
def test_a_config_that_is_no_file_of_a_run(tmp_path: Path, place: str) -> None:
    path = tmp_path / "config.toml"
    if place == "pipe":
        os.mkfifo(path)
    elif place == "device":
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"")
        os.truncate(path, 6 << 30)
    with pytest.raises(RunError, match=r"it is no regular file|is larger than the 65536 bytes"):
        load_run_recipe(tmp_path)
