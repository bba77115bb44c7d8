"""`twostage generate` of a run on recordings: prior sample -> decoder -> WAV files with pictures."""

import re
from pathlib import Path

import numpy as np
import torch

from stage1_vqvae import SoundVAE, SoundVQVAE
from stage2_prior import sample_sequences
from twostage.atomic import write_atomic
from twostage.audio.spectral import log_mel_settings
from twostage.class_names import as_file_name
from twostage.errors import UsageError
from twostage.progress import Progress, say

from ..class_numbers import labels_of, trained_numbers
from ..commands import Generate
from ..device import pick_device, use_threads
from ..models import MAIN_MODEL, Loaded
from ..run import Run, check_folder
from .files import write_wav
from .models import LoadedWaveNet, codebook_stage1, sound_prior, sound_stage1
from .pictures import MOST_PICTURES, picture_of
from .speaking import trained_voices, voice_number, voice_of, voices_in_turn

DEFAULT_COUNT = 16
_OWN_NAME = re.compile(r"sound-\d{4,}[^/]*(?<!-reconstructed)\.(wav|png)")


def _conditions(command: Generate, prior: LoadedWaveNet, count: int) -> tuple[list[int], list[int]]:
    """Label and speaker of every sound; empty lists for none.

    Labels are those that the prior is told: a sound must not be named after one that nobody asked for. The speaker is
    also whose voice the decoder has.

    Raises:
        UsageError: the prior has no such label or speaker, knows none, or cannot do without.
    """
    record, model = prior.record, prior.model
    if command.unlabelled and not (model.condition_optional or not model.classes):
        raise UsageError(
            "--unlabelled needs a prior trained with label dropout, which this one was not: remove "
            f"{prior.checkpoint.path.parent}, run train-prior with --wavenet-prior.label-dropout 0.1, generate again"
        )
    classes, speakers = tuple(record["classes"]), tuple(record["speakers"])
    if not model.classes and command.label is not None and classes:
        raise UsageError(
            f"--label {command.label} was asked for, but this prior was trained with wavenet_prior.conditional false "
            "and is told no label: leave it out"
        )
    told = not command.unlabelled and bool(model.classes)
    labels = labels_of(count, label=command.label, record=record, told=told)
    if command.label is None and command.speaker is None and labels and speakers:
        # Every label in every voice before any pair comes again.
        heard, met = trained_voices(record), len(trained_numbers(record, "labels"))
        return labels, [heard[(item // met) % len(heard)] for item in range(count)]
    if command.speaker is not None:
        return labels, [voice_number(command.speaker, record)] * count
    return labels, voices_in_turn(count, record)


def run_generate(command: Generate) -> None:
    """`twostage generate`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    if isinstance(sound_stage1(run, name, device).model, SoundVAE):
        raise UsageError(
            f"model {name} is a VAE, whose latents have no learned prior over time to draw a length and a sound from; "
            "choose a vq-vae, or reconstruct files with it"
        )
    stage1 = codebook_stage1(run, name, device)
    prior, voice = sound_prior(run, name, stage1, device), voice_of(run, name, stage1, command.decoder, device)
    count = command.count or DEFAULT_COUNT
    labels, speakers = _conditions(command, prior, count)
    rate, stride = stage1.record["sample_rate_hz"], stage1.model.stride
    length = None if command.seconds is None else max(1, -(-round(command.seconds * rate) // stride))
    if length is not None and length > prior.model.max_length:
        raise UsageError(
            f"--seconds must be at most {prior.model.max_length * stride / rate:.2f}, the longest sound of this prior, "
            f"but is {command.seconds:g}"
        )
    if command.dry_run:
        say(f"would write {count} sounds of {name} ({voice.name}) into {command.folder}; nothing was done")
        return
    columns = [column for column in (labels, speakers) if column]
    told = prior.model.classes and not command.unlabelled
    condition = torch.tensor(columns).T.to(device) if told else None
    most = (length or prior.model.max_length) * stage1.model.codebooks
    with Progress(f"{name} codes", total=count * most, unit="code") as bar:
        drawn = sample_sequences(
            prior.model,
            count=count,
            condition=condition,
            length=length,
            temperature=command.temperature,
            top_k=command.top_k,
            top_p=command.top_p,
            seed=command.seed,
            device=device,
            progress=lambda done, _: bar.advance(done - bar.done),
        )
    voices = torch.tensor(speakers, device=device) if stage1.model.speakers else None
    sounds = voice.speak(drawn.codes_BGT, drawn.lengths_B * stride, voices, seed=command.seed)
    _write(command, stage1, sounds, labels, speakers, rate, prefix="" if name == MAIN_MODEL else f"{name}-")


def _write(
    command: Generate,
    stage1: Loaded[SoundVQVAE],
    sounds: list[np.ndarray],
    labels: list[int],
    speakers: list[int],
    rate: int,
    *,
    prefix: str,
) -> None:
    """WAV and PNG files; those of an earlier call go from the run's own folder."""
    folder = command.folder
    folder.mkdir(parents=True, exist_ok=True)
    if command.out is None:
        for path in folder.iterdir():
            if re.fullmatch(re.escape(prefix) + _OWN_NAME.pattern, path.name):
                path.unlink()
    record, settings = stage1.record, log_mel_settings(rate)
    for item, sound_S in enumerate(sounds):
        said = [record["classes"][labels[item]]] if labels else []
        said += [record["speakers"][speakers[item]]] if speakers else []
        stem = "-".join([f"{prefix}sound-{item:04d}", *map(as_file_name, said)])
        write_wav(folder / f"{stem}.wav", sound_S, rate)
        if item < MOST_PICTURES:
            title = f"{' / '.join(said) or 'sample'}, {len(sound_S) / rate:.2f} s"
            write_atomic(folder / f"{stem}.png", picture_of(sound_S, settings=settings, title=title))
    seconds = sum(map(len, sounds)) / rate
    pictured = "each" if len(sounds) <= MOST_PICTURES else f"the first {MOST_PICTURES}"
    say(f"{len(sounds)} sounds, {seconds:.1f} s, {pictured} with a picture, in {folder}")


def own_samples(folder: Path) -> list[Path]:
    """WAV files that `generate` wrote into a folder, by name."""
    return sorted(path for path in folder.glob("sound-*.wav") if _OWN_NAME.fullmatch(path.name))
