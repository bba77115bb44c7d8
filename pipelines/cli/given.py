"""Which settings a command line gave as flags: they stand where something else would choose them. Without torch."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

C = TypeVar("C")


def flags_of(arguments: Sequence[str]) -> set[str]:
    """Flags among the arguments behind a verb, as `--section.key-of-it`; values that stand apart come along."""
    return {argument.partition("=")[0].replace("_", "-") for argument in arguments}


def with_given(command: C, arguments: Sequence[str]) -> C:
    """The command with the names of these settings, where it asks for them.

    Args:
        command: a dataclass of `commands`.
        arguments: behind the verb, as they were given.
    """
    whole: Any = command
    if not any(item.name == "given" for item in fields(whole)):
        return command
    flags = (argument.partition("=")[0].removeprefix("--") for argument in arguments if argument.startswith("--"))
    new: C = replace(whole, given=frozenset(flag.replace("-", "_") for flag in flags))
    return new
