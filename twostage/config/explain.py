"""What is wrong with a recipe, as one sentence: from the path of keys that validation reports to what was expected."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from twostage.config.model_names import near_matches
from twostage.config.schema import Recipe
from twostage.printable import printable


def explain(location: tuple[int | str, ...], values: dict[str, Any], source: str, schema: type[Recipe]) -> str:
    """One sentence about the first fault at `location` (the path of keys that pydantic reports)."""
    expected: Any = schema
    given: Any = values
    names: list[str] = []
    for part in location:
        if isinstance(part, str) and is_dataclass(expected):
            names.append(part)
            given = given[part]
            hints = get_type_hints(expected)
            if part not in hints:
                return f"{source}: unknown key {_plain('.'.join(names))} (= {show_value(given)}).{_near_keys(names)}"
            expected = hints[part]
    choices = [choice for choice in get_args(expected) if isinstance(choice, str)]
    near = near_matches(given, choices) if get_origin(expected) is Literal and isinstance(given, str) else ""
    return f"{source}: {'.'.join(names)} must be {_describe(expected)}, but is {show_value(given)}.{near}"


def _near_keys(names: list[str]) -> str:
    """Near matches in the same table; else the same key in another table; else anything near in the schema."""
    known = [key for key, _ in leaves(Recipe())]
    *tables, key = names
    prefix = ".".join([*tables, ""])
    siblings = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]
    near = difflib.get_close_matches(key.lower(), siblings if tables else [item.name for item in fields(Recipe)], n=3)
    found = [prefix + other for other in near] or [other for other in known if other.rpartition(".")[2] == key]
    return f" Did you mean {' or '.join(found)}?" if found else near_matches(".".join(names), known)


def _describe(expected: Any) -> str:
    """A type of the schema in words."""
    if is_dataclass(expected):
        return "a table of settings"
    if get_origin(expected) is Literal:
        return "one of " + ", ".join(show_value(choice) for choice in get_args(expected))
    if get_origin(expected) is tuple:
        return "a list of whole numbers" if int in get_args(expected) else "a list of strings"
    if isinstance(expected, UnionType):
        return " or ".join(_describe(part) for part in get_args(expected) if part is not type(None))
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}[expected]


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of every setting."""
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value


def show_value(value: Any) -> str:
    """A value as TOML spells it, near enough for a message, and never longer than a line."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _plain(json.dumps(value, default=str, ensure_ascii=False))


def _plain(text: str) -> str:
    """No longer than a line, and fit for one."""
    return printable(text if len(text) <= 80 else text[:77] + "...")
