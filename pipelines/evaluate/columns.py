"""Columns of a table whose lines are rows of any kind, and how a table and the prose around it are printed.

A column is defined once, by its heading and by what it says of a row, and stands in a table where any row has it.
"""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rich.table import Table

from ..media.console import Output

ABSENT = "-"
LEVELS = {65536: "16 bit", 256: "mu-law"}
"""Names of the alphabets of recordings, in the order of their columns."""


class HasAlphabet(Protocol):
    """A row of bits."""

    @property
    def alphabet(self) -> int:
        """Levels of a sub-pixel or sample."""


R = TypeVar("R")
A = TypeVar("A", bound=HasAlphabet)


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A cell: the number, or a dash for none."""
    return ABSENT if value is None else f"{value:{sign}.{digits}f}"


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table of rows."""

    heading: str
    cell: Callable[[R], str]
    """A dash where the row has no such thing."""
    always: bool = False
    """Whether it stands there even where no row has it."""


def figure(
    heading: str, of: Callable[[R], float | None], digits: int = 4, *, sign: str = "", always: bool = False
) -> Column[R]:
    """A column of numbers."""
    return Column(heading, lambda row: number(of(row), digits, sign), always)


def by_alphabet(
    rows: Sequence[A], heading: str, of: Callable[[A], float | None], *, beside: int | None = None
) -> list[Column[A]]:
    """A column of bits for every alphabet of the rows, and for the one of what stands `beside` them.

    A single one is named only where there is something beside.
    """
    alphabets = {row.alphabet for row in rows} | ({beside} if beside is not None else set())
    if len(alphabets) == 1 and beside is None:
        return [figure(heading, of, always=True)]

    def of_one(alphabet: int) -> Column[A]:
        name = LEVELS.get(alphabet, f"{alphabet} levels")
        own = f"{heading}, {name}"
        return figure(own, lambda row: of(row) if row.alphabet == alphabet else None, always=alphabet == beside)

    return [of_one(alphabet) for alphabet in sorted(alphabets, reverse=True)]


def cells_of(columns: Sequence[Column[R]], rows: Sequence[R]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the columns that stand in a table of these rows."""
    cells = {column.heading: [column.cell(row) for row in rows] for column in columns}
    shown = [c.heading for c in columns if c.always or any(cell != ABSENT for cell in cells[c.heading])]
    return shown, [list(line) for line in zip(*(cells[heading] for heading in shown), strict=True)]


def print_wrapped(console: Output, text: str, *, indent: str = "") -> None:
    """Prose as wide as the terminal, further lines indented; a line break at the end of the text stays."""
    further = f"{indent}  " if indent else ""
    wrapped = textwrap.fill(
        text, console.width, initial_indent=indent, subsequent_indent=further, break_on_hyphens=False
    )
    console.print(wrapped + ("\n" if text.endswith("\n") else ""), soft_wrap=True)


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    """A table on stdout, as wide as it needs to be."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    # Printed at its natural width, far below this one: a terminal too narrow wraps lines, but no number is ever cut.
    console = Output(highlight=False, width=1000, soft_wrap=True)
    console.print(table)
    console.print()
