"""`metrics.jsonl`, the record of a training: one JSON object a line, written as it goes and cut back on resume."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from twostage.errors import RunError
from twostage.metrics.ratios import ratio
from twostage.progress import say
from twostage.storage.regular_file import open_own, regular_lines

LARGEST_BYTES = 1 << 28
"""Of a record: some twenty million steps, of which one in 25 leaves a line of some 300 bytes."""
_LONGEST_LINE = 1 << 16
_REMEDY = "put it back from a copy, or remove it, which costs the curves of the steps so far and nothing else"
UNDERTRAINED_DECREASE = 0.02
"""A validation number that fell by more than this share over the last quarter of the steps had not come to rest; the
end of a cosine brings about 1 %."""
_OBJECTIVES = (
    "loss_bits_per_dim",
    "loss_bits_per_sample",
    "loss_per_dim",
    "bits_per_dim",
    "bits_per_sample",
    "distortion_bits_per_dim",
    "distortion_bits_per_sample",
    "half_squared_error",
    "bits_per_code",
    "feature_frechet",
)
"""Validation numbers that trainings go by; of those a record holds, the first here."""


class Metrics:
    """`metrics.jsonl`, cut back to the checkpoint when a run is resumed so that no step stands in it twice.

    Without a path nothing is kept: of several processes one writes.

    Raises:
        RunError: it cannot be written, or something else than a file of the run's own has its name.
    """

    def __init__(self, path: Path | None, *, size: int) -> None:
        self._file: BinaryIO | None = None
        if path is None:
            return
        try:
            self._file = open_own(path)
            found = os.fstat(self._file.fileno()).st_size
            if found < size:
                say(f"warning: {path} is shorter than its checkpoint says; the record of earlier steps is incomplete")
            self._file.truncate(min(size, found))
            self._file.seek(0, os.SEEK_END)  # where `sync` measures from, also before the next line
        except OSError as error:
            self.close()
            raise RunError(f"the record {path} cannot be written ({error.strerror}): {_REMEDY}") from error

    def write(self, row: Mapping[str, float | int]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()  # others read along (`twostage watch`); to the disk it comes with `sync`

    def sync(self) -> int:
        """Bytes safely on disk."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; a line that is damaged, or a missing file, costs its rows and no more.

    Raises:
        RunError: it cannot be read, is no regular file, or longer than a record can be.
    """
    rows = []
    try:
        for line in regular_lines(path, most=LARGEST_BYTES, longest=_LONGEST_LINE):
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict):
                    rows.append(row)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"the record {path} cannot be read ({error.strerror}): {_REMEDY}") from error
    return rows


def objective_of(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The validation number that the training of a record goes by; None where nothing was validated yet."""
    return next((key for key in _OBJECTIVES if any(f"validation_{key}" in row for row in rows)), None)


def training_decrease(folder: Path) -> float | None:
    """`validation_decrease` of the training in a folder."""
    return validation_decrease(read_metrics(folder / "metrics.jsonl"))


def validation_decrease(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Share by which the best validation number of a training's record fell over the last quarter of its steps.

    None where nothing was validated before that quarter, or the number had come to zero by then.
    """
    key = objective_of(rows)
    if key is None:
        return None
    validated = [(row["step"], row[f"validation_{key}"]) for row in rows if f"validation_{key}" in row]
    before = [value for step, value in validated if step <= 0.75 * validated[-1][0]]
    if not before:
        return None
    return ratio(min(before) - min(value for _, value in validated), abs(min(before)))


_CIRCUMSTANCES = ("threads", "device", "processes", "accumulate", "compile")
_MOVES_DROPOUT = ("processes", "accumulate", "compile")
"""Those of which what dropout hides depends."""


def tell_differences(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """A line for every circumstance in which a training goes on unlike it began; they move the last bits alone."""
    for what in _CIRCUMSTANCES:
        if before.get(what) != now[what]:
            hides = " and in what dropout hides" if what in _MOVES_DROPOUT else ""
            say(
                f"warning: {folder} was trained with {what} {before.get(what)} and goes on with {now[what]}; "
                f"the result will differ in the last bits{hides}"
            )
