"""Text in figures as it is: names of classes and models come from folders and files, and none may mean anything else.

matplotlib reads what stands between two dollars as mathematics, which fails when the figure is written, and leaves
whatever begins with an underscore out of a legend. All that draw do so inside `plain_text` and make legends with
`legend`; a test draws every figure with such names.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from twostage.printable import printable

MOST_CHARACTERS = 40
"""Of a name in a figure, which would grow with it."""
_AS_IT_IS: dict[Any, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,  # numbers of axes would show its dollars
}


@contextmanager
def plain_text() -> Iterator[None]:
    """Inside, matplotlib draws every text as it is, whatever the user's settings say; also a decorator.

    Letters that the font does not have become boxes without a word: the report lists names beside its figures.
    """
    with matplotlib.rc_context(_AS_IT_IS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def shortened(name: str, most: int = MOST_CHARACTERS) -> str:
    """The name on one line, or its beginning and an ellipsis."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def legend(place: Axes | Figure, entries: Sequence[tuple[Artist | Container, str]], **style: Any) -> Legend | None:
    """A legend of those artists under those names, in that order; none without entries."""
    if not entries:
        return None
    # Names come afterwards: as labels of artists some would be taken for instructions to leave them out.
    artists: list[Any] = [artist for artist, _ in entries]
    drawn = place.legend(artists, [str(row) for row in range(len(entries))], **style)
    for text, (_, name) in zip(drawn.get_texts(), entries, strict=True):
        text.set_text(shortened(name))
    return drawn
