"""What `compare` found: every row of the evaluations of several seeds as one, its table, file and picture.

Two kinds of chance are kept apart. The spread of a number is its standard deviation over seeds, that is over trainings.
The standard error of a difference is over test items: bits of one item under two models, the mean over seeds first.

Shapes: S seeds, N items.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from twostage.metrics.statistics import standard_error
from twostage.storage.atomic import write_atomic
from twostage.training.record import UNDERTRAINED_DECREASE

from ..evaluate.columns import number, print_table
from ..evaluate.differences import Scored
from ..evaluate.sizes import COST, size_remark
from ..evaluate.tables import GIVEN_LABEL, MARGINALISED, SAMPLED_PSNR
from ..media.console import Output
from ..media.figures import RatePoint, rate_distortion

SCHEMA_VERSION = 1
NOT_IN_USE = ("collapsed", "partly collapsed", "codebook collapsed", "codes say little", "codes ignored")
"""Verdicts of a diagnosis that a reader of the table should know of."""
PUBLISHED = {"VAE": 4.51, "VQ-VAE": 4.67, "VIMCO": 5.14}
"""Bits/dim on CIFAR-10 of van den Oord et al. 2017, section 4.1."""


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    mean: float
    deviation: float | None
    """Standard deviation over seeds; None for a single one."""

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Spread | None":
        """None where any seed has no such number."""
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return cls(mean(known), stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """One way of scoring one model, over all seeds."""

    name: str
    model: str
    kind: str
    bound: str | None
    prior: str | None
    beta: float | None
    samples_k: int | None
    labels: str
    """As in evaluation.json."""
    bits_per_dim: Spread | None
    distortion_bits_per_dim: Spread | None
    rate_bits_per_dim: Spread | None
    psnr_db: Spread | None
    psnr_of: str | None
    difference_bits_per_dim: Spread | None
    """Bits/dim more than the reference; None for the reference itself, without one, and given the label."""
    difference_standard_error: float | None
    """Paired, over test items; None without a difference."""
    parameters: int
    steps: float
    """Codebook and prior together where both are needed; a mean over seeds, as patience can stop them apart."""
    train_seconds: float
    """Mean over seeds."""
    validation_decrease: float | None
    """The largest of the trainings behind the row; None where one has no validation before its last quarter."""
    verdict: str | None = None
    """Of the diagnosis, that of the first seed in which the latents or codes were not in use; None: in none."""

    @property
    def undertrained(self) -> bool | None:
        """Whether a training was still falling when it ended; None where nobody can tell."""
        return None if self.validation_decrease is None else self.validation_decrease > UNDERTRAINED_DECREASE


def compared_row(
    seeds: Sequence[Scored],
    references: Sequence[Scored] | None,
    falls: Sequence[float | None],
    verdicts: Sequence[str] = (),
) -> ComparedRow:
    """One row out of the same row of every seed.

    Args:
        seeds: the row of each.
        references: the row of each that it is compared with; None without one.
        falls: `validation_decrease` of every training behind these rows.
        verdicts: of the diagnoses of the model.
    """
    rows, first = [scored.row for scored in seeds], seeds[0].row
    difference, error = None, None
    if references is not None and first.labels != "given" and first.name != references[0].row.name:
        pairs = [(own.bits_N, other.bits_N) for own, other in zip(seeds, references, strict=True)]
        delta_SN = [own - other for own, other in pairs if own is not None and other is not None]
        if delta_SN:
            difference = Spread.of([float(delta_N.mean()) for delta_N in delta_SN])
            error = standard_error(np.mean(delta_SN, axis=0))
    known = [fall for fall in falls if fall is not None]
    return ComparedRow(
        name=first.name,
        model=first.model,
        kind=first.kind,
        bound=first.bound,
        prior=first.prior,
        beta=first.beta,
        samples_k=first.samples_k,
        labels=first.labels,
        bits_per_dim=Spread.of([row.bits_per_dim for row in rows]),
        distortion_bits_per_dim=Spread.of([row.distortion_bits_per_dim for row in rows]),
        rate_bits_per_dim=Spread.of([row.rate_bits_per_dim for row in rows]),
        psnr_db=Spread.of([row.psnr_db for row in rows]),
        psnr_of=first.psnr_of,
        difference_bits_per_dim=difference,
        difference_standard_error=error,
        parameters=first.parameters,
        steps=mean(row.steps for row in rows),
        train_seconds=mean(row.train_seconds for row in rows),
        validation_decrease=max(known) if len(known) == len(falls) else None,
        verdict=next((verdict for verdict in verdicts if verdict in NOT_IN_USE), None),
    )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything `compare` found."""

    recipe: str
    dataset: str
    split: str
    items: int
    dims: int
    likelihood: str
    alphabet: int
    seeds: tuple[int, ...]
    budget_steps: int
    """Of every model, codebook and prior together."""
    reference: str | None
    """Name of the row that others are compared with: the first VQ-VAE with a learned prior."""
    rows: tuple[ComparedRow, ...]

    @property
    def published(self) -> Mapping[str, float]:
        """Published bits/dim of these data, for orientation; empty where there are none."""
        return PUBLISHED if self.dataset == "cifar10" and self.alphabet == 256 and self.likelihood != "mse" else {}

    @property
    def title(self) -> str:
        """What was compared on what, in one line."""
        count = len(self.seeds)
        squared = self.likelihood == "mse"
        how = "trained on squared error: no bits/dim" if squared else f"{self.likelihood} likelihood, bits/dim"
        over = f"seed {self.seeds[0]}" if count == 1 else f"{count} seeds from {self.seeds[0]} on"
        return (
            f"{self.dataset}, {self.split} set: {self.items} items x {self.dims} dims, {self.alphabet} levels, "
            f"{how}; {over}, {self.budget_steps:,} steps of every model, codebook and prior together"
        )

    def write(self, path: Path) -> None:
        """Write comparison.json."""
        head = {"schema_version": SCHEMA_VERSION, "unit": "bits/dim", "published": dict(self.published)}
        rows = [{**asdict(row), "undertrained": row.undertrained} for row in self.rows]
        text = json.dumps(head | asdict(self) | {"rows": rows}, indent=2, allow_nan=False)
        write_atomic(path, text.encode() + b"\n")

    def picture(self) -> bytes | None:
        """PNG of rate against distortion; None where no row has both. Rows given the label are left out."""
        points = [
            RatePoint(
                row.name,
                row.rate_bits_per_dim.mean,
                row.distortion_bits_per_dim.mean,
                rate_deviation=row.rate_bits_per_dim.deviation or 0.0,
                distortion_deviation=row.distortion_bits_per_dim.deviation or 0.0,
                beta=row.beta,
            )
            for row in self.rows
            if row.rate_bits_per_dim is not None and row.distortion_bits_per_dim is not None and row.labels != "given"
        ]
        totals = {f"published {name}": total for name, total in self.published.items()}
        return rate_distortion(points, unit="bits/dim", totals=totals, title=self.dataset) if points else None


