"""The file evaluation.json as bytes."""

from pathlib import Path

from twostage.errors import RunError
from twostage.storage.regular_file import read_regular

LARGEST_BYTES = 1 << 26
"""Of an evaluation.json; those of a dozen models take some hundred thousand."""


def read_evaluation(path: Path) -> bytes:
    """The content of an evaluation.json, whatever it is about.

    Raises:
        RunError: it is missing, or no file that `evaluate` can have written.
    """
    try:
        return read_regular(path, most=LARGEST_BYTES)
    except FileNotFoundError:
        raise RunError(f"there is no {path}; run evaluate {path.parent} first") from None
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}): remove it, and run evaluate {path.parent} again"
        ) from error
