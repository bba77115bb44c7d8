"""One training of the quantiser comparison: both stages from a recipe with a quantiser in it, and all that is measured.

Trainings are made of the library's parts and not of run folders: the data, their subsets and the classifier are the
same for all and stay in memory. All numbers are of validation items.

Shapes: N items, B items of a batch, C x H x W image, G codebooks, h x w grid.
"""

import argparse
import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stage1_vqvae import VQVAE
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from stage2_prior import PixelCNN, sample
from stage2_prior.training import PriorTask
from twostage.config.check import check_recipe
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.config.quantiser import QuantiserConfig
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data import ImageDataset
from twostage.data.images.dataset import Split
from twostage.metrics.codebook_usage import codebook_usage
from twostage.metrics.frechet import FeatureGaussian, fit_gaussian, frechet_distance
from twostage.metrics.statistics import evenly, psnr_db
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_checkpoint
from twostage.training.loop import Fit
from twostage.training.task import Task
from twostage_pipelines.bits.rate import learned_rate, uniform_bits
from twostage_pipelines.evaluate.classifier import Classifier, read, trained_classifier
from twostage_pipelines.modality.choose import modality_of
from twostage_pipelines.modality.images import build_stage1, prior_architecture, stage1_architecture
from twostage_pipelines.modality.pictures import to_levels

CPU = torch.device("cpu")
BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one training came to; bits/dim of validation items."""

    data: str
    quantiser: str
    combinations: int
    """Asked for; `product`, `residual` and PREFIXES may have others, see `possible`."""
    seed: int
    steps: int
    prior_steps: int
    batch_size: int
    possible: int
    """Combinations of codes at a position."""
    used: int
    """Combinations that occur in the validation items."""
    perplexity: float
    """Of their frequencies."""
    distortion: float
    uniform_rate: float
    learned_rate: float
    psnr_db: float
    prefix_psnr_db: list[float] = field(default_factory=list)
    """Of the first 1, 2, ... codes of a residual quantiser with dropout."""
    frechet: float | None
    real_frechet: float | None
    """Of as many training items."""
    parameters: int
    """Of stage one."""
    seconds: float
    """Wall clock of both trainings."""


@dataclass(frozen=True)
class Ruler:
    """What samples are measured with."""

    classifier: Classifier
    real: FeatureGaussian
    """Of the validation items."""
    reference: float
    """Distance of as many training items as there are samples."""

    @classmethod
    def of(cls, recipe: Recipe, dataset: ImageDataset, folder: Path, samples: int) -> "Ruler":
        """The classifier of `evaluate`, trained or read from its folder."""
        pictures = modality_of(recipe).pictures(recipe, dataset)
        classifier = trained_classifier(folder, dataset, pictures, device=CPU, batch_size=BATCH)
        bare = cls(classifier, real=_gaussian(classifier, dataset.validation.images), reference=0.0)
        spread = dataset.train.images[evenly(len(dataset.train), samples)]
        return replace(bare, reference=bare.distance(spread))

    def distance(self, images_NCHW: np.ndarray) -> float:
        """Of images in levels to the validation items."""
        return frechet_distance(_gaussian(self.classifier, images_NCHW), self.real)


def _gaussian(classifier: Classifier, images_NCHW: np.ndarray) -> FeatureGaussian:
    return fit_gaussian([read(classifier, images_NCHW, device=CPU, batch_size=BATCH).features_NF])


def fit(model: nn.Module, task: Task, budget: TrainingConfig, seed: int, label: str) -> float:
    """Train, and put the best weights into the model; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        record: dict[str, Any] = {"config": {}}
        done = Fit(task, folder=Path(folder), budget=budget, seed=seed, record=record, device=CPU).run(label=label)
        model.load_state_dict(load_checkpoint(Path(folder) / "best").tensors["model"])
    model.eval()
    return done.seconds


def encoded(model: VQVAE, x_NCHW: Tensor) -> Tensor:
    """Codes `[N, G, h, w]`."""
    return torch.cat([model.encode(x_BCHW) for x_BCHW in x_NCHW.split(BATCH)])


def distortion_and_psnr(model: VQVAE, x_NCHW: Tensor, codes_NGHW: Tensor) -> tuple[float, list[float]]:
    """Bits/dim given all codes, and PSNR of mean images from the first 1, 2, ... G codes, or of all alone."""
    prefixes = range(1, model.codebooks + 1) if _decodes_prefixes(model) else (model.codebooks,)
    nats, errors = 0.0, [0.0 for _ in prefixes]
    for x_BCHW, codes_BGHW in zip(x_NCHW.split(BATCH), codes_NGHW.split(BATCH), strict=True):
        nats -= float(model.log_prob(x_BCHW, codes_BGHW).double().sum())
        for place, length in enumerate(prefixes):
            errors[place] += float((model.decode(codes_BGHW[:, :length]) - x_BCHW).double().pow(2).sum())
    psnr = [psnr_db(error, x_NCHW.numel(), model.levels) or math.inf for error in errors]
    return nats / x_NCHW.numel() / math.log(2), psnr


