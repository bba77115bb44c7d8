"""What `compare` found: every row of the evaluations of several seeds as one, its file and picture.

Two kinds of chance are kept apart. The spread of a number is its standard deviation over seeds, that is over trainings.
The standard error of a difference is over test items: bits of one item under two models, the mean over seeds first. Of
recordings, which have different lengths, a difference is all bits over all samples.

Shapes: S seeds, N items.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from twostage.metrics.flac import Flac
from twostage.metrics.statistics import mean_and_error
from twostage.storage.atomic import write_atomic
from twostage.training.record import UNDERTRAINED_DECREASE

from ..evaluate.differences import Scored
from ..evaluate.rows import Row
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
    decoder: str | None
    alphabet: int
    beta: float | None
    samples_k: int | None
    labels: str
    """As in evaluation.json."""
    bits_per_dim: Spread | None
    distortion_bits_per_dim: Spread | None
    rate_bits_per_dim: Spread | None
    length_bits_per_dim: Spread | None
    label_bits_per_dim: Spread | None
    """These two of recordings; the parts add up to the total."""
    psnr_db: Spread | None
    psnr_of: str | None
    log_mel_l1: Spread | None
    log_mel_ratio: Spread | None
    """As in evaluation.json, of recordings."""
    difference_bits_per_dim: Spread | None
    """Bits/dim more than the reference; None for the reference itself, without one, given the label, and of another
    alphabet."""
    difference_standard_error: float | None
    """Paired, over test items; None without a difference."""
    parameters: int
    steps: float
    """Codebook, prior and decoder together, as far as the row needs them; a mean over seeds, as patience can stop them
    apart."""
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


def comparable(row: Row, reference: Row) -> bool:
    """Whether two rows, of which neither is the other, are bits of the same message: as in `paired_differences`."""
    return row.labels != "given" and row.name != reference.name and row.alphabet == reference.alphabet


def _difference(seeds: Sequence[Scored], references: Sequence[Scored] | None) -> tuple[Spread | None, float | None]:
    """Bits/dim of a row more than those of the row it is compared with, and their standard error; None without any."""
    if references is None or not comparable(seeds[0].row, references[0].row):
        return None, None
    pairs = [(own.bits_N, other.bits_N) for own, other in zip(seeds, references, strict=True)]
    delta_SN = [own - other for own, other in pairs if own is not None and other is not None]
    if not delta_SN:
        return None, None
    sizes_N = seeds[0].sizes_N
    difference = Spread.of([mean_and_error(delta_N, sizes_N)[0] for delta_N in delta_SN])
    return difference, mean_and_error(np.mean(delta_SN, axis=0), sizes_N)[1]


def compared_row(
    seeds: Sequence[Scored],
    references: Sequence[Scored] | None,
    decreases: Sequence[float | None],
    verdicts: Sequence[str] = (),
) -> ComparedRow:
    """One row out of the same row of every seed.

    Args:
        seeds: the row of each.
        references: the row of each that it is compared with; None without one.
        decreases: `validation_decrease` of every training behind these rows.
        verdicts: of the diagnoses of the model.
    """
    rows, first = [scored.row for scored in seeds], seeds[0].row
    difference, error = _difference(seeds, references)
    known = [decrease for decrease in decreases if decrease is not None]

    def spread(of: str) -> Spread | None:
        return Spread.of([getattr(row, of) for row in rows])

    return ComparedRow(
        name=first.name,
        model=first.model,
        kind=first.kind,
        bound=first.bound,
        prior=first.prior,
        decoder=first.decoder,
        alphabet=first.alphabet,
        beta=first.beta,
        samples_k=first.samples_k,
        labels=first.labels,
        bits_per_dim=spread("bits_per_dim"),
        distortion_bits_per_dim=spread("distortion_bits_per_dim"),
        rate_bits_per_dim=spread("rate_bits_per_dim"),
        length_bits_per_dim=spread("length_bits_per_dim"),
        label_bits_per_dim=spread("label_bits_per_dim"),
        psnr_db=spread("psnr_db"),
        psnr_of=first.psnr_of,
        log_mel_l1=spread("log_mel_l1"),
        log_mel_ratio=spread("log_mel_ratio"),
        difference_bits_per_dim=difference,
        difference_standard_error=error,
        parameters=first.parameters,
        steps=mean(row.steps for row in rows),
        train_seconds=mean(row.train_seconds for row in rows),
        validation_decrease=max(known) if len(known) == len(decreases) else None,
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
    """As in evaluation.json."""
    unit: str
    subject: str
    """What was measured on what, in a line."""
    likelihood: str
    alphabet: int
    seeds: tuple[int, ...]
    budget_steps: int
    """Of every model, codebook and all that follows its codes together."""
    budget_of: str
    """What these are, in words."""
    flac: Flac | None = None
    """What FLAC makes of the recordings."""
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
        over = f"seed {self.seeds[0]}" if count == 1 else f"{count} seeds from {self.seeds[0]} on"
        return f"{self.subject}; {over}, {self.budget_steps:,} steps of every model, {self.budget_of} together"

    def write(self, path: Path) -> None:
        """Write comparison.json."""
        head = {"schema_version": SCHEMA_VERSION, "published": dict(self.published)}
        rows = [{**asdict(row), "undertrained": row.undertrained} for row in self.rows]
        text = json.dumps(head | asdict(self) | {"rows": rows}, indent=2, allow_nan=False)
        write_atomic(path, text.encode() + b"\n")

    def picture(self) -> bytes | None:
        """PNG of rate against distortion; None where no row has both.

        Rows given the label, and those of other levels than the reference's, are left out. Of recordings the rate has
        their lengths and labels in it, so that the lines of equal total are those of the table.
        """
        points = [
            RatePoint(
                row.name,
                sum(part.mean for part in (rate, row.length_bits_per_dim, row.label_bits_per_dim) if part is not None),
                distortion.mean,
                rate_deviation=rate.deviation or 0.0,
                distortion_deviation=distortion.deviation or 0.0,
                beta=row.beta,
            )
            for row in self.rows
            if (rate := row.rate_bits_per_dim) is not None
            and (distortion := row.distortion_bits_per_dim) is not None
            and (row.labels != "given" and row.alphabet == self.alphabet)
        ]
        totals = {f"published {name}": total for name, total in self.published.items()}
        return rate_distortion(points, unit=self.unit, totals=totals, title=self.dataset) if points else None
