"""The classifier behind the sample scores: what it learns, when it is trained again, and that it is always the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from twostage.config.schema import DataConfig, Recipe
from twostage.data import ImageDataset, Split, load_dataset
from twostage_pipelines.evaluate import classifier
from twostage_pipelines.evaluate.classifier import FEATURES, Classifier, budget, read, trained_classifier
from twostage_pipelines.modality.image_pictures import ImagePictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


@pytest.fixture(scope="module")
def few(digits: ImageDataset) -> ImageDataset:
    """So few digits that the classifier takes 38 steps."""

    def part(split: Split, count: int) -> Split:
        return Split(images=split.images[:count], labels=split.labels[:count])

    return replace(digits, train=part(digits.train, 160), validation=part(digits.validation, 20))


def _train(folder: Path, dataset: ImageDataset) -> Classifier:
    return trained_classifier(folder, dataset, ImagePictures(Recipe(), dataset), device=CPU, batch_size=100)


def test_it_reads_digits_it_has_not_seen_and_is_not_trained_twice(
    tmp_path: Path, digits: ImageDataset, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifier, "EPOCHS", 6)
    model = _train(tmp_path, digits)
    reading = read(model, digits.test.images, device=CPU, batch_size=77)
    assert reading.features_NF.shape == (300, FEATURES)
    assert reading.agreement(digits.test.labels) > 0.95
    assert reading.agreement(np.roll(digits.test.labels, 1)) < 0.3
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = _train(tmp_path, digits)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == stamps
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert "of the validation items right" in capsys.readouterr().err


def test_it_is_the_same_in_every_folder_and_random_state(tmp_path: Path, few: ImageDataset) -> None:
    for name, seed in (("a", 0), ("b", 99)):
        torch.manual_seed(seed)
        _train(tmp_path / name, few)
    a, b = ((tmp_path / name / "best/model.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_it_is_trained_again_for_other_data_and_when_damaged(
    tmp_path: Path, few: ImageDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "c/best/model.safetensors"
    _train(tmp_path / "c", replace(few, train=Split(images=few.train.images, labels=np.roll(few.train.labels, 1))))
    of_other_labels = weights.read_bytes()
    assert "trained again" not in capsys.readouterr().err
    _train(tmp_path / "c", few)
    whole = weights.read_bytes()
    assert whole != of_other_labels
    assert "trained again" in capsys.readouterr().err
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _train(tmp_path / "c", few)
    assert weights.read_bytes() == whole
    for step in (tmp_path / "c").glob("step-*"):
        (step / "state.json").write_text("{}")
    _train(tmp_path / "c", few)
    assert weights.read_bytes() == whole


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 10, 6), (1, 28, 28), (3, 64, 64)])
def test_every_size_and_number_of_channels_fits(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    model = Classifier(image_shape=shape, levels=256, classes=3)
    x_BCHW = torch.randint(0, 256, (2, *shape))
    assert model(x_BCHW).shape == (2, 3)
    gradient = torch.autograd.grad(model.features(x_BCHW).square().sum(), next(iter(model.parameters())))[0]
    assert gradient.abs().sum() > 0
    assert max(p.numel() for p in model.parameters()) <= 1024 * FEATURES


def test_the_budget_is_bounded() -> None:
    assert budget(1297).steps == 304
    assert budget(55_000).steps == budget(10**7).steps == 1500
    assert budget(1).steps == budget(1).warmup_steps == budget(1).validate_every == 1
