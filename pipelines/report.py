"""`twostage report`: results, pictures and training record of a run in one self-contained HTML file."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from twostage.atomic import write_atomic
from twostage.codebook_usage import codebook_usage
from twostage.codes import load_codes
from twostage.data import ImageDataset, load_dataset
from twostage.errors import RunError
from twostage.metrics import read_metrics
from twostage.progress import say

from . import figures
from .commands import Report
from .device import pick_device, use_threads
from .generate import sample_vae
from .models import LoadedStage1
from .pictures import display_scale, grid, png, to_bytes
from .results import Evaluation, difference_lines, model_table, score_table
from .run import Run, is_finished, load_run

SAMPLES_PER_CLASS = 10
RECONSTRUCTIONS = 16

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { padding: 3px 9px; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f4f4f4; }
img { max-width: 100%; } img.pixels { image-rendering: pixelated; }
figure { margin: 1rem 0; } figcaption { color: #555; }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; font-size: 12px; }
"""


def _image(data: bytes, caption: str, *, pixels: bool = False) -> str:
    """A figure; `pixels` keeps the edges of enlarged pixels sharp."""
    kind = ' class="pixels"' if pixels else ""
    encoded = base64.b64encode(data).decode()
    text = html.escape(caption)
    picture = f'<img{kind} alt="{text}" src="data:image/png;base64,{encoded}">'
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def results_section(evaluation: Evaluation) -> str:
    """The tables of evaluation.json, what they mean, and the paired differences."""
    intro = (
        f"{evaluation.title}; lower is better. A VQ-VAE row is an exact two-part code length, "
        "the VAE rows are bounds at beta = 1. PSNR is of the mean of p(x|z)."
    )
    tables = _table(*score_table(evaluation)) + _table(*model_table(evaluation))
    paired, lines = "", difference_lines(evaluation)
    if lines:
        reference = html.escape(evaluation.paired_differences[0].reference)
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        paired = f"<p>Bits/dim more than <b>{reference}</b>, ± paired standard error:</p><ul>{items}</ul>"
    bars = [
        (row.name, row.distortion_bits_per_dim, row.rate_bits_per_dim)
        for row in evaluation.rows
        if row.distortion_bits_per_dim is not None and row.rate_bits_per_dim is not None
    ]
    picture = _image(
        figures.stacked_bits(bars, unit="bits/dim"),
        "Distortion and rate; the importance-weighted bound does not split.",
    )
    return f"<h2>Bits/dim</h2><p>{html.escape(intro)}</p>{tables}{paired}{picture}"


@dataclass(frozen=True)
class Sheets:
    """Pictures of one model, uint8 `[C, H', W']`."""

    samples: np.ndarray
    samples_caption: str
    reconstructions: np.ndarray


def _evenly(count: int, wanted: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(wanted, count)).astype(int)


@torch.no_grad()
def model_sheets(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, *, device: torch.device, seed: int
) -> Sheets:
    """Samples (by class where the prior knows classes) and test images beside their reconstructions."""
    model = stage1.model
    originals = dataset.test.images[_evenly(len(dataset.test.images), RECONSTRUCTIONS)]
    x_BCHW = torch.from_numpy(originals).to(device)
    if isinstance(model, VAE):
        means = model.reconstruct(x_BCHW)
        images = sample_vae(model, SAMPLES_PER_CLASS**2, temperature=1.0, seed=seed, device=device)
        caption, columns = f"{name}: decoded draws from the Gaussian prior, temperature 1.", SAMPLES_PER_CLASS
    else:
        means = model.decode(model.encode(x_BCHW))
        two_stage = load_run(run.path, model=name, device=device)
        classes = len(two_stage.classes) if two_stage.pixelcnn.classes else 0
        columns = classes or SAMPLES_PER_CLASS
        labels = torch.arange(columns * SAMPLES_PER_CLASS) % columns if classes else None
        images = two_stage.generate(columns * SAMPLES_PER_CLASS, labels=labels, seed=seed)
        by_class = "one class a column, " if classes else ""
        caption = f"{name}: prior sample -> decoder, {by_class}temperature 1."
    pairs = np.stack([to_bytes(originals, model.levels), to_bytes(means.cpu().numpy(), model.levels)], 1)
    return Sheets(
        samples=grid(to_bytes(images.cpu().numpy(), model.levels), columns=columns),
        samples_caption=caption,
        reconstructions=grid(pairs.reshape(-1, *originals.shape[1:]), columns=8),
    )


