"""`twostage report`: results, pictures, sounds and training record of a run in one self-contained HTML file."""

import html
from pathlib import Path
from typing import Any

import torch

from twostage.config.load import run_recipe_text
from twostage.data.interface import Dataset
from twostage.errors import RunError
from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.training.record import read_metrics

from ..commands.results import Report
from ..evaluate.rows import Evaluation
from ..generate.trained import Trained
from ..media import figures
from ..media.html import image, page
from ..modality.choose import load_data, modality_of
from ..runs.device import pick_device, use_threads
from ..runs.run import Run
from .class_section import class_section
from .drawn import draw
from .latents import latents_section
from .models import extremes_of, model_section
from .results import diagnosis_section, results_section, samples_section
from .shown import Shown, ShownModel


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _check_scored(of: ShownModel, evaluation: Evaluation) -> None:
    """Raise RunError where the weights of a model, its prior or its decoder are not the ones that were scored."""
    rows = [row for row in evaluation.rows if row.model == of.name]
    scored = {(row.stage1_sha256, row.prior_sha256, row.decoder_sha256) for row in rows}
    again = f"{of.name} of {of.shown.run.path} was trained since it was evaluated: run evaluate again"
    if {stage1 for stage1, _, _ in scored} != {of.trained.stage1.sha256}:
        raise RunError(again)
    # Codes that are priced with no bits of distortion beside them make no row.
    priors = set() if of.prior is None else {of.prior.sha256}
    digests = dict(zip(of.voices, (None, of.decoder.sha256 if of.decoder is not None else None), strict=False))
    expected = {
        (of.trained.stage1.sha256, prior, digests[voice])
        for voice, model in of.voices.items()
        for prior in {None} | (priors if model.likelihood_is_discrete else set())
    }
    if scored != expected:
        raise RunError(again)


def training_section(shown: Shown, names: list[str]) -> str:
    """Curves of every training."""
    parts = ["<h2>Training</h2>"]
    for curve in shown.pictures.curves:
        records: dict[str, list[dict[str, Any]]] = {
            name: read_metrics(shown.run.path / "models" / name / curve.stage / "metrics.jsonl") for name in names
        }
        records = {name: rows for name, rows in records.items() if rows}
        # Without bits, or without a record, there is nothing to draw.
        if any(f"validation_{curve.key}" in row for rows in records.values() for row in rows):
            caption = "Thin: training batches; dots: validation set."
            if curve.stage == "prior":
                caption += " Validation rising while training decreases means overfitting; the best model is kept."
            parts.append(image(figures.curves(records, key=curve.key, title=curve.title, unit=curve.unit), caption))
    return "".join(parts)


def write_report(run: Run, dataset: Dataset, *, device: torch.device, seed: int) -> Path:
    """Write RUN/report.html.

    Raises:
        RunError: the run has not been evaluated since its models were trained.
    """
    evaluation, names = Evaluation.read(run.path / "evaluation.json"), run.trained_models()
    if {row.model for row in evaluation.rows} != set(names):
        raise RunError(
            f"evaluation.json speaks of {_listed({row.model for row in evaluation.rows})}, but the finished models of "
            f"{run.path} are {_listed(set(names))}: run evaluate {run.path} again"
        )
    pictures = modality_of(run.recipe).pictures(run.recipe, dataset)
    shown = Shown(run=run, dataset=dataset, pictures=pictures, device=device, seed=seed)
    models = [ShownModel(shown, Trained(run, name, run.stage1(name, device), device)) for name in names]
    for of in models:
        run.check_data(of.trained.stage1, dataset)
        _check_scored(of, evaluation)
    drawn = {of.name: found for of in models if (found := draw(of)) is not None}
    sections = [
        results_section(evaluation),
        samples_section(evaluation),
        diagnosis_section(shown, evaluation),
        class_section(dataset),
        *(model_section(of, drawn.get(of.name), extremes_of(evaluation, of.name)) for of in models),
        latents_section(shown, models, drawn, evaluation),
        training_section(shown, names),
        f"<h2>Recipe</h2><pre>{html.escape(run_recipe_text(run.path))}</pre>",
    ]
    path = run.path / "report.html"
    write_atomic(path, page(f"twostage: {run.recipe.name}", sections).encode())
    say(f"written: {path}")
    return path


def run_report(command: Report) -> None:
    """`twostage report`."""
    run = Run(path=command.run, recipe=command.recipe)
    dataset = load_data(run.recipe)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        Evaluation.read(run.path / "evaluation.json")
        say(f"would write {run.path / 'report.html'} on {_listed(set(run.trained_models()))}; nothing was done")
        return
    write_report(run, dataset, device=device, seed=command.seed)
    run.keep_data_place()
