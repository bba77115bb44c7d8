"""What `evaluate` found, of whatever kind of data: the rows of evaluation.json and everything beside them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twostage.errors import RunError
from twostage.metrics.code_labels import CodeMeaning
from twostage.metrics.flac import Flac
from twostage.printable import counted
from twostage.storage.atomic import write_atomic

from ..bits.round_trip import RoundTrip
from .evaluation_file import read_evaluation

R = TypeVar("R")
SCHEMA_VERSION = 1
SECOND_DECODERS = {"wavenet": "WaveNet decoder", "picture": "picture decoder"}
"""What names of rows call a decoder that follows the codes of a finished codebook."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of scoring one model; the fields are the row keys of evaluation.json, and what is absent is None.

    Bits are bits/dim: of images a sub-pixel, of recordings a sample is a dimension.
    """

    model: str
    kind: str
    codebook_update: str | None = None
    bound: str | None = None
    prior: str | None = None
    decoder: str | None = None
    """`convolutional`, that of stage one; of recordings also `wavenet`, of images `picture`, which has no bits."""
    likelihood: str
    alphabet: int
    beta: float | None = None
    samples_k: int | None = None
    labels: str
    """Who pays for labels: `none` (not used), `marginalised`, `paid`, or `given`: nobody, the label being known."""
    bits_per_dim: float | None = None
    """None where the model has no bits: trained on squared error, which is no mass function over levels."""
    standard_error: float | None = None
    """Of the mean over items; None for a single item, or without bits."""
    distortion_bits_per_dim: float | None = None
    rate_bits_per_dim: float | None = None
    """Of codes or latents; None for iwae, which does not split."""
    length_bits_per_dim: float | None = None
    """Number of codes of a recording, and of samples within the last one."""
    label_bits_per_dim: float | None = None
    """Of the label and the speaker of a recording, where they are paid."""
    swapped_distortion_bits_per_dim: float | None = None
    """Distortion with the codes of another item: near the row's distortion, the decoder ignores its codes. None of a
    single item."""
    bits_per_code: float | None = None
    """Rate over codes, without lengths."""
    code_bits_per_second: float | None = None
    """Rate, lengths and labels per second of sound."""
    psnr_db: float | None = None
    """None where every pixel is exact, and of sound, whose phase no decoder can know."""
    psnr_of: str | None = None
    """`mean` of p(x|z), or `sample` where the decoder is autoregressive; what is measured below, too."""
    ssim: float | None = None
    """Mean structural similarity of images; None where scikit-image is missing or they are smaller than its window."""
    explained_share: float | None = None
    """Of the variance of the images' pixels: 0 is as far from them as their mean. None of sampled reconstructions."""
    sharpness: float | None = None
    """Energy of the gradients of reconstructions, over that of the originals."""
    colour_error: float | None = None
    """Mean distance (CIE76) of pixels in CIELAB; None of images that are not RGB, as for the next two."""
    colourfulness: float | None = None
    """Mean chroma of reconstructions, over that of the originals."""
    colour_spread: float | None = None
    """Deviation of their colours from the mean one, over that of the originals: a tint of all is no spread."""
    grid_db: float | None = None
    """Power of reconstructions at the harmonics of the code grid, over what is expected; 0 is no grid."""
    log_mel_l1: float | None = None
    """Mean over recordings of the distance of a reconstruction's log-mel spectrogram, in nats of power."""
    log_mel_ratio: float | None = None
    """That distance over the one of another recording; None where there is no other one, or all are the same."""
    log_mel_items: int | None = None
    """Recordings that it is the mean of."""
    nearest_items: tuple[int, ...] = ()
    """Items of the split, by number, whose reconstructions have the smallest error, the smallest first."""
    farthest_items: tuple[int, ...] = ()
    """The same of the largest."""
    codebook_perplexity: float | None = None
    codebook_used: int | None = None
    codebook_size: int | None = None
    """Codes that could be used, all codebooks together: G * K, of a hierarchy in each of its levels."""
    parameters: int
    steps: int
    """Optimiser steps of everything that the row needs: codebook, prior and decoder together."""
    train_seconds: float
    search_items: int | None = None
    """Number of items of a row about code search, spread over the split; None for rows on all items."""
    searched: bool = False
    """Whether the codes were searched for fewer bits; a partner row keeps the encoder's codes on the same items."""
    stage1_sha256: str
    """Digest of the weights that were scored."""
    prior_sha256: str | None = None
    """The same of the prior; None without a learned prior."""
    decoder_sha256: str | None = None
    """The same of a decoder that follows the codes."""
    rate_given: str | None = None
    """What the prior of recordings is conditioned on, and the rate is given: `label`, `speaker`, `label and speaker` or
    `nothing`. Its own bits are paid under `label_bits_per_dim`."""
    distortion_given: str | None = None
    """The same of their decoder beside codes or latents; paid as well, but for a label that is `given`."""

    @property
    def name(self) -> str:
        """Short name, unique within a run."""
        parts = [self.model if self.codebook_update is None else f"{self.model} ({self.codebook_update})"]
        if self.decoder in SECOND_DECODERS:
            parts.append(SECOND_DECODERS[self.decoder])
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
    """Mean over dimensions of bits(other) - bits(reference); positive means that the reference is shorter."""

    reference: str
    other: str
    bits_per_dim: float
    standard_error: float | None


