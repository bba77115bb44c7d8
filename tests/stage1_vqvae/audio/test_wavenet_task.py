"""Training of the WaveNet decoder: which condition and samples a segment has, that codes come to matter, resuming."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae.audio.vqvae import AudioVQVAE
from stage1_vqvae.audio.wavenet_decoder import WaveNetDecoder
from stage1_vqvae.audio.wavenet_task import WaveNetDecoderTask
from twostage.config.schema import TrainingConfig
from twostage.data.audio import AudioSplit
from twostage.data.audio.segments import segments_at
from twostage.errors import UsageError
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_checkpoint
from twostage.training.loop import Fit

STRIDE = 16
CODEBOOK = 4


def recordings(lengths: list[int], seed: int) -> tuple[AudioSplit, np.ndarray]:
    """Noise, the loudness of which the code says and the samples before do not; codes int64 [N, 1, T]."""
    generator = np.random.default_rng(seed)
    codes_NGT = generator.integers(0, CODEBOOK, (len(lengths), 1, -(-max(lengths) // STRIDE)))
    pieces = []
    for length, codes_GT in zip(lengths, codes_NGT, strict=True):
        loudness_S = np.array([20.0, 150.0, 1000.0, 8000.0])[codes_GT[0].repeat(STRIDE)[:length]]
        pieces.append((generator.uniform(-1, 1, length) * loudness_S).astype(np.int16))
    split = AudioSplit(
        samples=np.concatenate(pieces),
        offsets=np.cumsum([0, *lengths]),
        labels=np.zeros(len(lengths), np.int64),
        speakers=np.arange(len(lengths)) % 2,
        names=tuple(f"{index}.wav" for index in range(len(lengths))),
    )
    return split, codes_NGT


def codebook() -> AudioVQVAE:
    torch.manual_seed(3)
    vqvae = AudioVQVAE(
        downsampling_layers=4, channels=8, residual_channels=8, embedding_dim=4, codebook_size=CODEBOOK, speakers=2
    )
    torch.nn.init.normal_(vqvae.quantiser.codebook)
    return vqvae


def make_task(**changes: Any) -> WaveNetDecoderTask:
    train, train_codes = recordings([150, 64, 400, 333, 90, 500], seed=0)
    validation, validation_codes = recordings([130, 40, 300], seed=1)
    arguments: dict[str, Any] = {
        "condition_channels": 4, "stride": STRIDE, "speakers": 2, "mixtures": 4, "channels": 16, "blocks": 1,
        "layers_per_block": 4, "head_channels": 16,
    }  # fmt: skip
    torch.manual_seed(0)
    return WaveNetDecoderTask(
        WaveNetDecoder(**(arguments | changes)),
        vqvae=codebook(),
        train=train,
        train_codes=train_codes,
        validation=validation,
        validation_codes=validation_codes,
        segment_samples=64,
        batch_samples=1000,
    )


def test_a_segment_is_scored_given_the_condition_of_its_whole_recording() -> None:
    task = make_task()
    model = task.model.double()
    task.vqvae.double()
    assert task.items == 3 + 1 + 7 + 6 + 2 + 8
    places_B = np.array([0, 3, 5, 9, 12, 17, 19, 26])
    seed_step(0, 5)
    loss = task.loss(places_B).loss.item()
    seed_step(0, 5)
    draws_B = torch.randint(1 << 32, (8,)).numpy()
    batch = segments_at(task.train, places_B, draws_B, segment_samples=64, multiple=STRIDE)
    assert len(set(batch.offsets.tolist())) > 4
    nats = 0.0
    for item, offset in zip(batch.items, batch.offsets, strict=True):
        count = -(-int(task.train.lengths[item]) // STRIDE)
        vectors_BDT = task.vqvae.condition_vectors(torch.from_numpy(task.train_codes[item : item + 1, :, :count]))
        whole_BFX = model.condition(
            vectors_BDT, torch.ones(1, 1, count, dtype=torch.bool), torch.tensor([task.train.speakers[item]])
        )
        piece = torch.from_numpy(task.train.recording(int(item))[offset : offset + 64].copy())[None]
        real = piece.shape[1]
        padded = torch.nn.functional.pad(piece, (0, -real % STRIDE))
        vectors = whole_BFX[:, :, offset // 4 : (offset + padded.shape[1]) // 4]
        nats -= float(model.sample_log_prob(padded, vectors)[0, :real].detach().double().sum())
    assert loss == pytest.approx(nats / batch.mask.sum(), rel=1e-6)


@pytest.mark.parametrize("likelihood", ["mu-law", "logistic-mixture"])
def test_codes_come_to_matter(likelihood: str) -> None:
    task = make_task(likelihood=likelihood)
    optimiser = torch.optim.Adam(task.model.parameters(), lr=1e-2)
    with torch.no_grad():
        untrained = task.validate()
    assert abs(untrained["swapped_codes_cost_bits_per_sample"]) < 0.1
    for step in range(45):
        seed_step(0, step)
        result = task.loss(np.arange(task.items)[step % 3 :: 3])
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
    with torch.no_grad():
        trained = task.validate()
    assert trained["distortion_bits_per_sample"] < untrained["distortion_bits_per_sample"] - 1.0
    assert trained["swapped_codes_cost_bits_per_sample"] > 0.25
    assert float(result.metrics["distortion_bits_per_sample"]) == pytest.approx(result.loss.item() / math.log(2))


def test_validation_counts_every_real_sample_once() -> None:
    task = make_task()
    nats = 0.0
    for item in range(3):
        recording = torch.from_numpy(task.validation.recording(item).copy())[None]
        length = recording.shape[1]
        padded = torch.nn.functional.pad(recording, (0, -length % STRIDE))
        mask = torch.arange(padded.shape[1])[None] < length
        codes = torch.from_numpy(task.validation_codes[item : item + 1, :, : padded.shape[1] // STRIDE])
        speaker = torch.tensor([task.validation.speakers[item]])
        vectors = task.vqvae.condition_vectors(codes)
        with torch.no_grad():
            nats -= float(task.model.log_prob(padded, mask, vectors, speaker).double().sum())
    with torch.no_grad():
        numbers = task.validate()
    assert numbers["distortion_bits_per_sample"] == pytest.approx(nats / (470 * math.log(2)), rel=1e-5)


BUDGET = TrainingConfig(
    steps=7, batch_size=5, learning_rate=3e-3, weight_ema=0.8, precision="bf16", validate_every=3, checkpoint_every=4
)


def fit(folder: Path, *, steps: int) -> None:
    task = make_task(dropout=0.2)
    budget = TrainingConfig(**{**vars(BUDGET), "steps": steps})
    Fit(task, folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu")).run(label="decoder")


def test_resuming_changes_no_bit(tmp_path: Path) -> None:
    fit(tmp_path / "whole", steps=7)
    fit(tmp_path / "parts", steps=4)
    fit(tmp_path / "parts", steps=7)
    digests = [load_checkpoint(tmp_path / folder / "step-00000007").sha256 for folder in ("whole", "parts")]
    assert any(name.endswith(".safetensors") for name in digests[0])
    for name in digests[0]:
        if name.endswith(".safetensors"):
            assert digests[0][name] == digests[1][name], name


def test_what_does_not_fit_is_refused() -> None:
    task = make_task()
    arguments: dict[str, Any] = {
        "vqvae": task.vqvae, "train": task.train, "train_codes": task.train_codes, "validation": task.validation,
        "validation_codes": task.validation_codes, "segment_samples": 64, "batch_samples": 1000,
    }  # fmt: skip
    with pytest.raises(UsageError, match="multiple of the 16 samples per code, not 40"):
        WaveNetDecoderTask(task.model, **(arguments | {"segment_samples": 40}))
    with pytest.raises(UsageError, match=r"shape \[6, 1, 32 or more\] for these recordings, got \[6, 1, 31\]"):
        WaveNetDecoderTask(task.model, **(arguments | {"train_codes": task.train_codes[:, :, 1:]}))
    with pytest.raises(UsageError, match=r"shape \[3, 1, 19 or more\]"):
        WaveNetDecoderTask(task.model, **(arguments | {"validation_codes": task.train_codes}))
    with pytest.raises(UsageError, match="a decoder of 16 samples per code, got one of 32"):
        WaveNetDecoderTask(WaveNetDecoder(condition_channels=4, stride=32, speakers=2), **arguments)
