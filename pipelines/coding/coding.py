"""`twostage reconstruct`, `convert`, `encode` and `decode`: files -> latents -> files, together or one half at a time.

Shapes: N files.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twostage.class_names import as_file_name
from twostage.config.model_names import check_model
from twostage.errors import RunError, UsageError
from twostage.printable import counted, show
from twostage.progress import say
from twostage.storage.codes import CodeFile, load_codes, save_codes
from twostage.storage.flat_ids import Vocabulary, check_ids, save_ids, save_vectors, vocabulary_file

from ..commands.samples import Convert, Decode, Encode, Reconstruct
from ..generate.asked import asked_voice, labels_for, own_voices, stated_speakers, voices_for
from ..generate.two_stage import TwoStage, open_model
from ..modality.choose import modality_of
from ..modality.files import Shown
from ..runs.class_numbers import class_number
from ..runs.codes import check_codes, check_plain_names
from ..runs.device import pick_device, use_threads
from ..runs.run import Run, check_folder

_BOUND_SAMPLES = 16
"""Posterior samples behind the negative ELBO that is printed of a file."""


def _open(command: Reconstruct | Convert | Encode, folder: Path) -> TwoStage:
    """The model of a command, once its folder can be written."""
    run = Run.open(command.run)
    check_folder(folder)
    use_threads(run.recipe.threads)
    return open_model(run, run.model_or_main(command.model), pick_device(command.device))


def _read(paths: Sequence[Path], model: TwoStage) -> list[np.ndarray]:
    """The items in files.

    Raises:
        UsageError: two files have the same name without suffix, which is what their outputs are named after.
        DataError: a file holds no item of the model's kind.
    """
    stems = [path.stem for path in paths]
    doubled = sorted({stem for stem in stems if stems.count(stem) > 1})
    if doubled:
        raise UsageError(f"several files are named {', '.join(doubled)}: their outputs would overwrite one another")
    return [model.files.read(path, model.record, model.run.recipe) for path in paths]


def _speakers_in(paths: Sequence[Path], model: TwoStage, wanted: str | None) -> list[int | None] | None:
    """Speaker of every file: the one stated, or what its name says; None for nobody of the data set, and instead of the
    list for a run without speakers.

    Raises:
        UsageError: the one stated is not among the speakers.
    """
    if wanted is None:
        return model.files.speakers_in(paths, model.run.recipe, model.speakers) if model.speakers else None
    if not model.speakers:
        raise UsageError(f"--speaker {wanted} was given, but the items of this run have no speakers")
    return [class_number(wanted, model.speakers, flag="--speaker")] * len(paths)


def _labels(command: Reconstruct | Convert, model: TwoStage) -> list[int]:
    """What a conditional VAE is given of every file; empty of other models.

    Raises:
        UsageError: the label is unknown or missing, or the model takes none.
    """
    count, classes = len(command.files), model.model.classes
    return labels_for(command.label, count, model.record, classes=classes, name=model.name, flag="--label")


def _or_names(model: TwoStage) -> str:
    """What else would say who speaks, the end of a sentence."""
    pattern = model.run.recipe.recordings.pattern
    return f", or name files {pattern}" if pattern else ""


def run_reconstruct(command: Reconstruct) -> None:
    """`twostage reconstruct`."""
    model = _open(command, command.folder)
    paths, files, record = command.files, model.files, model.record
    labels = _labels(command, model)
    stated = stated_speakers(_speakers_in(paths, model, command.speaker), model.speakers, len(paths))
    voices = own_voices(stated, record, [str(path) for path in paths], flag="--speaker", otherwise=_or_names(model))
    items, drawn = _read(paths, model), model.with_decoder(command.decoder).autoregressive
    model.check_levels(command.levels)
    if command.dry_run:
        what = f"{counted(len(items), 'files')} with {model.name} into {command.folder}"
        say(f"would reconstruct {what}; nothing was done")
        return
    split = files.split_of(items, labels, voices)
    how: dict[str, Any] = {"decoder": command.decoder, "seed": command.seed, "levels": command.levels}
    made, bits_N = model.passed(split, **how), model.bits(split, samples=_BOUND_SAMPLES, **how)
    remarks = [files.difference(own, other, record) for own, other in zip(items, made, strict=True)]
    if bits_N is not None:
        measure = f"negative ELBO in {files.unit}{' given the label' if model.model.classes else ''}{files.apart}"
        if model.model.latents == "codes":
            which = "codes" if command.levels is None else f"codes of {counted(command.levels, 'levels')}"
            measure = f"distortion, {files.unit} given the {which}"
        remarks = [f"{measure}: {bits:.3f}; {said}" for bits, said in zip(bits_N.tolist(), remarks, strict=True)]
    shown = Shown(
        stems=[f"{path.stem}-reconstructed" for path in paths],
        items=made,
        originals=items,
        titles=[(path.name, f"reconstructed ({model.modality.decoders[command.decoder]})") for path in paths],
        overview="reconstructions",
    )
    _write(command, model, shown, [f" ({remark})" for remark in remarks])
    kind = f"reconstructions drawn under seed {command.seed}" if drawn else "mean reconstructions"
    say(f"originals beside {kind} in the pictures")


def _write(command: Reconstruct | Convert, model: TwoStage, shown: Shown, remarks: Sequence[str]) -> None:
    """Files with their pictures, and a line for each."""
    what = counted(len(shown.items), f"{model.files.item}s")
    said = model.files.write(command.folder, shown, model.record, what=what)
    suffix = model.files.suffixes(model.record)[0]
    for path, stem, remark in zip(command.files, shown.stems, remarks, strict=True):
        say(f"{path} -> {command.folder / stem}{suffix}{remark}")
    say(said)


def run_convert(command: Convert) -> None:
    """`twostage convert`."""
    model = _open(command, command.folder)
    paths, files, source = command.files, model.files, model.files.source
    if not model.speakers:
        raise UsageError(
            f"{model.run.path} was trained on {source}s without speakers: there is no other voice to convert to"
        )
    voice = asked_voice(command.speaker, model.record, flag="--speaker")
    labels = _labels(command, model)
    items, spoken_by = _read(paths, model), model.speakers[voice]
    model.with_decoder(command.decoder)
    model.check_levels(command.levels)
    if command.dry_run:
        say(f"would convert {counted(len(items), 'files')} to {spoken_by} into {command.folder}; nothing was done")
        return
    split = files.split_of(items, labels, [voice] * len(items))
    shown = Shown(
        stems=[f"{path.stem}-as-{as_file_name(spoken_by)}" for path in paths],
        items=model.passed(split, decoder=command.decoder, seed=command.seed, levels=command.levels),
        originals=items,
        titles=[(path.name, f"as {spoken_by} ({model.modality.decoders[command.decoder]})") for path in paths],
        overview="conversions",
    )
    _write(command, model, shown, [""] * len(items))


def _check_free(folder: Path, names: Sequence[str]) -> None:
    """Raise UsageError where a folder already holds one of the files that are to be written into it."""
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise UsageError(
            f"{folder} already holds {show(there)}, which may be what was encoded: choose another folder, or remove "
            "them"
        )


def _check_replaceable(path: Path, run: Path) -> None:
    """Raise UsageError where `path` is what a file of codes must not replace: a part of a run, or another file."""
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder, but one file of codes is written: name the file")
    if path.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"--out {path} lies in the run folder {run}, whose files belong to the run: name another")
    if not path.exists():
        return
    try:
        if path.suffix == ".safetensors":
            load_codes(path)
        else:
            check_ids(path)
    except RunError:
        raise UsageError(f"--out {path} is there and is no file of codes: remove it or name another") from None


def run_encode(command: Encode) -> None:
    """`twostage encode`."""
    check_folder(command.out.parent)
    _check_replaceable(command.out, command.run)
    model = _open(command, command.out.parent)
    paths, names = command.files, tuple(path.stem for path in command.files)
    if model.model.latents != "codes":
        raise UsageError(f"model {model.name} has no codebook and so no codes to keep; choose a vq-vae")
    speakers = _speakers_in(paths, model, command.speaker)
    items = _read(paths, model)
    check_plain_names(names, source=model.files.source)
    unknown = [path for path, speaker in zip(paths, speakers or (), strict=False) if speaker is None]
    if unknown:
        say(
            f"nothing says who speaks in {len(unknown)} of {counted(len(names), 'files')} (first: {unknown[0]}), so "
            f"that decode will ask for a voice: give --speaker, one of {show(list(model.speakers))}{_or_names(model)}"
        )
    if command.dry_run:
        say(f"would encode {counted(len(names), 'files')} with {model.name} into {command.out}; nothing was done")
        return
    file = model.encode(items, speakers=speakers, names=names)
    command.out.parent.mkdir(parents=True, exist_ok=True)
    if command.format == "safetensors":
        save_codes(command.out, file)
    else:
        save_ids(command.out, file, format=command.format, speakers=model.speakers)
    if command.vectors:
        save_vectors(command.out, model.model.code_vectors.detach().cpu().numpy())
    stored = f"{command.out.stat().st_size} bytes stored, header and whole bytes per code included"
    if command.format != "safetensors":
        stored = f"as ids below {Vocabulary.of(file.header).size}, which {vocabulary_file(command.out)} explains"
    say(f"{counted(len(items), 'files')} in {command.out}: {_size(file, model)}; {stored}")


def _size(file: CodeFile, model: TwoStage) -> str:
    """What the codes take at log2 K bits each: of one file where all have as many, else of all."""
    network, count = model.model, len(file.codes)
    asked = model.asked(count, (), (), None if file.samples is None else torch.from_numpy(file.samples))
    codes_N, dims = network.positions_of(asked) * network.codebooks, int(network.dims_of(asked).sum())
    alike, every = len(set(codes_N.tolist())) == 1, int(codes_N.sum())
    codes = int(codes_N[0]) if alike else every
    bits, rate = codes * math.log2(network.codebook_size), every * math.log2(network.codebook_size) / dims
    return (
        f"{codes} codes{' per file' if alike else ''}, {bits:.0f} bits at log2 {network.codebook_size} each "
        f"({rate:.3f} {model.files.unit}, before the decoder's distortion)"
    )


def run_decode(command: Decode) -> None:
    """`twostage decode`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    source = str(command.codes)
    remedy = f"encode the {modality_of(run.recipe).files.source}s again with twostage encode {run.path}"
    file = load_codes(command.codes, remedy=remedy)
    check_model(file.header.model, source=source)  # it becomes part of a path
    model = open_model(run, file.header.model, pick_device(command.device))
    check_codes(file, run, model.name, model.stage1, source=source, remedy=remedy)
    model.with_decoder(command.decoder)
    model.check_levels(command.levels)
    names, count, files = file.header.names, len(file.codes), model.files
    voices = voices_for(count, model.record, command.speaker, own_N=file.speakers, names=names, flag="--speaker")
    digits = max(4, len(str(count - 1)))
    names = names or tuple(f"{index:0{digits}d}" for index in range(count))
    overview = "grid"
    while overview in names:  # an item called grid keeps its name
        overview += "-of-all"
    if command.out is not None:  # what was encoded may lie there under the same names
        ends = files.suffixes(model.record)
        written = [f"{name}{end}" for name in names for end in ends] + [f"{overview}.png"] * files.one_overview
        _check_free(command.out, written)
    what = counted(count, f"{files.item}s")
    if command.dry_run:
        say(f"would decode {what} with {model.name} into {command.folder}; nothing was done")
        return
    items = model.decoded_codes(
        file.codes, file.samples, voices, decoder=command.decoder, seed=command.seed, levels=command.levels
    )
    shown = Shown(stems=names, items=items, overview=overview)
    say(files.write(command.folder, shown, model.record, what=what))
