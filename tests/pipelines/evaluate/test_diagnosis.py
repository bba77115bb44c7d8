"""Diagnosis of a discrete model from its rows: which of them it is about, and that nothing is said twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostage.data import ImageDataset, load_dataset
from twostage.grids import Grids
from twostage.metrics.codebook_usage import CodebookUsage, codebook_usage
from twostage_pipelines.evaluate import diagnosis
from twostage_pipelines.evaluate.diagnosis import Diagnosing
from twostage_pipelines.evaluate.differences import Scored
from twostage_pipelines.evaluate.row_writer import RowWriter
from twostage_pipelines.evaluate.rows import Diagnosis, Row
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")


def learned(**changes: Any) -> Scored:
    """The row of a model whose codes are worth what they cost."""
    row = Row(
        model="vq-vae",
        kind="vq-vae",
        prior="learned",
        likelihood="categorical",
        alphabet=17,
        labels="none",
        distortion_bits_per_dim=1.0,
        rate_bits_per_dim=0.5,
        swapped_distortion_bits_per_dim=9.0,
        parameters=1,
        steps=1,
        train_seconds=1.0,
        stage1_sha256="0" * 64,
    )
    return Scored(replace(row, **changes), None)


@pytest.fixture
def diagnosed(write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Diagnosis]:
    """Diagnoses a tiny model on 12 digits from its rows, with codes that are used evenly or not."""
    run = Run.open(write_run(classes=10))
    dataset = load_dataset(run.recipe.data)
    few = replace(dataset, **{split: _some(dataset, split) for split in ("train", "validation", "test")})

    def diagnose(*rows: Scored, used: int = 16) -> Diagnosis:
        def usage(_: np.ndarray, *, codebook_size: int, lengths_N: None, grids: Grids) -> CodebookUsage:
            return codebook_usage(np.tile(np.arange(480) % used, (2, 1))[None], codebook_size=codebook_size)

        monkeypatch.setattr(diagnosis, "codebook_usage", usage)
        found = Diagnosing(RowWriter(run, few, "test", CPU)).diagnose("vq-vae", run.stage1("vq-vae", CPU), rows)
        assert found is not None
        return found

    return diagnose


def _some(dataset: ImageDataset, split: str) -> Any:
    whole = dataset.split(split)
    return replace(whole, images=whole.images[:12], labels=whole.labels[:12])


def test_a_collapsed_codebook_says_once_how_many_codes_are_used(diagnosed: Callable[..., Diagnosis]) -> None:
    found = diagnosed(learned(), used=3)
    assert found.verdict == "codebook collapsed"
    assert " ".join(found.sentences).count("codes are used") == 1
    assert " ".join(diagnosed(learned()).sentences).count("codes are used on these images") == 1


def test_a_decoder_of_the_codes_has_the_last_word(diagnosed: Callable[..., Diagnosis]) -> None:
    own, ignoring = learned(), learned(decoder_sha256="1" * 64, swapped_distortion_bits_per_dim=1.1)
    for rows in ((own, ignoring), (ignoring, own)):
        assert diagnosed(*rows).numbers["limiting_stage"] == "WaveNet decoder"
    assert diagnosed(own).numbers["limiting_stage"] == "stage two"
    searched = learned(swapped_distortion_bits_per_dim=1.1, search_items=3)
    assert diagnosed(searched, own).verdict == diagnosed(own).verdict


def test_the_costs_say_what_the_prior_is_given(diagnosed: Callable[..., Diagnosis]) -> None:
    assert "under the learned prior given label," in diagnosed(learned(rate_given="label")).sentences[-1]
    assert "given" not in diagnosed(learned(rate_given="nothing")).sentences[-1]
    assert "given" not in diagnosed(learned()).sentences[-1]


def test_what_is_wrong_with_reconstructions_stands_behind_the_verdict(diagnosed: Callable[..., Diagnosis]) -> None:
    plain = diagnosed(learned(explained_share=0.9, sharpness=0.8, grid_db=0.5))
    assert plain.faults == ()
    found = diagnosed(learned(explained_share=0.9, sharpness=0.1, grid_db=6.0), learned(grid_db=None))
    assert (found.verdict, found.faults) == (plain.verdict, ("blurred", "grid"))
    assert found.sentences[: len(plain.sentences)] == plain.sentences
    blurred, grid = found.sentences[len(plain.sentences) :]
    assert blurred.startswith("Reconstructions are blurred: their gradients have 10% of the originals' energy; ")
    assert grid.startswith("Reconstructions show the grid of the codes: 6.0 dB of power at its harmonics")
    assert grid.endswith(".")
