"""Recordings: what loads them, what trains on them, and how a split becomes codes."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from stage1_vqvae import AudioVQVAE, WaveNetDecoder
from stage1_vqvae.audio.tasks import AudioAutoencoderTask, AudioCodebookTask, AudioGaussianTask
from stage1_vqvae.audio.wavenet_task import WaveNetDecoderTask
from stage1_vqvae.audio.with_decoder import WithDecoder
from stage1_vqvae.interface import Codec
from stage1_vqvae.priced import Priced
from stage2_prior import WaveNet
from stage2_prior.prices import FrozenPrior
from stage2_prior.training import PriorTask
from twostage.config.dial import Asked, Dialled, dial_sound
from twostage.config.model_names import ModelSpec
from twostage.config.schema import Recipe, TrainingConfig
from twostage.data.audio import (
    AudioDataset,
    load_recordings,
    load_synthetic_vowels,
)
from twostage.data.audio.splits import SplitRule
from twostage.errors import UsageError
from twostage.printable import counted
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from .audio_files import AudioFiles
from .audio_measures import AudioMeasures
from .audio_networks import build_stage1, decoder_architecture, prior_architecture, stage1_architecture
from .audio_pictures import AudioPictures
from .checks import as_arguments, check_codebook_size, check_free_bits
from .files import Files
from .interface import SPLITS, Stage
from .pictures import Pictures


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


def lengths_of(file: CodeFile) -> np.ndarray:
    """Positions of every item, `[N]`."""
    assert file.lengths is not None
    return file.lengths


def speakers_of(file: CodeFile) -> np.ndarray:
    """Speaker of every item, `[N]`; 0 where none are known."""
    return np.zeros(len(file.labels), np.int64) if file.speakers is None else file.speakers


def condition_of(labels: np.ndarray, speakers: np.ndarray, dataset_sizes: tuple[int, int]) -> np.ndarray:
    """`[N, A]` what a conditional prior is conditioned on: the label and the speaker, each where there are several."""
    classes, voices = dataset_sizes
    columns = [column for column, size in ((labels, classes), (speakers, voices)) if size]
    return np.stack(columns, 1) if columns else np.zeros((len(labels), 0), np.int64)


class Audio:
    """Recordings as a `Modality`: convolutional codebook, WaveNet decoder on its codes, and a WaveNet over them."""

    sections: Mapping[Stage, str] = {"stage1": "audio", "decoder": "wavenet_decoder", "prior": "wavenet_prior"}
    files: Files = AudioFiles()
    decoders: Mapping[str, str] = {"convolutional": "convolutional decoder", "wavenet": "WaveNet decoder"}

    def load(self, recipe: Recipe) -> AudioDataset:
        return load_audio(recipe)

    def describe(self, dataset: AudioDataset) -> str:
        hours = sum(dataset.durations_seconds(split).sum() for split in SPLITS) / 3600
        told = ((dataset.classes, "labels"), (dataset.speakers, "speakers"))
        known = ", ".join(counted(len(names), what) if names else f"no {what} to tell apart" for names, what in told)
        return f"recordings, {hours:.2f} h at {dataset.sample_rate_hz} Hz, {known} ({dataset.split_rule})"

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

    def with_decoder(
        self, codebook: AudioVQVAE, decoder: WaveNetDecoder, progress: Callable[[int, int], None] | None = None
    ) -> Codec:
        return WithDecoder(codebook, decoder, progress=progress)

    def dial(self, asked: Asked, dataset: AudioDataset) -> Dialled:
        split = dataset.train
        return dial_sound(asked, sample_rate_hz=dataset.sample_rate_hz, samples=len(split.samples), items=len(split))

    def check(
        self,
        model: Any,
        recipe: Recipe,
        dataset: AudioDataset,
        training: TrainingConfig,
        *,
        label: str,
    ) -> None:
        if model.latents == "codes":
            prior_architecture(recipe, model, dataset)  # refuses recordings that the prior could not say
            vectors = int((-(-dataset.train.lengths // model.stride)).sum())
            check_codebook_size(model.codebook_size, vectors, f"{len(dataset.train)} training recordings", label=label)
        if model.latents == "gaussian":
            check_free_bits(model.free_bits, training, label=label)

    def stage1_task(
        self,
        model: Any,
        recipe: Recipe,
        dataset: AudioDataset,
        device: torch.device,
        prior: Any | None = None,
    ) -> Task:
        common: dict[str, Any] = {
            "train": dataset.train,
            "validation": dataset.validation,
            "sample_rate_hz": dataset.sample_rate_hz,
            "segment_samples": recipe.audio.segment_samples,
            "batch_samples": recipe.evaluation.batch_samples,
        }
        if model.latents == "gaussian":
            return AudioGaussianTask(model, **common)
        if model.latents == "none":
            return AudioAutoencoderTask(model, **common)
        priced, sizes = None, (len(dataset.classes), len(dataset.speakers))
        if prior is not None:
            train, validation = (
                torch.from_numpy(condition_of(split.labels, split.speakers, sizes)).to(device)
                if prior.classes
                else None
                for split in (dataset.train, dataset.validation)
            )
            priced = Priced(FrozenPrior(prior), train_condition=train, validation_condition=validation)
        kmeans = recipe.quantiser.starts_from_data and prior is None
        return AudioCodebookTask(model, **common, kmeans=kmeans, seed=recipe.seed, priced=priced)

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

        return PriorTask(
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

    def measures(self, recipe: Recipe, dataset: AudioDataset, split: str) -> AudioMeasures:
        return AudioMeasures(recipe, dataset, split)

    def pictures(self, recipe: Recipe, dataset: AudioDataset) -> Pictures:
        return AudioPictures(recipe, dataset)
