"""The picture decoder: sharper than an error alone makes pictures, made of codes, and stopped where it diverges."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stage1_vqvae import VQVAE, PictureDecoder, WithPictureDecoder
from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.images.encoder_features import EncoderFeatures, FeatureStatistics, relative_frechet
from stage1_vqvae.images.picture_task import PictureDecoderTask
from twostage.config.schema import TrainingConfig
from twostage.errors import RunError, UsageError
from twostage.noise import seed_step
from twostage.training.loop import Fit

SHAPE = (3, 16, 16)
BUDGET = TrainingConfig(
    steps=120, batch_size=16, learning_rate=2e-3, clip_norm=0.0, validate_every=60, checkpoint_every=60
)
WEIGHTS: dict[str, Any] = {"feature_weight": 0.0, "adversarial_weight": 0.0, "adversarial_start": 20}


def striped(count: int, *, seed: int) -> Tensor:
    """Pictures in a colour of their own under stripes of two pixels, whose phase nothing tells from the colour."""
    draw = np.random.default_rng(seed)
    colour = draw.integers(80, 176, (count, 3, 1, 1))
    phase = draw.integers(0, 2, (count, 1, 1, 1))
    stripes = np.where((np.arange(16) // 2 + phase) % 2, 60, -60)
    return torch.from_numpy(np.broadcast_to(colour + stripes, (count, *SHAPE)).astype(np.uint8).copy())


class OfColours:
    """Codes that hold the colour of a picture alone: the first channel's level, in every place of a 4x4 grid."""

    @staticmethod
    def codes(images_NCHW: Tensor) -> Tensor:
        level_N = images_NCHW[:, 0].float().mean((1, 2)).sub(70).div(8).long().clamp(0, 15)
        return level_N[:, None, None, None].expand(-1, 1, 4, 4).contiguous()


def codec() -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(
        image_shape=SHAPE, levels=256, channels=8, residual_blocks=1, residual_channels=4, head_channels=4,
        embedding_dim=8, codebook_size=16,
    ).eval()  # fmt: skip


def picture_task(**weights: Any) -> PictureDecoderTask:
    train, validation = striped(64, seed=1), striped(16, seed=2)
    seed_step(0, 0)
    model = PictureDecoder(
        image_shape=SHAPE, levels=256, in_channels=8, downsampling=4, channels=16, residual_blocks=1,
        residual_channels=8, head_channels=16, discriminator_channels=8, discriminator_layers=2,
    )  # fmt: skip
    return PictureDecoderTask(
        model,
        codec=codec(),
        train=train,
        train_codes=OfColours.codes(train),
        validation=validation,
        validation_codes=OfColours.codes(validation),
        evaluation_batch_size=7,
        **{**WEIGHTS, **weights},
    )


def fitted(task: PictureDecoderTask, folder: Path, budget: TrainingConfig = BUDGET) -> Fit:
    return Fit(task, folder=folder, budget=budget, seed=0, record={}, device=torch.device("cpu"))


def validated(task: PictureDecoderTask, folder: Path) -> Mapping[str, float]:
    fit = fitted(task, folder)
    for _ in range(BUDGET.steps):
        fit.train_step()
    task.model.eval()
    with torch.no_grad():
        return task.validate()


def test_a_discriminator_brings_back_what_the_absolute_error_blurs(tmp_path: Path) -> None:
    blurred, sharp = validated(picture_task(), tmp_path), validated(picture_task(adversarial_weight=1.0), tmp_path)
    assert abs(math.log(sharp["sharpness"])) < 0.5 * abs(math.log(blurred["sharpness"]))
    # What picks the best model sees it, too, which the absolute error does not.
    assert sharp["feature_frechet"] < 0.8 * blurred["feature_frechet"]
    assert sharp["absolute_error"] > blurred["absolute_error"]


def test_features_of_blurred_pictures_are_distributed_otherwise() -> None:
    features, images = EncoderFeatures(codec()), striped(60, seed=3).float() / 127.5 - 1
    sets = {
        "own": images,
        "others": striped(60, seed=4).float() / 127.5 - 1,
        "blurred": images.mean(-1, True) + 0 * images,
    }
    found = {}
    for name, pictures in sets.items():
        statistics = FeatureStatistics(features.widths, torch.device("cpu"))
        for part in pictures.split(25):
            statistics.add([each.detach() for each in features(part)])
        found[name] = statistics.gaussians()
    assert relative_frechet(found["own"], found["own"]) < 1e-6
    assert relative_frechet(found["others"], found["own"]) < 0.2 * relative_frechet(found["blurred"], found["own"])


