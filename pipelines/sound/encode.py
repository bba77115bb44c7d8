"""`twostage reconstruct`, `convert`, `encode` and `decode` of runs on recordings.

Files go through the models in batches of similar length, like the recordings of a data set, so that memory does not
grow with their number.

Shapes: N files, B files of a batch, S samples, G codebooks, T positions.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae import SoundVAE, SoundVQVAE
from twostage.atomic import write_atomic
from twostage.audio import AudioSplit, length_batches, whole_batch
from twostage.audio.pattern import name_pattern
from twostage.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.class_names import as_file_name, number_of
from twostage.codes import CodeFile, CodeHeader, check_codebook, is_plain_name, load_codes, save_codes
from twostage.config.check import check_model
from twostage.errors import RunError, UsageError
from twostage.printable import printable
from twostage.progress import say

from ..class_numbers import class_number
from ..commands import Convert, Decode, Encode, Reconstruct
from ..device import pick_device, use_threads
from ..encode import check_free, check_replaceable
from ..models import MAIN_MODEL, Loaded
from ..run import Run, check_folder
from .bits import Device, OnDevice, sound_distortion
from .extract import encode_split, lengths_of
from .files import read_recording, to_int16, write_wav
from .gaussian_bits import gaussian_sound_bits
from .models import codebook_stage1, sound_stage1
from .pictures import MOST_PICTURES, picture_of_pair
from .speaking import Voice, voice_number, voice_of

_BOUND_SAMPLES = 16
"""Posterior samples behind the negative ELBO that is printed of a file."""


def read_files(paths: Sequence[Path], *, rate: int) -> AudioSplit:
    """Read recordings of any rate and number of channels; all speakers are 0.

    Raises:
        UsageError: two files have the same name without suffix, which is what their outputs are named after.
        DataError: a file is no recording.
    """
    stems = [path.stem for path in paths]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise UsageError(f"several files are named {', '.join(doubled)}: their outputs would overwrite one another")
    recordings = [read_recording(path, rate) for path in paths]
    nobody_N = np.zeros(len(paths), np.int64)
    return AudioSplit(
        samples=np.concatenate(recordings),
        offsets=np.cumsum([0, *map(len, recordings)], dtype=np.int64),
        labels=nobody_N,
        speakers=nobody_N,
        names=tuple(stems),
    )


def speakers_in(paths: Sequence[Path], run: Run, speakers: Sequence[str], wanted: str | None) -> list[int]:
    """Speaker of every file: the one stated, or what the data set's pattern finds in its name; empty without speakers.

    Raises:
        UsageError: nothing says who speaks.
    """
    if not speakers:
        if wanted is not None:
            raise UsageError(f"--speaker {wanted} was given, but the recordings of this run have no speakers")
        return []
    if wanted is not None:
        return [class_number(wanted, tuple(speakers), flag="--speaker")] * len(paths)
    pattern = run.recipe.recordings.pattern
    compiled = None if pattern is None else name_pattern(pattern)
    found = []
    for path in paths:
        depth = pattern.count("/") + 1 if pattern else 1
        fields = compiled.match("/".join(path.absolute().parts[-depth:])) if compiled is not None else None
        number = None if fields is None or fields.speaker is None else number_of(fields.speaker, speakers)
        if number is None:
            raise UsageError(
                f"nothing says who speaks in {path}: give --speaker, one of {', '.join(speakers[:10])}"
                + (f", or name files {pattern}" if pattern else "")
            )
        found.append(number)
    return found


def _tensor(speakers: list[int], device: torch.device) -> Tensor | None:
    return torch.tensor(speakers, device=device) if speakers else None


@torch.no_grad()
def run_reconstruct(command: Reconstruct) -> None:
    """`twostage reconstruct`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = sound_stage1(run, name, device)
    model, rate = stage1.model, stage1.record["sample_rate_hz"]
    speakers = speakers_in(command.files, run, stage1.record["speakers"], command.speaker)
    split = read_files(command.files, rate=rate)
    if isinstance(model, SoundVAE) and command.decoder == "wavenet":
        raise UsageError(f"model {name} is a VAE, which has a convolutional decoder only")
    if command.dry_run:
        say(f"would reconstruct {len(split)} files with {name} into {command.folder}; nothing was done")
        return
    if speakers:
        split = replace(split, speakers=np.array(speakers, np.int64))
    where = Device(device=device, batch_samples=run.recipe.evaluation.batch_samples)
    if isinstance(model, SoundVQVAE):
        voice = voice_of(run, name, Loaded(model=model, checkpoint=stage1.checkpoint), command.decoder, device)
        sounds, bits_N = _through_codes(voice, split, where, seed=command.seed)
        how, measure = voice.name, "distortion, bits/sample given the codes"
    else:
        sounds = _through_latents(model, split, where)
        bounds = gaussian_sound_bits(model, split, samples=_BOUND_SAMPLES, seed=command.seed, where=where)
        bits_N = bounds.distortion + bounds.rate
        how, measure = "convolutional decoder", "negative ELBO in bits/sample, length and speaker apart"
    per_sample = (bits_N / split.lengths).tolist()
    for path, own, sound, value in zip(command.files, split.recordings(), sounds, per_sample, strict=True):
        target = command.folder / f"{path.stem}-reconstructed.wav"
        titles = (path.name, f"reconstructed ({how})")
        _write_pair(target, own, sound, rate, titles=titles, picture=path in command.files[:MOST_PICTURES])
        say(printable(f"{path} -> {target} ({measure}: {value:.3f}; {_distance(own, sound, rate)})"))


