"""`twostage report`: results, pictures and training record of a run in one self-contained HTML file."""

import html
from pathlib import Path

import torch

from stage1_vqvae import VQVAE
from twostage.config.load import run_recipe_text
from twostage.data import ImageDataset, load_dataset
from twostage.errors import RunError
from twostage.metrics.codebook_usage import codebook_usage
from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.storage.checkpoint import load_checkpoint
from twostage.storage.codes import load_codes
from twostage.training.record import read_metrics

from ..commands.results import Report
from ..evaluate.code_diagnosis import PriorDiagnosis
from ..evaluate.rows import Evaluation
from ..evaluate.sizes import COST, ONE_TRAINING
from ..evaluate.tables import (
    GIVEN_LABEL,
    MARGINALISED,
    bias_line,
    difference_lines,
    model_table,
    sample_table,
    score_table,
)
from ..generate.sheets import ReferenceImages, Sheet, model_sheets, reference_images
from ..media import figures
from ..media.html import image, page, table
from ..media.png import display_scale, png
from ..runs.device import pick_device, use_threads
from ..runs.loading import LoadedStage1
from ..runs.run import Run, is_finished
from .class_section import class_section
from .diagnosis_figures import code_costs
from .latents import (
    Picture,
    by_beta,
    continuous_models,
    joint_sheets,
    loss_curves,
    model_figures,
    model_pictures,
    scatter,
)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def results_section(evaluation: Evaluation, *, sampled: bool) -> str:
    """The tables of evaluation.json, what they mean, and the paired differences; `sampled`: PSNR is of samples."""
    psnr = "sampled reconstructions, the pixels being drawn one after another" if sampled else "the mean of p(x|z)"
    meaning = (
        "lower is better. A VQ-VAE row is an exact two-part code length, those of VAEs and of VIMCO are bounds at "
        "beta = 1, and an autoencoder has none: nothing says what its latents cost"
        if evaluation.has_bits
        else "there is no mass function over levels to measure"
    )
    if evaluation.has_marginalised_labels:
        meaning += f". {MARGINALISED[0].upper()}{MARGINALISED[1:]}"
    if evaluation.has_given_labels:
        meaning += f". {GIVEN_LABEL[0].upper()}{GIVEN_LABEL[1:]}"
    intro = f"{evaluation.title}; {meaning}. PSNR is of {psnr}."
    tables = table(*score_table(evaluation)) + table(*model_table(evaluation))
    tables += f"<p>{html.escape(_sentence(COST))}</p>"
    paired = ""
    for reference, lines in difference_lines(evaluation).items():
        items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
        paired += f"<p>Bits/dim more than <b>{html.escape(reference)}</b>, ± paired standard error:</p><ul>{items}</ul>"
    paired += f"<p>{html.escape(_sentence(ONE_TRAINING))}</p>" if paired else ""
    bars = [
        (row.name, row.distortion_bits_per_dim, row.rate_bits_per_dim)
        for row in evaluation.rows
        if row.distortion_bits_per_dim is not None and row.rate_bits_per_dim is not None and row.labels != "given"
    ]
    picture = ""
    if bars:
        data = figures.stacked_bits(bars, unit="bits/dim")
        picture = image(data, "Distortion and rate; bounds of several samples do not split.")
    return f"<h2>Results</h2><p>{html.escape(intro)}</p>{tables}{paired}{picture}"


def samples_section(evaluation: Evaluation) -> str:
    """The samples' scores and how to read them; empty where there are none."""
    if not evaluation.sample_scores:
        return ""
    text = (
        f"{evaluation.samples_title}. Lower is better; the column 'training images' is what as many real images reach. "
        f"{_sentence(bias_line(evaluation))} "
        "The last column is the share of class-conditional samples that the classifier reads as the class asked for. "
        "The features are those of this data set: the distances compare its models, and are no FID."
    )
    return f"<h2>Samples</h2><p>{html.escape(text)}</p>{table(*sample_table(evaluation))}"


def _kept(run: Run, name: str, picture: Sheet | Picture, dataset: ImageDataset) -> str:
    """A picture, which is also written as RUN/samples/NAME.png."""
    sheet = isinstance(picture, Sheet)
    data = (
        png(picture.picture_CHW, scale=display_scale(dataset.shape[-1])) if isinstance(picture, Sheet) else picture.data
    )
    target = run.path / "samples" / f"{name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, data)
    return image(data, picture.caption, pixels=sheet)


def diagnosis_section(run: Run, evaluation: Evaluation, dataset: ImageDataset) -> str:
    """What is right or wrong with every model, and where codes cost what; empty in files of an earlier version."""
    if not evaluation.diagnoses:
        return ""
    parts = ["<h2>Diagnosis</h2>"]
    for found in evaluation.diagnoses:
        parts.append(f"<p><b>{html.escape(found.model)}</b>: {html.escape(' '.join(found.sentences))}</p>")
        if "bits_by_position" in found.numbers:
            figure = code_costs(PriorDiagnosis.of_record(found.numbers), title=f"{found.model}: price of a code")
            caption = "Bits of a code under every prior, and of every position of the grid under the learned one."
            parts.append(_kept(run, f"{found.model}-code-prices", Picture("code-prices", figure, caption), dataset))
    return "".join(parts)


