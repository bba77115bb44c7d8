"""New items of a model, whatever its latents: from its prior, from its own distribution, or from one fitted to it.

Item i of a seed is the same whatever the number of items and the batch.

Shapes: N items, M vectors of Z latents, T positions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Asked
from twostage.metrics.frechet import fit_gaussian
from twostage.metrics.statistics import evenly
from twostage.noise import item_noise
from twostage.printable import show

from ..generate.asked import Wanted
from ..generate.drawing import Drawing, draw_codes, sharpening_of, source_of
from ..modality.pictures import Items
from ..runs.class_numbers import trained_numbers
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
    model, shown = of.model, of.shown
    if model.latents == "codes" and of.prior is None:
        return None
    if model.latents == "none" and len(shown.dataset.train) < 2:
        return None
    source = source_of(of.trained)
    trained = trained_numbers(source.record, "labels") if source.knows_labels and source.record["classes"] else []
    columns = min(len(trained), MOST_CLASSES) or 10
    count = columns * shown.pictures.rows
    heard = trained_numbers(source.record, "speakers") if model.speakers else []
    # Every label in every voice before any pair comes again.
    apart = columns if trained else 1
    wanted = Wanted(
        labels=[trained[item % columns] for item in range(count)] if trained else [],
        speakers=[heard[(item // apart) % len(heard)] for item in range(count)] if heard else [],
        conditioned=source.knows_labels,
    )
    latents, asked, drawn_with = _latents(of, count, wanted)
    nothing: list[int | None] = [None] * count
    labels, speakers = (list(numbers) or nothing for numbers in (wanted.labels, wanted.speakers))
    return Drawn(
        of=of,
        latents=latents,
        asked=asked,
        columns=columns,
        source=_source(of) + _by_class(trained, columns, source.record) + drawn_with,
        said=tuple(map(of.named, labels, speakers)),
        wanted=_wanted(of, wanted),
    )


def _latents(of: ShownModel, count: int, wanted: Wanted) -> tuple[Tensor, Asked, str]:
    """Latents `[N, *A]`, what their decoder is given beside them, and how far what they come from was sharpened.

    Recordings of no prior are as long as those that a model was trained on.
    """
    trained, shown = of.trained, of.shown
    how = Drawing(seed=shown.seed)
    drawn_with = sharpening_of(trained, how, conditioned=wanted.conditioned and of.prior is not None)
    said = f", {drawn_with.words}"
    asked = trained.asked(count, wanted.labels, wanted.speakers)
    if of.model.latents == "codes":
        drawn = draw_codes(trained, count, wanted, how)
        if drawn.lengths is not None:
            asked = replace(asked, lengths=trained.files.length_after(drawn.lengths, of.model))
        return drawn.codes, asked, said
    lengths_N = of.lengths_of("train")
    if lengths_N is not None:
        spread_N = np.resize(lengths_N[evenly(len(lengths_N), count)], count)
        asked = replace(asked, lengths=torch.from_numpy(spread_N).to(shown.device))
    if of.model.latents != "none":
        to = drawn_with.setting
        latents = of.model.sample_latents(asked, seed=shown.seed, temperature=to.temperature, top_p=to.top_p)
        return latents, asked, said
    vectors_MZ = of.encode_vectors("train", evenly(len(shown.dataset.train), FITTED))
    positions = 1 if asked.lengths is None else int(of.model.positions_of(asked).max())
    latents_NTZ = like(vectors_MZ, count, positions, seed=shown.seed)
    if asked.lengths is None:
        return latents_NTZ.view(count, *of.vectors.of_items[0].shape), asked, ""
    return latents_NTZ.transpose(1, 2), asked, ""


def like(vectors_MZ: np.ndarray, count: int, positions: int, *, seed: int) -> Tensor:
    """New vectors `[N, T, Z]`, T of each of N items, from a Gaussian, correlations included, fitted to two or more.

    An autoencoder has no distribution over latents; this is the nearest simple one, and what falls between its data.
    """
    fitted = fit_gaussian([vectors_MZ])
    # By eigenvalues: a covariance of fewer items than latents is singular, which Cholesky does not take.
    variance_Z, axes_ZZ = np.linalg.eigh(fitted.covariance_FF)
    scaled_ZZ = axes_ZZ * np.sqrt(np.clip(variance_Z, 0.0, None))
    noise_NTZ = item_noise(seed, 0, count, (positions, *fitted.mean_F.shape)).double().numpy()
    return torch.from_numpy(fitted.mean_F + noise_NTZ @ scaled_ZZ.T).float()


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


def _by_class(trained: list[int], columns: int, record: Mapping[str, Any]) -> str:
    if not trained:
        return ""
    named = show([record["classes"][number] for number in trained[:columns]], most=MOST_CLASSES)
    more = f" (the first {columns} of {len(trained)})" if len(trained) > columns else ""
    return f", one class a column, from the left {named}{more}"


def _wanted(of: ShownModel, wanted: Wanted) -> str:
    """What new items were asked to be; nothing where nobody asked."""
    if of.prior is not None and not wanted.conditioned:
        return ": in the voice named, which the prior is not conditioned on" if wanted.speakers else ""
    what = [name for name, numbers in (("label", wanted.labels), ("speaker", wanted.speakers)) if numbers]
    return f": {' and '.join(what)} asked for" if what else ""
