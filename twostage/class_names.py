"""Names of classes and speakers: one spelling, one order, and how a name that somebody gives is found among them.

Spelling: Unicode writes é as one character or as an e with an accent behind it. The two are the same text and look the
same, yet macOS and archives made there give the second where a keyboard gives the first. Names of a data set are kept
in composed form (NFC), and what is given is composed before it is looked for.

Order: that of Python's strings, which is the same everywhere; where all names are whole numbers, by their values, so
that folders 0 to 12 have the labels 0 to 12.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

_NUMBER = re.compile(r"[+-]?\d[\d.,]*")
MOST_FILE_BYTES = 60
"""Of a class name within the name of a file, of which file systems take 255: a label, a speaker and more must fit."""


def composed(name: str) -> str:
    """The name in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names in the order of their labels."""
    found = sorted(names)
    if all(name.isdecimal() for name in found):
        found.sort(key=int)
    return tuple(found)


def number_of(name: str, names: Sequence[str]) -> int | None:
    """Place of a name among composed ones, in whatever form it is written itself; None where it is not there."""
    spelled = composed(name)
    return names.index(spelled) if spelled in names else None


def place_of(text: str, names: Sequence[str]) -> int | None:
    """The place that a text states as a number, from 0 on.

    None where there is no such place, and where any name is a number itself: among folders 1 to 12 a 0 would otherwise
    mean the 1.
    """
    stated = int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else len(names)
    return stated if stated < len(names) and not any(_NUMBER.fullmatch(name) for name in names) else None


def as_file_name(name: str) -> str:
    """The name as a part of file names that every system takes: letters, marks and digits, and `_` for most others."""
    kept = "".join(c if c in "._+-" or unicodedata.category(c)[0] in "LMN" else "_" for c in composed(name))
    return kept.encode()[:MOST_FILE_BYTES].decode(errors="ignore")
