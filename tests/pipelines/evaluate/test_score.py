"""Rows of every model of images and of sound: what they are, that their parts add up, and what they are read from."""

import math
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.data.audio import AudioDataset
from twostage.data.interface import Dataset
from twostage_pipelines.evaluate.evaluate import score_run
from twostage_pipelines.evaluate.rows import Evaluation, Row
from twostage_pipelines.runs import run as runs
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")
PARTS = ("distortion_bits_per_dim", "rate_bits_per_dim", "length_bits_per_dim", "label_bits_per_dim")
PRIORS = ("uniform", "unigram", "learned")


@pytest.fixture(autouse=True)
def _trained_on_these_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "check_data", lambda *_: None)


def _asking(run: Run, **settings: Any) -> Run:
    return replace(run, recipe=replace(run.recipe, evaluation=replace(run.recipe.evaluation, **settings)))


@pytest.fixture
def images(write_run: Callable[..., Path]) -> tuple[Run, Dataset]:
    """Tiny models of images, and 12 digits in every split."""
    digits = load_dataset(DataConfig(name="digits"))
    parts = {name: digits.split(name) for name in ("train", "validation", "test")}
    few = {name: replace(part, images=part.images[:12], labels=part.labels[:12]) for name, part in parts.items()}
    return _asking(Run.open(write_run(classes=10)), iwae_samples=3, batch_size=5), replace(digits, **few)


@pytest.fixture
def sounds(write_audio_run: Callable[..., Path], spoken_dataset: AudioDataset) -> tuple[Run, Dataset]:
    """Tiny models of sound, and three recordings in every split."""
    return _asking(Run.open(write_audio_run()), iwae_samples=3, batch_samples=1000, sampled_items=1), spoken_dataset


def _evaluated(made: tuple[Run, Dataset]) -> Evaluation:
    found = score_run(*made, device=CPU, split="test")
    assert found is not None
    return found[0]


@pytest.mark.parametrize("kind", ["images", "sounds"])
def test_the_parts_of_every_row_add_up(kind: str, request: pytest.FixtureRequest) -> None:
    split = [row for row in _evaluated(request.getfixturevalue(kind)).rows if row.rate_bits_per_dim is not None]
    assert {row.model for row in split} == {"vq-vae", "vae", "cvae"}
    for row in split:
        assert row.bits_per_dim == pytest.approx(sum(getattr(row, part) or 0.0 for part in PARTS), rel=1e-12)


def test_rows_of_images(images: tuple[Run, Dataset]) -> None:
    found = _evaluated(images)
    codes = [row for row in found.rows if row.kind == "vq-vae"]
    assert [row.prior for row in codes] == list(PRIORS)
    assert [row.labels for row in codes] == ["none", "none", "marginalised"]
    assert codes[0].rate_bits_per_dim == pytest.approx(32 * 4 / 64)  # 4x4 positions of 2 codes out of 16
    assert [row.bound for row in found.rows if row.kind == "cvae"] == ["elbo", "iwae"]
    assert {row.labels for row in found.rows if row.kind == "cvae"} == {"given"}
    for row in found.rows:
        assert row.decoder is row.length_bits_per_dim is row.rate_given is row.bits_per_code is None
        assert row.psnr_db is not None
    learned = codes[-1]
    assert learned.parameters > codes[0].parameters
    assert (codes[0].steps, learned.steps, learned.train_seconds) == (1, 2, 4.0)


