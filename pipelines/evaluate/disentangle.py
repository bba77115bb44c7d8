"""`twostage disentangle`: do the latents of a run's models stand for the factors that the shapes were drawn from?

The code of an image is its posterior mean (of an autoencoder its latents), a grid flattened. Scores are those of
`disentanglement`, on images drawn for the purpose from independent factors; the split that the models were trained on
has no part in it. Models that are given the label are left out: the shape is both label and factor.

Shapes: N items, Z latents of an item (a grid is flattened), F factors.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Stage1Model
from twostage.data import ImageDataset, load_dataset
from twostage.data.images.shapes import FACTOR_SIZES, FACTORS, render_shapes
from twostage.errors import RunError, UsageError
from twostage.metrics.disentanglement import Disentanglement, Encoder, SampleSizes, disentanglement
from twostage.progress import say
from twostage.storage.atomic import write_atomic

from ..commands.results import Disentangle
from ..generate.latent_sheets import LatentSpread, decoder_of, traversals
from ..generate.sheets import Sheet
from ..media.console import Output
from ..media.png import display_scale, write_png
from ..runs.device import pick_device, use_threads
from ..runs.run import Run
from .columns import print_table, print_wrapped

SCHEMA_VERSION = 1
CATEGORICAL = (FACTORS.index("shape"),)
TRAVERSED = 10
"""Most latents in the picture: those whose means vary most."""
SPREAD_ITEMS = 1000
"""Test images from which that is measured."""


@dataclass(frozen=True)
class ModelScores:
    """Scores of one model."""

    model: str
    latents: int
    """Z."""
    beta: float | None
    """Weight of the KL term in training; None without one."""
    stage1_sha256: str
    scores: Disentanglement

    def record(self) -> dict[str, Any]:
        """The row of disentanglement.json."""
        found = self.scores
        return {
            "model": self.model,
            "latents": self.latents,
            "beta": self.beta,
            "mig": found.mig,
            "mig_of_factors": found.mig_of_factors,
            "sap": found.sap,
            "dci_disentanglement": found.dci.disentanglement,
            "dci_completeness": found.dci.completeness,
            "dci_informativeness": found.dci.informativeness,
            "dci_importance": found.dci.importance_ZF.tolist(),
            "beta_vae": found.beta_vae,
            "factor_vae": found.factor_vae,
            "chance": found.chance,
            "stage1_sha256": self.stage1_sha256,
        }


def sample_sizes(samples: int) -> SampleSizes:
    """The default sizes, all in the proportion of `samples` to its default; points in groups as large as ever."""
    full = SampleSizes()

    def share(points: int, *, least: int) -> int:
        return max(least, math.ceil(points * samples / full.codes))

    return SampleSizes(
        codes=samples,
        group=full.group,
        beta_vae_train=share(full.beta_vae_train, least=20),
        beta_vae_test=share(full.beta_vae_test, least=20),
        factor_vae_train=share(full.factor_vae_train, least=20),
        factor_vae_test=share(full.factor_vae_test, least=20),
        factor_vae_variance=share(full.factor_vae_variance, least=500),
    )


@torch.no_grad()
def latent_means(model: Stage1Model, images_NCHW: np.ndarray, *, device: torch.device, batch_size: int) -> np.ndarray:
    """Codes `[N, Z]`, fp32, of integer images: posterior means, or the latents of an autoencoder."""
    parts = []
    for start in range(0, len(images_NCHW), batch_size):
        x_BCHW = torch.from_numpy(images_NCHW[start : start + batch_size]).to(device)
        batch = Batch(items=start + torch.arange(len(x_BCHW)), x=x_BCHW)
        parts.append(model.latents_of(batch, seed=0).flatten(1).cpu().numpy())
    return np.concatenate(parts)


def shape_encoder(model: Stage1Model, *, device: torch.device, batch_size: int) -> Encoder:
    """From factors `[N, F]` of the shapes to the codes of their images."""
    return lambda factors_NF: latent_means(model, render_shapes(factors_NF), device=device, batch_size=batch_size)


def traversal_sheet(name: str, model: Any, images_NCHW: np.ndarray, *, device: torch.device, batch_size: int) -> Sheet:
    """The first image with its latents moved one at a time, those whose means vary most over the images first."""
    means_NZ = latent_means(model, images_NCHW, device=device, batch_size=batch_size).astype(np.float64)
    dimensions = np.argsort(means_NZ.var(0))[::-1][:TRAVERSED].tolist()
    spread = LatentSpread.prior(means_NZ.shape[1]) if model.latents == "gaussian" else LatentSpread.of(means_NZ)
    decode = decoder_of(model, device=device, batch_size=batch_size)
    return traversals(name, decode, means_NZ[0], dimensions, spread=spread, levels=model.levels)


def score_table(rows: list[ModelScores]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, one row a model."""
    headings = ["model", "latents", "MIG", "SAP", "DCI-D", "DCI-C", "DCI-I", "beta-VAE", "FactorVAE"]
    cells = []
    for row in rows:
        found, dci = row.scores, row.scores.dci
        values = (found.mig, found.sap, dci.disentanglement, dci.completeness, dci.informativeness)
        cells.append([row.model, str(row.latents), *(f"{v:.3f}" for v in (*values, found.beta_vae, found.factor_vae))])
    return headings, cells


