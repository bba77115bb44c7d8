"""Figures of latents: those that have nothing to show are left out."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from twostage_pipelines.evaluate.posteriors import Posteriors
from twostage_pipelines.report.latents import _figures


@pytest.mark.parametrize(("scale", "kinds"), [(1.0, ["latent-rates", "correlations"]), (0.0, ["latent-rates"])])
def test_correlations_are_drawn_between_active_latents_alone(scale: float, kinds: list[str]) -> None:
    means = scale * np.random.default_rng(0).standard_normal((50, 4))
    posteriors = Posteriors(means, np.full((50, 4), math.log(0.1)), latent_shape=(4,))
    run = SimpleNamespace(recipe=SimpleNamespace(seed=0))
    shown = SimpleNamespace(run=run)
    of: Any = SimpleNamespace(vectors=SimpleNamespace(posteriors=posteriors), title="vae", shown=shown)
    assert [picture.kind for picture in _figures(of)] == kinds
