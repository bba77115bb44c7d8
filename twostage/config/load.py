"""Recipes from and to TOML files.

A file holds only what differs from the schema's defaults; `dump_recipe` writes everything. pydantic validates strictly
(no "5" for 5) and forbids unknown keys; it is imported only when a file is read, since it costs more start-up time
than the rest of the command line together.

A recipe may come from anywhere. tomllib takes time and memory that grow with the square of the parts of a dotted key
and recurses where brackets nest, hence the limits on a file's size and on the dots in a line, both far above what all
settings written out take.
"""

import codecs
import errno
import hashlib
import json
import os
import re
import shlex
import tomllib
from dataclasses import asdict
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twostage.config.check import check_recipe
from twostage.config.explain import explain, leaves, show_value
from twostage.config.kinds import KINDS, kind_named
from twostage.config.model_names import near_matches
from twostage.config.schema import Recipe
from twostage.errors import RunError, UsageError
from twostage.printable import shown
from twostage.storage.regular_file import read_regular

if TYPE_CHECKING:
    from pydantic import TypeAdapter

CONFIG = "config.toml"
LARGEST_BYTES = 1 << 16
MOST_DOTS = 100
_ADAPTERS: dict[Any, "TypeAdapter[Recipe]"] = {}
_SEAL = "is the SHA-256 of what follows; a file without this line may be changed by hand"
_SEALED = re.compile(rf"# ([0-9a-f]{{64}}) {_SEAL}\n", re.ASCII)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Recipe of a shipped name (`recipe_names`) or of a TOML file.

    A shipped name wins over a file of the same name (write ./NAME for the file). A file without `name` is named after
    itself.

    Raises:
        UsageError: no such recipe, unreadable file, or a key or value that the schema does not admit.
    """
    shipped = isinstance(name_or_path, str) and name_or_path in recipe_names()
    if shipped:
        text = shipped_text(str(name_or_path))
        path = Path(f"{name_or_path}.toml")
    else:
        path = user_path(str(name_or_path))
        text = _read_file(path, str(name_or_path))
    return parse_recipe(text, source=str(path), default_name=path.stem)


def parse_recipe(text: str, *, source: str, default_name: str = "custom") -> Recipe:
    """Recipe of TOML `text`; `source` is the file name that errors show."""
    from pydantic import ValidationError

    values = _parse_toml(text, source)
    if not values:
        raise UsageError(f"{source} holds no setting: start from a shipped recipe (twostage recipes digits > FILE).")
    values.setdefault("name", default_name)
    schema = _schema_of(values)
    try:
        # Through JSON because strict mode takes an array for a tuple and a table for a dataclass only there.
        recipe = _adapter(schema).validate_json(json.dumps(values, default=_no_setting), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise UsageError(_too_deep(source)) from None
        raise UsageError(explain(first["loc"], values, source, schema)) from None
    except RecursionError:
        raise UsageError(_too_deep(source)) from None
    except ValueError:  # json.dumps on a number of more digits than Python writes
        raise UsageError(_too_long_number(source)) from None
    check_recipe(recipe, source=source)
    for key, value in leaves(recipe):
        if any("\0" in part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, str)):
            raise UsageError(f"{source}: {key} must not hold the character U+0000, but is {show_value(value)}.")
    return recipe


def _schema_of(values: dict[str, Any]) -> type[Recipe]:
    """The schema for the kind of data that a recipe names; that of all if it names none."""
    data = values.get("data")
    kind = kind_named(data.get("name")) if isinstance(data, dict) else None
    return Recipe if kind is None else KINDS[kind].recipe


def _adapter(schema: type[Recipe]) -> "TypeAdapter[Recipe]":
    """Made once: it takes longer to make than a hundred recipes to read."""
    from pydantic import TypeAdapter

    if schema not in _ADAPTERS:
        _ADAPTERS[schema] = TypeAdapter(schema)
    return _ADAPTERS[schema]


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    if len(text) > LARGEST_BYTES:
        raise UsageError(_too_large(source))
    if max(line.count(".") for line in text.split("\n")) > MOST_DOTS:
        raise UsageError(f"{source} has a line with more than {MOST_DOTS} dots: no key has so many parts, correct it.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source} is not valid TOML: {error}.") from None
    except RecursionError:
        raise UsageError(_too_deep(source)) from None
    except ValueError:
        raise UsageError(_too_long_number(source)) from None


def _too_large(source: str) -> str:
    return f"{source} is larger than the {LARGEST_BYTES} bytes that are read of a recipe: is it the right file?"


def _too_deep(source: str) -> str:
    return f"{source} nests tables or lists too deeply: a setting stands in one table at most and is no list of lists."


def _too_long_number(source: str) -> str:
    return f"{source} holds a number of several thousand digits, which no setting takes: correct it."


def dump_recipe(recipe: Recipe) -> str:
    """TOML of every setting; `parse_recipe` of it gives an equal recipe. None is written by leaving the key out."""
    import tomli_w

    return tomli_w.dumps(_without_none(asdict(recipe)))


def dump_run_recipe(recipe: Recipe) -> str:
    """`dump_recipe` under a comment with its SHA-256, by which `load_run_recipe` notices a changed or cut file.

    A flipped bit in a number is another valid number, and of settings such as those of [evaluation] nothing else in a
    run folder keeps a record.
    """
    text = dump_recipe(recipe)
    return f"# {hashlib.sha256(text.encode()).hexdigest()} {_SEAL}\n{text}"


def recipe_names() -> tuple[str, ...]:
    """Names of the shipped recipes, sorted."""
    names = (entry.name for entry in _shipped().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def shipped_text(name: str) -> str:
    """The TOML file of a shipped recipe as it stands, comments included."""
    return _shipped().joinpath(f"{name}.toml").read_text(encoding="utf-8")


def load_run_recipe(run: Path) -> Recipe:
    """Recipe of a run folder, from its `config.toml`.

    Raises:
        UsageError: `run` is no run folder.
        RunError: its configuration is damaged or of another version.
    """
    text, path = run_recipe_text(run), run / CONFIG
    _check_seal(text, path)
    try:
        return parse_recipe(text, source=str(path))
    except UsageError as error:
        raise _foreign(error) from None


def run_recipe_text(run: Path) -> str:
    """The config.toml of a run folder as it stands; errors are those of `load_run_recipe`."""
    path = run / CONFIG
    try:
        return _read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        what = "has no config.toml" if run.is_dir() else "is no folder" if run.exists() else "does not exist"
        raise UsageError(
            f"{run} is not a run folder ({what}): give the place that it was moved to, or start one with `twostage "
            f"train-codebook RECIPE --out {shlex.quote(str(run))}`."
        ) from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: byte {error.start} is not UTF-8 text.") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}.") from None
    except UsageError as error:
        raise _foreign(error) from None


def _foreign(error: UsageError) -> RunError:
    return RunError(f"{error} This run's configuration is damaged or was written by another version.")


def _check_seal(text: str, path: Path) -> None:
    """Refuse a file that is not what `dump_run_recipe` wrote; one that has no such comment is taken as it is."""
    sealed = _SEALED.match(text)
    if sealed is None:
        # Half of the comment is not taken for none.
        whole = not any(part in text for part in ("SHA-256 of what follows", "may be changed by hand"))
    else:
        whole = hashlib.sha256(text[sealed.end() :].encode()).hexdigest() == sealed[1]
    if not whole:
        raise RunError(
            f"{path} is damaged or was changed by hand: put the old file back, give settings as flags of the command, "
            "or, to keep the change, remove its first line."
        )


def user_path(text: str) -> Path:
    """A path as a user writes it, `~` and `~name` expanded; a file that is called so is none of a user's home.

    Raises:
        UsageError: there is no such user.
    """
    if not text:
        raise UsageError("expected a path, but an empty one came, which a variable that is not set gives: name it.")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        if os.path.lexists(text):  # such as `~$letter.png`, which shells leave alone
            return Path(text)
        raise UsageError(f"{text} names the home of a user that does not exist: write the path out.") from None


def _shipped() -> Traversable:
    try:
        return files("twostage_configs")
    except ModuleNotFoundError:
        # A checkout that is on the path but not installed: the folder stands beside this package.
        return Path(__file__).resolve().parents[2] / "configs"


def _read_file(path: Path, given: str) -> str:
    try:
        return _read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        near = near_matches(path.stem if path.suffix == ".toml" else given, recipe_names())
        raise UsageError(
            f"No recipe {given!r}: expected one of {', '.join(recipe_names())}, or the path of a TOML file.{near}"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"{given} is a folder: expected the name of a recipe or the path of a TOML file.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{given} is not a TOML file: byte {error.start} is not UTF-8 text.") from None
    except OSError as error:
        raise UsageError(f"{given} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise UsageError(f"{shown(given)} cannot be the name of a file: it holds the character U+0000.") from None


def _read_text(path: Path) -> str:
    try:
        data = read_regular(path, most=LARGEST_BYTES)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise UsageError(_too_large(str(path))) from None
        raise
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path} is UTF-16 text, but TOML files are UTF-8: save it as UTF-8 in the editor.")
    return data.decode("utf-8-sig")  # some editors begin UTF-8 text with a mark


def _no_setting(value: Any) -> dict[str, str]:
    """TOML's dates and times have no JSON form and no setting takes one: a form that no setting takes either."""
    return {"date": str(value)}


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in table.items() if value is not None}
    return {key: _without_none(value) if isinstance(value, dict) else value for key, value in kept.items()}
