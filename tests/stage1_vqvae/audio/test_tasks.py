"""Training tasks of sound: resumed runs are uninterrupted ones, validation counts what is there, training helps."""

import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import AudioAutoencoder, AudioVAE, AudioVQVAE
from stage1_vqvae.audio.tasks import AudioAutoencoderTask, AudioCodebookTask, AudioGaussianTask
from twostage.config.schema import TrainingConfig
from twostage.data.audio import AudioDataset, AudioSplit, load_synthetic_vowels
from twostage.data.audio.segments import segments_at
from twostage.errors import UsageError
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_checkpoint
from twostage.training.interrupts import Interrupted
from twostage.training.loop import Fit
from twostage.training.task import StepResult, Task

STEPS = 10
SMALL: dict[str, Any] = {
    "mixtures": 2,
    "speaker_channels": 4,
    "downsampling_layers": 4,
    "channels": 16,
    "residual_blocks": 1,
    "residual_channels": 8,
    "head_channels": 8,
}


@pytest.fixture(scope="module")
def vowels() -> AudioDataset:
    """Synthetic vowels, with a few for validation: one in nine of the test set, of all vowels and speakers."""
    dataset = load_synthetic_vowels()
    rows = range(0, len(dataset.test), 9)
    few = AudioSplit(
        samples=np.concatenate([dataset.test.recording(row) for row in rows]),
        offsets=np.cumsum([0, *(dataset.test.lengths[row] for row in rows)]),
        labels=dataset.test.labels[list(rows)],
        speakers=dataset.test.speakers[list(rows)],
        names=tuple(dataset.test.names[row] for row in rows),
    )
    return replace(dataset, validation=few)


def common(vowels: AudioDataset, **overrides: Any) -> dict[str, Any]:
    settings = {
        "train": vowels.train,
        "validation": vowels.validation,
        "sample_rate_hz": vowels.sample_rate_hz,
        "segment_samples": 512,
        "batch_samples": 60_000,
    }
    return {**settings, **overrides}


def codebook_task(vowels: AudioDataset, update: str = "ema", **overrides: Any) -> AudioCodebookTask:
    model = AudioVQVAE(
        **SMALL, speakers=len(vowels.speakers), embedding_dim=8, codebook_size=24, update=update, revival_threshold=0.5,
    )  # fmt: skip
    return AudioCodebookTask(model, **common(vowels), **{"kmeans": True, "seed": 0, **overrides})


def gaussian_task(vowels: AudioDataset) -> AudioGaussianTask:
    return AudioGaussianTask(AudioVAE(**SMALL, speakers=len(vowels.speakers), beta=0.5), **common(vowels))


def conditional_task(vowels: AudioDataset) -> AudioGaussianTask:
    sizes = {"speakers": len(vowels.speakers), "classes": len(vowels.classes)}
    return AudioGaussianTask(AudioVAE(**SMALL, **sizes, kl_warmup_steps=6, free_bits=0.1), **common(vowels))


def autoencoder_task(vowels: AudioDataset) -> AudioAutoencoderTask:
    return AudioAutoencoderTask(AudioAutoencoder(**SMALL, speakers=len(vowels.speakers)), **common(vowels))


TASKS: dict[str, Callable[[AudioDataset], Task]] = {
    "ema codebook": lambda vowels: codebook_task(vowels, "ema"),
    "loss codebook": lambda vowels: codebook_task(vowels, "loss"),
    "gaussian": gaussian_task,
    "annealed conditional gaussian": conditional_task,
    "autoencoder": autoencoder_task,
}


