"""How a setting is chosen: by seeds that did not rank the settings, and only beyond the noise between them."""

from collections.abc import Callable

import pytest

from twostage_pipelines.evaluate.sharpening_choice import (
    FURTHER_SEEDS,
    GUIDANCES,
    TEMPERATURES,
    guided,
    tried,
    verdict,
)
from twostage_pipelines.generate.sharpening import PLAIN, Sharpening

COLD, COOL, WARM = (Sharpening(temperature=temperature) for temperature in (0.7, 0.8, 0.9))
GRID = (PLAIN, WARM, COOL, COLD)
MEANS = {PLAIN: 4.0, WARM: 3.0, COOL: 2.0, COLD: 5.0}


def _distance(noise: float, *, common: float = 0.0) -> Callable[[Sharpening, int], float]:
    """Of samples whose distance is their mean, from seed to seed up or down by the noise, and up by `common`."""
    return lambda setting, seed: (
        MEANS.get(setting, 9.0) + common * seed + noise * (-1) ** seed * (1 if setting == PLAIN else -1)
    )


def test_the_best_setting_is_chosen_by_the_further_seeds() -> None:
    found = tried(_distance(0.1), GRID, guidable=False)
    assert {setting: len(distances) for setting, distances in found.items()} == {
        PLAIN: 1 + FURTHER_SEEDS, WARM: 1, COOL: 1 + FURTHER_SEEDS, COLD: 1,
    }  # fmt: skip
    chosen, distance, plain_distance, noise = verdict(found)
    assert chosen == COOL
    assert distance == pytest.approx(sum(found[COOL][1:]) / FURTHER_SEEDS)
    assert plain_distance == pytest.approx(sum(found[PLAIN][1:]) / FURTHER_SEEDS)
    assert noise == pytest.approx(0.4)


def test_what_is_not_better_than_the_noise_is_not_chosen() -> None:
    """2 apart, on average 0.67 of the noise nearer: a difference that varies by 1.6 leaves it, by 2.4 does not."""
    assert verdict(tried(_distance(0.4), GRID, guidable=False))[0] == COOL
    assert verdict(tried(_distance(0.6), GRID, guidable=False))[0] == PLAIN
    # What moves both alike is no noise, and luck of the first seed alone is no reason.
    assert verdict(tried(_distance(0.4, common=10.0), GRID, guidable=False))[0] == COOL
    lucky = tried(lambda setting, seed: 1.0 if setting == COLD and seed == 0 else 4.0, GRID, guidable=False)
    assert lucky[COLD][0] == 1.0
    assert verdict(lucky) == (PLAIN, 4.0, 4.0, 0.0)
    same = tried(lambda setting, seed: 4.0, GRID, guidable=False)
    assert verdict(same)[0] == PLAIN
    assert len(same[PLAIN]) == 1 + FURTHER_SEEDS


def test_guidance_is_tried_on_the_best_setting_and_on_the_model_as_it_is() -> None:
    asked: list[Sharpening] = []

    def distance(setting: Sharpening, seed: int) -> float:
        asked.append(setting)
        return 1.0 if setting == Sharpening(guidance=2.0) else MEANS.get(setting, 9.0)

    found = tried(distance, GRID, guidable=True)
    assert set(found) - set(GRID) == {
        Sharpening(temperature=temperature, guidance=guidance) for temperature in (0.8, 1.0) for guidance in GUIDANCES
    }
    assert len(asked) == len(GRID) + 2 * len(GUIDANCES) + 2 * FURTHER_SEEDS
    assert verdict(found)[0] == Sharpening(guidance=2.0)
    assert guided(PLAIN) == tuple(Sharpening(guidance=guidance) for guidance in GUIDANCES)
    assert 1.0 in TEMPERATURES