def comparison_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of every row."""
    rows, given = comparison.rows, any(row.labels == "given" for row in comparison.rows)

    def total(row: ComparedRow, *, given: bool) -> str:
        return _mean(row.bits_per_dim, 4) if (row.labels == "given") == given else "-"

    columns = {"model, prior or bound": [row.name for row in rows]}
    columns["total"] = [total(row, given=False) for row in rows]
    if given:
        columns["given label"] = [total(row, given=True) for row in rows]
    psnr_deviations = [None if row.psnr_db is None else row.psnr_db.deviation for row in rows]
    columns |= {
        "± seeds": [number(None if row.bits_per_dim is None else row.bits_per_dim.deviation, 4) for row in rows],
        "distortion": [_mean(row.distortion_bits_per_dim, 4) for row in rows],
        "rate": [_mean(row.rate_bits_per_dim, 4) for row in rows],
        "more": [_mean(row.difference_bits_per_dim, 4, "+") for row in rows],
        "± s.e.": [number(row.difference_standard_error, 4) for row in rows],
        "PSNR dB": [
            _mean(row.psnr_db, 2) + ("*" if row.psnr_of == "sample" and row.psnr_db is not None else "") for row in rows
        ],
    }
    if any(deviation is not None for deviation in psnr_deviations):
        columns["± dB"] = [number(deviation, 2) for deviation in psnr_deviations]
    columns |= {
        "parameters": [f"{row.parameters:,}" for row in rows],
        "steps": [f"{row.steps:,.0f}" for row in rows],
        "seconds": [f"{row.train_seconds:,.0f}" for row in rows],
        "": [", ".join(filter(None, (_REMARKS[row.undertrained], row.verdict))) for row in rows],
    }
    return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]


_REMARKS = {True: "undertrained", False: "", None: "?"}


def _mean(value: Spread | None, digits: int, sign: str = "") -> str:
    return number(None if value is None else value.mean, digits, sign)


def legend_lines(comparison: Comparison) -> list[str]:
    """What the columns of the table mean, as far as they are there."""
    rows = comparison.rows
    lines = []
    if len(comparison.seeds) > 1:
        lines.append(
            "± seeds, ± dB: standard deviations over seeds of total and PSNR; the other numbers are means over seeds"
        )
    if len(comparison.seeds) == 1:
        lines.append(
            "one seed, so one training of each model: how far another would move a number is not known; --seeds 3 tells"
        )
    if comparison.reference is not None:
        lines.append(
            f"more: bits/dim more than {comparison.reference}, mean over seeds, ± its paired standard error over test "
            "items"
        )
        lines += _size_lines(comparison)
    lines.append(COST)
    if any(row.labels == "marginalised" for row in rows):
        lines.append(MARGINALISED)
    if any(row.labels == "given" for row in rows):
        lines.append(GIVEN_LABEL)
    if any(row.psnr_of == "sample" for row in rows):
        lines.append(SAMPLED_PSNR)
    if any(row.undertrained for row in rows):
        lines.append(
            f"undertrained: the best validation number of a training still fell by more than "
            f"{UNDERTRAINED_DECREASE:.0%} over the last quarter of its steps"
        )
    if any(row.verdict for row in rows):
        lines.append(f"{', '.join(NOT_IN_USE)}: see the diagnosis in the evaluation.json of every seed")
    if any(row.undertrained is None for row in rows):
        lines.append(
            "?: nothing was validated before the last quarter of the steps, or nothing was left to fall; validate more "
            "often"
        )
    if comparison.published:
        numbers = ", ".join(f"{name} {bits}" for name, bits in comparison.published.items())
        lines.append(
            f"published (van den Oord et al. 2017): {numbers} bits/dim; for orientation, as how its rate was counted "
            "is not said there"
        )
    return lines


def _size_lines(comparison: Comparison) -> list[str]:
    """A line on the rows that are not of the reference's size or time; none where all are."""
    reference = next((row for row in comparison.rows if row.name == comparison.reference), None)
    if reference is None:
        return []
    remarks: dict[str, list[str]] = {}
    for row in comparison.rows:
        remark = "" if row.difference_bits_per_dim is None else size_remark(row, reference)
        if remark:
            remarks.setdefault(remark, []).append(row.name)
    return [f"not of the size or time of {reference.name}: {_listed(remarks)}"] if remarks else []


def _listed(remarks: dict[str, list[str]]) -> str:
    return "; ".join(f"{' / '.join(names)}: {remark}" for remark, names in remarks.items())


def print_comparison(comparison: Comparison) -> None:
    """The table and what it means, on stdout."""
    console = Output(highlight=False)
    console.print(comparison.title, soft_wrap=True)
    print_table(*comparison_table(comparison))
    console.print("\n".join(legend_lines(comparison)), soft_wrap=True)
