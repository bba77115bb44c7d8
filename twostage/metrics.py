"""`metrics.jsonl`, the record of a training: one JSON object a line, written as it goes and cut back on resume."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from twostage.progress import say
from twostage.ratios import ratio

UNDERTRAINED_FALL = 0.02
"""A validation number that fell by more than this share over the last quarter of the steps had not come to rest; the
end of a cosine brings about 1 %."""
_OBJECTIVES = (
    "loss_bits_per_dim",
    "loss_per_dim",
    "bits_per_dim",
    "distortion_bits_per_dim",
    "half_squared_error",
    "bits_per_code",
)
"""Validation numbers that trainings go by; of those a record holds, the first here."""


class Metrics:
    """`metrics.jsonl`, cut back to the checkpoint when a run is resumed so that no step stands in it twice.

    Without a path nothing is kept: of several processes one writes.
    """

    def __init__(self, path: Path | None, *, size: int) -> None:
        self._file: BinaryIO | None = None
        if path is None:
            return
        path.touch()
        if path.stat().st_size < size:
            say(f"warning: {path} is shorter than its checkpoint says; the record of earlier steps is incomplete")
        os.truncate(path, min(size, path.stat().st_size))
        self._file = path.open("ab")

    def write(self, row: Mapping[str, float | int]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(row).encode() + b"\n")

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
    """Rows of a metrics.jsonl; a line that is damaged, or a missing file, costs its rows and no more."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def training_fall(folder: Path) -> float | None:
    """`validation_fall` of the training in a folder."""
    return validation_fall(read_metrics(folder / "metrics.jsonl"))


def validation_fall(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Share by which the best validation number of a training's record fell over the last quarter of its steps.

    None where nothing was validated before that quarter, or the number had come to zero by then.
    """
    found = (
        [(row["step"], row[f"validation_{key}"]) for row in rows if f"validation_{key}" in row] for key in _OBJECTIVES
    )
    validated = next((values for values in found if values), [])
    if not validated:
        return None
    before = [value for step, value in validated if step <= 0.75 * validated[-1][0]]
    if not before:
        return None
    return ratio(min(before) - min(value for _, value in validated), abs(min(before)))