def test_rows_of_sounds_are_those_of_both_decoders(sounds: tuple[Run, Dataset]) -> None:
    run, dataset = sounds
    found = _evaluated(sounds)
    codes = [row for row in found.rows if row.kind == "vq-vae"]
    decoders = ("convolutional", "wavenet")
    assert [(row.decoder, row.prior) for row in codes] == [(d, p) for d in decoders for p in PRIORS]
    assert [row.log_mel_items for row in codes] == [3, 3, 3, 1, 1, 1]
    assert {row.rate_bits_per_dim for row in codes[:3]} == {row.rate_bits_per_dim for row in codes[3:]}
    told = codes[2]
    assert (told.rate_given, told.distortion_given, told.labels) == ("label and speaker", "speaker", "paid")
    assert told.label_bits_per_dim is not None
    assert codes[0].label_bits_per_dim is not None
    assert told.label_bits_per_dim > codes[0].label_bits_per_dim > 0  # who speaks is told every decoder
    stage1 = run.stage1("vq-vae", CPU)
    own, second = stage1.model, run.decoder("vq-vae", stage1, CPU).model
    nats = 0.0
    for item in range(3):
        samples = torch.from_numpy(dataset.test.recording(item).copy())  # type: ignore[attr-defined]
        padded, mask = torch.zeros(1, -(-len(samples) // 64) * 64, dtype=torch.int16), torch.zeros(1, 1)
        padded[0, : len(samples)] = samples
        mask = torch.arange(padded.shape[1])[None] < len(samples)
        with torch.no_grad():
            vectors = own.condition_vectors(own.encode(padded, mask))
            nats -= second.log_prob(padded, mask, vectors, torch.tensor([item])).item()
    assert codes[3].distortion_bits_per_dim == pytest.approx(nats / math.log(2) / found.dims, rel=1e-4)


def test_an_autoencoder_of_sound_has_no_bits_and_a_conditional_vae_is_given_its_label(
    sounds: tuple[Run, Dataset],
) -> None:
    found = _evaluated(sounds)
    by_model = {row.model: row for row in found.rows}
    autoencoder, conditional = by_model["ae"], by_model["cvae"]
    assert autoencoder.bits_per_dim is autoencoder.length_bits_per_dim is autoencoder.bound is None
    assert autoencoder.log_mel_l1 is not None
    assert (conditional.labels, conditional.distortion_given) == ("given", "label and speaker")
    assert conditional.label_bits_per_dim == by_model["vae"].label_bits_per_dim  # the speaker is paid, as ever
    assert not {pair.other for pair in found.paired_differences} & {autoencoder.name, conditional.name}


@pytest.mark.parametrize("kind", ["images", "sounds"])
def test_each_model_is_loaded_and_its_codes_are_read_once(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, dataset = request.getfixturevalue(kind)
    run = _asking(run, coded_items=3, search_items=2 if kind == "images" else 0)
    _evaluated((run, dataset))  # makes the codes
    seen = Counter[str]()

    def counted(name: str, load: Callable[..., Any]) -> None:
        def loaded(path: Path, *arguments: Any, **settings: Any) -> Any:
            seen[str(path.relative_to(run.path))] += 1
            return load(path, *arguments, **settings)

        monkeypatch.setattr(runs, name, loaded)

    counted("load_model", runs.load_model)
    counted("load_codes", runs.load_codes)
    again = _evaluated((replace(run), dataset))
    assert [trip.identical for trip in again.coding] == [True]
    assert set(seen.values()) == {1}
    stages = {"stage1", "prior"} | ({"decoder"} if kind == "sounds" else set())
    models = {Path(path).parent.name for path in seen if path.startswith("models")}
    assert models == {"vq-vae", "vae", "cvae"} | ({"ae"} if kind == "sounds" else set())
    assert {Path(path).name for path in seen if path.startswith("models/vq-vae")} == stages
    assert {Path(path).stem for path in seen if path.startswith("codes")} == {"train", "validation", "test"}


def test_a_model_without_a_prior_keeps_its_other_rows(
    images: tuple[Run, Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(images[0].prior_folder("vq-vae"))
    rows: list[Row] = [row for row in _evaluated(images).rows if row.kind == "vq-vae"]
    assert [row.prior for row in rows] == ["uniform", "unigram"]
    assert "vq-vae has no finished prior" in capsys.readouterr().err


def test_searched_codes_are_paired_with_the_encoders_on_the_same_items(images: tuple[Run, Dataset]) -> None:
    found = _evaluated((_asking(images[0], search_items=4), images[1]))
    own, searched = (row for row in found.rows if row.search_items is not None)
    assert (own.search_items, own.searched, searched.searched) == (4, False, True)
    (pair,) = (pair for pair in found.paired_differences if pair.other == searched.name)
    assert pair.reference == own.name
    assert own.bits_per_dim is not None
    assert searched.bits_per_dim is not None
    assert pair.bits_per_dim == pytest.approx(searched.bits_per_dim - own.bits_per_dim, abs=1e-9)
    assert pair.bits_per_dim <= 1e-9


def test_the_batches_of_an_evaluation_change_nothing(images: tuple[Run, Dataset]) -> None:
    first = _evaluated(images)
    second = _evaluated((_asking(images[0], batch_size=12), images[1]))
    for one, other in zip(first.rows, second.rows, strict=True):
        assert np.isclose(one.bits_per_dim or 0.0, other.bits_per_dim or 0.0, rtol=1e-6)
