"""What `--help` and `--help-all` of a verb print, by tyro on its command.

Help of flags comes out of docstrings of fields. tyro joins the lines of a docstring that begin with a letter, but those
of a field's are indented: `--help` would break them where the source does.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from twostage.errors import TwoStageError

if TYPE_CHECKING:
    from twostage.config.schema import Recipe

    from ..commands import Command

HELP = ("-h", "--help", "--help-all")


def is_help(arguments: Sequence[str]) -> bool:
    """Whether help is asked for instead of the command."""
    return any(argument in HELP for argument in arguments)


def show_help(name: str, cls: type["Command"], arguments: Sequence[str]) -> NoReturn:
    """Print the help of verb `name` and exit: all of it where that is asked for, else what matters for its recipe."""
    import tyro

    from twostage.config.kinds import kind_of
    from twostage.config.schema import Recipe

    from .short_help import shortened_help
    from .starting import has_recipe, starting_values

    recipe = _recipe_if_any(cls, arguments)
    command = cls(**starting_values(cls, (recipe or Recipe()) if has_recipe(cls) else None))
    if HELP[-1] not in arguments:
        command = shortened_help(command, None if recipe is None else kind_of(recipe))
    with running_text():
        tyro.cli(type(command), args=["--help"], default=command, prog=f"twostage {name}")
    raise AssertionError  # tyro has exited


def _recipe_if_any(cls: type["Command"], arguments: Sequence[str]) -> "Recipe | None":
    """The recipe or that of the run which comes first; None where there is none, or none that can be read."""
    from .starting import first_recipe

    if not any(item.name in ("source", "run") for item in fields(cls)):
        return None
    try:
        return first_recipe(cls, arguments)
    except TwoStageError:
        return None


@contextmanager
def running_text() -> Iterator[None]:
    """Within, docstrings are read with their lines joined."""
    import docstring_parser

    read = docstring_parser.parse_from_object

    def joined(*given: Any) -> docstring_parser.Docstring:
        found = read(*given)
        for field in found.params:
            field.description = " ".join(field.description.split()) if field.description is not None else None
        return found

    docstring_parser.parse_from_object = joined  # type: ignore[assignment]
    try:
        yield
    finally:
        docstring_parser.parse_from_object = read
