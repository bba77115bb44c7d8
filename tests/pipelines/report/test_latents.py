"""Latents in the report: what a decoder is given beside them, and figures that have nothing to show."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stage1_vqvae.batch import Asked
from twostage_pipelines.evaluate.posteriors import Posteriors
from twostage_pipelines.report.latents import _decode, _figures


def test_another_length_is_asked_for_on_the_device_of_the_model() -> None:
    given: list[Asked] = []

    def decode(latents: Tensor, asked: Asked) -> np.ndarray:
        given.append(asked)
        return latents.numpy()

    elsewhere = torch.zeros(1, dtype=torch.int64, device="meta")  # as an accelerator: no tensor of the CPU goes with it
    of: Any = SimpleNamespace(
        asked=lambda rows: Asked(items=torch.arange(len(rows)), lengths=elsewhere, speakers=elsewhere),
        trained=SimpleNamespace(files=SimpleNamespace(length_after=lambda positions, model: 4 * positions)),
        model=None,
        decode=decode,
        shown=SimpleNamespace(pictures=SimpleNamespace(of=lambda items: items)),
    )
    pictures = _decode(of, 0, lambda numbers: numbers, positions=3)(np.zeros((2, 5)))
    (asked,) = given
    assert len(pictures) == 2
    assert asked.lengths is not None
    assert asked.speakers is not None
    assert asked.lengths.shape == (2,)
    assert asked.lengths.device == asked.speakers.device == elsewhere.device
    assert asked.items.device.type == "cpu"


@pytest.mark.parametrize(("scale", "kinds"), [(1.0, ["latent-rates", "correlations"]), (0.0, ["latent-rates"])])
def test_correlations_are_drawn_between_active_latents_alone(scale: float, kinds: list[str]) -> None:
    means = scale * np.random.default_rng(0).standard_normal((50, 4))
    posteriors = Posteriors(means, np.full((50, 4), math.log(0.1)), latent_shape=(4,))
    run = SimpleNamespace(recipe=SimpleNamespace(seed=0))
    shown = SimpleNamespace(run=run)
    of: Any = SimpleNamespace(vectors=SimpleNamespace(posteriors=posteriors), title="vae", shown=shown)
    assert [picture.kind for picture in _figures(of)] == kinds
