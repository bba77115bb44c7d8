"""What is shown of a character that the encoding of an output does not have."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_PLUS_MINUS, _OWN_WORD = "±", "Fréchet"
"""What this project prints itself and is written plainly; names of files and classes are spelt out."""
_HANDLER = "twostage-plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Handler of `codecs.register_error`: ASCII in place of what an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    if error.object[max(error.start - 2, 0) : error.end + 4] == _OWN_WORD:
        return "e", error.end
    shown = ("+-" if each == _PLUS_MINUS else each.encode("ascii", "backslashreplace").decode() for each in refused)
    return "".join(shown), error.end


@contextmanager
def any_encoding(*streams: TextIO | None) -> Iterator[None]:
    """Within the block, characters that an output's encoding does not have are written in ASCII, where it would fail.

    Such is the encoding of a pipe or a terminal under LANG=C, PYTHONIOENCODING=ascii and on some Windows consoles.
    """
    codecs.register_error(_HANDLER, _plain)
    before = [(stream, stream.errors) for stream in streams if isinstance(stream, io.TextIOWrapper)]
    for stream, _ in before:
        stream.reconfigure(errors=_HANDLER)
    try:
        yield
    finally:
        for stream, errors in before:
            if not stream.closed:
                stream.reconfigure(errors=errors)
