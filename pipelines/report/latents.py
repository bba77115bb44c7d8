"""The report's section on continuous latents: what they hold, what lies between them, models beside one another."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stage1_vqvae import VAE
from stage1_vqvae.images.autoencoder import Autoencoder
from twostage.data import ImageDataset
from twostage.metrics.statistics import evenly
from twostage.training.record import read_metrics

from ..evaluate.latent_diagnosis import diagnose_posteriors
from ..evaluate.posteriors import Posteriors, posteriors_of
from ..generate.decoding import latent_means, reconstruct, sample_autoencoder, sample_vae
from ..generate.latent_sheets import (
    LatentSpread,
    decoder_of,
    interpolations,
    latent_draws,
    manifold,
    reconstructions_by_model,
    traversals,
)
from ..generate.sheets import FITTED, Sheet
from ..modality.choose import modality_of
from ..runs.class_numbers import trained_numbers
from ..runs.loading import LoadedStage1
from ..runs.run import Run
from .diagnosis_figures import (
    MOST_COLOURS,
    correlations,
    in_two_dimensions,
    latent_rates,
    latent_scatter,
    training_parts,
)

SCATTERED = 5000
"""Most items of a scatter of latents."""
MOST_SIDE_BY_SIDE = 6
"""Models in one scatter; more are too small to read."""
TRAVERSED = 10
"""Latents that are moved, those of the highest rate first."""
PAIRS = 8
DRAWN = 48
"""Decoded random latents of each model."""
CORRELATED = 64
"""Most latents whose correlations are drawn."""


@dataclass(frozen=True)
class Picture:
    """A finished PNG of the report, with the name of its file."""

    kind: str
    data: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Continuous:
    """A model with continuous latents, and where those of the test items lie."""

    name: str
    stage1: LoadedStage1
    model: VAE | Autoencoder
    means_NZ: np.ndarray
    """Posterior means, or latents of an autoencoder."""
    posteriors: Posteriors | None
    """None of an autoencoder."""

    @property
    def title(self) -> str:
        """The name, with the beta that it does not say itself."""
        return f"{self.name} (beta 1)" if isinstance(self.model, VAE) and self.model.beta == 1 else self.name

    @property
    def order_Z(self) -> np.ndarray:
        """Latents in the order of what they tell: by rate, or by variance where nothing has a rate."""
        telling_Z = self.means_NZ.var(0) if self.posteriors is None else self.posteriors.kl_nats().mean(0)
        return np.argsort(telling_Z)[::-1]

    @property
    def spread(self) -> LatentSpread:
        """What its latents are moved through."""
        if self.posteriors is None:
            return LatentSpread.of(self.means_NZ)
        return LatentSpread.prior(self.means_NZ.shape[1])


def continuous_models(
    run: Run, names: Sequence[str], dataset: ImageDataset, *, device: torch.device
) -> Iterator[Continuous]:
    """Those of the trained models that have continuous latents, each with the latents of the test items.

    In the order of the recipe; `by_beta` puts them in that of the pictures.
    """
    batch_size = run.recipe.evaluation.batch_size
    for name in names:
        stage1 = run.stage1(name, device)
        model = stage1.model
        if isinstance(model, VAE):
            parts = modality_of(run.recipe).files.batches(dataset.test, model, recipe=run.recipe, device=device)
            found = posteriors_of(model, parts, items=len(dataset.test))
            yield Continuous(name=name, stage1=stage1, model=model, means_NZ=found.mean_NZ, posteriors=found)
        elif isinstance(model, Autoencoder):
            means_NZ = latent_means(model, dataset.test.images, device=device, batch_size=batch_size)
            yield Continuous(
                name=name, stage1=stage1, model=model, means_NZ=means_NZ.astype(np.float64), posteriors=None
            )


def by_beta(models: Iterable[Continuous]) -> list[Continuous]:
    """An autoencoder, VAEs in the order of their beta, and last what is given a label: as one looks for its effect."""

    def place(found: Continuous) -> tuple[bool, float]:
        model = found.model
        return isinstance(model, VAE) and model.classes > 0, model.beta if isinstance(model, VAE) else 0.0

    return sorted(models, key=place)


def model_figures(continuous: Continuous, *, seed: int) -> Iterator[Picture]:
    """Rates and correlations of the latents of one model; an autoencoder has neither. `seed` as in the evaluation."""
    if continuous.posteriors is None or len(continuous.posteriors) < 2:
        return
    found = diagnose_posteriors(continuous.posteriors, seed=seed)
    caption = f"{continuous.title}: {found.sentence}"
    yield Picture("latent-rates", latent_rates(found, title=f"{continuous.title}: rate of every latent"), caption)
    if 1 < len(found.kl_nats_Z) <= CORRELATED:
        figure = correlations(found, title=f"{continuous.title}: correlations")
        yield Picture("correlations", figure, f"{continuous.title}: {found.entanglement}")


def model_pictures(
    continuous: Continuous, dataset: ImageDataset, *, device: torch.device, seed: int
) -> Iterator[Sheet]:
    """Traversals, interpolations and, of two latents, the manifold; the label of a conditional model is held."""
    model, means_NZ, name = continuous.model, continuous.means_NZ, continuous.name
    labels_N, conditional = dataset.test.labels, isinstance(model, VAE) and model.classes > 0
    # The first item, if the model has met its label: what it makes of another is what it began as.
    met_N = np.isin(labels_N, trained_numbers(continuous.stage1.record, "labels"))
    item = int(met_N.argmax()) if conditional else 0
    label = int(labels_N[item]) if conditional else None
    if label is not None:
        name += f", given the label {dataset.classes[label]}"
    decode = decoder_of(model, device=device, label=label, seed=seed)
    chosen = continuous.order_Z[:TRAVERSED].tolist()
    yield traversals(name, decode, means_NZ[item], chosen, spread=continuous.spread, levels=model.levels)
    alike = np.flatnonzero(labels_N == label) if conditional else np.arange(len(means_NZ))
    ends = alike[evenly(len(alike), 2 * PAIRS)]
    if len(ends) > 1:
        half = len(ends) // 2
        yield interpolations(name, decode, means_NZ[ends[:half]], means_NZ[ends[half : 2 * half]], levels=model.levels)
    if means_NZ.shape[1] == 2 and not model.autoregressive:
        yield manifold(name, decode, spread=continuous.spread, levels=model.levels)


def scatter(models: Sequence[Continuous], dataset: ImageDataset) -> Picture:
    """Latents of the test items under every model, coloured by class."""
    shown = evenly(len(dataset.test), SCATTERED)
    clouds = [
        in_two_dimensions(
            found.title, found.means_NZ[shown], dataset.test.labels[shown], has_prior=found.posteriors is not None
        )
        for found in models[:MOST_SIDE_BY_SIDE]
    ]
    colours = ", coloured by class in the order of their numbers" if 1 < len(dataset.classes) <= MOST_COLOURS else ""
    prior = "; dashed: where 95 % of the prior lies" if any(cloud.has_prior for cloud in clouds) else ""
    left_out = ", ".join(found.name for found in models[MOST_SIDE_BY_SIDE:])
    more = f" Not shown: {left_out}." if left_out else ""
    caption = f"Latents of {len(shown):,} test items{colours}{prior}.{more}"
    return Picture("latent-scatter", latent_scatter(clouds, classes=dataset.classes), caption)


def joint_sheets(
    models: Sequence[Continuous], dataset: ImageDataset, *, device: torch.device, seed: int
) -> Iterator[Sheet]:
    """Draws of an autoencoder beside those of a VAE, and one model's reconstructions beside another's."""
    plain = [m for m in models if not (isinstance(m.model, VAE) and m.model.classes)][:MOST_SIDE_BY_SIDE]
    if len(plain) < 2:
        return
    levels, kinds = plain[0].model.levels, {type(found.model) for found in plain}
    if len(kinds) > 1 and len(dataset.train) > 1:  # a single image has no covariance to fit
        train = dataset.train.images[evenly(len(dataset.train), FITTED)]
        drawn = {}
        for found in plain:
            if isinstance(found.model, Autoencoder):
                images = sample_autoencoder(found.model, train, DRAWN, seed=seed, device=device)
                drawn[f"{found.name} (a Gaussian fitted to its latents)"] = images.cpu().numpy()
            else:
                images = sample_vae(found.model, DRAWN, seed=seed, device=device)
                drawn[f"{found.title} (its prior)"] = images.cpu().numpy()
        yield latent_draws(drawn, levels=levels, columns=6)
    chosen = evenly(len(dataset.test), PAIRS)
    originals, labels_N = dataset.test.images[chosen], dataset.test.labels[chosen]
    decoded = {m.title: reconstruct(m.model, originals, labels_N, seed=seed, device=device) for m in plain}
    yield reconstructions_by_model(originals, decoded, levels=levels)


def loss_curves(run: Run, models: Sequence[Continuous]) -> Picture | None:
    """Total, reconstruction and KL of every training; an autoencoder has no total, and None is left of it alone."""
    records = {
        found.title: read_metrics(run.stage1_folder(found.name) / "metrics.jsonl")
        for found in models
        if found.posteriors is not None
    }
    caption = "Thin: training batches; dots: validation set. Total is at beta = 1."
    given = [found.title for found in models if isinstance(found.model, VAE) and found.model.classes]
    if given:
        caption += f" That of {', '.join(given)} is given the label, not to be compared with the others."
    return Picture("latent-training", training_parts(records), caption) if records else None
