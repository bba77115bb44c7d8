"""What the card of an exported model shows: new items, and items of the test data beside what becomes of them."""

from dataclasses import dataclass
from pathlib import Path

from twostage.data.interface import Dataset
from twostage.errors import TwoStageError
from twostage.metrics.statistics import evenly
from twostage.progress import say

from ..generate.drawing import Drawing, check_drawing, draw
from ..generate.two_stage import TwoStage
from ..modality import files as item_files
from ..modality.choose import load_data

FOLDER = "samples"


@dataclass(frozen=True)
class Shown:
    """Pictures of the folder, by their paths in it, and what they are of."""

    title: str
    caption: str
    pictures: tuple[str, ...]
    played: tuple[str, ...] = ()
    """Sounds, by their paths in the folder."""


def sampled(model: TwoStage, to: Path, seed: int) -> Shown | None:
    """New items of the model; None where it has nothing to draw from."""
    count, how = model.files.count // 2, Drawing(seed=seed)
    try:
        check_drawing(model, how)
        classes = len(set(model.wanted(count).labels))
        count -= count % classes if classes else 0  # whole rows of a class a column
        wanted = model.wanted(count)
        items = draw(model, count, wanted, how)
    except TwoStageError as error:
        say(f"no samples in the card: {error}")
        return None
    named = [
        [names[number] for number in numbers]
        for names, numbers in ((model.classes, wanted.labels), (model.speakers, wanted.speakers))
        if numbers
    ]
    said = [" / ".join(names) for names in zip(*named, strict=True)] if named else ["sample"] * count
    shown = item_files.Shown(
        stems=[f"sample-{index:02d}" for index in range(count)],
        items=items,
        titles=[(title,) for title in said],
        overview="samples",
        columns=classes,
    )
    by_class = ", a class a column" if classes and model.files.one_overview else ""
    return _written(model, to, shown, "Samples", f"New {model.files.item}s under seed {seed}{by_class}.")


def reconstructed(model: TwoStage, dataset: Dataset, to: Path) -> Shown:
    """Test items beside their reconstructions."""
    rows = evenly(len(dataset.test), model.files.count // 4)
    split = dataset.test.take(rows)
    own = model.modality.pictures(model.run.recipe, dataset).items(split)
    items = model.passed(split, decoder=next(iter(model.modality.decoders)), seed=0)
    shown = item_files.Shown(
        stems=[f"reconstruction-{index:02d}" for index in range(len(rows))],
        items=items,
        originals=list(own),
        titles=[(f"test {model.files.source} {row}", "reconstruction") for row in rows.tolist()],
        overview="reconstructions",
    )
    what = f"Test {model.files.source}s, each with its reconstruction beside or below it."
    return _written(model, to, shown, "Reconstructions", what)


def data_of(model: TwoStage) -> Dataset | None:
    """The data that the model was trained on; None, with a line that says why, where they are not to be had."""
    run = model.run
    try:
        dataset = load_data(run.recipe)
        run.check_data(model.stage1, dataset)
    except TwoStageError as error:
        say(f"no reconstructions in the card: {error}")
        return None
    return dataset


def _written(model: TwoStage, to: Path, shown: item_files.Shown, title: str, caption: str) -> Shown:
    """Files of items, with what the card shows of them."""
    files, record = model.files, model.record
    files.write(to / FOLDER, shown, record, what=title)
    of_items = [f"{FOLDER}/{stem}" for stem in shown.stems]
    if files.one_overview:  # which shows them all
        for stem in of_items:
            for suffix in files.suffixes(record):
                (to / f"{stem}{suffix}").unlink()
        return Shown(title, caption, (f"{FOLDER}/{shown.overview}.png",))
    suffix = files.suffixes(record)[0]
    return Shown(title, caption, tuple(f"{stem}.png" for stem in of_items[:4]), tuple(f"{s}{suffix}" for s in of_items))
