"""`twostage evaluate`: one table and one JSON file with the bits/dim of every model of a run."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from twostage.codebook_usage import codebook_usage
from twostage.data import ImageDataset, load_dataset
from twostage.errors import RunError
from twostage.progress import say

from .bits import (
    ItemBits,
    codebook_distortion,
    gaussian_bits,
    learned_rate_bits,
    standard_error,
    uniform_rate_bits,
    unigram_rate_bits,
)
from .commands import Evaluate
from .device import pick_device, use_threads
from .extract import extract_codes
from .models import LoadedStage1, parameter_count
from .results import Evaluation, PairedDifference, Row, print_evaluation
from .run import Run, is_finished, training_cost


@dataclass(frozen=True)
class _Scored:
    row: Row
    bits: ItemBits


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
    cost, parameters = training_cost(run.stage1_folder(name)), parameter_count(model)
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
        parameters=parameters + parameter_count(prior.model),
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
        "parameters": parameter_count(model),
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
                    reference=reference.row.name,
                    other=other.row.name,
                    bits_per_dim=float(delta_N.mean()),
                    standard_error=standard_error(delta_N),
                )
            )
    return tuple(differences)


def evaluate_run(run: Run, dataset: ImageDataset, *, device: torch.device, split: str) -> Evaluation:
    """Score every finished model of a run, print the table, write evaluation.json.

    Raises:
        RunError: no model is finished, one is damaged, was trained on other data, or its prior belongs to another
            codebook.
    """
    names = run.trained_models()
    if not names:
        raise RunError(f"{run.path} holds no finished model; run train-codebook or train first")
    for name in sorted(set(run.begun_models()) - set(names)):
        say(f"{name} is not finished and is left out")
    scored: list[_Scored] = []
    for name in names:
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        score = _score_codebook if isinstance(stage1.model, VQVAE) else _score_gaussian
        scored += score(run, name, stage1, dataset, split, device)
    evaluation = Evaluation(
        recipe=run.recipe.name,
        dataset=dataset.name,
        split=split,
        items=len(dataset.split(split)),
        dims=dataset.dims,
        seed=run.recipe.seed,
        rows=tuple(s.row for s in scored),
        paired_differences=_paired(scored),
    )
    path = run.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")
    evaluation.write(path)
    print_evaluation(evaluation)
    say(f"written: {path}")
    return evaluation


def run_evaluate(command: Evaluate) -> None:
    """`twostage evaluate`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_dataset(command.recipe.data)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        names = run.trained_models()
        for name in names:
            run.check_data(run.stage1(name, device), dataset)
        items = len(dataset.split(command.split))
        say(f"would score {', '.join(names) or 'no model'} on {items} {command.split} items; nothing was done")
        return
    evaluate_run(run, dataset, device=device, split=command.split)