def stop_in_step(task: Task, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the task ask for a clean stop in that step of its session, as Ctrl-C does."""
    loss, steps = task.loss, iter(range(STEPS))

    def stopping(indices: np.ndarray) -> StepResult:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(indices)

    monkeypatch.setattr(task, "loss", stopping)


def fit(task: Task, folder: Path) -> Fit:
    budget = TrainingConfig(
        steps=STEPS,
        batch_size=4,
        learning_rate=3e-3,
        warmup_steps=3,
        weight_ema=0.8,
        precision="bf16",
        validate_every=5,
        checkpoint_every=100,
    )
    return Fit(task, folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu"))


@pytest.mark.parametrize("name", TASKS)
def test_a_resumed_run_is_the_uninterrupted_one(
    name: str, vowels: AudioDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> Task:
        seed_step(3, 0)
        return TASKS[name](vowels)

    fit(make(), tmp_path / "whole").run(label="whole")
    interrupted = make()
    stop_in_step(interrupted, 3, monkeypatch)
    with pytest.raises(Interrupted):
        fit(interrupted, tmp_path / "parts").run(label="part")
    resumed = fit(make(), tmp_path / "parts")
    torch.manual_seed(99)  # another session finds the generator elsewhere
    resumed.run(label="rest")
    for checkpoint in (f"step-{STEPS:08d}", "best"):
        whole, parts = (load_checkpoint(tmp_path / run / checkpoint).sha256 for run in ("whole", "parts"))
        for file in whole:
            if file.endswith(".safetensors"):
                assert whole[file] == parts[file], (checkpoint, file)
    records = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "parts")]
    assert records[0] == records[1]


@pytest.mark.parametrize("make", [codebook_task, gaussian_task, conditional_task, autoencoder_task])
def test_training_lowers_the_objective(make: Callable[..., Any], vowels: AudioDataset) -> None:
    seed_step(0, 0)
    task = make(vowels)
    task.start()
    optimiser = torch.optim.Adam(task.model.parameters(), lr=3e-3)

    def validate() -> dict[str, float]:
        task.model.eval()
        with torch.no_grad():
            numbers = dict(task.validate())
        task.model.train()
        return numbers

    before = validate()
    for step in range(100):
        seed_step(0, step)
        result = task.loss((np.arange(8) + 8 * step) % task.items)
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
        task.after_step(result, optimiser)
    after = validate()
    assert after[task.objective] < before[task.objective] - 0.5
    assert after["log_mel_l1"] < before["log_mel_l1"] - 0.3


def test_validation_counts_real_samples_and_codes(vowels: AudioDataset) -> None:
    """Batches of one recording, without padding, are the same as one batch; the uniform rate is exact."""
    seed_step(0, 0)
    task, lengths = codebook_task(vowels), vowels.validation.lengths
    task.start()
    task.model.eval()
    one = AudioCodebookTask(task.model, **common(vowels, batch_samples=1), kmeans=False, seed=0).validate()
    many = task.validate()
    assert many == pytest.approx(one, rel=1e-4)
    uniform = (-(-lengths // 16)).sum() * math.log2(24) / lengths.sum()
    assert many["bits_per_sample"] - many["distortion_bits_per_sample"] == pytest.approx(uniform)
    assert 1 < many["perplexity"] <= many["used"] <= 24
    rate = (-(-lengths // 16)).sum() * math.log2(many["perplexity"]) / lengths.sum()
    assert many["unigram_rate_bits_per_sample"] == pytest.approx(rate)


def test_validation_of_an_autoencoder_counts_real_samples_and_latents(vowels: AudioDataset) -> None:
    seed_step(0, 0)
    task = autoencoder_task(vowels)
    task.model.eval()
    one = AudioAutoencoderTask(task.model, **common(vowels, batch_samples=1)).validate()
    assert task.validate() == pytest.approx(one, rel=1e-4)
    latents = [
        task.model.encode(sounds.samples, sounds.mask)[0, :, : -(-int(sounds.mask.sum()) // 16)].flatten()
        for sounds in AudioAutoencoderTask(task.model, **common(vowels, batch_samples=1)).data.recordings()
    ]
    root = torch.cat(latents).double().pow(2).mean().sqrt().item()
    assert one["latent_root_mean_square"] == pytest.approx(root)


def test_a_conditional_task_reads_the_labels_of_its_items(vowels: AudioDataset) -> None:
    """Each batch has the labels of its own recordings, and the warm-up counts the steps."""
    seed_step(0, 0)
    task = conditional_task(vowels)
    sounds = task.data.segments(np.array([0, 40, 3]))
    assert sounds.labels is not None
    assert sounds.labels.tolist() == vowels.train.labels[sounds.items.numpy()].tolist()
    for sounds in task.data.recordings():
        assert sounds.labels.tolist() == vowels.validation.labels[sounds.items.numpy()].tolist()
    optimiser = torch.optim.Adam(task.model.parameters())
    weights = []
    for _ in range(8):
        result = task.loss(np.arange(4))
        weights.append(float(result.metrics["kl_weight"]))
        task.after_step(result, optimiser)
    assert weights == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    alike = replace(vowels.validation, labels=vowels.validation.labels * 0)
    other = AudioGaussianTask(task.model.eval(), **common(vowels, validation=alike))
    assert other.validate()["bits_per_sample"] != task.validate()["bits_per_sample"]


def test_a_collapsed_codebook_is_said_once(vowels: AudioDataset, capsys: pytest.CaptureFixture[str]) -> None:
    task = codebook_task(vowels)
    task.model.eval()
    with torch.no_grad():
        task.model.quantiser.codebook[:, 1:] += 100.0  # out of reach: every vector is nearest to code 0
    said = []
    for _ in range(4):
        task.validate()
        said.append(capsys.readouterr().err)
    assert "the codebook has collapsed: 1 of 24 codes are used" in said[2]
    assert [said[0], said[1], said[3]] == ["", "", ""]


def test_a_step_reads_the_places_it_is_given(vowels: AudioDataset) -> None:
    """Also where the offsets lie: all over the recording, and the same under the same state of torch's generator."""
    data = codebook_task(vowels).data
    assert data.items == (-(-vowels.train.lengths // 512)).sum()
    torch.manual_seed(1)
    first = data.segments(np.array([0, 5, data.items - 1]))
    torch.manual_seed(1)
    again = data.segments(np.array([0, 5, data.items - 1]))
    assert torch.equal(first.samples, again.samples)
    assert first.items.tolist()[0] == 0
    assert first.items.tolist()[-1] == len(vowels.train) - 1
    offsets = segments_at(
        vowels.train, np.zeros(4, np.int64), np.array([0, 1 << 31, (1 << 32) - 1, 7]), segment_samples=512
    ).offsets
    room = int(vowels.train.lengths[0]) - 512
    assert offsets.tolist() == [0, (room + 1) // 2, room, 0]


def test_codebooks_move_by_a_step_and_revived_codes_lose_their_moments(vowels: AudioDataset) -> None:
    task = codebook_task(vowels, "loss", kmeans=False)
    task.start()
    optimiser = torch.optim.Adam(task.model.parameters(), lr=1e-3)
    for step in range(3):
        result = task.loss(np.arange(4) + step)
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
        moments = optimiser.state[task.model.quantiser.codebook]["exp_avg"]
        moments.fill_(1.0)
        numbers = task.after_step(result, optimiser)
        assert (moments == 0).all(-1).sum() == numbers["revived"]
        if numbers["revived"]:
            return
    raise AssertionError("no code was revived")


def test_segments_that_do_not_fit(vowels: AudioDataset) -> None:
    with pytest.raises(UsageError, match="multiple of the 16 samples per code, not 500: choose 496"):
        AudioGaussianTask(AudioVAE(**SMALL), **common(vowels, segment_samples=500))