def table_notes(first: Disentanglement) -> str:
    """What the columns are and how many codes they were read from; the same for all models of a call."""
    sizes = first.sizes
    beta_vae, factor_vae = sizes.beta_vae_train + sizes.beta_vae_test, sizes.factor_vae_train + sizes.factor_vae_test
    return (
        f"{', '.join(FACTORS)}; 1 is perfect. MIG, SAP, DCI (disentanglement, completeness, informativeness): "
        f"{sizes.codes:,} codes; the factors themselves: MIG {first.mig_of_factors:.3f}. beta-VAE score: {beta_vae:,}"
        f" points of {sizes.group} pairs, FactorVAE score: {factor_vae:,} points of {sizes.group} codes; chance "
        f"{first.chance:.2f} in both. Seed {first.seed}."
    )


def write_scores(run: Run, rows: list[ModelScores]) -> Path:
    """Write RUN/disentanglement.json, in place of an earlier one."""
    first = rows[0].scores
    data = {
        "schema_version": SCHEMA_VERSION,
        "recipe": run.recipe.name,
        "dataset": "shapes",
        "factors": list(FACTORS),
        "factor_sizes": list(FACTOR_SIZES),
        "seed": first.seed,
        "sizes": asdict(first.sizes),
        "rows": [row.record() for row in rows],
    }
    path = run.path / "disentanglement.json"
    write_atomic(path, json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")
    return path


@dataclass(frozen=True)
class Candidate:
    """A model that can be scored."""

    name: str
    model: Any
    sha256: str


def candidates(run: Run, dataset: ImageDataset, wanted: str, device: torch.device) -> Iterator[Candidate]:
    """The model asked for, or all finished ones that have continuous latents and are given no label.

    Raises:
        UsageError: the model asked for has none, or is given the label.
        RunError: a model is not finished, damaged or of other data.
    """
    finished = run.trained_models()
    if not wanted:
        for name in sorted(set(run.begun_models()) - set(finished)):
            say(f"{name} is not finished and is left out")
    for name in [wanted] if wanted else finished:
        stage1 = run.stage1(name, device)
        model = stage1.model
        if model.classes:
            reason = "is given the label, which is one of the factors"
        elif model.latents in ("gaussian", "none"):
            run.check_data(stage1, dataset)
            yield Candidate(name, model, stage1.sha256)
            continue
        else:
            reason = "has codes, no continuous latents"
        if wanted:
            raise UsageError(f"--model {name} {reason}: choose an ae, vae or beta-vae of this run")
        say(f"{name} {reason} and is left out")


def run_disentangle(command: Disentangle) -> None:
    """`twostage disentangle`."""
    run = Run.open(command.run)
    if run.recipe.data.name != "shapes":
        raise UsageError(
            f"disentangle needs data whose factors are known, data.name = shapes, but {run.path} is on "
            f"{run.recipe.data.name}: train a run on them first (twostage train shapes)"
        )
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    dataset, batch_size = load_dataset(run.recipe.data), run.recipe.evaluation.batch_size
    found = list(candidates(run, dataset, command.model, device))
    if not found:
        what = "model with continuous latents"
        raise RunError(f"{run.path} holds no finished {what}; run train-baseline {run.path} first")
    sizes, rows = sample_sizes(command.samples), []
    if command.dry_run:
        names = ", ".join(candidate.name for candidate in found)
        say(f"would score {names} on {sizes.codes} codes and write {run.path}; nothing was done")
        return
    for candidate in found:
        say(f"{candidate.name}: scoring")
        encode = shape_encoder(candidate.model, device=device, batch_size=batch_size)
        scores = disentanglement(encode, FACTOR_SIZES, categorical=CATEGORICAL, sizes=sizes, seed=command.seed)
        rows.append(
            ModelScores(
                model=candidate.name,
                latents=math.prod(candidate.model.latent_shape),
                beta=candidate.model.beta,
                stage1_sha256=candidate.sha256,
                scores=scores,
            )
        )
        images = dataset.test.images[:SPREAD_ITEMS]
        sheet = traversal_sheet(candidate.name, candidate.model, images, device=device, batch_size=batch_size)
        picture = run.path / "samples" / f"{candidate.name}-{sheet.kind}.png"
        write_png(picture, sheet.picture_CHW, scale=display_scale(images.shape[-1]))
        say(f"written: {picture}")
    path = write_scores(run, rows)
    print_table(*score_table(rows))
    print_wrapped(Output(highlight=False), table_notes(rows[0].scores))
    say(f"written: {path}")
