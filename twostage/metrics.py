"""`metrics.jsonl`, the record of a training: one JSON object a line, written as it goes and cut back on resume."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twostage.progress import say


class Metrics:
    """`metrics.jsonl`, cut back to the checkpoint when a run is resumed so that no step stands in it twice."""

    def __init__(self, path: Path, *, size: int) -> None:
        path.touch()
        if path.stat().st_size < size:
            say(f"warning: {path} is shorter than its checkpoint says; the record of earlier steps is incomplete")
        os.truncate(path, min(size, path.stat().st_size))
        self._file = path.open("ab")

    def write(self, row: Mapping[str, float | int]) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")

    def sync(self) -> int:
        """Bytes safely on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; a line that is damaged, or a missing file, costs its rows and no more."""
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows
