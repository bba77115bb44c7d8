"""`twostage generate` of a run on recordings: prior sample -> decoder -> WAV files with pictures."""

import re

from stage1_vqvae import AudioVQVAE
from twostage.class_names import as_file_name
from twostage.config.model_names import MAIN_MODEL
from twostage.data.audio.spectral import log_mel_settings
from twostage.errors import UsageError
from twostage.progress import say
from twostage.storage.atomic import write_atomic

from ..commands.samples import Generate
from ..media.spectrograms import MOST_PICTURES, picture_of, which_have_pictures
from ..media.wav import write_wav
from ..runs.device import pick_device, use_threads
from ..runs.loading import Loaded
from ..runs.run import Run, check_folder
from .asked import Labels, Speakers, asked_for, codes_in
from .audio_two_stage import Sound, TwoStageAudio

DEFAULT_COUNT = 16
_OWN_NAME = re.compile(r"sound-\d{4,}[^/]*(?<!-reconstructed)\.(wav|png)")


def _wanted(command: Generate, model: TwoStageAudio) -> tuple[Labels, Speakers]:
    """The command's labels and speakers, as `TwoStageAudio.generate` takes them.

    Raises:
        UsageError: the prior has no such label or speaker, knows none, or cannot do without.
    """
    prior, count = model.prior, count_of(command)
    if command.unlabelled and not (prior.model.condition_optional or not prior.model.classes):
        raise UsageError(
            "--unlabelled needs a prior trained with label dropout, which this one was not: remove "
            f"{prior.checkpoint.path.parent}, run train-prior with --wavenet-prior.label-dropout 0.1, generate again"
        )
    # A list, so that no name is taken for "in turn".
    labels: Labels = "in turn" if command.label is None else [command.label] * count
    speakers: Speakers = "in turn" if command.speaker is None else [command.speaker] * count
    labels = None if command.unlabelled else labels
    asked_for(count, prior, labels=labels, speakers=speakers, flags=("--label", "--speaker"))
    return labels, speakers


def count_of(command: Generate) -> int:
    """Sounds to make."""
    return DEFAULT_COUNT if command.count is None else command.count


def run_generate(command: Generate) -> None:
    """`twostage generate`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    device, name = pick_device(command.device), command.model or MAIN_MODEL
    stage1 = run.stage1(name, device)
    if not isinstance(stage1.model, AudioVQVAE):
        raise UsageError(
            f"model {name} is a VAE, whose latents have no learned prior over time to draw a length and a sound from; "
            "choose a vq-vae, or reconstruct files with it"
        )
    codebook = Loaded(model=stage1.model, checkpoint=stage1.checkpoint)
    model, count = TwoStageAudio(run=run, name=name, stage1=codebook, device=device), count_of(command)
    voice, (labels, speakers) = model.voice(command.decoder), _wanted(command, model)
    if command.seconds is not None:
        codes_in(command.seconds, model.prior, model.vqvae.stride, flag="--seconds")
    if command.dry_run:
        say(f"would write {count} sounds of {name} ({voice.name}) into {command.folder}; nothing was done")
        return
    sounds = model.generate(
        count,
        labels=labels,
        speakers=speakers,
        seconds=command.seconds,
        decoder=command.decoder,
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        seed=command.seed,
    )
    _write(command, sounds, prefix="" if name == MAIN_MODEL else f"{name}-")


def _write(command: Generate, sounds: list[Sound], *, prefix: str) -> None:
    """WAV and PNG files; those of an earlier call go from the run's own folder."""
    folder = command.folder
    folder.mkdir(parents=True, exist_ok=True)
    if command.out is None:
        for path in folder.iterdir():
            if re.fullmatch(re.escape(prefix) + _OWN_NAME.pattern, path.name):
                path.unlink()
    settings = log_mel_settings(sounds[0].sample_rate_hz)
    for item, sound in enumerate(sounds):
        said = [name for name in (sound.label, sound.speaker) if name is not None]
        stem = "-".join([f"{prefix}sound-{item:04d}", *map(as_file_name, said)])
        write_wav(folder / f"{stem}.wav", sound.samples, sound.sample_rate_hz)
        if item < MOST_PICTURES:
            title = f"{' / '.join(said) or 'sample'}, {sound.seconds:.2f} s"
            write_atomic(folder / f"{stem}.png", picture_of(sound.samples, settings=settings, title=title))
    seconds = sum(sound.seconds for sound in sounds)
    say(f"{len(sounds)} sounds, {seconds:.1f} s, {which_have_pictures(len(sounds))}, in {folder}")
