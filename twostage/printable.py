"""Text out of names and files, made fit for one line of a terminal."""


def printable(text: str) -> str:
    """`text` with escapes for what breaks a line, moves the cursor, or turns the direction of writing."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