@dataclass(frozen=True)
class SampleScore:
    """How good the samples of one model are, by a network trained on the run's own data.

    Distances are Fréchet distances in the features of that network to the items of the split.
    """

    model: str
    samples: int
    frechet_distance: float | None
    """Of the model's own distribution, nothing sharpened. None of one that cannot sample: an autoencoder, or codes
    without a prior."""
    reference_distance: float
    """The same distance of as many training items: what real items reach."""
    label_agreement: float | None
    """Share of class-conditional samples that the classifier reads as their label; None where there was no label."""
    classifier_accuracy: float
    """Share of the split's items that it reads as their label: the ceiling for the agreement. Of data without labels
    the share of ways in which they may be turned that it tells."""
    reconstructions: int = 0
    """Items of the split, spread over it, whose reconstructions are scored."""
    reconstruction_distance: float | None = None
    """Fréchet distance of these to the same items, of which exact ones have 0."""
    features: str = "labels"
    """What the network has learned to tell: `labels`, or `turns` of data without any."""
    chosen: str | None = None
    """How the model is best sampled, in words, as chosen on validation items; None where that is as it is."""
    chosen_distance: float | None = None
    """Fréchet distance of as many samples that are drawn so."""
    chosen_agreement: float | None = None
    """Their `label_agreement`."""


