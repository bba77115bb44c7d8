"""The numbers of evaluation.json as table cells and lines, for terminal and report."""

import textwrap

from rich.table import Table

from ..bits.round_trip import round_trip_line
from ..media.console import Output
from .rows import Evaluation
from .sizes import COST, ONE_TRAINING, size_remark

SAMPLED_PSNR = "* of sampled reconstructions; the others are of the mean of p(x|z), which is closer by itself"


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A cell: the number, or a dash for none."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"


MARGINALISED = (
    "labels marginalised: the prior is told a label, but no bits are given one: p(z) is summed over the labels"
)
GIVEN_LABEL = "given label: bits of an image whose label is known, not to be compared with the totals"


def score_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the bits/dim of every row; columns that no row needs are left out.

    A total given the label stands in a column of its own, `given label`.
    """
    rows, given = evaluation.rows, evaluation.has_given_labels
    items = [evaluation.items if row.search_items is None else row.search_items for row in rows]
    columns = {"model, prior or bound": [row.name for row in rows]}
    if len(set(items)) > 1:
        columns["items"] = [f"{count:,}" for count in items]
    columns["total"] = ["-" if row.labels == "given" else number(row.bits_per_dim, 4) for row in rows]
    if given:
        columns["given label"] = [number(row.bits_per_dim if row.labels == "given" else None, 4) for row in rows]
    columns |= {
        "± s.e.": [number(row.standard_error, 4) for row in rows],
        "distortion": [number(row.distortion_bits_per_dim, 4) for row in rows],
        "rate": [number(row.rate_bits_per_dim, 4) for row in rows],
        "PSNR dB": [
            number(row.psnr_db, 2) + ("*" if row.psnr_of == "sample" and row.psnr_db is not None else "")
            for row in rows
        ],
        "labels": [row.labels for row in rows],
    }
    return list(columns), [list(cells) for cells in zip(*columns.values(), strict=True)]


def sample_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the samples' scores."""
    headings = [
        "model",
        "samples",
        f"{evaluation.split} images",
        "Fréchet distance",
        "training images",
        "read as their label",
    ]
    cells = [
        [
            score.model,
            f"{score.samples:,}",
            f"{evaluation.items:,}",
            number(score.frechet_distance, 3),
            number(score.reference_distance, 3),
            "-" if score.label_agreement is None else f"{score.label_agreement:.1%}",
        ]
        for score in evaluation.sample_scores
    ]
    return headings, cells


def bias_line(evaluation: Evaluation) -> str:
    """Why a Fréchet distance of few samples is too high, and what to read it beside."""
    samples = sorted({score.samples for score in evaluation.sample_scores})
    counts = " or ".join(f"{count:,}" for count in samples)
    return (
        f"of finite sets this distance is biased upwards, the more the fewer they are: here {counts} samples and "
        f"{evaluation.items:,} {evaluation.split} images; 'training images' is the distance of as many training images "
        f"to the same {evaluation.split} images, so read one beside the other and not beside distances of other counts"
    )


def model_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what every model cost and how it uses its codebook, one line per size of model."""
    headings = ["model", "parameters", "steps", "seconds", "codes used", "perplexity", "swapped codes"]
    cells: dict[tuple[str, int], list[str]] = {}
    for row in evaluation.rows:
        if row.search_items is not None:  # the same model: its usage is that of all items, with the encoder's codes
            continue
        cells[row.model, row.parameters] = [
            row.model + (" with prior" if row.kind == "vq-vae" and row.prior == "learned" else ""),
            f"{row.parameters:,}",
            f"{row.steps:,}",
            f"{row.train_seconds:.0f}",
            "-" if row.codebook_used is None else f"{row.codebook_used}/{row.codebook_size}",
            number(row.codebook_perplexity, 1),
            number(row.swapped_distortion_bits_per_dim, 4),
        ]
    return headings, list(cells.values())


def difference_lines(evaluation: Evaluation) -> dict[str, list[str]]:
    """Name of each reference, and a line on every row that was paired with it; empty without a learned prior.

    A line names the sizes and the times of both sides where they are more than a tenth apart.
    """
    rows = {row.name: row for row in evaluation.rows}
    lines: dict[str, list[str]] = {}
    for d in evaluation.paired_differences:
        both = d.other in rows and d.reference in rows
        remark = size_remark(rows[d.other], rows[d.reference]) if both else ""
        line = f"{d.other}: {number(d.bits_per_dim, 4, '+')} ± {number(d.standard_error, 4)}"
        lines.setdefault(d.reference, []).append(line + (f" ({remark})" if remark else ""))
    return lines


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables and the paired differences, on stdout."""
    console = Output(highlight=False)
    console.print(evaluation.title, soft_wrap=True)
    print_table(*score_table(evaluation))
    if evaluation.has_given_labels:
        console.print(f"{GIVEN_LABEL}\n", soft_wrap=True)
    if evaluation.has_marginalised_labels:
        _print_wrapped(console, f"{MARGINALISED}\n")
    if evaluation.has_sampled_psnr:
        console.print(f"{SAMPLED_PSNR}\n", soft_wrap=True)
    print_table(*model_table(evaluation))
    _print_wrapped(console, f"{COST}\n")
    differences = difference_lines(evaluation)
    for reference, lines in differences.items():
        console.print(f"bits/dim more than {reference}, ± paired s.e.:")
        for line in lines:
            _print_wrapped(console, line, indent="  ")
    if differences:
        _print_wrapped(console, f"{ONE_TRAINING}\n")
    if evaluation.coding:
        console.print("codes as bytes, labels as said:", soft_wrap=True)
        console.print("\n".join(f"  {round_trip_line(trip)}" for trip in evaluation.coding), soft_wrap=True)
    if evaluation.diagnoses:
        console.print("diagnosis:")
        for found in evaluation.diagnoses:
            _print_wrapped(console, f"{found.model}: {' '.join(found.sentences)}", indent="  ")
    if evaluation.sample_scores:
        console.print()
        console.print(evaluation.samples_title, soft_wrap=True)
        print_table(*sample_table(evaluation))
        _print_wrapped(console, bias_line(evaluation))


def _print_wrapped(console: Output, text: str, *, indent: str = "") -> None:
    """Prose as wide as the terminal, further lines indented; a line break at the end of the text stays."""
    further = f"{indent}  " if indent else ""
    wrapped = textwrap.fill(text, console.width, initial_indent=indent, subsequent_indent=further)
    console.print(wrapped + ("\n" if text.endswith("\n") else ""), soft_wrap=True)


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    """A table on stdout, as wide as it needs to be."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    # Printed at its natural width, far below this one: a terminal too narrow wraps lines, but no number is ever cut.
    console = Output(highlight=False, width=1000, soft_wrap=True)
    console.print(table)
    console.print()
