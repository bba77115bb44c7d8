"""What the flags of a verb start from: the recipe of the RECIPE or RUN that comes first. Without torch."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from twostage.config.schema import Recipe

if TYPE_CHECKING:
    from ..commands import Command


def has_recipe(cls: type["Command"]) -> bool:
    """Whether the flags of a command change a recipe, or start from that of a run."""
    return any(item.name in ("recipe", "stored") for item in fields(cls))


def first_recipe(cls: type["Command"], arguments: Sequence[str]) -> Recipe | None:
    """The recipe that the first argument names or, of a command on a run, that the run there has.

    Args:
        cls: the command, which has a RECIPE or a RUN.
        arguments: behind the verb, as they were given; None comes back where a flag or nothing comes first.

    Raises:
        UsageError: there is no such recipe or run.
        RunError: the configuration of the run is damaged.
    """
    from twostage.config.load import load_recipe, load_run_recipe, user_path

    if not arguments or arguments[0].startswith("-"):
        return None
    if any(item.name == "source" for item in fields(cls)):
        return load_recipe(arguments[0])
    return load_run_recipe(user_path(arguments[0]))


def starting_values(cls: type["Command"], recipe: Recipe | None) -> dict[str, Any]:
    """Arguments of a command before any flag: what it needs is still missing, sections are those of the recipe."""
    import tyro

    known = {field.name for field in fields(cls)}
    values = dict.fromkeys((field.name for field in fields(cls) if field.default is MISSING), tyro.MISSING)
    if recipe is None:
        return values
    if "recipe" in known:
        return values | {"recipe": cls.defaults(recipe) if hasattr(cls, "defaults") else recipe}
    # Of the data a command changes no more than their place, which it knows as none: where it was.
    sections = {key: getattr(recipe, key) for key in known & set(Recipe.__dataclass_fields__) - {"data"}}
    return values | sections | {"stored": recipe}
