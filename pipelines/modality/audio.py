"""Recordings: which networks a recipe asks for, what trains them, and how a split becomes codes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from stage1_vqvae import SoundVAE, SoundVQVAE, WaveNetDecoder
from stage1_vqvae.audio.tasks import SoundCodebookTask, SoundGaussianTask
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
from twostage.errors import RunError, UsageError
from twostage.progress import Progress
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile
from twostage.training.task import Task

from .interface import SPLITS, Stage, as_arguments, check_codebook_size


def load_sound(recipe: Recipe) -> AudioDataset:
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
    model: SoundVQVAE, split: AudioSplit, *, label: str, batch_samples: int, device: torch.device
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


_KINDS: dict[str, type[SoundVQVAE] | type[SoundVAE]] = {"sound-vq-vae": SoundVQVAE, "sound-vae": SoundVAE}


def stage1_architecture(spec: ModelSpec, recipe: Recipe, dataset: AudioDataset) -> dict[str, Any]:
    """Keyword arguments of `SoundVQVAE` or `SoundVAE`.

    Raises:
        UsageError: a model of images.
    """
    if spec.kind not in ("vq-vae", "vae"):
        raise UsageError(f"{spec.name} is a model of images: recordings have vq-vae, vae and beta-vae-B")
    common = {key: value for key, value in asdict(recipe.sound).items() if key != "segment_samples"}
    common["speakers"] = len(dataset.speakers)
    if spec.kind == "vae":
        return {**common, "latent_channels": recipe.gaussian.latent_channels, "beta": spec.beta}
    quantiser = {k: v for k, v in asdict(recipe.quantiser).items() if k not in ("init", "auxiliary_weight")}
    return {**common, **quantiser, "update": spec.codebook_update}


def build_stage1(kind: str, architecture: Mapping[str, Any]) -> SoundVQVAE | SoundVAE:
    """A freshly initialised model (torch's global generator) of one of the known kinds."""
    if kind not in _KINDS:
        raise RunError(
            f"this version knows the kinds of sound models {', '.join(_KINDS)}, not {kind!r}: update twostage"
        )
    return _KINDS[kind](**architecture)


def decoder_architecture(recipe: Recipe, stage1: SoundVQVAE) -> dict[str, Any]:
    """Keyword arguments of `WaveNetDecoder` on the codes of `stage1`."""
    settings = {key: value for key, value in asdict(recipe.wavenet_decoder).items() if key != "segment_samples"}
    return {
        **settings,
        "condition_channels": recipe.quantiser.embedding_dim,
        "stride": stage1.stride,
        "speakers": stage1.speakers,
        "speaker_channels": recipe.sound.speaker_channels,
    }


def most_codes(recipe: Recipe, dataset: AudioDataset, *, stride: int) -> int:
    """Codes of the longest sound that has a probability: as the recipe says, or of twice the longest training one.

    Raises:
        UsageError: a recording is longer.
    """
    rate, seconds = dataset.sample_rate_hz, recipe.wavenet_prior.max_seconds
    samples = seconds * rate if seconds else 2 * int(dataset.train.lengths.max())
    longest = max(int(dataset.split(split).lengths.max()) for split in ("train", "validation", "test"))
    if samples < longest:
        raise UsageError(
            f"wavenet_prior.max_seconds admits {samples / rate:.2f} s, but a recording of {longest / rate:.2f} s would "
            "have no probability: set it to more"
        )
    return -(-int(np.ceil(samples)) // stride)


def prior_architecture(recipe: Recipe, stage1: SoundVQVAE, dataset: AudioDataset) -> dict[str, Any]:
    """Keyword arguments of `WaveNet` over the codes of `stage1`.

    Raises:
        UsageError: recordings are longer than the prior can be.
    """
    settings = asdict(recipe.wavenet_prior)
    conditional = settings.pop("conditional")
    del settings["max_seconds"]
    classes = (len(dataset.classes), len(dataset.speakers)) if conditional else ()
    return {
        "codebook_size": stage1.codebook_size,
        "codebooks": stage1.codebooks,
        "max_length": most_codes(recipe, dataset, stride=stage1.stride),
        "classes": tuple(size for size in classes if size),
        **settings,
    }


def condition_of(labels: np.ndarray, speakers: np.ndarray, dataset_sizes: tuple[int, int]) -> np.ndarray:
    """`[N, A]` what a conditional prior is told: the label and the speaker, each where there are several."""
    classes, voices = dataset_sizes
    columns = [column for column, size in ((labels, classes), (speakers, voices)) if size]
    return np.stack(columns, 1) if columns else np.zeros((len(labels), 0), np.int64)


class Audio:
    """Recordings as a `Modality`: convolutional codebook, WaveNet decoder on its codes, and a WaveNet over them."""

    sections: Mapping[Stage, str] = {"stage1": "sound", "decoder": "wavenet_decoder", "prior": "wavenet_prior"}

    def load(self, recipe: Recipe) -> AudioDataset:
        return load_sound(recipe)

    def describe(self, dataset: AudioDataset) -> str:
        hours = sum(dataset.durations_seconds(split).sum() for split in SPLITS) / 3600
        return (
            f"recordings, {hours:.2f} h at {dataset.sample_rate_hz} Hz, {len(dataset.classes)} labels, "
            f"{len(dataset.speakers)} speakers ({dataset.split_rule})"
        )

    def facts(self, dataset: AudioDataset) -> dict[str, Any]:
        return {
            "speakers": list(dataset.speakers),
            "sample_rate_hz": dataset.sample_rate_hz,
            "split_rule": dataset.split_rule,
        }

    def stages(self, spec: ModelSpec, recipe: Recipe) -> tuple[Stage, ...]:
        if spec.kind != "vq-vae":
            return ("stage1",)
        return ("stage1", "decoder", "prior") if recipe.wavenet_decoder.blocks else ("stage1", "prior")

    def stage1(self, spec: ModelSpec, recipe: Recipe, dataset: AudioDataset) -> tuple[str, dict[str, Any]]:
        return f"sound-{spec.kind}", stage1_architecture(spec, recipe, dataset)

    def follower(
        self, stage: Stage, recipe: Recipe, codebook: SoundVQVAE, dataset: AudioDataset
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
        model: SoundVQVAE | SoundVAE,
        recipe: Recipe,
        dataset: AudioDataset,
        training: TrainingConfig,
        *,
        label: str,
    ) -> None:
        if isinstance(model, SoundVQVAE):
            prior_architecture(recipe, model, dataset)  # refuses recordings that the prior could not say
            vectors = int((-(-dataset.train.lengths // model.stride)).sum())
            check_codebook_size(model.codebook_size, vectors, f"{len(dataset.train)} training recordings", label=label)

    def stage1_task(
        self, model: SoundVQVAE | SoundVAE, recipe: Recipe, dataset: AudioDataset, device: torch.device
    ) -> Task:
        common: dict[str, Any] = {
            "train": dataset.train,
            "validation": dataset.validation,
            "sample_rate_hz": dataset.sample_rate_hz,
            "segment_samples": recipe.sound.segment_samples,
            "batch_samples": recipe.evaluation.batch_samples,
        }
        if isinstance(model, SoundVAE):
            return SoundGaussianTask(model, **common)
        return SoundCodebookTask(model, **common, kmeans=recipe.quantiser.init == "kmeans", seed=recipe.seed)

    def follower_task(
        self,
        model: WaveNet | WaveNetDecoder,
        codebook: SoundVQVAE,
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
        codebook: SoundVQVAE,
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
