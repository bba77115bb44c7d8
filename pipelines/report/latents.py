"""The report on continuous latents: what those of a model hold, what lies between them, models beside one another.

Latents of a sequence are looked at position by position: each is a vector of its own.

Shapes: N test items, Z latents of a vector, T positions of a sequence.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Asked
from twostage.metrics.statistics import evenly
from twostage.training.record import read_metrics

from ..evaluate.latent_diagnosis import diagnose_posteriors
from ..evaluate.rows import Evaluation
from ..generate.latent_sheets import (
    Decode,
    LatentSpread,
    interpolations,
    latent_draws,
    manifold,
    reconstructions_by_model,
    traversals,
)
from ..generate.sheets import Sheet
from ..media.figures import RatePoint, rate_distortion
from ..runs.class_numbers import trained_numbers
from .diagnosis_figures import (
    MOST_COLOURS,
    correlations,
    in_two_dimensions,
    latent_rates,
    latent_scatter,
    training_parts,
)
from .drawn import Drawn
from .shown import Picture, Shown, ShownModel

SCATTERED = 5000
"""Most vectors of a scatter of latents."""
MOST_SIDE_BY_SIDE = 6
"""Models in one scatter; more are too small to read."""
TRAVERSED = 10
"""Latents that are moved, those of the highest rate first."""
PAIRS = 8
DRAWN = 48
"""Decoded random latents of each model."""
CORRELATED = 64
"""Most latents whose correlations are drawn."""


def by_beta(models: Sequence[ShownModel]) -> list[ShownModel]:
    """An autoencoder, VAEs in the order of their beta, and last what is given a label: as one looks for its effect."""
    return sorted(models, key=lambda of: (of.model.classes > 0, of.model.beta or 0.0))


def order_of(of: ShownModel) -> np.ndarray:
    """Latents `[Z]` in the order of what they tell: by rate, or by variance where nothing has a rate."""
    found = of.vectors
    telling_Z = found.means_MZ.var(0) if found.posteriors is None else found.posteriors.kl_nats().mean(0)
    return np.argsort(telling_Z)[::-1]


def spread_of(of: ShownModel) -> LatentSpread:
    """What its latents are moved through."""
    if of.vectors.posteriors is None:
        return LatentSpread.of(of.vectors.means_MZ)
    return LatentSpread.prior(of.vectors.means_MZ.shape[1])


def latents_part(of: ShownModel) -> str:
    """Figures and sheets of the latents of one model; empty of codes."""
    if not of.continuous:
        return ""
    parts = ["<h3>Latents</h3>"]
    pictures: list[Picture | Sheet] = [*_figures(of), *_sheets(of)]
    for picture in pictures:
        parts.append(of.shown.keep(f"{of.name}-{picture.kind}", picture))
    return "".join(parts)


def _figures(of: ShownModel) -> Iterator[Picture]:
    """Rates and correlations of the latents; an autoencoder has neither."""
    posteriors, title = of.vectors.posteriors, of.title
    if posteriors is None or len(posteriors) < 2:
        return
    found = diagnose_posteriors(posteriors, seed=of.shown.run.recipe.seed)
    caption = f"{title}: {found.sentence}"
    yield Picture("latent-rates", latent_rates(found, title=f"{title}: rate of every latent"), caption)
    if found.active_units > 1 and len(found.kl_nats_Z) <= CORRELATED:
        figure = correlations(found, title=f"{title}: correlations")
        yield Picture("correlations", figure, f"{title}: {found.entanglement}")


def _is_vector(of: ShownModel) -> bool:
    """Whether an item is one vector, and no sequence of them."""
    return len(of.vectors.means_MZ) == len(of.vectors.of_items)


def _sheets(of: ShownModel) -> Iterator[Sheet]:
    """Traversals, interpolations and, of two latents, the manifold; the label of a conditional model is held."""
    test, name = of.shown.dataset.test, of.name
    conditional, levels = of.model.classes > 0, of.shown.pictures.levels
    # The first item, if the model has met its label: what it makes of another is what it began as.
    met_N = np.isin(test.labels, trained_numbers(of.trained.record, "labels")) if conditional else np.ones(len(test))
    item = int(met_N.argmax())
    if conditional:
        name += f", given the label {of.shown.dataset.classes[test.labels[item]]}"
    alike = np.flatnonzero(test.labels == test.labels[item]) if conditional else np.arange(len(test))
    start, moved = of.vectors.of_items[item], _moved(of, item)
    chosen, spread = order_of(of)[:TRAVERSED].tolist(), spread_of(of)
    if start.shape[1:] and not _is_vector(of):
        held_Z = np.full(len(start), np.nan)
        yield traversals(f"{name}, all positions at once", moved, held_Z, chosen, spread=spread, levels=levels)
    else:
        yield traversals(name, moved, start.flatten().numpy(), chosen, spread=spread, levels=levels)
    ends = alike[evenly(len(alike), 2 * PAIRS)]
    half = len(ends) // 2
    if half:
        yield _between(of, name, ends[:half], ends[half : 2 * half])
    if spread.mean_Z.shape == (2,) and _is_vector(of) and not of.model.autoregressive:
        yield manifold(name, moved, spread=spread, levels=levels)


def _moved(of: ShownModel, item: int) -> Decode:
    """Pictures of vectors `[N, Z]` as latents, everything else that of a test item.

    Of a sequence a vector stands at every position; where it is nan, latents stay those of the item.
    """
    start = of.vectors.of_items[item]
    if _is_vector(of):
        return _decode(of, item, lambda vectors_NZ: vectors_NZ.view(-1, *start.shape))
    return _decode(
        of, item, lambda vectors_NZ: torch.where(vectors_NZ.isnan()[..., None], start, vectors_NZ[..., None])
    )


def _decode(of: ShownModel, item: int, latents_of: Callable[[Tensor], Tensor], positions: int | None = None) -> Decode:
    """Pictures of arrays of numbers, which a function turns into latents; label, speaker and length are an item's.

    `positions` is another length, in vectors.
    """
    own = of.asked(np.array([item]))
    if positions is not None:
        assert own.lengths is not None
        own = replace(own, lengths=of.trained.files.length_after(torch.full_like(own.lengths, positions), of.model))

    def decode(numbers: np.ndarray) -> np.ndarray:
        latents = latents_of(torch.from_numpy(numbers).float())
        given = (own.lengths, own.labels, own.speakers)
        lengths, labels, speakers = (None if each is None else each.repeat(len(latents)) for each in given)
        asked = Asked(items=torch.arange(len(latents)), lengths=lengths, labels=labels, speakers=speakers)
        return of.shown.pictures.of(of.decode(latents, asked))

    return decode


def _between(of: ShownModel, name: str, first: np.ndarray, last: np.ndarray) -> Sheet:
    """Interpolations between test items, sequences cut to the shortest of them; in the voice of the first of all."""
    found = of.vectors
    length = None if _is_vector(of) else int(np.bincount(found.items_M)[np.concatenate([first, last])].min())
    ends = [torch.stack([found.of_items[row][..., :length] for row in rows]) for rows in (first, last)]
    decode = _decode(of, int(first[0]), lambda flat_NZ: flat_NZ.view(-1, *ends[0].shape[1:]), positions=length)
    flat = [latents.flatten(1).numpy() for latents in ends]
    return interpolations(name, decode, flat[0], flat[1], levels=of.shown.pictures.levels)


def latents_section(
    shown: Shown, models: Sequence[ShownModel], drawn: Mapping[str, Drawn], evaluation: Evaluation
) -> str:
    """Continuous models beside one another; empty without any."""
    models = by_beta([of for of in models if of.continuous])
    if not models:
        return ""
    pictures = [scatter(shown, models), *_joint(shown, models, drawn), _sweep(evaluation), loss_curves(shown, models)]
    kept = "".join(shown.keep(picture.kind, picture) for picture in pictures if picture is not None)
    return f"<h2>Continuous latents</h2>{kept}"


def scatter(shown: Shown, models: Sequence[ShownModel]) -> Picture:
    """Latents of the test items under every model, coloured by class."""
    classes, clouds = shown.dataset.classes, []
    for of in models[:MOST_SIDE_BY_SIDE]:
        found = of.vectors
        some = evenly(len(found.means_MZ), SCATTERED)
        labels = shown.dataset.test.labels[found.items_M[some]]
        clouds.append(in_two_dimensions(of.title, found.means_MZ[some], labels, has_prior=found.posteriors is not None))
    what = f"{len(some):,} test items"
    if not all(map(_is_vector, models)):
        what = f"{len(some):,} positions of {len(shown.dataset.test):,} test items"
    colours = ", coloured by class in the order of their numbers" if 1 < len(classes) <= MOST_COLOURS else ""
    prior = "; dashed: where 95 % of the prior lies" if any(cloud.has_prior for cloud in clouds) else ""
    left_out = ", ".join(of.name for of in models[MOST_SIDE_BY_SIDE:])
    more = f" Not shown: {left_out}." if left_out else ""
    caption = f"Latents of {what}{colours}{prior}.{more}"
    return Picture("latent-scatter", latent_scatter(clouds, classes=classes), caption)


def _joint(shown: Shown, models: Sequence[ShownModel], drawn: Mapping[str, Drawn]) -> Iterator[Sheet]:
    """Draws of an autoencoder beside those of a VAE, and one model's reconstructions beside another's."""
    plain = [of for of in models if not of.model.classes][:MOST_SIDE_BY_SIDE]
    if len(plain) < 2:
        return
    pictures, levels = shown.pictures, shown.pictures.levels
    kinds = {of.model.latents for of in plain}
    if len(kinds) > 1 and all(of.name in drawn for of in plain):  # a single item has no covariance to fit
        made = {
            f"{of.title} (its prior)"
            if of.model.latents == "gaussian"
            else f"{of.name} (a Gaussian fitted to its latents)": pictures.of(drawn[of.name].items[:DRAWN])
            for of in plain
        }
        yield latent_draws(made, levels=levels, columns=6)
    some = evenly(len(shown.reconstructed), PAIRS)
    decoded = {of.title: pictures.of([of.reconstructions[place] for place in some]) for of in plain}
    originals = pictures.of([shown.originals[place] for place in some])
    yield reconstructions_by_model(originals, decoded, levels=levels, item=pictures.item)


def _sweep(evaluation: Evaluation) -> Picture | None:
    """Rate and distortion of VAEs of several betas, and of what stands beside them; None of a single beta."""
    alphabets = {row.alphabet for row in evaluation.rows if row.beta is not None}
    points = [
        RatePoint(row.name, row.rate_bits_per_dim, row.distortion_bits_per_dim, beta=row.beta)
        for row in evaluation.rows
        if row.rate_bits_per_dim is not None
        and row.distortion_bits_per_dim is not None
        and row.labels != "given"
        and row.search_items is None
        and row.alphabet in alphabets
    ]
    if len({point.beta for point in points if point.beta is not None}) < 2:
        return None
    figure = rate_distortion(points, unit=evaluation.unit, totals={}, title=f"{evaluation.split} set")
    return Picture("rate-distortion", figure, "What a smaller beta pays in rate, and saves in distortion.")


def loss_curves(shown: Shown, models: Sequence[ShownModel]) -> Picture | None:
    """Total, reconstruction and KL of every training; an autoencoder has no total, and None is left of it alone."""
    vaes = [of for of in models if of.model.latents == "gaussian"]
    records = {of.title: read_metrics(shown.run.stage1_folder(of.name) / "metrics.jsonl") for of in vaes}
    caption = "Thin: training batches; dots: validation set. Total is at beta = 1."
    given = [of.title for of in vaes if of.model.classes]
    if given:
        caption += f" That of {', '.join(given)} is given the label, not to be compared with the others."
    return Picture("latent-training", training_parts(records, dim=shown.pictures.dim), caption) if records else None
