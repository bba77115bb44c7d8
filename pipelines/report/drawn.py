"""New items of a model, whatever its latents: from its prior, from its own distribution, or from one fitted to it.

Item i of a seed is the same whatever the number of items and the batch.

Shapes: N items, M training items, Z latents of an item, flattened.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.interface import Asked
from stage2_prior import sample, sample_sequences
from twostage.metrics.frechet import fit_gaussian
from twostage.metrics.statistics import evenly
from twostage.noise import item_noise
from twostage.printable import show

from ..modality.pictures import Items
from ..runs.class_numbers import trained_numbers
from ..runs.loading import Loaded
from .asked import asked_for, stacked
from .shown import ShownModel

MOST_CLASSES = 16
FITTED = 5000
"""Most training items behind the Gaussian that stands in for an autoencoder's missing prior."""


@dataclass(frozen=True)
class Drawn:
    """New items of a model, and what was asked for."""

    of: ShownModel
    latents: Tensor
    asked: Asked
    columns: int
    """Of their sheet: one a class where there are classes."""
    source: str
    """What they were drawn from, and how, in words."""
    said: tuple[str, ...]
    """Each item by its label and its speaker."""
    wanted: str
    """In words, what of these the prior was conditioned on."""

    @cached_property
    def items(self) -> Items:
        """As the model itself decodes them."""
        return self.of.decode(self.latents, self.asked)


def draw(of: ShownModel) -> Drawn | None:
    """A sheet of new items; None of codes without a finished prior, and of an autoencoder of a single training item."""
    model, prior, shown = of.model, of.prior, of.shown
    if model.latents == "codes" and prior is None:
        return None
    if model.latents == "none" and len(shown.dataset.train) < 2:
        return None
    record = of.stage1.record if prior is None else prior.record
    conditioned = bool(model.classes if prior is None else prior.model.classes)
    trained = trained_numbers(record, "labels") if conditioned and record["classes"] else []
    columns = min(len(trained), MOST_CLASSES) or 10
    count = columns * shown.pictures.rows
    labels = [trained[item % columns] for item in range(count)] if trained else []
    heard = trained_numbers(record, "speakers") if model.speakers else []
    # Every label in every voice before any pair comes again.
    apart = columns if trained else 1
    speakers = [heard[(item // apart) % len(heard)] for item in range(count)] if heard else []
    latents, asked = _latents(of, prior, count, labels, speakers)
    return Drawn(
        of=of,
        latents=latents,
        asked=asked,
        columns=columns,
        source=_source(of) + _by_class(trained, columns, record) + _temperature(of),
        said=tuple(
            shown.named(labels[item] if labels else None, speakers[item] if speakers else None) for item in range(count)
        ),
        wanted=_wanted(prior, labels, speakers),
    )


def _latents(
    of: ShownModel, prior: Loaded[Any] | None, count: int, labels: list[int], speakers: list[int]
) -> tuple[Tensor, Asked]:
    """Latents `[N, *A]`, and what their decoder is given beside them."""
    shown, model = of.shown, of.model
    lengths = None
    if prior is not None:
        told = [column for column in (labels, speakers) if column and prior.model.classes]
        latents, positions = codes_of(
            prior.model, count, torch.tensor(told).T if told else None, seed=shown.seed, device=shown.device
        )
        lengths = None if positions is None else positions * model.stride
    elif getattr(shown.dataset.train, "lengths", None) is not None:
        lengths = shown.dataset.train.lengths[evenly(len(shown.dataset.train), count)]
        lengths = np.resize(lengths, count)
    asked = asked_for(count, labels=labels, speakers=speakers, lengths=lengths, device=shown.device)
    if prior is not None:
        return latents, asked
    if model.latents == "none":
        train = of.encode("train", evenly(len(shown.dataset.train), FITTED))
        return like(stacked(train), count, seed=shown.seed), asked
    return model.sample_latents(asked, seed=shown.seed), asked


def codes_of(
    prior: Any, count: int, condition: Tensor | None, *, seed: int, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Codes `[N, G, *T]` from a prior and, of sequences, their lengths in positions."""
    condition = None if condition is None else condition.to(device)
    common: dict[str, Any] = {"count": count, "condition": condition, "seed": seed, "device": device}
    if len(prior.code_shape) > 2:
        return sample(prior, **common), None
    drawn = sample_sequences(prior, **common)
    return drawn.codes_BGT, drawn.lengths_B


def like(latents: Tensor, count: int, *, seed: int) -> Tensor:
    """New latents `[N, *A]` from a Gaussian, correlations included, fitted to those of two or more items, `[M, *A]`.

    An autoencoder has no distribution over latents; this is the nearest simple one, and what falls between its data.
    """
    fitted = fit_gaussian([latents.flatten(1).numpy()])
    # By eigenvalues: a covariance of fewer items than latents is singular, which Cholesky does not take.
    variance_Z, axes_ZZ = np.linalg.eigh(fitted.covariance_FF)
    scaled_ZZ = axes_ZZ * np.sqrt(np.clip(variance_Z, 0.0, None))
    noise_NZ = item_noise(seed, 0, count, fitted.mean_F.shape).double().numpy()
    return torch.from_numpy(fitted.mean_F + noise_NZ @ scaled_ZZ.T).float().view(count, *latents.shape[1:])


def _source(of: ShownModel) -> str:
    item = of.shown.pictures.item
    source = {
        "codes": "prior sample -> decoder",
        "gaussian": "decoded draws from the Gaussian prior",
        "table": "decoded draws from its factorised prior",
        "none": f"decoded draws from a Gaussian fitted to the latents of training {item}s, because an autoencoder has "
        "no prior",
    }[of.model.latents]
    return source + (", pixels sampled" if of.model.autoregressive else "")


def _temperature(of: ShownModel) -> str:
    return "" if of.model.latents == "none" else ", temperature 1"


def _by_class(trained: list[int], columns: int, record: dict[str, Any]) -> str:
    if not trained:
        return ""
    named = show([record["classes"][number] for number in trained[:columns]], most=MOST_CLASSES)
    more = f" (the first {columns} of {len(trained)})" if len(trained) > columns else ""
    return f", one class a column, from the left {named}{more}"


def _wanted(prior: Loaded[Any] | None, labels: list[int], speakers: list[int]) -> str:
    """What new items were asked to be; nothing where nobody asked."""
    if prior is not None and not prior.model.classes:
        return ": in the voice named, which the prior is not conditioned on" if speakers else ""
    what = [name for name, numbers in (("label", labels), ("speaker", speakers)) if numbers]
    return f": {' and '.join(what)} asked for" if what else ""