def test_statistics_of_features_are_mean_and_covariance() -> None:
    maps = torch.randn(6, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    statistics = FeatureStatistics((5,), torch.device("cpu"))
    for part in maps.split(4):
        statistics.add([part])
    (found,) = statistics.gaussians()
    vectors = maps.permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    np.testing.assert_allclose(found.mean_F, vectors.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariance_FF, np.cov(vectors.T, bias=True), atol=1e-12)


def test_the_picture_is_made_of_the_codes_and_says_no_probability() -> None:
    task = picture_task()
    both = WithPictureDecoder(task.codec, task.model.eval())
    items = torch.arange(4)
    codes, asked = task.validation_codes[:4], Asked(items=items)
    made = both.decode_batch(codes, asked, seed=0)
    assert made.shape == (4, *SHAPE)
    assert 0 <= made.min() <= made.max() <= 255
    assert torch.equal(made, both.decode_batch(codes, asked, seed=1))
    assert (both.decode_batch((codes + 5) % 16, asked, seed=0) - made).abs().mean() > 0.01
    assert not both.likelihood_is_discrete
    with pytest.raises(UsageError, match="no probability"):
        both.log_prob_batch(Batch(items=items, x=task.validation[:4]), codes)


def test_mirrored_items_have_mirrored_pictures() -> None:
    task = picture_task()
    images, codes = task.train, torch.cat([task.train_codes, task.train_codes])
    both = PictureDecoderTask(
        task.model, codec=task.codec, train=images, train_codes=codes, validation=task.validation,
        validation_codes=task.validation_codes, evaluation_batch_size=7, **WEIGHTS,
    )  # fmt: skip
    assert both.items == 128
    made = task.model(task.codec.decoder_input(codes[:1]))
    expected = (made - (images[:1].flip(-1).float() * 2 / 255 - 1)).abs().mean()
    torch.testing.assert_close(both.loss(np.array([64])).loss, expected)


@pytest.mark.parametrize("place", ["discriminator.blocks.0.0.weight", "discriminator.verdict.bias", "picture.weight"])
def test_a_number_that_is_not_finite_stops_before_it_spreads(place: str, tmp_path: Path) -> None:
    task = picture_task(adversarial_weight=1.0, feature_weight=1.0)
    fit = fitted(task, tmp_path, replace(BUDGET, checkpoint_every=1))
    fit.train_step()
    with torch.no_grad():
        task.model.get_parameter(place).flatten()[0] = float("nan")
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    with pytest.raises(RunError, match=f"{place} of the model is not finite at step 1"):
        fit.train_step()
    for name, value in task.model.state_dict().items():
        assert torch.equal(value, before[name]) or name == place


def test_a_blind_discriminator_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    task = picture_task(adversarial_weight=1.0)
    with torch.no_grad():
        for parameter in task.model.discriminator.verdict.parameters():
            parameter.zero_()
        assert task.validate()["discriminator_loss"] == 2.0
        assert "tells nothing apart" not in capsys.readouterr().err  # its verdict does not count yet
        task.model.steps_done += 20
        for _ in range(2):
            task.validate()
    assert capsys.readouterr().err.count("the discriminator tells nothing apart (hinge loss 2.00 of 2") == 1


def test_codes_of_other_images_are_refused() -> None:
    task = picture_task()
    with pytest.raises(UsageError, match="expected codes of 64 images, got 63"):
        PictureDecoderTask(
            task.model, codec=task.codec, train=task.train, train_codes=task.train_codes[:63],
            validation=task.validation, validation_codes=task.validation_codes, evaluation_batch_size=7, **WEIGHTS,
        )  # fmt: skip


def test_pictures_too_small_to_be_told_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 4x4 pixels"):
        PictureDecoder(image_shape=(1, 2, 2), levels=2, in_channels=2, downsampling=2, channels=4)
