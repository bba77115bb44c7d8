"""Scores of samples: real images as samples, labels asked for, and what cannot be scored."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostage.config.schema import DataConfig, Recipe
from twostage.data import ImageDataset, Split, load_dataset
from twostage.data.audio import AudioDataset, AudioSplit
from twostage_pipelines.evaluate import classifier, sample_quality
from twostage_pipelines.evaluate.row_writer import RowWriter
from twostage_pipelines.evaluate.rows import SampleScore
from twostage_pipelines.evaluate.sample_quality import draw_for_scoring, reconstruct_for_scoring, score_samples
from twostage_pipelines.generate.drawing import Drawing
from twostage_pipelines.generate.sharpening import Choice, Sharpening
from twostage_pipelines.generate.two_stage import load_run, open_model
from twostage_pipelines.modality.audio_pictures import AudioPictures
from twostage_pipelines.modality.image_pictures import ImagePictures
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")
WriteRun = Callable[..., Path]


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    """A classifier folder, for every test to copy."""
    folder = tmp_path_factory.mktemp("classifier") / "classifier"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "EPOCHS", 2)
        pictures = ImagePictures(Recipe(), digits)
        classifier.trained_classifier(folder, digits, pictures, device=CPU, batch_size=100)
    return folder


@pytest.fixture
def run(write_run: WriteRun, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    path = write_run(classes=10)
    shutil.copytree(trained, path / "classifier")
    monkeypatch.setattr(classifier, "EPOCHS", 2)
    return _wanting(Run.open(path), 100)


def _wanting(run: Run, samples: int) -> Run:
    evaluation = replace(run.recipe.evaluation, frechet_samples=samples)
    return replace(run, recipe=replace(run.recipe, evaluation=evaluation))


def _score(run: Run, dataset: ImageDataset, split: str = "test") -> dict[str, SampleScore]:
    return {score.model: score for score in score_samples(run, dataset, split, CPU)}


def test_models_are_scored_against_what_real_images_reach(run: Run, digits: ImageDataset) -> None:
    scores = _score(run, digits)
    assert list(scores) == ["vq-vae", "vae", "cvae"]
    for score in scores.values():
        assert score.samples == 100
        assert score.frechet_distance > 5 * score.reference_distance > 0  # random weights make no digits
        assert score.classifier_accuracy > 0.8
    agreement = scores["vq-vae"].label_agreement
    assert agreement is not None
    assert agreement < 0.4
    assert scores["vae"].label_agreement is None
    assert len({score.reference_distance for score in scores.values()}) == 1
    assert _score(run, digits) == scores


def test_training_images_as_samples_reach_the_reference_and_their_labels(
    run: Run, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = sample_quality.evenly(len(digits.train), 100)

    def real(*_: Any, **__: Any) -> tuple[np.ndarray, np.ndarray]:
        return digits.train.images[chosen], digits.train.labels[chosen]

    monkeypatch.setattr(sample_quality, "draw_for_scoring", real)
    score = _score(run, digits)["vq-vae"]
    assert score.frechet_distance == score.reference_distance
    assert score.label_agreement is not None
    assert score.label_agreement > 0.8
    whole = replace(digits, test=Split(images=digits.train.images[chosen], labels=digits.train.labels[chosen]))
    # Other test images are other data: the classifier is trained again, and the very images compared have no distance.
    assert _score(run, whole)["vq-vae"].frechet_distance < 1e-6 * score.frechet_distance


def test_labels_are_asked_for_in_the_proportions_of_the_training_data(run: Run, digits: ImageDataset) -> None:
    rare = np.flatnonzero(digits.train.labels == 4)[:20]
    kept = np.sort(np.concatenate([rare, np.flatnonzero(digits.train.labels == 7)]))
    uneven = replace(digits, train=Split(images=digits.train.images[kept], labels=digits.train.labels[kept]))
    pictures = ImagePictures(run.recipe, uneven)
    model = open_model(run, "vq-vae", CPU)
    images, labels = draw_for_scoring(model, uneven, pictures, Drawing(), count=60)
    assert labels is not None
    assert set(labels.tolist()) == {4, 7}
    assert abs((labels == 4).mean() - 20 / len(kept)) < 0.02
    drawn = load_run(run.path).generate(60, labels=torch.from_numpy(labels), seed=run.recipe.seed).numpy()
    assert images.dtype == np.uint8
    assert (np.abs(images - drawn) <= 0.5).all()


def test_a_prior_without_labels_and_one_that_is_not_finished(
    write_run: WriteRun, trained: Path, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "EPOCHS", 2)
    path = write_run(classes=10, conditional=False)
    shutil.copytree(trained, path / "classifier")
    run = _wanting(Run.open(path), 100)
    assert _score(run, digits, "validation")["vq-vae"].label_agreement is None
    shutil.rmtree(path / "models/vq-vae/prior")
    scores = _score(run, digits)
    assert [(name, score.samples, score.frechet_distance is None) for name, score in scores.items()] == [
        ("vq-vae", 0, True), ("vae", 100, False), ("cvae", 100, False),
    ]  # fmt: skip
    # Reconstructions take no prior.
    assert scores["vq-vae"].reconstruction_distance > scores["vq-vae"].reference_distance


@torch.no_grad()
def test_reconstructions_are_those_of_the_items_they_are_compared_with(
    run: Run, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = run.stage1("vae", CPU).model
    writer, rows = RowWriter(run, digits, "test", CPU), sample_quality.evenly(len(digits.test), 100)
    made = reconstruct_for_scoring(writer, model, ImagePictures(run.recipe, digits), rows)
    expected = model.reconstruct(torch.from_numpy(digits.test.images[rows])).numpy()
    assert made.dtype == np.uint8
    assert (np.abs(made - expected) <= 0.5).all()
    monkeypatch.setattr(sample_quality, "reconstruct_for_scoring", lambda *_: digits.test.images[rows])
    score = _score(run, digits)["vae"]
    assert (score.reconstructions, score.samples) == (100, 100)
    assert score.reconstruction_distance < 1e-6 * score.reference_distance


def _spoken(count: int, seed: int) -> AudioSplit:
    """Recordings of 300 to 500 samples: tones labelled 0, noise labelled 1, by three speakers in turn."""
    generator, sounds = np.random.default_rng(seed), []
    for item in range(count):
        samples = int(generator.integers(300, 500))
        tone, noise = np.sin(0.3 * np.arange(samples)), generator.uniform(-1, 1, samples)
        sounds.append((8000 * (tone if item % 2 == 0 else noise)).astype(np.int16))
    return AudioSplit(
        samples=np.concatenate(sounds),
        offsets=np.cumsum([0, *map(len, sounds)]),
        labels=np.arange(count) % 2,
        speakers=np.arange(count) % 3,
        names=tuple(map(str, range(count))),
    )


def test_sounds_are_scored_by_their_spectrograms(
    write_audio_run: Callable[..., Path], spoken_dataset: AudioDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "EPOCHS", 10)
    parts = {"train": _spoken(120, 0), "validation": _spoken(20, 1), "test": _spoken(80, 2)}
    dataset = replace(spoken_dataset, **parts)
    run = _wanting(Run.open(write_audio_run()), 70)
    scores = {score.model: score for score in score_samples(run, dataset, "test", CPU)}
    assert list(scores) == ["vq-vae", "vae", "ae", "cvae"]
    assert all(score.reconstruction_distance > 0 for score in scores.values())
    assert scores.pop("ae").frechet_distance is None  # an autoencoder has nothing to draw from
    for score in scores.values():
        assert score.samples == 70
        assert score.classifier_accuracy == 1.0
        assert score.frechet_distance > 5 * score.reference_distance > 0
    assert scores["vae"].label_agreement is None
    assert scores["vq-vae"].label_agreement == pytest.approx(0.5, abs=0.2)  # random weights hear no label


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_sounds_of_a_vae_are_as_long_as_training_recordings_of_their_label(
    model: str, write_audio_run: Callable[..., Path], spoken_dataset: AudioDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.array([100, 110, 120, 400, 410, 420])  # in the order of the labels
    rows = np.array([3, 0, 4, 1, 5, 2])
    train = AudioSplit(
        samples=np.zeros(lengths.sum(), np.int16),
        offsets=np.cumsum([0, *lengths[rows]]),
        labels=np.array([0, 0, 0, 1, 1, 1])[rows],
        speakers=np.zeros(6, np.int64),
        names=tuple("abcdef"),
    )
    drawn: list[np.ndarray] = []

    class Kept(AudioPictures):
        def of(self, items: Any) -> np.ndarray:
            drawn.extend(items)
            return np.zeros((len(items), 1, 2, 2), np.uint8)

    run, dataset = Run.open(write_audio_run()), replace(spoken_dataset, train=train)
    pictures = Kept(run.recipe, dataset)
    _, labels = draw_for_scoring(open_model(run, model, CPU), dataset, pictures, Drawing(), count=4)
    assert (labels is None) == (model == "vae")
    chosen = sample_quality.evenly(6, 4)
    assert [len(sound) for sound in drawn] == lengths[chosen].tolist()
    if labels is not None:
        assert labels.tolist() == np.repeat([0, 1], 3)[chosen].tolist()


def test_what_cannot_be_scored_is_left_out_with_a_sentence(
    run: Run, digits: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    few = replace(digits, test=Split(images=digits.test.images[:64], labels=digits.test.labels[:64]))
    for wanting, dataset, sentence in (
        (_wanting(run, 64), digits, "needs more than 64 items"),
        (run, few, "needs more than 64 items"),
    ):
        assert score_samples(wanting, dataset, "test", CPU) == ()
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    shutil.rmtree(run.path / "classifier")
    assert score_samples(_wanting(run, 0), digits, "test", CPU) == ()
    assert capsys.readouterr().err == ""
    assert not (run.path / "classifier").exists()


def test_no_more_samples_are_drawn_than_there_are_training_images(
    run: Run, digits: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    few = replace(digits, train=Split(images=digits.train.images[:90], labels=digits.train.labels[:90]))
    assert {score.samples for score in _score(run, few).values()} == {90}
    assert "90 instead of 100" in capsys.readouterr().err


def test_data_without_labels_are_scored_by_how_they_are_turned(
    write_run: WriteRun, digits: ImageDataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "EPOCHS", 8)
    run, unlabelled = _wanting(Run.open(write_run(classes=0)), 100), replace(digits, classes=())
    scores = _score(run, unlabelled)
    assert list(scores) == ["vq-vae", "vae"]
    for score in scores.values():
        assert score.features == "turns"
        assert score.frechet_distance > 3 * score.reference_distance > 0
        assert score.label_agreement is None
        assert 0.3 < score.classifier_accuracy < 1  # by chance an eighth
    assert "tells the turn of" in capsys.readouterr().err
    assert _score(run, unlabelled) == scores
    assert "trained again" not in capsys.readouterr().err
    # With labels it is another ruler.
    assert _score(run, digits)["vq-vae"].features == "labels"
    assert "damaged or of other data" in capsys.readouterr().err


def test_how_a_model_is_drawn_is_chosen_on_validation_images_and_scored_on_test_images(
    run: Run, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real images stand in for samples: under the better setting those of training, otherwise one digit alone."""
    sharp, calls = Sharpening(temperature=0.8), list[tuple[float, int]]()
    ones = np.flatnonzero(digits.train.labels == 1)

    def real(*arguments: Any, count: int, **_: Any) -> tuple[np.ndarray, np.ndarray]:
        how = arguments[3]
        calls.append((how.temperature, how.seed))
        rows = np.random.default_rng(how.seed).choice(ones if how.asked != sharp else len(digits.train), count)
        return digits.train.images[rows], digits.train.labels[rows]

    monkeypatch.setattr(sample_quality, "draw_for_scoring", real)
    score = _score(run, digits)["vq-vae"]
    assert score.chosen == "temperature 0.8"
    assert score.chosen_distance < score.frechet_distance / 5
    choice = Choice.read(run.sampling_file("vq-vae"))
    assert (choice.chosen, choice.items, choice.samples) == (sharp, len(digits.validation), 100)
    assert choice.distance + choice.noise < choice.plain_distance
    assert "vq-vae is sampled with temperature 0.8 (chosen on validation images" in capsys.readouterr().err
    scored = run.recipe.seed
    seeds = [seed for _, seed in calls[: calls.index((0.8, scored)) + 1]]
    assert seeds.count(scored) == 2  # the model as it is, and as chosen; nothing was chosen by these samples
    # It is chosen once for the same weights, and once more for others.
    before = len(calls)
    assert _score(run, digits)["vq-vae"] == score
    assert len(calls) - before < before / 3
    replace(choice, stage1_sha256="other").write(run.sampling_file("vq-vae"))
    assert _score(run, digits)["vq-vae"] == score
    assert Choice.read(run.sampling_file("vq-vae")) == choice
