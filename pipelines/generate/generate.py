"""`twostage generate`: new items of a trained model, and completions of a given one in the space of codes.

Shapes: N items, G codebooks, n kept rows (positions) of codes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from twostage.class_names import as_file_name
from twostage.errors import UsageError
from twostage.printable import counted
from twostage.progress import say

from ..commands.samples import Generate
from ..modality.files import Kept, Shown
from ..runs.class_numbers import trained_numbers
from ..runs.device import pick_device, use_threads
from ..runs.run import Run, check_folder
from .asked import Labels, Speakers, Wanted
from .drawing import Drawing, check_drawing, check_guidance, draw, sharpening_of, source_of
from .nearest import NEAREST, write_nearest
from .two_stage import TwoStage, open_model


def _wanted(command: Generate, model: TwoStage, count: int) -> Wanted:
    """Label and speaker of every item.

    Raises:
        UsageError: the model has no such label or speaker, knows none, or cannot do without.
    """
    source = source_of(model)
    if command.unlabelled and not source.knows_labels and model.model.latents != "codes":
        raise UsageError(f"--unlabelled is for models with labels that can do without, but {source.refuses}")
    # Lists, so that no name is taken for "in turn".
    labels: Labels = "in turn" if command.label is None else [command.label] * count
    completes_freely = command.complete is not None and command.label is None and source.labels_optional
    if command.unlabelled or completes_freely:
        labels = None
    speakers: Speakers = "in turn" if command.speaker is None else [command.speaker] * count
    if command.complete is not None and command.speaker is None:
        named = model.files.speakers_in([command.complete], model.run.recipe, model.speakers)[0]
        if named in trained_numbers(model.record, "speakers"):
            speakers = [named] * count
    return model.wanted(count, labels, speakers, flags=("--label", "--speaker"))


@dataclass(frozen=True)
class Opening:
    """What is kept of an item that is completed."""

    item: np.ndarray
    kept: Kept


def _opening(command: Generate, model: TwoStage) -> Opening | None:
    """Read the item to complete and keep the first rows of its codes; None where none is to be completed.

    Raises:
        UsageError: there is nothing to keep of it, or the model has no codes to go on from.
        DataError: the file holds no item of the model's kind.
    """
    if command.complete is None:
        return None
    latents, files = model.model.latents, model.files
    if latents != "codes":
        why = "a VAE has continuous latents" if latents == "gaussian" else "VIMCO has a table of probabilities"
        raise UsageError(f"--complete keeps codes for a learned prior to go on from, but {why} and no such prior")
    item = files.read(command.complete, model.record, model.run.recipe)
    codes = torch.from_numpy(model.encode(item).codes)
    kept = files.kept(command, codes, item, model.model, model.record)
    say(f"keeping {kept.said}")
    return Opening(item=item, kept=kept)


def run_generate(command: Generate) -> None:
    """`twostage generate`."""
    run = Run.open(command.run)
    check_folder(command.folder)
    use_threads(run.recipe.threads)
    model = open_model(run, run.model_or_main(command.model), pick_device(command.device))
    count, file = model.files.count if command.count is None else command.count, command.complete
    how = Drawing(
        seconds=command.seconds,
        decoder=command.decoder,
        levels=command.levels,
        temperature=command.temperature,
        top_k=command.top_k,
        top_p=command.top_p,
        guidance=command.guidance,
        seed=command.seed,
    )
    check_drawing(model, how, flag="--seconds")
    wanted, opening = _wanted(command, model, count), _opening(command, model)
    check_guidance(how, wanted)
    drawn_with = sharpening_of(model, how, conditioned=wanted.conditioned).words
    what = counted(count, f"{model.files.item}s" if file is None else "completions")
    what += "" if file is None else f" of {file}"
    if command.dry_run:
        say(f"would write {what} with {model.name} into {command.folder}; nothing was done")
        return
    if opening is not None:
        codes, mask = opening.kept.codes, opening.kept.mask
        how = replace(how, known=codes.expand(count, *codes.shape[1:]), known_mask=mask)
    items = draw(model, count, wanted, how)
    said = model.files.write(command.folder, _shown(command, model, items, wanted, opening), model.record, what=what)
    if opening is not None:
        beside = "beside the original" if count == 1 else "each beside the original"
        said += "; its first picture is the original" if model.files.one_overview else f"; {beside}"
    say(f"{said}; {drawn_with}")
    if command.nearest:
        path = command.folder / NEAREST
        say(f"{path}: {write_nearest(path, model, items)}")


def _shown(
    command: Generate, model: TwoStage, items: Sequence[np.ndarray], wanted: Wanted, opening: Opening | None
) -> Shown:
    """Items named after their labels and speakers, with files of an earlier call out of their way."""
    file, files = command.complete, model.files
    prefix = files.prefix_of(model.name) if file is None else f"{file.stem}-completed-"
    if command.out is None:  # the run's own folder: items of an earlier call would look like this one's
        _remove_earlier(command, model, prefix)
    columns = [
        [names[number] for number in numbers]
        for names, numbers in ((model.classes, wanted.labels), (model.speakers, wanted.speakers))
        if numbers
    ]
    said = list(zip(*columns, strict=True)) if columns else [()] * len(items)
    digits = max(4, len(str(len(items) - 1)))
    stems = ["-".join([f"{prefix}{i:0{digits}d}", *map(as_file_name, names)]) for i, names in enumerate(said)]
    titles = [(" / ".join(names) or "sample",) for names in said]
    by_class = command.label is None and opening is None
    return Shown(
        stems=stems,
        items=items,
        originals=[] if opening is None else [opening.item],
        titles=titles if file is None else [(file.name, *title) for title in titles],
        overview="grid" if file is None else f"{file.stem}-completions",
        columns=len(set(wanted.labels)) if by_class else 0,
    )


def _remove_earlier(command: Generate, model: TwoStage, prefix: str) -> None:
    """Remove the files of an earlier call, and nothing else."""
    labels, speakers = (
        "|".join(re.escape(as_file_name(name)) for name in names) for names in (model.classes, model.speakers)
    )
    ends = "|".join(re.escape(end) for end in {*model.files.suffixes(model.record), ".png"})
    own_name = re.compile(re.escape(prefix) + rf"[0-9]{{4,}}(-({labels}))?(-({speakers}))?({ends})")
    for path in command.folder.iterdir() if command.folder.is_dir() else ():
        if own_name.fullmatch(path.name) or path.name == NEAREST:
            path.unlink()
