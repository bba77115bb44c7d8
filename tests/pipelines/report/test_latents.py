"""Decoded latents of the report: what a decoder is given beside them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.interface import Asked
from twostage_pipelines.report.latents import _decode


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
