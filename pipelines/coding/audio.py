"""`twostage reconstruct`, `convert`, `encode` and `decode` of runs on recordings.

Files go through the models in batches of similar length, like the recordings of a data set, so that memory does not
grow with their number.

Shapes: N files, B files of a batch, S samples, G codebooks, T positions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stage1_vqvae import AudioVAE, AudioVQVAE
from twostage.class_names import as_file_name, number_of
from twostage.config.model_names import MAIN_MODEL, check_model
from twostage.data.audio import AudioSplit, length_batches, whole_batch
from twostage.data.audio.pattern import name_pattern
from twostage.data.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.errors import UsageError
from twostage.printable import show
from twostage.progress import say
from twostage.storage.atomic import write_atomic
from twostage.storage.codes import load_codes, save_codes

from ..bits.audio import Device, OnDevice, audio_distortion, gaussian_audio_bits
from ..commands.samples import Convert, Decode, Encode, Reconstruct
from ..generate.asked import stated_speakers, voices_for
from ..generate.audio_two_stage import DecoderName, TwoStageAudio, load_audio_run
from ..generate.voices import own_voices, voice_number
from ..media.spectrograms import MOST_PICTURES, picture_of_pair, which_have_pictures
from ..media.wav import read_recording, to_int16, write_wav
from ..modality.audio import lengths_of
from ..modality.audio_arrays import split_of
from ..runs.audio_codes import check_audio_codes, check_plain_names
from ..runs.class_numbers import class_number
from ..runs.device import pick_device, use_threads
from ..runs.loading import Loaded
from ..runs.run import Run, check_folder
from .coding import check_free, check_replaceable

_BOUND_SAMPLES = 16
"""Posterior samples behind the negative ELBO that is printed of a file."""


def read_files(paths: Sequence[Path], *, rate: int) -> list[np.ndarray]:
    """Read recordings of any rate and number of channels, as int16 `[S]` of one rate.

    Raises:
        UsageError: two files have the same name without suffix, which is what their outputs are named after.
        DataError: a file is no recording.
    """
    stems = [path.stem for path in paths]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise UsageError(f"several files are named {', '.join(doubled)}: their outputs would overwrite one another")
    return [read_recording(path, rate) for path in paths]


def speakers_in(
    paths: Sequence[Path], run: Run, speakers: tuple[str, ...], wanted: str | None
) -> list[int | None] | None:
    """Speaker of every file: the one stated, or what the data set's pattern finds in its name; None for nobody of the
    data set, and instead of the list for a run without speakers.

    Raises:
        UsageError: the one stated is not among the speakers.
    """
    if not speakers:
        if wanted is not None:
            raise UsageError(f"--speaker {wanted} was given, but the recordings of this run have no speakers")
        return None
    if wanted is not None:
        return [class_number(wanted, speakers, flag="--speaker")] * len(paths)
    pattern = run.recipe.recordings.pattern
    if pattern is None:
        return [None] * len(paths)
    compiled, depth = name_pattern(pattern), pattern.count("/") + 1
    fields = [compiled.match("/".join(path.absolute().parts[-depth:])) for path in paths]
    return [None if found is None or found.speaker is None else number_of(found.speaker, speakers) for found in fields]


def _known_speakers(paths: Sequence[Path], run: Run, record: dict[str, Any], wanted: str | None) -> list[int]:
    """Voices in which files are reconstructed; empty for a run without speakers.

    Raises:
        UsageError: nothing says who speaks in a file, or the model has never heard that voice.
    """
    known = tuple(record["speakers"])
    stated = stated_speakers(speakers_in(paths, run, known, wanted), known, len(paths))
    pattern = run.recipe.recordings.pattern
    otherwise = f", or name files {pattern}" if pattern else ""
    return own_voices(stated, record, [str(path) for path in paths], otherwise=otherwise)


@torch.no_grad()
def run_reconstruct(command: Reconstruct) -> None:
    """`twostage reconstruct`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = run.stage1(name, device)
    model, rate = stage1.model, stage1.record["sample_rate_hz"]
    speakers = _known_speakers(command.files, run, stage1.record, command.speaker)
    recordings = read_files(command.files, rate=rate)
    if isinstance(model, AudioVAE) and command.decoder == "wavenet":
        raise UsageError(f"model {name} is a VAE, which has a convolutional decoder only")
    if command.dry_run:
        say(f"would reconstruct {len(recordings)} files with {name} into {command.folder}; nothing was done")
        return
    split = split_of(recordings, speakers)
    where = Device(device=device, batch_samples=run.recipe.evaluation.batch_samples)
    if isinstance(model, AudioVQVAE):
        codebook = Loaded(model=model, checkpoint=stage1.checkpoint)
        two_stage = TwoStageAudio(run=run, name=name, stage1=codebook, device=device)
        sounds, bits_N = _through_codes(two_stage, split, where, decoder=command.decoder, seed=command.seed)
        how, measure = two_stage.voice(command.decoder).name, "distortion, bits/sample given the codes"
    else:
        sounds = _through_latents(model, split, where)
        bounds = gaussian_audio_bits(model, split, samples=_BOUND_SAMPLES, seed=command.seed, where=where)
        bits_N = bounds.distortion + bounds.rate
        how, measure = "convolutional decoder", "negative ELBO in bits/sample, length and speaker apart"
    pairs = [
        Pair(
            path,
            command.folder / f"{path.stem}-reconstructed.wav",
            own,
            sound,
            f" ({measure}: {value:.3f}; {_distance(own, sound, rate)})",
        )
        for path, own, sound, value in zip(
            command.files, recordings, sounds, (bits_N / split.lengths).tolist(), strict=True
        )
    ]
    _write_pairs(pairs, rate, how=f"reconstructed ({how})")


