"""`twostage report` of a run on recordings: results, sounds to play, pictures and training record in one HTML file."""

import html
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_vqvae import AudioVQVAE
from twostage.config.load import run_recipe_text
from twostage.data.audio import AudioDataset
from twostage.data.audio.spectral import log_mel_settings
from twostage.errors import RunError
from twostage.metrics.code_labels import meaning_table
from twostage.metrics.statistics import evenly
from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.training.record import read_metrics

from ..commands.results import Report
from ..evaluate.rows import Evaluation
from ..evaluate.sizes import ONE_TRAINING
from ..evaluate.tables import difference_lines, model_notes, model_table, score_notes, score_table
from ..generate.asked import Wanted
from ..generate.drawing import Drawing, draw
from ..generate.two_stage import TwoStage, open_model
from ..media import figures
from ..media.html import audio_element, image, page, table
from ..media.spectrograms import sheet
from ..modality.audio import load_audio
from ..runs.device import pick_device, use_threads
from ..runs.loading import Loaded, LoadedAudio
from ..runs.run import Run, is_finished
from .class_section import class_section

SHOWN = 4
"""Test recordings whose reconstructions are shown."""
SAMPLED = 8
"""New sounds shown per model."""
COLUMNS = 4


def _results(evaluation: Evaluation) -> str:
    intro = html.escape(
        f"{evaluation.title}; lower is better. A VQ-VAE row is an exact code length, a VAE row a bound at beta = 1."
    )
    differences = [
        f"{evaluation.unit} more than {reference}, ± paired s.e.: {line}"
        for reference, lines in difference_lines(evaluation).items()
        for line in lines
    ]
    said = [*score_notes(evaluation), *model_notes(evaluation), *differences, *([ONE_TRAINING] if differences else [])]
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in said)
    tables = table(*score_table(evaluation)) + table(*model_table(evaluation))
    meanings = "".join(
        f"<h3>What a code of {html.escape(name)} says, on its own</h3>{table(*meaning_table(meaning))}"
        for name, meaning in evaluation.meanings.items()
    )
    return f"<h2>Results</h2><p>{intro}</p>{tables}<ul>{lines}</ul>{meanings}"


def _check_scored(run: Run, name: str, stage1: LoadedAudio, evaluation: Evaluation) -> None:
    """Raise RunError where the weights of a model are not the ones that were scored."""
    prior: str | None = None
    decoder: str | None = None
    device = torch.device("cpu")
    if isinstance(stage1.model, AudioVQVAE):
        if is_finished(run.prior_folder(name)):
            prior = run.prior(name, stage1, device).sha256
        if is_finished(run.decoder_folder(name)):
            decoder = run.decoder(name, stage1, device).sha256
    now = {(stage1.sha256, p, d) for p in {None, prior} for d in {None, decoder}}
    rows = [row for row in evaluation.rows if row.model == name]
    scored = {(row.stage1_sha256, row.prior_sha256, row.decoder_sha256) for row in rows}
    if scored != now:
        raise RunError(f"{name} of {run.path} was trained since it was evaluated: run evaluate {run.path} again")


@torch.no_grad()
def _reconstructions(
    run: Run, name: str, stage1: LoadedAudio, dataset: AudioDataset, device: torch.device, seed: int
) -> str:
    """Test recordings beside what the decoders make of them."""
    rate, items = dataset.sample_rate_hz, evenly(len(dataset.test), SHOWN)
    model, test = open_model(run, name, device), dataset.test
    own = [test.recording(int(item)) for item in items]
    split = model.files.split_of(own, test.labels[items].tolist(), test.speakers[items].tolist())
    columns: list[tuple[str, list[np.ndarray]]] = [("recording", own)]
    for choice, spoken in _decoders(model):
        what = spoken if model.model.latents == "codes" else "reconstruction"
        columns.append((what, model.passed(split, decoder=choice, seed=seed)))
    said = [_said(dataset, int(split.labels[row]), int(split.speakers[row])) for row in range(len(items))]
    picture = sheet(
        [[sounds[row] for _, sounds in columns] for row in range(len(items))],
        settings=log_mel_settings(rate),
        titles=[[f"{said[row]}: {what}" for what, _ in columns] for row in range(len(items))],
    )
    players = "".join(
        audio_element(sounds[row], rate, f"{said[row]}: {what}")
        for row in range(len(items))
        for what, sounds in columns
    )
    return f"<h3>Reconstructions</h3>{image(picture, 'Log-mel spectrograms, one colour scale.')}{players}"


