"""What an evaluation of recordings consists of: rows in bits/sample, FLAC beside them, and the JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twostage.errors import RunError
from twostage.metrics.code_labels import CodeMeaning
from twostage.storage.atomic import write_atomic

from .rows import PairedDifference, read_evaluation

SCHEMA_VERSION = 1


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
            f"{self.dims / self.sample_rate_hz:,.1f} s at {self.sample_rate_hz} Hz, bits/sample"
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
