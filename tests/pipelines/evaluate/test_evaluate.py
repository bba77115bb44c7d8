"""Paired differences: which row is compared with which, and with what sign; and what is written when."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostage.config.schema import DataConfig, Recipe
from twostage.data import load_dataset
from twostage_pipelines.evaluate import evaluate
from twostage_pipelines.evaluate.differences import Scored, difference, paired_differences, reference_of
from twostage_pipelines.evaluate.evaluate import ModelScores, score_run
from twostage_pipelines.evaluate.rows import Evaluation, PairedDifference, Row
from twostage_pipelines.runs.run import Run

NAMES = {"learned": "vq-vae (ema), learned prior", "uniform": "vq-vae (ema), uniform prior", "vae": "vae, ELBO"}
BITS = {"learned": [2.0, 2.5, 3.0], "uniform": [2.5, 3.5, 3.5], "vae": [1.0, 2.0, 3.0]}
SIZES = np.array([10, 20, 70])
"""Of three recordings."""


def _row(prior: str | None, **changes: Any) -> Row:
    fields: dict[str, Any] = {
        "model": "vq-vae",
        "kind": "vq-vae",
        "codebook_update": "ema",
        "bound": "two-part",
        "prior": prior,
        "likelihood": "hurdle",
        "alphabet": 17,
        "labels": "none",
        "parameters": 1,
        "steps": 1,
        "train_seconds": 1.0,
        "stage1_sha256": "0" * 64,
    }
    return Row(**{**fields, **changes})


def _scored(name: str, sizes: np.ndarray | None = None, **changes: Any) -> Scored:
    row = _row(name, **changes)
    if name == "vae":
        kind: dict[str, Any] = {"model": "vae", "kind": "vae", "codebook_update": None, "bound": "elbo"}
        row = _row("gaussian", **kind, **changes)
    return Scored(row=row, bits_N=np.array(BITS[name]), sizes_N=sizes)


def _pairs(found: tuple[PairedDifference, ...]) -> list[tuple[str, str]]:
    return [(each.other, each.reference) for each in found]


def test_a_longer_code_is_more_and_a_shorter_one_less_than_the_reference() -> None:
    uniform, vae = paired_differences([_scored("uniform"), _scored("learned"), _scored("vae")])
    assert (uniform.other, uniform.reference) == (NAMES["uniform"], NAMES["learned"])
    assert (vae.other, vae.reference) == (NAMES["vae"], NAMES["learned"])
    assert uniform.bits_per_dim == pytest.approx((0.5 + 1.0 + 0.5) / 3)
    assert vae.bits_per_dim == pytest.approx((-1.0 - 0.5 + 0.0) / 3)
    # Of the differences of single items, which is below that of either side: items that are hard are hard for both.
    assert uniform.standard_error == pytest.approx(math.sqrt(1 / 12) / math.sqrt(3))
    assert vae.standard_error == pytest.approx(0.5 / math.sqrt(3))


def test_recordings_count_as_many_times_as_they_have_samples() -> None:
    uniform, vae = paired_differences([_scored(name, SIZES) for name in ("learned", "uniform", "vae")])
    assert uniform.bits_per_dim == pytest.approx(2.0 / 100)
    assert vae.bits_per_dim == pytest.approx(-1.5 / 100)
    residuals = np.array([0.5, 1.0, 0.5]) - 0.02 * SIZES
    assert uniform.standard_error == pytest.approx(math.sqrt((residuals**2).sum() / 6) / (100 / 3))


def test_of_recordings_of_one_length_both_errors_are_one() -> None:
    plain = paired_differences([_scored("learned"), _scored("vae")])[0]
    ratio = paired_differences([_scored("learned", np.full(3, 4)), _scored("vae", np.full(3, 4))])[0]
    assert ratio.bits_per_dim == pytest.approx(plain.bits_per_dim / 4)
    assert plain.standard_error is not None
    assert ratio.standard_error == pytest.approx(plain.standard_error / 4)


def test_the_reference_is_the_first_vq_vae_with_a_learned_prior_on_all_items() -> None:
    vimco = _scored("learned", model="vimco", kind="vimco", codebook_update=None, bound="elbo")
    part, first = _scored("learned", search_items=2), _scored("learned")
    second = _scored("learned", model="vq-vae-loss", codebook_update="loss")
    scored = [_scored("uniform"), vimco, part, first, second]
    assert reference_of(scored) is first
    assert _pairs(paired_differences(scored)) == [
        (NAMES["uniform"], NAMES["learned"]),
        ("vimco, ELBO", NAMES["learned"]),
        ("vq-vae-loss (loss), learned prior", NAMES["learned"]),
    ]
    assert reference_of([_scored("uniform"), _scored("vae"), part]) is None
    assert paired_differences([_scored("uniform"), _scored("vae"), part]) == ()


def test_a_search_is_paired_with_the_encoders_codes_of_the_same_items_alone() -> None:
    own = _scored("learned", search_items=3)
    searched = Scored(row=_row("learned", search_items=3, searched=True), bits_N=np.array([1.5, 2.5, 2.0]), partner=own)
    (pair,) = paired_differences([_scored("learned"), own, searched])
    assert (pair.other, pair.reference) == (searched.row.name, own.row.name)
    assert pair.bits_per_dim == pytest.approx(-0.5)


def test_bits_given_the_label_of_other_levels_or_none_are_compared_with_nothing() -> None:
    without = Scored(row=_row("unigram", likelihood="mse"), bits_N=None)
    others = [_scored("vae", labels="given"), _scored("vae", alphabet=256), without]
    assert paired_differences([_scored("learned"), *others]) == ()
    blind = Scored(row=_row("learned"), bits_N=None)
    assert paired_differences([blind, _scored("vae")]) == ()


def test_a_reference_may_be_what_no_model_made_and_one_item_has_no_error() -> None:
    vae = Scored(row=_scored("vae").row, bits_N=np.array([30.0]), sizes_N=np.array([10]))
    assert difference(vae, "FLAC", np.array([20.0])) == PairedDifference("FLAC", NAMES["vae"], 1.0, None)


def test_bits_are_kept_when_what_is_added_to_them_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ModelScores((_scored("learned"), _scored("uniform")))

    def extras(_: object, evaluation: Evaluation, scored: tuple[Scored, ...]) -> Iterator[Evaluation]:
        assert scored == found.rows
        yield replace(evaluation, log_mel="first")
        raise OSError("no space left")

    monkeypatch.setattr(evaluate, "scores_of", lambda *_: found)
    monkeypatch.setattr(evaluate, "extras", extras)
    monkeypatch.setattr(Run, "trained_models", lambda _: ["vq-vae"])
    monkeypatch.setattr(Run, "begun_models", lambda _: ["vq-vae"])
    monkeypatch.setattr(Run, "check_data", lambda *_: None)
    monkeypatch.setattr(Run, "stage1", lambda *_: None)
    run, dataset = Run(path=tmp_path, recipe=Recipe()), load_dataset(DataConfig(name="digits"))
    with pytest.raises(OSError, match="no space"):
        score_run(run, dataset, device=torch.device("cpu"), split="test")
    kept = Evaluation.read(tmp_path / "evaluation.json")
    assert kept.log_mel == "first"
    assert (kept.unit, kept.dims) == ("bits/dim", 64)
    assert [row.prior for row in kept.rows] == ["learned", "uniform"]
    assert kept.paired_differences == paired_differences([_scored("learned"), _scored("uniform")])
