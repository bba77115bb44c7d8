"""A batch worked through in parts trains what it trains whole, for tasks whose losses are means over unequal things.

One process with `accumulate` goes the same way as several processes, whose own tests are in `test_many_processes`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, AudioAutoencoder, AudioVAE, AudioVQVAE, HierarchicalVQVAE, PictureDecoder, WaveNetDecoder
from stage1_vqvae.audio.tasks import AudioAutoencoderTask, AudioCodebookTask, AudioGaussianTask
from stage1_vqvae.audio.wavenet_task import WaveNetDecoderTask
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.baseline_tasks import AutoencoderTask, VIMCOTask
from stage1_vqvae.images.picture_task import PictureDecoderTask
from stage1_vqvae.images.tasks import CodebookTask, GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vimco import VIMCO
from stage1_vqvae.priced import Priced
from stage2_prior import WaveNet
from stage2_prior.prices import FrozenPrior
from stage2_prior.training import PriorTask
from twostage.config.schema import TrainingConfig
from twostage.data.audio import AudioSplit
from twostage.noise import seed_step
from twostage.training.loop import Fit
from twostage.training.task import Task
from twostage_pipelines.cli.main import main

STEPS = 6
BUDGET = TrainingConfig(steps=STEPS, batch_size=7, learning_rate=3e-3, validate_every=6, checkpoint_every=6)
SOUND: dict[str, Any] = {
    "mixtures": 2,
    "speakers": 2,
    "speaker_channels": 4,
    "downsampling_layers": 4,
    "channels": 8,
    "residual_blocks": 1,
    "residual_channels": 4,
    "head_channels": 4,
}
IMAGES: dict[str, Any] = {
    "image_shape": (1, 8, 8),
    "levels": 17,
    "likelihood": "categorical",
    "downsampling": 2,
    "channels": 8,
    "residual_blocks": 1,
    "residual_channels": 4,
    "head_channels": 4,
}
LIMIT = {"atol": 2e-5, "rtol": 1e-5}
"""As for the weights in `test_many_processes`: Adam takes over rounding where a gradient nearly cancels."""


def _recordings(count: int, seed: int) -> AudioSplit:
    """Noise of 40 to 900 samples: most segments of 256 are shorter, so that parts differ in samples and in codes."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(40, 300, count)
    lengths[::5] = 900
    return AudioSplit(
        samples=(3000 * draw.standard_normal(lengths.sum())).astype(np.int16),
        offsets=np.cumsum([0, *lengths]),
        labels=np.zeros(count, np.int64),
        speakers=np.arange(count) % 2,
        names=tuple(map(str, range(count))),
    )


TRAIN, VALIDATION = _recordings(20, 1), _recordings(3, 2)
SEGMENTS: dict[str, Any] = {
    "train": TRAIN,
    "validation": VALIDATION,
    "segment_samples": 256,
    "batch_samples": 4000,
}


LEARNED: dict[str, Any] = {"codebook_size": 16, "decay": 0.7, "revival_threshold": 0.5}


def _vqvae(**settings: Any) -> AudioVQVAE:
    return AudioVQVAE(**SOUND, embedding_dim=4, **settings)


def _codebook(**settings: Any) -> Task:
    return AudioCodebookTask(_vqvae(**settings), **SEGMENTS, sample_rate_hz=8000, kmeans=True, seed=0)


def _priced() -> Task:
    prior = WaveNet(codebook_size=16, max_length=60, classes=(2,), channels=4, blocks=1, layers_per_block=3)
    train, validation = (torch.from_numpy(split.speakers)[:, None] for split in (TRAIN, VALIDATION))
    priced = Priced(FrozenPrior(prior), train_condition=train, validation_condition=validation)
    model = _vqvae(**LEARNED)
    return AudioCodebookTask(model, **SEGMENTS, sample_rate_hz=8000, kmeans=True, seed=0, priced=priced)


