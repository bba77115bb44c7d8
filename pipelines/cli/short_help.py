"""The short help of a verb: its own flags in full, the sections of a recipe in a line or two each.

tyro shows the fields of a class. Here the class of a command gets a subclass for the sake of help, in which fields are
suppressed and a line stands for each section. Settings of a kind of data are left out where the recipe is of another.
The class that reads flags is the whole one, so that what is not shown can be given all the same. Without torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Suppress, arg

from twostage.config.kinds import reads_flag, reads_setting
from twostage.config.schema import Recipe

LINE = 70
"""Characters for a section's settings in a terminal that is 120 wide: two lines of a recipe, one of none, which has
the sections for all kinds of data."""
HelpAll = Annotated[
    FlagCreatePairsOff[bool],
    arg(help="Show every flag with its help and its value, also those for other data.", help_behavior_hint=""),
]


def shortened_help(command: Any, kind: str | None) -> Any:
    """A command like this one, of a class with fewer flags to show.

    Args:
        command: a dataclass of `commands` with the values that its flags start from.
        kind: of data, a key of `KINDS`; None where no recipe or run says it: then the flags for all kinds are shown.
    """
    own = [item.name for item in fields(command)]
    hidden = [name for name in own if not reads_flag(kind, name)]
    holder = command.recipe if "recipe" in own else command
    sections = [name for name in _sections(holder) if _names(holder, name, kind)]
    if holder is command:
        hidden += [name for name in own if name == "stored" or name in set(_sections(command)) - set(sections)]
    if not sections:
        return _with_fields(command, hidden, [("help_all", HelpAll, field(default=False))] if hidden else [])
    more: list[tuple[str, Any, Any]] = [("help_all", HelpAll, field(default=False))]
    if len(sections) == 1:  # it is what the verb is about
        (name,) = sections
        unread = {item.name for item in fields(getattr(holder, name))} - set(_names(holder, name, kind))
        more.append(_part(name, _with_fields(getattr(holder, name), unread, [])))
    elif holder is command:
        hidden += sections
        more.append(_lines_of(command, sections, sections, kind))
    else:
        read = [name for name in sections if name in getattr(command, "reads", sections)]
        lines = _lines_of(holder, sections, read, kind)
        more.append(_part("recipe", _with_fields(holder, _sections(holder), [lines]), ""))
    return _with_fields(command, hidden, more)


def _sections(holder: Any) -> list[str]:
    """Fields of a recipe, or of a command, that are sections of a recipe; a command's `data` is none, but a place."""
    sections = Recipe()
    names = [item.name for item in fields(holder) if is_dataclass(getattr(sections, item.name, None))]
    return [name for name in names if isinstance(getattr(holder, name), type(getattr(sections, name)))]


def _names(holder: Any, section: str, kind: str | None) -> list[str]:
    """Settings of a section that are read for that kind of data."""
    keys = [item.name for item in fields(getattr(holder, section))]
    return [key for key in keys if reads_setting(kind, section, key)]


def _part(name: str, value: Any, shown_as: str | None = None) -> tuple[str, Any, Any]:
    """A field for a nested dataclass, as `make_dataclass` takes one."""
    return name, Annotated[type(value), arg(name=shown_as)], field(default=value)


def _with_fields(whole: Any, hidden: Iterable[str], more: Sequence[tuple[str, Any, Any]]) -> Any:
    """The same dataclass with some fields suppressed and others added, or put in the place of those of their names."""
    cls = type(whole)
    replaced: list[tuple[str, Any, Any]] = [(name, Suppress[bool], field(default=False)) for name in hidden]
    new = [*replaced, *more]
    shown = make_dataclass(
        cls.__name__, new, bases=(cls,), namespace={"__doc__": cls.__doc__}, frozen=True, kw_only=True
    )
    names = {name for name, _, _ in new}
    return shown(**{item.name: getattr(whole, item.name) for item in fields(cls) if item.name not in names})


def _lines_of(holder: Any, sections: Sequence[str], read: Sequence[str], kind: str | None) -> tuple[str, Any, Any]:
    """A field that shows as a box with a line for every section that is read, and the names of the others."""
    first_of: dict[type, str] = {}
    lines: list[tuple[str, Any, Any]] = []
    for name in read:
        settings = list(_named(holder, name, _names(holder, name, kind)))
        first = first_of.setdefault(type(getattr(holder, name)), name)
        text = _fitted(settings, LINE if kind is None else 2 * LINE)
        if first != name:
            changed = ", ".join(item for item in settings if "=" in item)
            text = f"the flags of --{_flag(first)}.*" + (f"; here {changed}" if changed else "")
        shown = arg(name=f"{_flag(name)}.*", prefix_name=False, metavar="", help=text, help_behavior_hint="")
        lines.append((name, Annotated[str, shown], field(default="")))
    others = ", ".join(f"--{_flag(name)}.*" for name in sections if name not in read)
    about = (
        f"--SECTION.NAME, such as --{_flag(read[0])}.{_flag(_names(holder, read[0], kind)[0])}; NAME=VALUE where not "
    )
    about += "the default. --help-all says what each does."
    about += f" Beside these the run keeps, for the verbs that read them: {others}." if others else ""
    box = make_dataclass("Sections", lines, namespace={"__doc__": about}, frozen=True)
    return _part("sections", box(), "recipe")


def _fitted(settings: Sequence[str], room: int) -> str:
    """Those with a value, and from the first on as many of the others as there is room for."""
    kept = list(settings)
    while len(", ".join(kept)) > room and not all("=" in item for item in kept):
        kept.remove([item for item in kept if "=" not in item][-1])
    return ", ".join(kept) + (f" and {len(settings) - len(kept)} more" if len(kept) < len(settings) else "")


def _named(holder: Any, section: str, keys: Iterable[str]) -> Iterator[str]:
    """Settings as flags spell them, with the value where it differs from the default."""
    config = getattr(holder, section)
    untouched = type(config)()
    for key in keys:
        value = getattr(config, key)
        text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        yield _flag(key) + ("" if value == getattr(untouched, key) else f"={text}")


def _flag(name: str) -> str:
    return name.replace("_", "-")
