"""Text out of names and files, made fit for one line of a terminal."""

MOST_SHOWN = 80


def printable(text: str) -> str:
    """`text` with escapes for what breaks a line, moves the cursor, or turns the direction of writing."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def shown(value: object) -> str:
    """A value as Python spells it, for a message: no longer than a line, and fit for one."""
    text = printable(repr(value))
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


def show(names: list[str], *, most: int = 10) -> str:
    """The first names as Python literals (a line break in a name must not break the sentence), then a count."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(count: int, things: str) -> str:
    """`counted(1, "files")` is `1 file`, `counted(1200, "files")` is `1,200 files`."""
    return f"{count:,} {things.removesuffix('s') if count == 1 else things}"


def duration(seconds: float) -> str:
    """Seconds to read, with two digits: `45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for size, unit in ((86400 * 2, "days"), (5400, "h"), (90, "min")):
        if seconds >= size:
            number = seconds / {"days": 86400, "h": 3600, "min": 60}[unit]
            return f"{number:.1f} {unit}" if number < 10 else f"{number:.0f} {unit}"
    return f"{seconds:.0f} s"
