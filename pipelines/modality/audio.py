"""Recordings: what loads them, what trains on them, and how a split becomes codes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from stage1_vqvae import AudioAutoencoder, AudioVAE, AudioVQVAE, WaveNetDecoder
from stage1_vqvae.audio.tasks import AudioAutoencoderTask, AudioCodebookTask, AudioGaussianTask
from stage1_vqvae.audio.wavenet_task import WaveNetDecoderTask
from stage2_prior import WaveNet
from stage2_prior.sequence_training import SequencePriorTask
from twostage.config.model_names import ModelSpec
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data.audio import (
    AudioDataset,
    AudioSplit,
    length_batches,
    load_recordings,
    load_synthetic_vowels,
    whole_batch,
)
from twostage.data.audio.splits import SplitRule
from twostage.distributed import own_share, sum_over_ranks, world_size
from twostage.errors import UsageError
from twostage.progress import Progress
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from .audio_networks import AudioStage1, build_stage1, decoder_architecture, prior_architecture, stage1_architecture
from .interface import SPLITS, Stage, as_arguments, check_codebook_size, check_free_bits


def load_audio(recipe: Recipe) -> AudioDataset:
    """Read the recipe's recordings into memory.

    Raises:
        UsageError: the settings do not fit together.
        DataError: a file is missing or damaged.
        RunError: soundfile cannot be loaded.
    """
    if recipe.data.name == "vowels":
        if recipe.data.path is not None:
            raise UsageError(
                f"the data set vowels is built in and reads no folder, but data.path is {recipe.data.path!r}: leave it "
                "out or set data.name to recordings"
            )
        return load_synthetic_vowels()
    settings = asdict(recipe.recordings)
    rule = {key: settings.pop(key) for key in tuple(settings) if key.startswith(("test_", "validation_"))}
    return load_recordings(
        recipe.data.path, **settings, split_rule=SplitRule(**rule), skip_unreadable=recipe.data.skip_unreadable
    )


@torch.no_grad()
def encode_split(
    model: AudioVQVAE, split: AudioSplit, *, label: str, batch_samples: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[N, G, T]`, 0 behind the end, and their lengths `[N]`, both int64; `label` names the progress bar.

    Several processes encode a batch each in turn, and all of them get all codes.
    """
    lengths_N = -(-split.lengths // model.stride)
    codes_NGT = torch.zeros(len(split), model.codebooks, int(lengths_N.max()), dtype=torch.int32)
    with Progress(label, total=len(split), unit="recording") as progress:
        for items_B in own_share(length_batches(split.lengths, most_samples=batch_samples)):
            batch = whole_batch(split, items_B, multiple=model.stride)
            codes_BGT = model.encode(
                torch.from_numpy(batch.samples).to(device), torch.from_numpy(batch.mask).to(device)
            )
            codes_NGT[torch.from_numpy(items_B), :, : codes_BGT.shape[2]] = codes_BGT.to("cpu", torch.int32)
            progress.advance_shared(len(items_B), world_size())
    return sum_over_ranks(codes_NGT)[0].numpy().astype(np.int64), lengths_N


def lengths_of(file: CodeFile) -> np.ndarray:
    """Positions of every item, `[N]`."""
    assert file.lengths is not None
    return file.lengths


def speakers_of(file: CodeFile) -> np.ndarray:
    """Speaker of every item, `[N]`; 0 where none are known."""
    return np.zeros(len(file.labels), np.int64) if file.speakers is None else file.speakers


def condition_of(labels: np.ndarray, speakers: np.ndarray, dataset_sizes: tuple[int, int]) -> np.ndarray:
    """`[N, A]` what a conditional prior is told: the label and the speaker, each where there are several."""
    classes, voices = dataset_sizes
    columns = [column for column, size in ((labels, classes), (speakers, voices)) if size]
    return np.stack(columns, 1) if columns else np.zeros((len(labels), 0), np.int64)


class Audio:
    """Recordings as a `Modality`: convolutional codebook, WaveNet decoder on its codes, and a WaveNet over them."""

    sections: Mapping[Stage, str] = {"stage1": "audio", "decoder": "wavenet_decoder", "prior": "wavenet_prior"}

    def load(self, recipe: Recipe) -> AudioDataset:
        return load_audio(recipe)

    def describe(self, dataset: AudioDataset) -> str:
        hours = sum(dataset.durations_seconds(split).sum() for split in SPLITS) / 3600
        return (
            f"recordings, {hours:.2f} h at {dataset.sample_rate_hz} Hz, {len(dataset.classes)} labels, "
            f"{len(dataset.speakers)} speakers ({dataset.split_rule})"
        )

    def facts(self, dataset: AudioDataset) -> dict[str, Any]:
        return {
            "sample_rate_hz": dataset.sample_rate_hz,
            "split_rule": dataset.split_rule,
        }

    def stages(self, spec: ModelSpec, recipe: Recipe) -> tuple[Stage, ...]:
        if spec.kind != "vq-vae":
            return ("stage1",)
        return ("stage1", "decoder", "prior") if recipe.wavenet_decoder.blocks else ("stage1", "prior")

    def stage1(self, spec: ModelSpec, recipe: Recipe, dataset: AudioDataset) -> tuple[str, dict[str, Any]]:
        return f"audio-{spec.kind}", stage1_architecture(spec, recipe, dataset)

    def follower(
        self, stage: Stage, recipe: Recipe, codebook: AudioVQVAE, dataset: AudioDataset
    ) -> tuple[str, dict[str, Any]]:
        if stage == "decoder":
            return "wavenet-decoder", decoder_architecture(recipe, codebook)
        return "wavenet", prior_architecture(recipe, codebook, dataset)

    def build(self, kind: str, arguments: Mapping[str, Any]) -> nn.Module:
        if kind == "wavenet":
            return WaveNet(**as_arguments(arguments))
        return WaveNetDecoder(**arguments) if kind == "wavenet-decoder" else build_stage1(kind, arguments)

    def check(
        self,
        model: AudioStage1,
        recipe: Recipe,
        dataset: AudioDataset,
        training: TrainingConfig,
        *,
        label: str,
    ) -> None:
        if isinstance(model, AudioVQVAE):
            prior_architecture(recipe, model, dataset)  # refuses recordings that the prior could not say
            vectors = int((-(-dataset.train.lengths // model.stride)).sum())
            check_codebook_size(model.codebook_size, vectors, f"{len(dataset.train)} training recordings", label=label)
        if isinstance(model, AudioVAE):
            check_free_bits(model.free_bits, training, label=label)

    def stage1_task(self, model: AudioStage1, recipe: Recipe, dataset: AudioDataset, device: torch.device) -> Task:
        common: dict[str, Any] = {
            "train": dataset.train,
            "validation": dataset.validation,
            "sample_rate_hz": dataset.sample_rate_hz,
            "segment_samples": recipe.audio.segment_samples,
            "batch_samples": recipe.evaluation.batch_samples,
        }
        if isinstance(model, AudioVAE):
            return AudioGaussianTask(model, **common)
        if isinstance(model, AudioAutoencoder):
            return AudioAutoencoderTask(model, **common)
        return AudioCodebookTask(model, **common, kmeans=recipe.quantiser.starts_from_data, seed=recipe.seed)

    def follower_task(
        self,
        model: WaveNet | WaveNetDecoder,
        codebook: AudioVQVAE,
        codes: Mapping[str, CodeFile],
        recipe: Recipe,
        dataset: AudioDataset,
    ) -> Task:
        train, validation = codes["train"], codes["validation"]
        if isinstance(model, WaveNetDecoder):
            return WaveNetDecoderTask(
                model,
                vqvae=codebook,
                train=dataset.train,
                train_codes=train.codes,
                validation=dataset.validation,
                validation_codes=validation.codes,
                segment_samples=recipe.wavenet_decoder.segment_samples,
                batch_samples=recipe.evaluation.batch_samples,
            )
        device, conditional = next(model.parameters()).device, model.classes
        sizes = (len(dataset.classes), len(dataset.speakers))

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        def condition(file: CodeFile) -> torch.Tensor | None:
            return tensor(condition_of(file.labels, speakers_of(file), sizes)) if conditional else None

        return SequencePriorTask(
            model,
            train=tensor(train.codes),
            train_lengths=tensor(lengths_of(train)),
            train_condition=condition(train),
            validation=tensor(validation.codes),
            validation_lengths=tensor(lengths_of(validation)),
            validation_condition=condition(validation),
            evaluation_batch_size=recipe.evaluation.batch_size,
        )

    def code_splits(self, recipe: Recipe) -> tuple[str, ...]:
        return SPLITS

    def items(self, dataset: AudioDataset, split: str) -> int:
        return len(dataset.split(split))

    def encode(
        self,
        codebook: AudioVQVAE,
        dataset: AudioDataset,
        split: str,
        recipe: Recipe,
        *,
        name: str,
        sha256: str,
        device: torch.device,
    ) -> CodeFile:
        source = dataset.split(split)
        codes_NGT, lengths_N = encode_split(
            codebook,
            source,
            label=f"{name} codes, {split}",
            batch_samples=recipe.evaluation.batch_samples,
            device=device,
        )
        header = CodeHeader(
            dataset=dataset.name,
            split=split,
            model=name,
            codebook_size=codebook.codebook_size,
            codebooks=codebook.codebooks,
            grid=(codes_NGT.shape[2],),
            classes=len(dataset.classes),
            stage1_sha256=sha256,
            speakers=len(dataset.speakers),
        )
        return CodeFile(
            codes=codes_NGT,
            labels=source.labels,
            header=header,
            lengths=lengths_N,
            speakers=source.speakers if dataset.speakers else None,
            samples=source.lengths,
        )
