"""What `evaluate` found of a run on recordings: evaluation.json, and the same numbers as table cells.

Recordings have different lengths, so bits/sample is all bits over all samples, as for any file format, and its standard
error is that of a ratio of sums over recordings. Bits of 256 mu-law levels and of 65536 levels of 16 bits are lengths
of different messages: they stand in columns of their own.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twostage.atomic import write_atomic
from twostage.errors import RunError

from ..console import Output
from ..result_tables import number, print_table
from ..results import PairedDifference, read_evaluation
from ..sizes import COST, ONE_TRAINING, size_remark
from .code_meaning import CodeMeaning, meaning_table

SCHEMA_VERSION = 1
FLAC_FRAMES = "FLAC, frames of a file each"
"""The row of the table that models are compared with."""
FLAC_FILES = "FLAC, a file each"


@dataclass(frozen=True)
class SoundRow:
    """One way of scoring one model; the fields are the row keys of evaluation.json, bits are bits/sample."""

    model: str
    kind: str
    codebook_update: str | None
    bound: str
    prior: str
    decoder: str
    """`convolutional` or `wavenet`."""
    likelihood: str
    alphabet: int
    beta: float | None
    samples_k: int | None
    labels: str
    """`paid`: label and speaker of every recording are part of its bits; `none`: nothing is told."""
    bits_per_dim: float
    standard_error: float | None
    distortion_bits_per_dim: float | None
    rate_bits_per_dim: float | None
    """Of the codes; None for iwae."""
    length_bits_per_dim: float
    """Number of codes, and of samples within the last one."""
    label_bits_per_dim: float
    shuffled_distortion_bits_per_dim: float | None
    """Distortion with the codes of another recording: near the row's distortion, the decoder ignores its codes. None of
    a single recording."""
    bits_per_code: float | None
    """Rate over codes, without lengths."""
    code_bits_per_second: float | None
    """Rate, lengths and labels per second of sound."""
    log_mel_l1: float | None
    """Mean over recordings of the distance of a reconstruction's log-mel spectrogram, in nats of power."""
    log_mel_ratio: float | None
    """That distance over the one of another recording; None where there is no other one, or all are the same."""
    log_mel_items: int
    codebook_perplexity: float | None
    codebook_used: int | None
    codebook_size: int | None
    parameters: int
    steps: int
    """Optimiser steps of everything that the row needs."""
    train_seconds: float
    stage1_sha256: str
    prior_sha256: str | None
    decoder_sha256: str | None
    rate_given: str | None = None
    """What the prior is told, and the rate is given: `label`, `speaker`, `label and speaker` or `nothing`. Its own bits
    are paid under `label_bits_per_dim`. None in files of an earlier version."""
    distortion_given: str | None = None
    """What the decoder is told beside codes or latents: `speaker` or `nothing`; paid as well."""
    psnr_db: None = None
    """There is none of sound, whose phase no decoder can know; the key is that of every evaluation.json."""

    @property
    def name(self) -> str:
        """Short name, unique within a run."""
        parts = [self.model if self.codebook_update is None else f"{self.model} ({self.codebook_update})"]
        if self.kind == "vq-vae":
            parts += ["WaveNet decoder"] if self.decoder == "wavenet" else []
            parts.append(f"{self.prior} prior")
        if self.bound in ("elbo", "iwae"):
            parts.append("ELBO" if self.bound == "elbo" else f"IWAE-{self.samples_k}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Flac:
    """The same files as FLAC, 16 bits."""

    bits_per_sample: float
    """A file per recording, metadata included, as they are."""
    joined_bits_per_sample: float
    """All recordings in one stream, which has the metadata once."""
    frames_bits_per_sample: float | None = None
    """A file per recording, frames alone: what models are compared with. None in files of an earlier version."""


@dataclass(frozen=True)
class SoundEvaluation:
    """Everything `evaluate` found."""

    recipe: str
    dataset: str
    split: str
    items: int
    dims: int
    """Samples of all recordings."""
    sample_rate_hz: int
    seed: int
    log_mel: str
    """Settings of the log-mel spectrograms."""
    wrong_log_mel_l1: float | None
    """Mean log-mel distance of another recording of the split; None of a single recording."""
    flac: Flac
    rows: tuple[SoundRow, ...]
    paired_differences: tuple[PairedDifference, ...]
    meanings: dict[str, CodeMeaning]
    """Per discrete model, what its codes say of label and speaker; empty without labels and speakers."""

    @property
    def title(self) -> str:
        """What was measured on what, in one line."""
        return (
            f"{self.dataset}, {self.split} set: {self.items} recordings, {self.dims:,} samples, "
            f"{self.dims / self.sample_rate_hz:.0f} s at {self.sample_rate_hz} Hz, bits/sample"
        )

    def write(self, path: Path) -> None:
        """Write evaluation.json."""
        head = {"schema_version": SCHEMA_VERSION, "unit": "bits/sample"}
        write_atomic(path, json.dumps(head | asdict(self), indent=2, allow_nan=False).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> "SoundEvaluation":
        """The evaluation written at `path`.

        Raises:
            RunError: it is missing, damaged or of another version.
        """
        content = read_evaluation(path)
        try:
            data: dict[str, Any] = json.loads(content)
            version, unit = data.pop("schema_version"), data.pop("unit")
            if (version, unit) != (SCHEMA_VERSION, "bits/sample") or not data["rows"]:
                raise ValueError(f"schema version {version}")
            data["rows"] = tuple(SoundRow(**row) for row in data["rows"])
            data["paired_differences"] = tuple(PairedDifference(**row) for row in data["paired_differences"])
            data["flac"] = Flac(**data["flac"])
            data["meanings"] = {name: CodeMeaning.from_json(meaning) for name, meaning in data["meanings"].items()}
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path} is damaged or of another version (expected version {SCHEMA_VERSION}); run evaluate again"
            ) from error


