"""How new items of a model are best drawn: temperature, top-p and guidance, chosen on validation items.

1. Items are drawn under every setting of a small grid, with the same noise, and ranked by their Fréchet distance to the
   validation items (features: see `ruler`). Where the prior takes guidance, it is tried on the best of these settings
   and on the distribution as it is.
2. The best one and the distribution as it is are drawn under further seeds. The choice is the former if its distance is
   lower, on average, by more than that difference varies from seed to seed (its range; both are drawn with the same
   noise); otherwise nothing is sharpened. The further seeds alone decide, because the best of many distances of one
   seed is too low.

A lower distance is no better model: sharpening trades variety for likeness, and bits are always of the distribution as
it is. Few samples are enough to rank settings, since all of them have the same bias but for what their spread changes.

Shapes: N items, C x H x W picture.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from twostage.errors import RunError
from twostage.metrics.frechet import FeatureGaussian, frechet_distance
from twostage.progress import say

from ..generate.sharpening import PLAIN, Choice, Sharpening, Tried
from ..generate.trained import Trained
from .ruler import Ruler

SAMPLES = 500
"""Most samples a setting."""
FURTHER_SEEDS = 3
TEMPERATURES = (1.0, 0.9, 0.8, 0.7)
TOP_PS = (1.0, 0.95, 0.85)
GUIDANCES = (1.25, 1.5, 2.0)

Distance = Callable[[Sharpening, int], float]
"""Fréchet distance of samples under a setting and the seed of that number; the same noise for every setting."""


def settings_of(trained: Trained) -> tuple[Sharpening, ...]:
    """The grid of a model: of a VAE temperatures alone."""
    top_ps = TOP_PS if trained.model.latents != "gaussian" else (1.0,)
    return tuple(Sharpening(temperature=t, top_p=p) for t in TEMPERATURES for p in top_ps)


def guided(best: Sharpening) -> tuple[Sharpening, ...]:
    """What is tried with guidance."""
    bases = dict.fromkeys((best, PLAIN))
    return tuple(
        Sharpening(temperature=base.temperature, top_p=base.top_p, guidance=w) for base in bases for w in GUIDANCES
    )


def tried(distance: Distance, settings: Sequence[Sharpening], *, guidable: bool) -> dict[Sharpening, list[float]]:
    """Every setting with its distances: of seed 0, and of the finalists those of the further seeds."""
    found = {setting: [distance(setting, 0)] for setting in settings}
    if guidable:
        found |= {setting: [distance(setting, 0)] for setting in guided(_best(found))}
    for setting in dict.fromkeys((PLAIN, _best(found))):
        found[setting] += [distance(setting, seed) for seed in range(1, 1 + FURTHER_SEEDS)]
    return found


def _best(found: dict[Sharpening, list[float]]) -> Sharpening:
    return min(found, key=lambda setting: found[setting][0])


def verdict(found: dict[Sharpening, list[float]]) -> tuple[Sharpening, float, float, float]:
    """The setting chosen, its mean distance and that of `PLAIN` over the further seeds, and the range of what the
    finalists differ by."""
    best = _best(found)
    lowest, plain = np.array(found[best][1:]), np.array(found[PLAIN][1:])
    saved, noise = float((plain - lowest).mean()), float(np.ptp(plain - lowest))
    chosen = best if saved > noise else PLAIN
    return chosen, float(np.mean(found[chosen][1:])), float(plain.mean()), noise


def choose(
    trained: Trained,
    ruler: Ruler,
    target: FeatureGaussian,
    samples_of: Callable[[Sharpening, int], FeatureGaussian],
    *,
    items: int,
    samples: int,
) -> Choice:
    """Choose for a model and keep what was chosen; what was chosen before for the same weights is kept as it is.

    Args:
        trained: the model.
        ruler: what distances are measured with.
        target: of the validation items.
        samples_of: features of samples under a setting and the seed of a number.
        items: number of validation items.
        samples: drawn each time.

    Raises:
        RunError: the prior is damaged.
    """
    coded = trained.model.latents == "codes"
    prior = trained.prior if coded else None
    facts: dict[str, Any] = {
        "item": trained.files.source,
        "items": items,
        "samples": samples,
        "features": ruler.learned,
        "ruler_sha256": ruler.sha256,
        "stage1_sha256": trained.stage1.sha256,
        "prior_sha256": None if prior is None else prior.sha256,
    }
    path = trained.run.sampling_file(trained.name)
    kept = _kept(trained)
    if kept is not None and all(getattr(kept, name) == fact for name, fact in facts.items()):
        return kept
    say(f"choosing how {trained.name} is best sampled, on validation {trained.files.source}s")
    found = tried(
        lambda setting, seed: frechet_distance(samples_of(setting, seed), target),
        settings_of(trained),
        guidable=prior is not None and prior.model.condition_optional,
    )
    chosen, distance, plain_distance, noise = verdict(found)
    choice = Choice(
        chosen=chosen,
        distance=distance,
        plain_distance=plain_distance,
        noise=noise,
        tried=tuple(Tried(setting, tuple(distances)) for setting, distances in found.items()),
        **facts,
    )
    choice.write(path)
    say(f"{trained.name} is sampled with {choice.words}; {path} has all that was tried")
    return choice


def _kept(trained: Trained) -> Choice | None:
    path = trained.run.sampling_file(trained.name)
    try:
        return Choice.read(path) if path.is_file() else None
    except RunError:
        return None