def _decodes_prefixes(model: VQVAE) -> bool:
    return getattr(model.quantiser, "quantiser_dropout", 0.0) > 0


class Study:
    """Data, subsets and budgets that all trainings share."""

    def __init__(self, recipe: Recipe, dataset: ImageDataset, arguments: argparse.Namespace) -> None:
        self.recipe, self.samples = recipe, arguments.samples
        rows = evenly(len(dataset.validation), arguments.validation_items)
        held_out = Split(images=dataset.validation.images[rows], labels=dataset.validation.labels[rows])
        self.dataset = replace(dataset, validation=held_out)
        self.train_NCHW, self.x_NCHW = torch.from_numpy(dataset.train.images), torch.from_numpy(held_out.images)
        self.ruler: Ruler | None = None
        if self.samples and dataset.classes:
            self.ruler = Ruler.of(recipe, self.dataset, arguments.out.with_suffix(".classifier"), self.samples)

    def key(self, name: str, combinations: int, seed: int) -> dict[str, Any]:
        """What tells a line from all others."""
        recipe = self.recipe
        return {
            "data": recipe.name,
            "quantiser": name,
            "combinations": combinations,
            "seed": seed,
            "steps": recipe.codebook_training.steps,
            "prior_steps": recipe.prior_training.steps,
            "batch_size": recipe.codebook_training.batch_size,
        }

    def codebook(self, quantiser: QuantiserConfig, seed: int, label: str) -> tuple[VQVAE, float]:
        """A trained stage one, and its seconds."""
        recipe = replace(self.recipe, quantiser=quantiser, seed=seed)
        check_recipe(recipe, source="quantiser comparison")
        seed_step(seed, 0)
        model = build_stage1("vq-vae", stage1_architecture(model_spec(MAIN_MODEL, recipe), recipe, self.dataset))
        assert isinstance(model, VQVAE)
        task = CodebookTask(
            model,
            train=TrainingImages(self.train_NCHW, horizontal_flips=recipe.data.horizontal_flips),
            validation=self.x_NCHW,
            kmeans=quantiser.starts_from_data,
            evaluation_batch_size=BATCH,
            seed=seed,
        )
        return model, fit(model, task, recipe.codebook_training, seed, f"{label}, stage one")

    def prior(self, model: VQVAE, codes_NGHW: Tensor, seed: int, label: str) -> tuple[PixelCNN, float]:
        """A trained prior over the codes of as many training images as its steps see, and its seconds."""
        training = self.recipe.prior_training
        order = np.random.default_rng(0).permutation(len(self.train_NCHW))[: training.steps * training.batch_size]
        seed_step(seed, 0)
        prior = PixelCNN(**prior_architecture(self.recipe, model, 0))
        task = PriorTask(
            prior,
            train=encoded(model, self.train_NCHW[torch.from_numpy(order)]),
            train_condition=None,
            validation=codes_NGHW,
            validation_condition=None,
            evaluation_batch_size=BATCH,
        )
        return prior, fit(prior, task, training, seed, f"{label}, prior")

    def frechet(self, model: VQVAE, prior: PixelCNN) -> float | None:
        """Of decoded samples; None without a ruler."""
        if self.ruler is None:
            return None
        codes_NGHW = sample(prior, count=self.samples).codes
        means = [model.decode(codes_BGHW).numpy() for codes_BGHW in codes_NGHW.split(BATCH)]
        return self.ruler.distance(to_levels(np.concatenate(means), model.levels))

    def measure(self, name: str, combinations: int, seed: int, quantiser: QuantiserConfig) -> Measured:
        """Train both stages of a setting and measure them."""
        label = f"{name}, {combinations}, seed {seed}"
        model, seconds = self.codebook(quantiser, seed, label)
        codes_NGHW = encoded(model, self.x_NCHW)
        distortion, psnr = distortion_and_psnr(model, self.x_NCHW, codes_NGHW)
        prior, prior_seconds = self.prior(model, codes_NGHW, seed, label)
        codes = codes_NGHW.numpy()
        rate_N = learned_rate(prior, codes, device=CPU, batch_size=BATCH).bits
        places_G = model.codebook_size ** np.arange(model.codebooks)
        joint = np.tensordot(codes, places_G, axes=([1], [0]))[:, None]
        usage = codebook_usage(joint, codebook_size=model.codebook_size**model.codebooks)
        return Measured(
            **self.key(name, combinations, seed),
            possible=usage.used + usage.dead,
            used=usage.used,
            perplexity=usage.perplexity,
            distortion=distortion,
            uniform_rate=float(uniform_bits(codes, model.codebook_size).mean()) / model.dims,
            learned_rate=float(rate_N.mean()) / model.dims,
            psnr_db=psnr[-1],
            prefix_psnr_db=psnr if len(psnr) > 1 else [],
            frechet=self.frechet(model, prior),
            real_frechet=None if self.ruler is None else self.ruler.reference,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            seconds=seconds + prior_seconds,
        )