def _decoders(model: TwoStage) -> list[tuple[str, str]]:
    """The decoders that are trained, and what is said of them."""
    own, *others = model.modality.decoders.items()
    return [own, *others] if is_finished(model.run.decoder_folder(model.name)) else [own]


def _said(dataset: AudioDataset, label: int | None, speaker: int) -> str:
    parts = [dataset.classes[label]] if dataset.classes and label is not None else []
    parts += [dataset.speakers[speaker]] if dataset.speakers else []
    return " / ".join(parts) or "recording"


def _asked_in_words(asked: Wanted) -> str:
    """What new sounds were asked to be; nothing where nobody asked."""
    if not asked.told:
        return ": in the voice named, which the prior is not told" if asked.speakers else ""
    what = [name for name, numbers in (("label", asked.labels), ("speaker", asked.speakers)) if numbers]
    return f": {' and '.join(what)} asked for"


@torch.no_grad()
def _samples(
    run: Run, name: str, stage1: Loaded[AudioVQVAE], dataset: AudioDataset, device: torch.device, seed: int
) -> str:
    """New sounds of a model with a finished prior."""
    model, rate = open_model(run, name, device), dataset.sample_rate_hz
    asked = model.wanted(SAMPLED)
    labels, speakers = asked.labels, asked.speakers
    said = [
        _said(dataset, labels[item] if labels else None, speakers[item] if speakers else 0) for item in range(SAMPLED)
    ]
    parts = []
    for choice, spoken in _decoders(model):
        sounds = draw(model, SAMPLED, asked, Drawing(decoder=choice, seed=seed))
        picture = sheet(
            [sounds[row : row + COLUMNS] for row in range(0, SAMPLED, COLUMNS)],
            settings=log_mel_settings(rate),
            titles=[said[row : row + COLUMNS] for row in range(0, SAMPLED, COLUMNS)],
        )
        players = "".join(audio_element(sound, rate, what) for sound, what in zip(sounds, said, strict=True))
        caption = f"New sounds, seed {seed}, {spoken}{_asked_in_words(asked)}."
        parts.append(image(picture, caption) + players)
    return f"<h3>Samples</h3>{''.join(parts)}"


def _training(run: Run, names: list[str]) -> str:
    """Curves of every training."""
    parts = ["<h2>Training</h2>"]
    for stage, key, title, unit in (
        ("stage1", "distortion_bits_per_sample", "Stage one: distortion", "bits/sample"),
        ("decoder", "distortion_bits_per_sample", "WaveNet decoder: distortion", "bits/sample"),
        ("prior", "bits_per_code", "Prior: code length with ends, given what the prior is told", "bits/code"),
    ):
        curves: dict[str, list[dict[str, Any]]] = {}
        for name in names:
            rows = read_metrics(run.path / "models" / name / stage / "metrics.jsonl")
            if rows:
                curves[name] = rows
        if any(f"validation_{key}" in row for rows in curves.values() for row in rows):
            picture = figures.curves(curves, key=key, title=title, unit=unit)
            parts.append(image(picture, "Thin: training batches; dots: validation set."))
    return "".join(parts)


def write_audio_report(run: Run, dataset: AudioDataset, *, device: torch.device, seed: int) -> Path:
    """Write RUN/report.html.

    Raises:
        RunError: the run has not been evaluated since its models were trained.
    """
    evaluation, names = Evaluation.read(run.path / "evaluation.json"), run.trained_models()
    sections = [_results(evaluation), class_section(dataset)]
    for name in names:
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        _check_scored(run, name, stage1, evaluation)
        body = _reconstructions(run, name, stage1, dataset, device, seed)
        if isinstance(stage1.model, AudioVQVAE) and is_finished(run.prior_folder(name)):
            with_codes = Loaded(model=stage1.model, checkpoint=stage1.checkpoint)
            body += _samples(run, name, with_codes, dataset, device, seed)
        sections.append(f"<h2>{html.escape(name)}</h2>{body}")
    sections.append(_training(run, names))
    sections.append(f"<h2>Recipe</h2><pre>{html.escape(run_recipe_text(run.path))}</pre>")
    path = run.path / "report.html"
    write_atomic(path, page(f"twostage: {run.recipe.name}", sections).encode())
    say(f"written: {path}")
    return path


def run_report(command: Report) -> None:
    """`twostage report`."""
    run = Run(path=command.run, recipe=command.recipe)
    dataset = load_audio(run.recipe)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        Evaluation.read(run.path / "evaluation.json")
        say(f"would write {run.path / 'report.html'} on {', '.join(run.trained_models())}; nothing was done")
        return
    write_audio_report(run, dataset, device=device, seed=command.seed)
    run.keep_data_place()
