"""The demo's claim about its samples: how many of them a classifier of the pictures reads as asked for."""

import numpy as np
import pytest

from twostage.config.load import load_recipe
from twostage_pipelines.modality.choose import load_data, modality_of
from twostage_pipelines.train.demo import readable_share


@pytest.mark.parametrize("recipe_name", ["digits", "vowels"])
def test_real_items_are_read_as_what_they_are_and_others_are_not(recipe_name: str) -> None:
    recipe = load_recipe(recipe_name)
    dataset = load_data(recipe)
    pictures = modality_of(recipe).pictures(recipe, dataset)
    some = np.arange(0, len(dataset.validation), 2)
    shown, labels = pictures.of(pictures.items(dataset.validation, some)), dataset.validation.labels[some]
    share, real = readable_share(shown, labels, pictures, dataset)
    assert min(share, real) > 0.95
    wrong, again = readable_share(shown, (labels + 1) % len(dataset.classes), pictures, dataset)
    assert wrong < 0.05
    assert again == real