def _through_codes(voice: Voice, split: AudioSplit, where: Device, *, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """What the decoder makes of the codes, and the bits of the recordings given them, `[N]`."""
    codes_NGT, _ = encode_split(
        voice.model, split, label="codes", batch_samples=where.batch_samples, device=where.device
    )
    speakers = split.speakers.tolist() if voice.model.speakers else []
    sounds = voice.speak(
        torch.from_numpy(codes_NGT).to(where.device),
        torch.from_numpy(split.lengths).to(where.device),
        _tensor(speakers, where.device),
        seed=seed,
    )
    return sounds, sound_distortion(voice.model, voice.decoder, split, codes_NGT, where=where, label="distortion")


@torch.no_grad()
def _through_latents(model: SoundVAE, split: AudioSplit, where: Device) -> list[np.ndarray]:
    """What a VAE makes of recordings, with z at its posterior mean."""
    sounds: dict[int, np.ndarray] = {}
    for items_B in length_batches(split.lengths, most_samples=where.batch_samples):
        on = OnDevice.of(
            whole_batch(split, items_B, multiple=model.stride), speakers=model.speakers, device=where.device
        )
        wave_BS = model.reconstruct(on.samples, on.mask, on.speaker).cpu().numpy()
        for item, wave_S in zip(items_B.tolist(), wave_BS, strict=True):
            sounds[item] = to_int16(wave_S[: split.lengths[item]])
    return [sounds[item] for item in range(len(split))]


def _write_pair(
    target: Path, own: np.ndarray, other: np.ndarray, rate: int, *, titles: tuple[str, str], picture: bool
) -> None:
    """The second sound as a WAV file, and a picture of both."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_wav(target, other, rate)
    if picture:
        drawn = picture_of_pair(own, other, settings=log_mel_settings(rate), titles=titles)
        write_atomic(target.with_suffix(".png"), drawn)


def _distance(own: np.ndarray, other: np.ndarray, rate: int) -> str:
    first, second = (waveform(torch.from_numpy(np.array(sound)))[None] for sound in (own, other))
    mask = torch.ones_like(first, dtype=torch.bool)
    return f"log-mel L1 {float(log_mel_distance(first, second, mask, log_mel_settings(rate))):.3f}"


@torch.no_grad()
def run_convert(command: Convert) -> None:
    """`twostage convert`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = codebook_stage1(run, name, device)
    model, rate, speakers = stage1.model, stage1.record["sample_rate_hz"], tuple(stage1.record["speakers"])
    if not speakers:
        raise UsageError(
            f"{run.path} was trained on recordings without speakers: there is no other voice to convert to"
        )
    target_speaker = voice_number(command.speaker, stage1.record)
    split = read_files(command.files, rate=rate)
    voice = voice_of(run, name, stage1, command.decoder, device)
    spoken_by = speakers[target_speaker]
    if command.dry_run:
        say(f"would convert {len(command.files)} files to {spoken_by} into {command.folder}; nothing was done")
        return
    split = replace(split, speakers=np.full(len(split), target_speaker, np.int64))
    codes_NGT, _ = encode_split(
        model, split, label="codes", batch_samples=run.recipe.evaluation.batch_samples, device=device
    )
    sounds = voice.speak(
        torch.from_numpy(codes_NGT).to(device),
        torch.from_numpy(split.lengths).to(device),
        torch.from_numpy(split.speakers).to(device),
        seed=command.seed,
    )
    for path, own, sound in zip(command.files, split.recordings(), sounds, strict=True):
        target = command.folder / f"{path.stem}-as-{as_file_name(spoken_by)}.wav"
        titles = (path.name, f"as {spoken_by} ({voice.name})")
        _write_pair(target, own, sound, rate, titles=titles, picture=path in command.files[:MOST_PICTURES])
        say(printable(f"{path} -> {target}"))


@torch.no_grad()
def run_encode(command: Encode) -> None:
    """`twostage encode`."""
    run = Run.open(command.run)
    check_folder(command.out.parent)
    check_replaceable(command.out, run)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = codebook_stage1(run, name, device)
    model, rate = stage1.model, stage1.record["sample_rate_hz"]
    split = read_files(command.files, rate=rate)
    names = split.names
    strange = [each for each in names if not is_plain_name(each)]
    if strange:
        raise UsageError(f"a file of codes cannot hold the name {strange[0]!r}; rename the recording")
    if command.dry_run:
        say(f"would encode {len(names)} files with {name} into {command.out}; nothing was done")
        return
    codes_NGT, lengths_N = encode_split(
        model, split, label="codes", batch_samples=run.recipe.evaluation.batch_samples, device=device
    )
    header = CodeHeader(
        dataset=stage1.record["dataset"],
        split="files",
        model=name,
        codebook_size=model.codebook_size,
        codebooks=model.codebooks,
        grid=(codes_NGT.shape[2],),
        classes=0,
        stage1_sha256=stage1.sha256,
        names=names,
    )
    command.out.parent.mkdir(parents=True, exist_ok=True)
    save_codes(
        command.out,
        CodeFile(codes=codes_NGT, labels=np.zeros(len(names), np.int64), header=header, lengths=lengths_N),
    )
    codes = int(lengths_N.sum()) * model.codebooks
    bits, samples = codes * math.log2(model.codebook_size), len(split.samples)
    say(
        f"{len(names)} files in {command.out}: {samples / rate:.2f} s as {codes} codes, {bits:.0f} bits at log2 "
        f"{model.codebook_size} each ({bits / samples:.3f} bits/sample, before the decoder's distortion)"
    )


@torch.no_grad()
def run_decode(command: Decode) -> None:
    """`twostage decode`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device = pick_device(command.device)
    remedy = f"encode the recordings again with twostage encode {run.path}"
    file = load_codes(command.codes, remedy=remedy)
    header = file.header
    check_model(header.model, source=str(command.codes))  # it becomes part of a path
    stage1 = codebook_stage1(run, header.model, device)
    check_codebook(header, path=command.codes, stage1_sha256=stage1.sha256, remedy=remedy)
    model, speakers = stage1.model, tuple(stage1.record["speakers"])
    fits = (header.codebook_size, header.codebooks) == (model.codebook_size, model.codebooks) and len(header.grid) == 1
    if not fits or file.lengths is None or not len(file.codes):
        raise RunError(f"expected codes that fit model {header.model}, but {command.codes} holds others: {remedy}")
    voices = _voices(command, file, speakers)
    voice = voice_of(run, header.model, stage1, command.decoder, device)
    digits = max(4, len(str(len(file.codes) - 1)))
    names = header.names or tuple(f"{index:0{digits}d}" for index in range(len(file.codes)))
    if command.out is not None:  # the encoded recordings may lie there under the same names
        check_free(command.out, [f"{name}.wav" for name in names])
    if command.dry_run:
        say(f"would decode {len(names)} sounds with {header.model} into {command.folder}; nothing was done")
        return
    samples_N = torch.from_numpy(lengths_of(file)).to(device) * model.stride
    codes_NGT = torch.from_numpy(file.codes).to(device)
    sounds = voice.speak(codes_NGT, samples_N, _tensor(voices, device), seed=command.seed)
    command.folder.mkdir(parents=True, exist_ok=True)
    for name, sound in zip(names, sounds, strict=True):
        write_wav(command.folder / f"{name}.wav", sound, stage1.record["sample_rate_hz"])
    say(f"{len(names)} sounds ({voice.name}, whole codes of {model.stride} samples) in {command.folder}")


def _voices(command: Decode, file: CodeFile, speakers: tuple[str, ...]) -> list[int]:
    """Speaker of every item; empty without speakers.

    Raises:
        UsageError: nothing says whose voice it shall be.
    """
    if not speakers:
        if command.speaker is not None:
            raise UsageError(f"--speaker {command.speaker} was given, but the recordings of this run have no speakers")
        return []
    if command.speaker is not None:
        return [class_number(command.speaker, speakers, flag="--speaker")] * len(file.codes)
    if file.speakers is None:
        raise UsageError(f"{command.codes} does not say who speaks: give --speaker, one of {', '.join(speakers[:10])}")
    return [int(speaker) for speaker in file.speakers]
