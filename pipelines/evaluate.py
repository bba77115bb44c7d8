"""`twostage evaluate`: one table and one JSON file with the bits/dim of every model of a run."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from stage1_vqvae import VAE, VQVAE
from twostage.atomic import write_atomic
from twostage.codebook_usage import codebook_usage
from twostage.data import ImageDataset, load_dataset
from twostage.errors import RunError
from twostage.progress import say

from .bits import (
    ItemBits,
    codebook_distortion,
    gaussian_bits,
    learned_rate_bits,
    uniform_rate_bits,
    unigram_rate_bits,
)
from .commands import Evaluate
from .device import pick_device, use_threads
from .extract import extract_codes
from .models import LoadedStage1
from .run import Run, is_finished, training_cost

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One line of the table; the fields are the row keys of evaluation.json."""

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
    bits_per_dim: float
    standard_error: float
    distortion_bits_per_dim: float | None
    rate_bits_per_dim: float | None
    psnr_db: float | None
    codebook_perplexity: float | None
    codebook_used: int | None
    codebook_size: int | None
    parameters: int
    steps: int
    train_seconds: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean over items of bits(other) - bits(reference); positive means that the reference is shorter."""

    reference: str
    other: str
    bits_per_dim: float
    standard_error: float


@dataclass(frozen=True)
class Evaluation:
    """Everything `evaluate` found; `to_json` is evaluation.json."""

    recipe: str
    dataset: str
    split: str
    items: int
    dims: int
    rows: tuple[Row, ...]
    paired_differences: tuple[PairedDifference, ...]

    def to_json(self) -> dict[str, Any]:
        return {"schema_version": SCHEMA_VERSION, "unit": "bits/dim", **asdict(self)}


def evaluation_from_json(data: dict[str, Any]) -> Evaluation:
    """The inverse of `Evaluation.to_json`.

    Raises:
        RunError: the file is of another schema version.
    """
    if data.get("schema_version") != SCHEMA_VERSION:
        raise RunError(
            f"evaluation.json has schema version {data.get('schema_version')}, expected {SCHEMA_VERSION}; "
            "run evaluate again"
        )
    fields = {key: value for key, value in data.items() if key not in ("schema_version", "unit")}
    fields["rows"] = tuple(Row(**row) for row in data["rows"])
    fields["paired_differences"] = tuple(PairedDifference(**row) for row in data["paired_differences"])
    return Evaluation(**fields)


@dataclass(frozen=True)
class _Scored:
    row: Row
    bits: ItemBits


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters()) + _codebook_numbers(model)


def _codebook_numbers(model: torch.nn.Module) -> int:
    """An EMA codebook is a buffer, but the decoder needs its numbers as much as any parameter."""
    quantiser = getattr(model, "quantiser", None)
    if quantiser is None or isinstance(quantiser.codebook, torch.nn.Parameter):
        return 0
    return int(quantiser.codebook.numel())


def _row(bits: ItemBits, **fields: Any) -> _Scored:
    row = Row(
        bits_per_dim=bits.mean,
        standard_error=bits.standard_error,
        distortion_bits_per_dim=None if bits.distortion is None else float(bits.distortion.mean()),
        rate_bits_per_dim=None if bits.rate is None else float(bits.rate.mean()),
        **fields,
    )
    return _Scored(row=row, bits=bits)


def _score_codebook(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, split: str, device: torch.device
) -> Iterable[_Scored]:
    """Rows of one VQ-VAE: uniform, unigram and, where it is trained, learned prior."""
    model, batch_size = stage1.model, run.recipe.evaluation.batch_size
    assert isinstance(model, VQVAE)
    files = extract_codes(run, name, stage1, dataset, device, batch_size=batch_size)
    codes, train = files[split].codes, files["train"]
    distortion = codebook_distortion(model, dataset.split(split).images, codes, device=device, batch_size=batch_size)
    usage = codebook_usage(codes, codebook_size=model.codebook_size)
    cost, parameters = training_cost(run.stage1_folder(name)), _count(model)
    shared: dict[str, Any] = {
        "model": name,
        "kind": "vq-vae",
        "codebook_update": model.quantiser.update_rule,
        "bound": "two-part",
        "likelihood": stage1.record["architecture"]["likelihood"],
        "alphabet": model.levels,
        "beta": None,
        "samples_k": None,
        "psnr_db": distortion.psnr_db,
        "codebook_perplexity": usage.perplexity,
        "codebook_used": usage.used,
        "codebook_size": model.codebook_size * model.code_shape[0],
    }

    def two_part(rate_bits_N: np.ndarray) -> ItemBits:
        return ItemBits.two_part(distortion.bits_per_dim, rate_bits_N / model.dims)

    alone = {"labels": "none", "parameters": parameters, "steps": cost.steps, "train_seconds": cost.seconds}
    yield _row(two_part(uniform_rate_bits(codes, model.codebook_size)), prior="uniform", **shared, **alone)
    unigram = unigram_rate_bits(codes, train.codes, model.codebook_size)
    yield _row(two_part(unigram), prior="unigram", **shared, **alone)
    if not is_finished(run.prior_folder(name)):
        say(f"{name} has no finished prior; run train-prior {run.path} --model {name} for its row")
        return
    prior, prior_cost = run.prior(name, stage1, device), training_cost(run.prior_folder(name))
    learned = learned_rate_bits(prior.model, codes, train.labels, device=device, batch_size=batch_size)
    yield _row(
        two_part(learned),
        prior="learned",
        **shared,
        labels="marginalised" if prior.model.classes else "none",
        parameters=parameters + _count(prior.model),
        steps=cost.steps + prior_cost.steps,
        train_seconds=cost.seconds + prior_cost.seconds,
    )


def _score_gaussian(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, split: str, device: torch.device
) -> Iterable[_Scored]:
    """Rows of one VAE: ELBO and importance-weighted bound."""
    model, settings = stage1.model, run.recipe.evaluation
    assert isinstance(model, VAE)
    bits = gaussian_bits(
        model,
        dataset.split(split).images,
        samples=settings.iwae_samples,
        seed=run.recipe.seed,
        device=device,
        batch_size=settings.batch_size,
    )
    cost = training_cost(run.stage1_folder(name))
    shared: dict[str, Any] = {
        "model": name,
        "kind": "vae",
        "codebook_update": None,
        "prior": "gaussian",
        "likelihood": stage1.record["architecture"]["likelihood"],
        "alphabet": model.levels,
        "beta": model.beta,
        "samples_k": settings.iwae_samples,
        "labels": "none",
        "psnr_db": bits.psnr_db,
        "codebook_perplexity": None,
        "codebook_used": None,
        "codebook_size": None,
        "parameters": _count(model),
        "steps": cost.steps,
        "train_seconds": cost.seconds,
    }
    yield _row(bits.elbo, bound="elbo", **shared)
    yield _row(bits.importance_weighted, bound="iwae", **shared)


def _paired(scored: list[_Scored]) -> tuple[PairedDifference, ...]:
    """Every row against the first VQ-VAE with a learned prior (the main model's, if it has one)."""
    reference = next((s for s in scored if s.row.prior == "learned"), None)
    if reference is None:
        return ()
    differences = []
    for other in scored:
        if other is not reference:
            delta_N = other.bits.total - reference.bits.total
            differences.append(
                PairedDifference(
                    reference=row_name(reference.row),
                    other=row_name(other.row),
                    bits_per_dim=float(delta_N.mean()),
                    standard_error=float(delta_N.std(ddof=1) / math.sqrt(len(delta_N))),
                )
            )
    return tuple(differences)


def row_name(row: Row) -> str:
    """Short name of a row, unique within a run."""
    if row.kind == "vq-vae":
        return f"{row.model} ({row.codebook_update}), {row.prior} prior"
    return f"{row.model}, " + ("ELBO" if row.bound == "elbo" else f"IWAE-{row.samples_k}")


def evaluate_run(run: Run, dataset: ImageDataset, *, device: torch.device, split: str) -> Evaluation:
    """Score every finished model of a run, print the table, write evaluation.json.

    Raises:
        RunError: a model is damaged or its prior belongs to another codebook.
    """
    scored: list[_Scored] = []
    for name in run.trained_models():
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        score = _score_codebook if isinstance(stage1.model, VQVAE) else _score_gaussian
        scored += score(run, name, stage1, dataset, split, device)
    channels, height, width = dataset.shape
    evaluation = Evaluation(
        recipe=run.recipe.name,
        dataset=dataset.name,
        split=split,
        items=len(dataset.split(split).images),
        dims=channels * height * width,
        rows=tuple(s.row for s in scored),
        paired_differences=_paired(scored),
    )
    name = "evaluation.json" if split == "test" else f"evaluation-{split}.json"
    write_atomic(run.path / name, json.dumps(evaluation.to_json(), indent=2).encode() + b"\n")
    print_evaluation(evaluation)
    say(f"written: {run.path / name}")
    return evaluation


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def print_evaluation(evaluation: Evaluation) -> None:
    """The table on stdout, the paired differences below it."""
    first = evaluation.rows[0]
    table = Table(
        title=f"{evaluation.dataset}, {evaluation.split} set: {evaluation.items} items x {evaluation.dims} dims, "
        f"{first.alphabet} levels, {first.likelihood} likelihood, bits/dim",
        title_justify="left",
    )
    table.add_column("model")
    for heading in (
        "total",
        "± s.e.",
        "distortion",
        "rate",
        "PSNR dB",
        "codes used",
        "perplexity",
        "parameters",
        "steps",
        "seconds",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("labels")
    for row in evaluation.rows:
        used = "-" if row.codebook_used is None else f"{row.codebook_used}/{row.codebook_size}"
        table.add_row(
            row_name(row),
            _number(row.bits_per_dim, 4),
            _number(row.standard_error, 4),
            _number(row.distortion_bits_per_dim, 4),
            _number(row.rate_bits_per_dim, 4),
            _number(row.psnr_db, 2),
            used,
            _number(row.codebook_perplexity, 1),
            f"{row.parameters:,}",
            f"{row.steps:,}",
            f"{row.train_seconds:.0f}",
            row.labels,
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    if evaluation.paired_differences:
        console.print(
            f"Against {evaluation.paired_differences[0].reference} (positive: the other needs more bits/dim):"
        )
        for difference in evaluation.paired_differences:
            console.print(
                f"  {difference.other}: {difference.bits_per_dim:+.4f} ± {difference.standard_error:.4f} (paired s.e.)"
            )


def run_evaluate(command: Evaluate) -> None:
    """`twostage evaluate`."""
    recipe = command.recipe
    run = Run(path=command.run, recipe=recipe)
    dataset = load_dataset(recipe.data)
    names = run.trained_models()
    if not names:
        raise RunError(f"{command.run} holds no finished model; run train-codebook or train first")
    if command.dry_run:
        items = len(dataset.split(command.split).images)
        say(f"would score {', '.join(names)} on {items} {command.split} items of {dataset.name}; nothing was done")
        return
    use_threads(recipe.threads)
    evaluate_run(run, dataset, device=pick_device(command.device), split=command.split)
