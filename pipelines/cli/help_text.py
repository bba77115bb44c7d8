"""Help of flags out of docstrings of fields that are longer than a line, as running text.

tyro joins the lines of a docstring that begin with a letter, but those of a field's are indented: `--help` would break
them where the source does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
