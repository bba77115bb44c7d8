"""The verb `recipes`: a line per shipped recipe, or one recipe's file to start an own one from."""

import sys

from twostage.config.load import recipe_names, shipped_text
from twostage.config.model_names import near_matches
from twostage.errors import UsageError

from ..commands.tools import Recipes


def run_recipes(command: Recipes) -> None:
    """Print the list, or the file of `command.name` unchanged, comments included.

    Raises:
        UsageError: `command.name` is not a shipped recipe.
    """
    if command.name is None:
        for name in recipe_names():
            print(name)
            for line in _header(shipped_text(name)):
                print(f"    {line}")
        return
    if command.name not in recipe_names():
        raise UsageError(
            f"No shipped recipe {command.name!r}: expected one of {', '.join(recipe_names())}."
            f"{near_matches(command.name, recipe_names())}"
        )
    sys.stdout.write(shipped_text(command.name))


def _header(text: str) -> list[str]:
    """The comment that opens a recipe: command, cost, expected score."""
    lines = text.splitlines()
    end = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:end]]
