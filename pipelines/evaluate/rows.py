"""What `evaluate` found: the rows of evaluation.json and everything beside them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twostage.errors import RunError
from twostage.storage.atomic import write_atomic
from twostage.storage.regular_file import read_regular

from ..bits.round_trip import RoundTrip

SCHEMA_VERSION = 1
LARGEST_BYTES = 1 << 26
"""Of an evaluation.json; those of a dozen models take some hundred thousand."""


def read_evaluation(path: Path) -> bytes:
    """The content of an evaluation.json, of images or sound.

    Raises:
        RunError: it is missing, or no file that `evaluate` can have written.
    """
    try:
        return read_regular(path, most=LARGEST_BYTES)
    except FileNotFoundError:
        raise RunError(f"there is no {path}; run evaluate {path.parent} first") from None
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror}): remove it, and run evaluate {path.parent} again"
        ) from error


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
class Diagnosis:
    """What is right or wrong with one model, beyond its bits."""

    model: str
    verdict: str
    """In a word or two, such as `collapsed` or `overfitted`."""
    sentences: tuple[str, ...]
    """The verdict first, with its numbers."""
    numbers: dict[str, Any]
    """Behind the sentences; those of `posterior.PosteriorDiagnosis` and `code_diagnosis.PriorDiagnosis`."""


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
    coding: tuple[RoundTrip, ...] = ()
    """Codes written as bytes and read back; empty where that was not asked for."""
    diagnoses: tuple[Diagnosis, ...] = ()
    """One per model that there is something to say of; empty in files of an earlier version."""

    @property
    def has_bits(self) -> bool:
        """Whether any row has bits/dim."""
        return any(row.bits_per_dim is not None for row in self.rows)

    @property
    def has_given_labels(self) -> bool:
        """Whether any row's bits are given the label."""
        return any(row.labels == "given" and row.bits_per_dim is not None for row in self.rows)

    @property
    def has_marginalised_labels(self) -> bool:
        """Whether any row's rate is summed over the labels that its prior is told."""
        return any(row.labels == "marginalised" for row in self.rows)

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
        content = read_evaluation(path)
        try:
            data: dict[str, Any] = json.loads(content)
            version, _ = data.pop("schema_version"), data.pop("unit")
            if version != SCHEMA_VERSION or not data["rows"]:
                raise ValueError(f"schema version {version}")
            data["rows"] = tuple(Row(**row) for row in data["rows"])
            data["paired_differences"] = tuple(PairedDifference(**row) for row in data["paired_differences"])
            data["sample_scores"] = tuple(SampleScore(**score) for score in data.get("sample_scores", ()))
            data["coding"] = tuple(RoundTrip(**trip) for trip in data.get("coding", ()))
            data["diagnoses"] = tuple(
                Diagnosis(**{**found, "sentences": tuple(found["sentences"])}) for found in data.get("diagnoses", ())
            )
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path} is damaged or of another version (expected version {SCHEMA_VERSION}); run evaluate again"
            ) from error