def _through_codes(
    model: TwoStageAudio, split: AudioSplit, where: Device, *, decoder: DecoderName, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """What the decoder makes of the codes, and the bits of the recordings given them, `[N]`."""
    recordings, speakers = list(split.recordings()), split.speakers.tolist() if model.speakers else None
    codes = model.encode(recordings, speakers=speakers)
    sounds = model.decode(codes, decoder=decoder, seed=seed)
    heard = model.voice(decoder).decoder
    bits_N = audio_distortion(model.vqvae, heard, split, codes.codes, where=where, label="distortion")
    return [sound.samples for sound in sounds], bits_N


@torch.no_grad()
def _through_latents(model: AudioVAE, split: AudioSplit, where: Device) -> list[np.ndarray]:
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


@dataclass(frozen=True)
class Pair:
    """A recording and what was made of it."""

    source: Path
    target: Path
    own: np.ndarray
    """int16 [S]."""
    made: np.ndarray
    """int16 [S]."""
    remark: str = ""


def _write_pairs(pairs: Sequence[Pair], rate: int, *, how: str) -> None:
    """The second sound of each as a WAV file, and of the first pairs a picture of both; `how` is its title."""
    for item, pair in enumerate(pairs):
        write_wav(pair.target, pair.made, rate)
        if item < MOST_PICTURES:
            titles = (pair.source.name, how)
            drawn = picture_of_pair(pair.own, pair.made, settings=log_mel_settings(rate), titles=titles)
            write_atomic(pair.target.with_suffix(".png"), drawn)
        say(f"{pair.source} -> {pair.target}{pair.remark}")
    say(f"{len(pairs)} sounds, {which_have_pictures(len(pairs))}, in {pairs[0].target.parent}")


def _distance(own: np.ndarray, other: np.ndarray, rate: int) -> str:
    first, second = (waveform(torch.from_numpy(np.array(sound)))[None] for sound in (own, other))
    mask = torch.ones_like(first, dtype=torch.bool)
    return f"log-mel L1 {float(log_mel_distance(first, second, mask, log_mel_settings(rate))):.3f}"


def run_convert(command: Convert) -> None:
    """`twostage convert`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    model = load_audio_run(run, name, device)
    if not model.speakers:
        raise UsageError(
            f"{run.path} was trained on recordings without speakers: there is no other voice to convert to"
        )
    target_speaker = voice_number(command.speaker, model.stage1.record)
    recordings = read_files(command.files, rate=model.sample_rate_hz)
    voice, spoken_by = model.voice(command.decoder), model.speakers[target_speaker]
    if command.dry_run:
        say(f"would convert {len(recordings)} files to {spoken_by} into {command.folder}; nothing was done")
        return
    sounds = model.convert(recordings, target_speaker, decoder=command.decoder, seed=command.seed)
    pairs = [
        Pair(path, command.folder / f"{path.stem}-as-{as_file_name(spoken_by)}.wav", own, sound.samples)
        for path, own, sound in zip(command.files, recordings, sounds, strict=True)
    ]
    _write_pairs(pairs, model.sample_rate_hz, how=f"as {spoken_by} ({voice.name})")


def run_encode(command: Encode) -> None:
    """`twostage encode`."""
    run = Run.open(command.run)
    check_folder(command.out.parent)
    check_replaceable(command.out, run)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    model = load_audio_run(run, name, device)
    speakers = speakers_in(command.files, run, model.speakers, command.speaker)
    recordings = read_files(command.files, rate=model.sample_rate_hz)
    names = tuple(path.stem for path in command.files)
    check_plain_names(names)
    unknown = [path for path, speaker in zip(command.files, speakers or (), strict=False) if speaker is None]
    if unknown:
        pattern = run.recipe.recordings.pattern
        say(
            f"nothing says who speaks in {len(unknown)} of {len(names)} files (first: {unknown[0]}), so that decode "
            f"will ask for a voice: give --speaker, one of {show(list(model.speakers))}"
            + (f", or name files {pattern}" if pattern else "")
        )
    if command.dry_run:
        say(f"would encode {len(names)} files with {name} into {command.out}; nothing was done")
        return
    file = model.encode(recordings, speakers=speakers, names=names)
    command.out.parent.mkdir(parents=True, exist_ok=True)
    save_codes(command.out, file)
    codes, size = int(lengths_of(file).sum()) * model.vqvae.codebooks, model.vqvae.codebook_size
    bits, samples = codes * math.log2(size), sum(map(len, recordings))
    say(
        f"{len(names)} files in {command.out}: {samples / model.sample_rate_hz:.2f} s as {codes} codes, {bits:.0f} "
        f"bits at log2 {size} each ({bits / samples:.3f} bits/sample, before the decoder's distortion)"
    )


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
    model = load_audio_run(run, header.model, device)
    check_audio_codes(file, header.model, model.stage1, source=str(command.codes), remedy=remedy)
    voice, speakers = (
        model.voice(command.decoder),
        voices_for(file, model.stage1.record, command.speaker, flag="--speaker"),
    )
    digits = max(4, len(str(len(file.codes) - 1)))
    names = header.names or tuple(f"{index:0{digits}d}" for index in range(len(file.codes)))
    if command.out is not None:  # the encoded recordings may lie there under the same names
        check_free(command.out, [f"{name}.wav" for name in names])
    if command.dry_run:
        say(f"would decode {len(names)} sounds with {header.model} into {command.folder}; nothing was done")
        return
    sounds = model.decode(file, speakers=speakers or None, decoder=command.decoder, seed=command.seed)
    command.folder.mkdir(parents=True, exist_ok=True)
    for name, sound in zip(names, sounds, strict=True):
        write_wav(command.folder / f"{name}.wav", sound.samples, sound.sample_rate_hz)
    say(f"{len(names)} sounds, {sum(sound.seconds for sound in sounds):.1f} s ({voice.name}), in {command.folder}")
