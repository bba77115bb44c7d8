"""One model's part of the report: what its samples and reconstructions are, and what their captions promise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, Autoencoder
from twostage.config.model_names import model_spec
from twostage.config.schema import DataConfig, Recipe
from twostage.data import ImageDataset, Split, load_dataset
from twostage.data.audio import load_synthetic_vowels
from twostage_pipelines.generate.sheets import Sheet
from twostage_pipelines.generate.trained import Trained
from twostage_pipelines.modality.choose import modality_of
from twostage_pipelines.report.drawn import MOST_CLASSES, draw, like
from twostage_pipelines.report.latents import by_beta
from twostage_pipelines.report.models import model_section
from twostage_pipelines.report.shown import Picture, Shown, ShownModel
from twostage_pipelines.runs.class_numbers import trained_names
from twostage_pipelines.runs.loading import Loaded
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")
WriteRun = Callable[..., Path]
SMALL: dict[str, Any] = {
    "image_shape": (1, 4, 4),
    "levels": 5,
    "downsampling": 2,
    "channels": 8,
    "residual_channels": 4,
}


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset(DataConfig(name="digits"))


def _sheets(path: Path, dataset: ImageDataset, model: str, seed: int = 0) -> dict[str, Sheet]:
    """The sheets of the section on a model, in order."""
    run = Run.open(path)
    return _shown(run, dataset, Trained(run, model, run.stage1(model, CPU), CPU), seed)


def _shown(run: Run, dataset: Any, trained: Trained, seed: int = 0) -> dict[str, Sheet]:
    kept: list[Sheet] = []

    class Kept(Shown):
        def keep(self, name: str, picture: Sheet | Picture | None) -> str:
            if isinstance(picture, Sheet):
                kept.append(picture)
            return ""

    of = ShownModel(Kept(run, dataset, modality_of(run.recipe).pictures(run.recipe, dataset), CPU, seed), trained)
    model_section(of, draw(of), {"worst": np.array([7, 3])})
    return {sheet.kind: sheet for sheet in kept}


def test_only_labels_with_training_items_have_a_column(digits: ImageDataset, write_run: WriteRun) -> None:
    run = write_run(names=tuple("abcdefghij"), trained=("a", "c", "d"))
    for model in ("vq-vae", "cvae"):
        sheet = _sheets(run, digits, model)["samples"]
        assert "one class a column, from the left a, c, d, temperature" in sheet.caption
        assert sheet.picture_CHW.shape == (1, 91, 28)  # ten rows and three columns of 8 pixels behind borders of 1


def test_sheets_of_a_plain_decoder_show_means(digits: ImageDataset, write_run: WriteRun) -> None:
    path = write_run(classes=10)
    for model, origin in (("vq-vae", "one class a column"), ("vae", "Gaussian prior")):
        sheets = _sheets(path, digits, model)
        assert list(sheets)[:4] == ["samples", "reconstructions", "worst-reconstructions", "neighbours"]
        assert origin in sheets["samples"].caption
        assert not any(" sampled" in sheet.caption for sheet in sheets.values())
        other = _sheets(path, digits, model, seed=1)
        assert (sheets["reconstructions"].picture_CHW == other["reconstructions"].picture_CHW).all()
        assert (sheets["samples"].picture_CHW != other["samples"].picture_CHW).any()


def test_sheets_of_an_autoregressive_decoder_say_that_pixels_are_sampled(
    digits: ImageDataset, write_run: WriteRun
) -> None:
    path = write_run(classes=10, autoregressive_layers=1, autoregressive_channels=4, autoregressive_kernel=3)
    for model in ("vq-vae", "vae"):
        sheets = _sheets(path, digits, model)
        assert "and sampled reconstructions" in sheets["reconstructions"].caption
        assert "pixels sampled" in sheets["samples"].caption
        again, other = _sheets(path, digits, model), _sheets(path, digits, model, seed=1)
        for kind in ("reconstructions", "samples"):
            assert (sheets[kind].picture_CHW == again[kind].picture_CHW).all()
            assert (sheets[kind].picture_CHW != other[kind].picture_CHW).any()


def test_many_classes_do_not_make_an_endless_sheet(digits: ImageDataset, write_run: WriteRun) -> None:
    sheet = _sheets(write_run(classes=40), digits, "vq-vae")["samples"]
    assert sheet.picture_CHW.shape == (1, 1 + 10 * 9, 1 + MOST_CLASSES * 9)
    assert "(the first 16 of 40)" in sheet.caption
    unconditional = _sheets(write_run(name="other", conditional=False), digits, "vq-vae")["samples"]
    assert "class" not in unconditional.caption


def test_fewer_training_images_than_neighbours_are_enough(digits: ImageDataset, write_run: WriteRun) -> None:
    one = replace(digits, train=Split(images=digits.train.images[:1], labels=digits.train.labels[:1]))
    assert "the nearest training image" in _sheets(write_run(classes=10), one, "vq-vae")["neighbours"].caption


def test_models_stand_in_the_order_of_their_beta() -> None:
    def found(name: str, model: torch.nn.Module) -> ShownModel:
        nothing: Any = None
        return ShownModel(nothing, Trained(nothing, name, Loaded(model=model, checkpoint=nothing), CPU))

    models = [
        found("vae", VAE(**SMALL)),
        found("cvae", VAE(**SMALL, classes=2, beta=0.5)),
        found("beta-vae-3", VAE(**SMALL, beta=3.0)),
        found("beta-vae-0.1", VAE(**SMALL, beta=0.1)),
        found("ae", Autoencoder(**SMALL)),
    ]
    assert [one.name for one in by_beta(models)] == ["ae", "beta-vae-0.1", "vae", "beta-vae-3", "cvae"]


def test_latents_of_an_autoencoder_are_drawn_like_those_of_its_data() -> None:
    random = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    latents = torch.randn(3000, 3, generator=random) @ mixing.T + torch.tensor([5.0, -1.0, 2.0])
    drawn = like(latents.numpy(), 2000, 2, seed=0)
    assert drawn.shape == (2000, 2, 3)
    flat = drawn.flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), latents.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(flat.T.cov(), latents.T.cov(), atol=0.25, rtol=0)
    few = like(latents.numpy(), 3, 2, seed=0)
    assert torch.allclose(few, drawn[:3], atol=1e-5)  # an item does not depend on their number
    alone = like(latents[:2].numpy(), 50, 1, seed=0)  # a singular covariance
    assert alone.isfinite().all()


@pytest.mark.parametrize("name", ["ae", "cvae"])
def test_sequences_without_a_prior_and_with_labels_have_all_sheets_too(
    name: str, audio_recipe: Recipe, tmp_path: Path
) -> None:
    """An autoencoder and a conditional VAE of recordings, untrained."""
    dataset, modality = load_synthetic_vowels(), modality_of(audio_recipe)
    kind, arguments = modality.stage1(model_spec(name, audio_recipe), audio_recipe, dataset)
    torch.manual_seed(0)
    model = modality.build(kind, arguments).eval()
    record = {"classes": list(dataset.classes), "speakers": list(dataset.speakers), **trained_names(dataset)}
    checkpoint: Any = SimpleNamespace(state={"record": record}, sha256={"model.safetensors": "0" * 64})
    run = Run(path=tmp_path, recipe=audio_recipe)
    sheets = _shown(run, dataset, Trained(run, name, Loaded(model=model, checkpoint=checkpoint), CPU))
    assert list(sheets) == [
        "samples", "reconstructions", "worst-reconstructions", "neighbours", "traversals", "interpolations",
    ]  # fmt: skip
    rows, columns = (4, 10) if name == "ae" else (4, 5)
    assert sheets["samples"].picture_CHW.shape == (1, 1 + 65 * rows, 1 + 65 * columns)
    assert sheets["traversals"].picture_CHW.shape[2] == 1 + 65 * 12
    assert ("one class a column" in sheets["samples"].caption) == (name == "cvae")
    assert ("given the label a" in sheets["traversals"].caption) == (name == "cvae")