_ALPHABETS = {65536: "16 bit", 256: "mu-law"}


def _by_alphabet(evaluation: SoundEvaluation, heading: str) -> dict[str, int]:
    """Headings of a column of bits for every alphabet that the rows have, and the alphabets."""
    found = [alphabet for alphabet in _ALPHABETS if any(row.alphabet == alphabet for row in evaluation.rows)]
    return {f"{heading}, {_ALPHABETS[each]}" if len(found) > 1 else heading: each for each in found}


def sound_score_table(evaluation: SoundEvaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the bits of every row, and of FLAC."""
    distortion = _by_alphabet(evaluation, "distortion")
    headings = [
        "model, decoder, prior or bound", "total, 16 bit", "total, mu-law", "± s.e.", *distortion, "decoder told",
        "codes", "prior told", "length", "labels", "log-mel", "of wrong",
    ]  # fmt: skip
    cells = [
        [
            row.name,
            number(row.bits_per_dim if row.alphabet == 65536 else None, 4),
            number(row.bits_per_dim if row.alphabet == 256 else None, 4),
            number(row.standard_error, 4),
            *(number(row.distortion_bits_per_dim if row.alphabet == each else None, 4) for each in distortion.values()),
            row.distortion_given or "-",
            number(row.rate_bits_per_dim, 4),
            row.rate_given or "-",
            number(row.length_bits_per_dim, 4),
            number(row.label_bits_per_dim, 4),
            number(row.log_mel_l1, 3),
            number(row.log_mel_ratio, 2),
        ]
        for row in evaluation.rows
    ]
    nothing = ["-"] * (len(headings) - 2)
    flac = evaluation.flac
    cells.append([FLAC_FRAMES, number(flac.frames_bits_per_sample, 4), *nothing])
    cells.append([FLAC_FILES, number(flac.bits_per_sample, 4), *nothing])
    cells.append(["FLAC, one stream", number(flac.joined_bits_per_sample, 4), *nothing])
    return headings, cells


def sound_model_table(evaluation: SoundEvaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what every model cost and how it uses its codes."""
    shuffled = _by_alphabet(evaluation, "shuffled codes")
    headings = [
        "model, decoder, prior or bound", "parameters", "steps", "seconds", "bits/code", "bits/s", "codes used",
        "perplexity", *shuffled,
    ]  # fmt: skip
    cells = [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.steps:,}",
            f"{row.train_seconds:.0f}",
            number(row.bits_per_code, 3),
            number(row.code_bits_per_second, 0),
            "-" if row.codebook_used is None else f"{row.codebook_used}/{row.codebook_size}",
            number(row.codebook_perplexity, 1),
            *(
                number(row.shuffled_distortion_bits_per_dim if row.alphabet == each else None, 4)
                for each in shuffled.values()
            ),
        ]
        for row in evaluation.rows
    ]
    return headings, cells


def notes(evaluation: SoundEvaluation) -> list[str]:
    """What the columns mean, a line each."""
    return [
        f"log-mel: mean absolute difference ({evaluation.log_mel}) of reconstructions; of wrong: over the "
        f"{number(evaluation.wrong_log_mel_l1, 3)} of another recording",
        "distortion: bits of the samples given the codes and what the decoder is told; codes: bits of the codes alone, "
        "given what the prior is told; labels: what is told, at its training frequencies; length: number of codes and "
        "of samples in the last one; total: all of them",
        "bits/code: codes, given what the prior is told; bits/s: codes, length and labels",
        COST,
        f"{FLAC_FRAMES}: without the metadata of the files, as models have none; {FLAC_FILES}: with it",
        "shuffled codes: distortion with the codes of another recording",
    ]


def print_sound_evaluation(evaluation: SoundEvaluation) -> None:
    """The tables and the paired differences, on stdout."""
    console = Output(highlight=False)
    console.print(evaluation.title, soft_wrap=True)
    print_table(*sound_score_table(evaluation))
    print_table(*sound_model_table(evaluation))
    console.print("\n".join(notes(evaluation)), soft_wrap=True)
    lines = difference_lines(evaluation)
    if lines:
        console.print("\n".join(lines), soft_wrap=True)
    for name, meaning in evaluation.meanings.items():
        console.print(f"\nwhat a code of {name} says, on its own:", soft_wrap=True)
        print_table(*meaning_table(meaning))


def difference_lines(evaluation: SoundEvaluation) -> list[str]:
    """A line on every row that was paired with another or with FLAC, and on what their standard errors leave out."""
    rows = {row.name: row for row in evaluation.rows}
    lines = []
    for d in evaluation.paired_differences:
        both = d.other in rows and d.reference in rows
        remark = size_remark(rows[d.other], rows[d.reference]) if both else ""
        lines.append(
            f"{d.other}: {number(d.bits_per_dim, 4, '+')} ± {number(d.standard_error, 4)} bits/sample more than "
            f"{d.reference}" + (f" ({remark})" if remark else "")
        )
    return [*lines, ONE_TRAINING] if lines else []