def latents_section(run: Run, names: list[str], dataset: ImageDataset, *, device: torch.device, seed: int) -> str:
    """Pictures of continuous latents; empty without such a model."""
    models = by_beta(continuous_models(run, names, dataset, device=device))
    if not models:
        return ""
    parts = ["<h2>Continuous latents</h2>", _kept(run, "latent-scatter", scatter(models, dataset), dataset)]
    for sheet in joint_sheets(models, dataset, device=device, seed=seed):
        parts.append(_kept(run, sheet.kind, sheet, dataset))
    for found in models:
        for figure in model_figures(found, seed=run.recipe.seed):
            parts.append(_kept(run, f"{found.name}-{figure.kind}", figure, dataset))
        for sheet in model_pictures(found, dataset, device=device, seed=seed):
            parts.append(_kept(run, f"{found.name}-{sheet.kind}", sheet, dataset))
    curves = loss_curves(run, models)
    if curves is not None:
        parts.append(_kept(run, "latent-training", curves, dataset))
    return "".join(parts)


def model_section(
    run: Run,
    name: str,
    stage1: LoadedStage1,
    dataset: ImageDataset,
    reference: ReferenceImages,
    *,
    device: torch.device,
    seed: int,
) -> str:
    """Pictures and code usage of one model; the sheets are also written as PNG files."""
    parts = [f"<h2>{html.escape(name)}</h2>"]
    if isinstance(stage1.model, VQVAE) and not is_finished(run.prior_folder(name)):
        parts.append("<p>No finished prior: train-prior brings its samples.</p>")
    else:
        for sheet in model_sheets(run, name, stage1, dataset, reference, device=device, seed=seed):
            parts.append(_kept(run, f"{name}-{sheet.kind}", sheet, dataset))
    codes_file = run.codes_file(name, "validation")
    if isinstance(stage1.model, VQVAE) and codes_file.is_file():
        codes = load_codes(codes_file, expect_stage1_sha256=stage1.sha256).codes
        usage = codebook_usage(codes, codebook_size=stage1.model.codebook_size)
        for index, single in enumerate(usage.codebooks):
            title = f"codebook {index}: {single.used} of {usage.codebook_size} used, perplexity {single.perplexity:.1f}"
            parts.append(image(figures.code_histogram(single.counts_K, title=title), "Usage on the validation set."))
    return "".join(parts)


def training_section(run: Run, names: list[str]) -> str:
    """Curves of every training."""
    stage1 = {name: read_metrics(run.stage1_folder(name) / "metrics.jsonl") for name in names}
    priors = {
        name: read_metrics(run.prior_folder(name) / "metrics.jsonl")
        for name in names
        if is_finished(run.prior_folder(name))
    }
    parts = ["<h2>Training</h2>"]
    for trainings, key, title, unit, caption in (
        (
            stage1,
            "distortion_bits_per_dim",
            "Stage one: distortion",
            "bits/dim",
            "Thin: training batches; dots: validation set.",
        ),
        (
            stage1,
            "half_squared_error",
            "Stage one: half the squared error",
            "a dimension, levels scaled to -1..1",
            "Thin: training batches; dots: validation set.",
        ),
        (
            priors,
            "bits_per_code",
            "Prior: code length given the label",
            "bits/code",
            "Validation rising while training falls means overfitting; the best model is kept.",
        ),
    ):
        # Without bits, or without a record, there is nothing to draw.
        if any(f"validation_{key}" in row for rows in trainings.values() for row in rows):
            parts.append(image(figures.curves(trainings, key=key, title=title, unit=unit), caption))
    return "".join(parts)


def _check_scored(run: Run, name: str, stage1: LoadedStage1, evaluation: Evaluation) -> None:
    """Raise RunError where the weights of a model or of its prior are not the ones that were scored."""
    rows = [row for row in evaluation.rows if row.model == name and row.stage1_sha256 is not None]
    scored = {(row.stage1_sha256, row.prior_sha256) for row in rows}
    now: set[tuple[str | None, str | None]] = {(stage1.sha256, None)}
    if isinstance(stage1.model, VQVAE) and stage1.model.likelihood_is_discrete and is_finished(run.prior_folder(name)):
        now.add((stage1.sha256, load_checkpoint(run.prior_folder(name) / "best").sha256["model.safetensors"]))
    if rows and scored != now:
        raise RunError(f"{name} of {run.path} was trained since it was evaluated: run evaluate {run.path} again")


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
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        _check_scored(run, name, stage1, evaluation)
    sampled = run.recipe.stage1.autoregressive_layers > 0
    sections = [
        results_section(evaluation, sampled=sampled),
        samples_section(evaluation),
        diagnosis_section(run, evaluation, dataset),
        class_section(dataset),
    ]
    reference = reference_images(run, dataset)
    for name in names:
        sections.append(
            model_section(run, name, run.stage1(name, device), dataset, reference, device=device, seed=seed)
        )
    sections.append(latents_section(run, names, dataset, device=device, seed=seed))
    sections.append(training_section(run, names))
    config = html.escape(run_recipe_text(run.path))
    sections.append(f"<h2>Recipe</h2><pre>{config}</pre>")
    path = run.path / "report.html"
    write_atomic(path, page(f"twostage: {run.recipe.name}", sections).encode())
    say(f"written: {path}")
    return path


def run_report(command: Report) -> None:
    """`twostage report`."""
    run = Run(path=command.run, recipe=command.recipe)
    dataset = load_dataset(run.recipe.data)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        Evaluation.read(run.path / "evaluation.json")
        say(f"would write {run.path / 'report.html'} on {_listed(set(run.trained_models()))}; nothing was done")
        return
    write_report(run, dataset, device=device, seed=command.seed)
    run.keep_data_place()