def _codes(split: AudioSplit) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 16, (len(split), 1, -(-int(split.lengths.max()) // 16)))


def _decoder() -> Task:
    decoder = WaveNetDecoder(
        condition_channels=4, stride=16, mixtures=2, speakers=2, speaker_channels=2, channels=4, blocks=1,
        layers_per_block=3, head_channels=4,
    )  # fmt: skip
    codes = {"train_codes": _codes(TRAIN), "validation_codes": _codes(VALIDATION)}
    return WaveNetDecoderTask(decoder, vqvae=_vqvae(**LEARNED), **SEGMENTS, **codes)


def _sequences() -> Task:
    draw = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 5, (20, 2, 12), generator=draw)
    lengths, labels = torch.randint(1, 13, (20,), generator=draw), torch.randint(0, 3, (20, 1), generator=draw)
    model = WaveNet(codebook_size=5, codebooks=2, max_length=12, classes=(3,), channels=4, blocks=1, label_dropout=0.4)
    return PriorTask(
        model,
        train=codes,
        train_lengths=lengths,
        train_condition=labels,
        validation=codes[:3],
        validation_lengths=lengths[:3],
        validation_condition=labels[:3],
        evaluation_batch_size=2,
    )


def _images() -> dict[str, Any]:
    images = torch.randint(0, 17, (20, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return {"train": TrainingImages(images), "validation": images[:5], "evaluation_batch_size": 2}


def _hierarchy() -> Task:
    model = HierarchicalVQVAE(**IMAGES, **LEARNED, embedding_dim=4)
    return CodebookTask(model, **_images(), kmeans=True, seed=0)


def _pictures() -> Task:
    images, codec = _images()["train"].images, HierarchicalVQVAE(**IMAGES, **LEARNED, embedding_dim=4).eval()
    model = PictureDecoder(
        image_shape=(1, 8, 8), levels=17, in_channels=8, downsampling=2, channels=6, residual_blocks=1,
        residual_channels=4, head_channels=4, discriminator_channels=4,
    )  # fmt: skip
    codes, weights = codec.encode(images), {"feature_weight": 0.5, "adversarial_weight": 1.0, "adversarial_start": 2}
    return PictureDecoderTask(
        model, codec=codec, train=images, train_codes=codes, validation=images[:5], validation_codes=codes[:5],
        evaluation_batch_size=2, **weights,
    )  # fmt: skip


TASKS: dict[str, Callable[[], Task]] = {
    "picture decoder": _pictures,
    "ema codebook": lambda: _codebook(**LEARNED, update="ema"),
    "loss codebook": lambda: _codebook(**LEARNED, update="loss"),
    "paid codes": lambda: _codebook(**LEARNED, rate_weight=0.1),
    "priced codes": _priced,
    "residual": lambda: _codebook(**LEARNED, quantiser="residual", codebooks=3, quantiser_dropout=0.7),
    "cosine": lambda: _codebook(**LEARNED, quantiser="cosine", code_dim=3),
    "mapped vectors": lambda: _codebook(quantiser="simvq", codebook_size=16),
    "finite scalars": lambda: _codebook(quantiser="fsq", fsq_levels=(4, 3)),
    "hierarchy": _hierarchy,
    "sound vae": lambda: AudioGaussianTask(AudioVAE(**SOUND, beta=0.5), **SEGMENTS, sample_rate_hz=8000),
    "sound autoencoder": lambda: AudioAutoencoderTask(AudioAutoencoder(**SOUND), **SEGMENTS, sample_rate_hz=8000),
    "wavenet decoder": _decoder,
    "sequences": _sequences,
    "vimco": lambda: VIMCOTask(VIMCO(**IMAGES, codebook_size=8, embedding_dim=4, samples=3), **_images()),
    "autoencoder": lambda: AutoencoderTask(Autoencoder(**IMAGES, latent_channels=2), **_images()),
    "warm-up": lambda: GaussianTask(VAE(**IMAGES, latent_channels=2, kl_warmup_steps=4), **_images()),
}


def _trained(make: Callable[[], Task], folder: Path, accumulate: int) -> tuple[Fit, list[dict[str, float]]]:
    seed_step(0, 0)
    budget = replace(BUDGET, accumulate=accumulate)
    fit = Fit(make(), folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu"))
    seed_step(3, 0)
    fit.task.start()
    return fit, [fit.train_step() for _ in range(STEPS)]


@pytest.mark.parametrize("name", TASKS)
def test_parts_train_what_the_whole_trains(name: str, tmp_path: Path) -> None:
    whole, rows = _trained(TASKS[name], tmp_path, 1)
    parts, others = _trained(TASKS[name], tmp_path, 3)
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
    if name == "ema codebook":
        assert sum(row["revived"] for row in rows) > 5
    for key, value in whole.task.model.state_dict().items():
        other = parts.task.model.state_dict()[key]
        torch.testing.assert_close(other, value, **LIMIT, msg=lambda text, key=key: f"{key}: {text}")


def test_free_bits_are_refused_for_a_batch_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--gaussian.free-bits", "0.1", "--baseline-training.accumulate", "2", "--models", "vae"]
    assert main(["train", "digits", "--out", str(tmp_path / "run"), *settings]) == 2
    assert "gaussian.free_bits compares the KL of the whole batch with a limit" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