@dataclass(frozen=True)
class Diagnosis:
    """What is right or wrong with one model, beyond its bits."""

    model: str
    verdict: str
    """In a word or two, such as `collapsed` or `overfitted`."""
    sentences: tuple[str, ...]
    """The verdict first, with its numbers."""
    numbers: dict[str, Any]
    """Behind the sentences; those of `latent_diagnosis.PosteriorDiagnosis` and `code_diagnosis.PriorDiagnosis`."""
    faults: tuple[str, ...] = ()
    """What is wrong with reconstructions, such as `blurred`; each has a sentence."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything `evaluate` found."""

    recipe: str
    dataset: str
    split: str
    items: int
    dims: int
    """Sub-pixels of an image; samples of all recordings."""
    unit: str
    """`bits/dim` of images, `bits/sample` of recordings."""
    seed: int
    """Of the latents that the VAE's bounds drew, of sampled pixels and of scored samples."""
    rows: tuple[Row, ...]
    paired_differences: tuple[PairedDifference, ...]
    sample_scores: tuple[SampleScore, ...] = ()
    """Empty where sample quality was not asked for."""
    item: str = "image"
    """What one of the items is called."""
    coding: tuple[RoundTrip, ...] = ()
    """Codes written as bytes and read back; empty where that was not asked for."""
    diagnoses: tuple[Diagnosis, ...] = ()
    """One per model that there is something to say of."""
    sample_rate_hz: int | None = None
    """Of recordings."""
    log_mel: str | None = None
    """Settings of the log-mel spectrograms of recordings."""
    wrong_log_mel_l1: float | None = None
    """Mean log-mel distance of another recording of the split; None of a single recording."""
    flac: Flac | None = None
    """What FLAC makes of the recordings."""
    meanings: dict[str, CodeMeaning] = field(default_factory=dict)
    """Per discrete model of recordings, what its codes say of label and speaker; empty without them."""

    @property
    def has_bits(self) -> bool:
        """Whether any row has bits."""
        return any(row.bits_per_dim is not None for row in self.rows)

    @property
    def has_given_labels(self) -> bool:
        """Whether any row's bits are given the label."""
        return any(row.labels == "given" and row.bits_per_dim is not None for row in self.rows)

    @property
    def has_marginalised_labels(self) -> bool:
        """Whether any row's rate is summed over the labels that its prior is conditioned on."""
        return any(row.labels == "marginalised" for row in self.rows)

    @property
    def has_picture_decoder(self) -> bool:
        """Whether any row is of a decoder without bits beside one with them."""
        return any(row.decoder == "picture" for row in self.rows)

    @property
    def has_sampled_psnr(self) -> bool:
        """Whether a PSNR of the table is marked as one of sampled images."""
        return any(row.psnr_of == "sample" and row.psnr_db is not None for row in self.rows)

    @property
    def called(self) -> str:
        """What the items are called."""
        return f"{self.item}s"

    @property
    def title(self) -> str:
        """What was measured on what, in one line."""
        if self.sample_rate_hz is not None:
            return (
                f"{self.dataset}, {self.split} set: {counted(self.items, 'recordings')}, {self.dims:,} samples, "
                f"{self.dims / self.sample_rate_hz:,.1f} s at {self.sample_rate_hz} Hz, {self.unit}"
            )
        first = self.rows[0]
        how = f"{first.likelihood} likelihood, {self.unit}"
        if not self.has_bits:
            how = "trained on squared error" if first.likelihood == "mse" else "autoencoders alone"
            how += f": no {self.unit}"
        size = f"{counted(self.items, 'items')} x {self.dims} dims, {first.alphabet} levels"
        return f"{self.dataset}, {self.split} set: {size}, {how}"

    @property
    def samples_title(self) -> str:
        """What the scores of the samples are, in one line."""
        first = self.sample_scores[0]
        network = {
            "labels": f"a classifier trained on {self.dataset} (accuracy {first.classifier_accuracy:.1%})",
            "turns": f"a network trained to tell how {self.dataset} were turned or mirrored ({self.dataset} have no "
            f"labels; {first.classifier_accuracy:.1%} right)",
        }
        return f"Samples: Fréchet distance in the features of {network[first.features]}, to the {self.split} set"

    def write(self, path: Path) -> None:
        """Write evaluation.json."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        write_atomic(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """The evaluation written at `path`.

        Raises:
            RunError: it is missing, damaged or of another version.
        """
        content = read_evaluation(path)
        try:
            data: dict[str, Any] = json.loads(content)
            version = data.pop("schema_version")
            if version != SCHEMA_VERSION or not isinstance(data["unit"], str) or not data["rows"]:
                raise ValueError(f"schema version {version}")
            data["rows"] = tuple(_read(Row, row) for row in data["rows"])
            data["paired_differences"] = tuple(PairedDifference(**row) for row in data["paired_differences"])
            data["sample_scores"] = tuple(SampleScore(**score) for score in data["sample_scores"])
            data["coding"] = tuple(RoundTrip(**trip) for trip in data["coding"])
            data["diagnoses"] = tuple(_read(Diagnosis, found) for found in data["diagnoses"])
            data["flac"] = None if data["flac"] is None else Flac(**data["flac"])
            data["meanings"] = {name: CodeMeaning.from_json(meaning) for name, meaning in data["meanings"].items()}
            return cls(**data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(
                f"{path} is damaged or of another version (expected version {SCHEMA_VERSION}); run evaluate again"
            ) from error


def _read(kind: type[R], fields: dict[str, Any]) -> R:
    """A frozen record as JSON has it: lists are tuples."""
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