def model_section(
    run: Run, name: str, stage1: LoadedStage1, dataset: ImageDataset, *, device: torch.device, seed: int
) -> str:
    """Samples, reconstructions and code usage of one model; the sheets are also written as PNG files."""
    parts = [f"<h2>{html.escape(name)}</h2>"]
    discrete = isinstance(stage1.model, VQVAE)
    scale = display_scale(dataset.shape[-1])
    if discrete and not is_finished(run.prior_folder(name)):
        parts.append("<p>No finished prior: train-prior brings its samples.</p>")
    else:
        sheets = model_sheets(run, name, stage1, dataset, device=device, seed=seed)
        for kind, sheet, caption in (
            ("samples", sheets.samples, sheets.samples_caption),
            (
                "reconstructions",
                sheets.reconstructions,
                f"{name}: test images (left of each pair) and reconstructions.",
            ),
        ):
            data = png(sheet, scale=scale)
            target = run.path / "samples" / f"{name}-{kind}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, data)
            parts.append(_image(data, caption, pixels=True))
    codes_file = run.codes_file(name, "validation")
    if isinstance(stage1.model, VQVAE) and codes_file.is_file():
        codes = load_codes(codes_file, expect_stage1_sha256=stage1.sha256).codes
        usage = codebook_usage(codes, codebook_size=stage1.model.codebook_size)
        for index, single in enumerate(usage.codebooks):
            title = f"codebook {index}: {single.used} of {usage.codebook_size} used, perplexity {single.perplexity:.1f}"
            parts.append(_image(figures.code_histogram(single.counts_K, title=title), "Usage on the validation set."))
    return "".join(parts)


def training_section(run: Run, names: list[str]) -> str:
    """Curves of every training."""
    stage1 = {name: read_metrics(run.stage1_folder(name) / "metrics.jsonl") for name in names}
    priors = {
        name: read_metrics(run.prior_folder(name) / "metrics.jsonl")
        for name in names
        if is_finished(run.prior_folder(name))
    }
    curves = figures.curves(stage1, key="distortion_bits_per_dim", title="Stage one: distortion", unit="bits/dim")
    parts = ["<h2>Training</h2>", _image(curves, "Thin: training batches; dots: validation set.")]
    if priors:
        curves = figures.curves(
            priors, key="bits_per_code", title="Prior: code length given the label", unit="bits/code"
        )
        parts.append(
            _image(curves, "Validation rising while training falls means overfitting; the best model is kept.")
        )
    return "".join(parts)


def write_report(run: Run, dataset: ImageDataset, *, device: torch.device, seed: int) -> Path:
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
    for name in names:
        run.check_data(run.stage1(name, device), dataset)
    sections = [results_section(evaluation)]
    for name in names:
        sections.append(model_section(run, name, run.stage1(name, device), dataset, device=device, seed=seed))
    sections.append(training_section(run, names))
    config = html.escape((run.path / "config.toml").read_text())
    sections.append(f"<h2>Recipe</h2><pre>{config}</pre>")
    title = html.escape(f"twostage: {run.recipe.name}")
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{title}</h1>{''.join(sections)}</body></html>\n"
    )
    path = run.path / "report.html"
    write_atomic(path, page.encode())
    say(f"written: {path}")
    return path


def run_report(command: Report) -> None:
    """`twostage report`."""
    run = Run.open(command.run)
    dataset = load_dataset(run.recipe.data)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        Evaluation.read(run.path / "evaluation.json")
        say(f"would write {run.path / 'report.html'} on {_listed(set(run.trained_models()))}; nothing was done")
        return
    write_report(run, dataset, device=device, seed=command.seed)
