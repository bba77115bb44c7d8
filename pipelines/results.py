"""What `evaluate` found: the rows of evaluation.json, and the same numbers as table cells for terminal and report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from twostage.atomic import write_atomic
from twostage.errors import RunError

from .coding_proof import CodingProof, proof_line

SCHEMA_VERSION = 1
SAMPLED_PSNR = "* of sampled reconstructions; the others are of the mean of p(x|z), which is closer by itself"


@dataclass(frozen=True)
class Row:
    """One way of scoring one model; the fields are the row keys of evaluation.json."""

    model: str
    kind: str
    codebook_update: str | None
    bound: str | None
    prior: str | None
    likelihood: str
    alphabet: int
    beta: float | None
    samples_k: int | None
    labels: str
    """Who pays for labels: `none` (not used), `marginalised`, `paid`, or `given`: nobody, the label being known."""
    bits_per_dim: float | None
    """None where the model has no bits: trained on squared error, which is no mass function over levels."""
    standard_error: float | None
    """Of the mean over items; None for a single item, or without bits."""
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
    psnr_of: str | None = None
    """`mean` of p(x|z), or `sample` where the decoder is autoregressive."""
    search_items: int | None = None
    """Number of items of a row about code search, spread over the split; None for rows on all items."""
    searched: bool = False
    """Whether the codes were searched for fewer bits; a partner row keeps the encoder's codes on the same items."""
    swapped_distortion_bits_per_dim: float | None = None
    """Distortion with the codes of another image: near the row's distortion, the decoder ignores its codes."""
    stage1_sha256: str | None = None
    """Digest of the weights that were scored; None in files of an earlier version."""
    prior_sha256: str | None = None
    """The same of the prior; None without a learned prior."""

    @property
    def name(self) -> str:
        """Short name, unique within a run."""
        parts = [self.model if self.codebook_update is None else f"{self.model} ({self.codebook_update})"]
        if self.kind == "vq-vae" and self.prior is not None:
            parts.append(f"{self.prior} prior")
        bounds = {"elbo": "ELBO", "iwae": f"IWAE-{self.samples_k}", "multi-sample": f"{self.samples_k} samples"}
        if self.bound in bounds:
            parts.append(bounds[self.bound])
        if self.search_items is not None:
            parts.append(f"{self.search_items} items" + (", searched" if self.searched else ""))
        return ", ".join(parts)


@dataclass(frozen=True)
class PairedDifference:
    """Mean over items of bits(other) - bits(reference); positive means that the reference is shorter."""

    reference: str
    other: str
    bits_per_dim: float
    standard_error: float | None


@dataclass(frozen=True)
class SampleScore:
    """How good the samples of one model are, by a classifier trained on the run's own data.

    Distances are Fréchet distances in the features of that classifier to the images of the split.
    """

    model: str
    samples: int
    frechet_distance: float
    reference_distance: float
    """The same distance of as many training images: what real images reach."""
    label_agreement: float | None
    """Share of class-conditional samples that the classifier reads as their label; None where there was no label."""
    classifier_accuracy: float
    """Share of the split's images that it reads as their label: the ceiling for the agreement."""


@dataclass(frozen=True)
class Evaluation:
    """Everything `evaluate` found."""

    recipe: str
    dataset: str
    split: str
    items: int
    dims: int
    seed: int
    """Of the latents that the VAE's bounds drew, of sampled pixels and of scored samples."""
    rows: tuple[Row, ...]
    paired_differences: tuple[PairedDifference, ...]
    sample_scores: tuple[SampleScore, ...] = ()
    """Empty where sample quality was not asked for."""
    coding: tuple[CodingProof, ...] = ()
    """Codes written as bytes and read back; empty where that was not asked for."""

    @property
    def has_bits(self) -> bool:
        """Whether any row has bits/dim."""
        return any(row.bits_per_dim is not None for row in self.rows)

    @property
    def has_given_labels(self) -> bool:
        """Whether any row's bits are given the label."""
        return any(row.labels == "given" for row in self.rows)

    @property
    def has_sampled_psnr(self) -> bool:
        """Whether a PSNR of the table is marked as one of sampled images."""
        return any(row.psnr_of == "sample" and row.psnr_db is not None for row in self.rows)

    @property
    def title(self) -> str:
        """What was measured on what, in one line."""
        first = self.rows[0]
        how = f"{first.likelihood} likelihood, bits/dim"
        if not self.has_bits:
            how = "trained on squared error" if first.likelihood == "mse" else "autoencoders alone"
            how += ": no bits/dim"
        return (
            f"{self.dataset}, {self.split} set: {self.items} items x {self.dims} dims, {first.alphabet} levels, {how}"
        )

    @property
    def samples_title(self) -> str:
        """What the scores of the samples are, in one line."""
        accuracy = self.sample_scores[0].classifier_accuracy
        return (
            f"Samples: Fréchet distance in the features of a classifier trained on {self.dataset} "
            f"(accuracy {accuracy:.1%}), to the {self.split} set"
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
            data["sample_scores"] = tuple(SampleScore(**score) for score in data.get("sample_scores", ()))
            data["coding"] = tuple(CodingProof(**proof) for proof in data.get("coding", ()))
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged or of another version (expected version {SCHEMA_VERSION}); run evaluate again"
            ) from error


def number(value: float | None, digits: int, sign: str = "") -> str:
    """A cell: the number, or a dash for none."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"


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
    headings = ["model", "samples", "Fréchet distance", "training images", "read as their label"]
    cells = [
        [
            score.model,
            f"{score.samples:,}",
            number(score.frechet_distance, 3),
            number(score.reference_distance, 3),
            "-" if score.label_agreement is None else f"{score.label_agreement:.1%}",
        ]
        for score in evaluation.sample_scores
    ]
    return headings, cells


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
    """Name of each reference, and a line on every row that was paired with it; empty without a learned prior."""
    lines: dict[str, list[str]] = {}
    for d in evaluation.paired_differences:
        line = f"{d.other}: {number(d.bits_per_dim, 4, '+')} ± {number(d.standard_error, 4)}"
        lines.setdefault(d.reference, []).append(line)
    return lines


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables and the paired differences, on stdout."""
    console = Console(highlight=False)
    console.print(evaluation.title, soft_wrap=True)
    print_table(*score_table(evaluation))
    if evaluation.has_given_labels:
        console.print(f"{GIVEN_LABEL}\n", soft_wrap=True)
    if evaluation.has_sampled_psnr:
        console.print(f"{SAMPLED_PSNR}\n", soft_wrap=True)
    print_table(*model_table(evaluation))
    for reference, lines in difference_lines(evaluation).items():
        console.print(f"bits/dim more than {reference}, ± paired s.e.:")
        console.print("\n".join(f"  {line}" for line in lines))
    if evaluation.coding:
        console.print("codes as bytes, labels as said:", soft_wrap=True)
        console.print("\n".join(f"  {proof_line(proof)}" for proof in evaluation.coding), soft_wrap=True)
    if evaluation.sample_scores:
        console.print()
        console.print(evaluation.samples_title, soft_wrap=True)
        print_table(*sample_table(evaluation))


def print_table(headings: list[str], rows: list[list[str]]) -> None:
    """A table on stdout, as wide as it needs to be."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*cells)
    # Printed at its natural width, far below this one: a terminal too narrow wraps lines, but no number is ever cut.
    console = Console(highlight=False, width=1000, soft_wrap=True)
    console.print(table)
    console.print()
