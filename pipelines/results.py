"""What `evaluate` found: the rows of evaluation.json, and the same numbers as table cells for terminal and report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from twostage.atomic import write_atomic
from twostage.errors import RunError

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One way of scoring one model; the fields are the row keys of evaluation.json."""

    model: str
    kind: str
    codebook_update: str | None
    bound: str
    prior: str
    likelihood: str
    alphabet: int
    beta: float | None
    samples_k: int | None
    labels: str
    """Who pays for labels: `none` (not used), `marginalised`, `paid` or `given`."""
    bits_per_dim: float
    standard_error: float | None
    """Of the mean over items; None for a single item."""
    distortion_bits_per_dim: float | None
    rate_bits_per_dim: float | None
    psnr_db: float | None
    """None where every pixel is exact."""
    codebook_perplexity: float | None
    codebook_used: int | None
    codebook_size: int | None
    """Codes that could be used, all codebooks together: G * K."""
    parameters: int
    steps: int
    """Optimiser steps, codebook and prior together where both are needed."""
    train_seconds: float

    @property
    def name(self) -> str:
        """Short name, unique within a run."""
        if self.kind == "vq-vae":
            return f"{self.model} ({self.codebook_update}), {self.prior} prior"
        return f"{self.model}, {'ELBO' if self.bound == 'elbo' else f'IWAE-{self.samples_k}'}"


@dataclass(frozen=True)
class PairedDifference:
    """Mean over items of bits(other) - bits(reference); positive means that the reference is shorter."""

    reference: str
    other: str
    bits_per_dim: float
    standard_error: float | None


@dataclass(frozen=True)
class Evaluation:
    """Everything `evaluate` found."""

    recipe: str
    dataset: str
    split: str
    items: int
    dims: int
    seed: int
    """Of the latents that the VAE's bounds drew."""
    rows: tuple[Row, ...]
    paired_differences: tuple[PairedDifference, ...]

    @property
    def title(self) -> str:
        """What was measured on what, in one line."""
        first = self.rows[0]
        return (
            f"{self.dataset}, {self.split} set: {self.items} items x {self.dims} dims, {first.alphabet} levels, "
            f"{first.likelihood} likelihood, bits/dim"
        )

    def write(self, path: Path) -> None:
        """Write evaluation.json."""
        head = {"schema_version": SCHEMA_VERSION, "unit": "bits/dim"}
        write_atomic(path, json.dumps(head | asdict(self), indent=2, allow_nan=False).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """The evaluation written at `path`.

        Raises:
            RunError: it is missing, damaged or of another version.
        """
        if not path.is_file():
            raise RunError(f"there is no {path}; run evaluate {path.parent} first")
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            version, _ = data.pop("schema_version"), data.pop("unit")
            if version != SCHEMA_VERSION or not data["rows"]:
                raise ValueError(f"schema version {version}")
            data["rows"] = tuple(Row(**row) for row in data["rows"])
            data["paired_differences"] = tuple(PairedDifference(**row) for row in data["paired_differences"])
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged or of another version (expected version {SCHEMA_VERSION}); run evaluate again"
            ) from error


def _number(value: float | None, digits: int, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def score_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the bits/dim of every row."""
    headings = ["model, prior or bound", "total", "± s.e.", "distortion", "rate", "PSNR dB", "labels"]
    cells = [
        [
            row.name,
            _number(row.bits_per_dim, 4),
            _number(row.standard_error, 4),
            _number(row.distortion_bits_per_dim, 4),
            _number(row.rate_bits_per_dim, 4),
            _number(row.psnr_db, 2),
            row.labels,
        ]
        for row in evaluation.rows
    ]
    return headings, cells


def model_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what every model cost and how it uses its codebook, one line per size of model."""
    headings = ["model", "parameters", "steps", "seconds", "codes used", "perplexity"]
    cells: dict[tuple[str, int], list[str]] = {}
    for row in evaluation.rows:
        cells[row.model, row.parameters] = [
            row.model + (" with prior" if row.prior == "learned" else ""),
            f"{row.parameters:,}",
            f"{row.steps:,}",
            f"{row.train_seconds:.0f}",
            "-" if row.codebook_used is None else f"{row.codebook_used}/{row.codebook_size}",
            _number(row.codebook_perplexity, 1),
        ]
    return headings, list(cells.values())


def difference_lines(evaluation: Evaluation) -> list[str]:
    """Every row against the reference, paired over items; empty without a learned prior."""
    return [
        f"{d.other}: {_number(d.bits_per_dim, 4, '+')} ± {_number(d.standard_error, 4)}"
        for d in evaluation.paired_differences
    ]


def print_evaluation(evaluation: Evaluation) -> None:
    """Both tables and the paired differences, on stdout."""
    console = Console(highlight=False)
    console.print(evaluation.title, soft_wrap=True)
    for headings, rows in (score_table(evaluation), model_table(evaluation)):
        table = Table(box=None, padding=(0, 1), header_style="bold")
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
        for cells in rows:
            table.add_row(*cells)
        # Printed at its natural width: a terminal too narrow wraps lines, but no number is ever cut.
        Console(highlight=False, width=max(console.width, 100), soft_wrap=True).print(table)
        console.print()
    lines = difference_lines(evaluation)
    if lines:
        console.print(f"bits/dim more than {evaluation.paired_differences[0].reference}, ± paired s.e.:")
        console.print("\n".join(f"  {line}" for line in lines))
