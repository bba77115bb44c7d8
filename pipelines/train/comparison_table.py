"""The table of `compare` and what its columns mean, on stdout."""

from twostage.likelihoods.audio import SAMPLE_LEVELS
from twostage.training.record import UNDERTRAINED_DECREASE

from ..evaluate.columns import Column, by_alphabet, cells_of, figure, number, print_table, print_wrapped
from ..evaluate.sizes import COST, size_remark
from ..evaluate.tables import (
    FLAC_KINDS,
    GIVEN_LABEL,
    MARGINALISED,
    NAME,
    PARTS,
    SAMPLED_PSNR,
    TOTAL,
    flac_lines,
)
from ..media.console import Output
from .comparison import NOT_IN_USE, ComparedRow, Comparison, Spread

_REMARKS = {True: "undertrained", False: "", None: "?"}


def _mean(heading: str, of: str, digits: int = 4, *, sign: str = "", always: bool = False) -> Column[ComparedRow]:
    """Means over seeds of a number."""
    return figure(heading, lambda row: _part(row, of, "mean"), digits, sign=sign, always=always)


def _part(row: ComparedRow, of: str, part: str) -> float | None:
    spread: Spread | None = getattr(row, of)
    value: float | None = None if spread is None else getattr(spread, part)
    return value


def _psnr(row: ComparedRow) -> str:
    return number(_part(row, "psnr_db", "mean"), 2) + ("*" if row.psnr_of == "sample" and row.psnr_db else "")


def _total(row: ComparedRow, *, given: bool) -> float | None:
    return _part(row, "bits_per_dim", "mean") if (row.labels == "given") == given else None


def comparison_table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of every row."""
    rows, flac = comparison.rows, None if comparison.flac is None else SAMPLE_LEVELS
    columns: list[Column[ComparedRow]] = [
        Column(NAME, lambda row: row.name),
        *by_alphabet(rows, TOTAL, lambda row: _total(row, given=False), beside=flac),
        figure("given label", lambda row: _total(row, given=True)),
        figure("± seeds", lambda row: _part(row, "bits_per_dim", "deviation"), always=True),
        *by_alphabet(rows, "distortion", lambda row: _part(row, "distortion_bits_per_dim", "mean")),
        _mean("rate", "rate_bits_per_dim", always=True),
        _mean("length", "length_bits_per_dim"),
        _mean("labels", "label_bits_per_dim"),
        _mean("more", "difference_bits_per_dim", sign="+", always=True),
        figure("± s.e.", lambda row: row.difference_standard_error, always=True),
        Column("PSNR dB", _psnr),
        figure("± dB", lambda row: _part(row, "psnr_db", "deviation"), 2),
        _mean("log-mel", "log_mel_l1", 3),
        _mean("of wrong", "log_mel_ratio", 2),
        Column("parameters", lambda row: f"{row.parameters:,}"),
        Column("steps", lambda row: f"{row.steps:,.0f}"),
        Column("seconds", lambda row: f"{row.train_seconds:,.0f}"),
        Column("", lambda row: ", ".join(filter(None, (_REMARKS[row.undertrained], row.verdict)))),
    ]
    headings, cells = cells_of(columns, rows)
    return headings, cells + flac_lines(comparison.flac, headings)


def legend_lines(comparison: Comparison) -> list[str]:
    """What the columns of the table mean, as far as they are there."""
    return [*_seed_lines(comparison), *_column_lines(comparison), *_remark_lines(comparison)]


def _seed_lines(comparison: Comparison) -> list[str]:
    """On numbers over seeds, and on the reference."""
    lines = []
    if len(comparison.seeds) > 1:
        which = "± seeds, ± dB: standard deviations over seeds of total and PSNR"
        if all(row.psnr_db is None for row in comparison.rows):
            which = "± seeds: standard deviation over seeds of the total"
        lines.append(f"{which}; the other numbers are means over seeds")
    if len(comparison.seeds) == 1:
        lines.append(
            "one seed, so one training of each model: how far another would move a number is not known; --seeds 3 tells"
        )
    if comparison.reference is not None:
        lines.append(
            f"more: {comparison.unit} more than {comparison.reference}, mean over seeds, ± its paired standard error "
            "over test items"
        )
        lines += _size_lines(comparison)
    return lines


def _column_lines(comparison: Comparison) -> list[str]:
    """On the columns of numbers."""
    rows, lines = comparison.rows, [COST]
    if any(row.decoder == "wavenet" for row in rows):
        lines.append(
            f"a baseline takes as many steps as {comparison.budget_of} together: more than a row without the WaveNet "
            "decoder"
        )
    if any(row.length_bits_per_dim is not None for row in rows):
        lines.append(PARTS)
    if comparison.flac is not None:
        lines.append(FLAC_KINDS)
    if any(row.log_mel_l1 is not None for row in rows):
        lines.append(
            "log-mel: mean absolute difference of reconstructions; of wrong: over that of another recording; the "
            "settings are in the evaluation.json of every seed"
        )
    if any(row.labels == "marginalised" for row in rows):
        lines.append(MARGINALISED)
    if any(row.labels == "given" for row in rows):
        lines.append(GIVEN_LABEL)
    if any(row.psnr_of == "sample" for row in rows):
        lines.append(SAMPLED_PSNR)
    return lines


def _remark_lines(comparison: Comparison) -> list[str]:
    """On the last column, and on what was published."""
    rows, lines = comparison.rows, list[str]()
    if any(row.undertrained for row in rows):
        lines.append(
            f"undertrained: the best validation number of a training still decreased by more than "
            f"{UNDERTRAINED_DECREASE:.0%} over the last quarter of its steps"
        )
    if any(row.verdict for row in rows):
        lines.append(f"{', '.join(NOT_IN_USE)}: see the diagnosis in the evaluation.json of every seed")
    if any(row.undertrained is None for row in rows):
        lines.append(
            "?: nothing was validated before the last quarter of the steps, or nothing was left to decrease; validate "
            "more often"
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
    print_wrapped(console, comparison.title)
    print_table(*comparison_table(comparison))
    for line in legend_lines(comparison):
        print_wrapped(console, line, indent="  ")
