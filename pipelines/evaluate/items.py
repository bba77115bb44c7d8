"""`evaluate --per-item`: the bits of every item as comma-separated values, and the extreme items as pictures.

The anomaly score of an item is the modified z-score of its bits/dim among all items of the row, 0.6745 (x - median) /
median absolute deviation (Iglewicz and Hoaglin 1993), which the anomalies themselves hardly move; above 3.5 is the
usual limit. It ranks items as bits/dim do, and has their weakness: plain items take few bits whatever they show, so
that what is foreign to the training data but plain may score low (Nalisnick et al. 2019, arXiv 1810.09136).

Shapes: N items of the split, M items of a row.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from twostage.data.interface import Dataset
from twostage.metrics.statistics import evenly
from twostage.progress import say
from twostage.storage.atomic import write_atomic

from ..media.png import display_scale, grid, png, to_bytes
from ..modality.choose import modality_of
from ..modality.pictures import Pictures
from ..runs.run import Run
from .differences import Scored, reference_of

COLUMNS = (
    *("row", "item", "name", "label", "speaker", "dims"),
    *("bits", "distortion_bits", "rate_bits", "other_bits", "bits_per_dim", "anomaly_score"),
)
"""`row` is the line of the table; `other_bits` those of lengths and of labels that are paid."""
EXTREMES = 16
"""Least and most probable items that are shown."""
_ACROSS = 4


def anomaly_scores(bits_per_dim_M: np.ndarray) -> np.ndarray:
    """Modified z-scores `[M]`; 0 where half of the items or more have the same bits."""
    from_median_M = bits_per_dim_M - np.median(bits_per_dim_M)
    deviation = np.median(np.abs(from_median_M))
    scores_M: np.ndarray = 0.6745 * from_median_M / deviation if deviation > 0 else np.zeros_like(from_median_M)
    return scores_M


def write_items(path: Path, run: Run, dataset: Dataset, split: str, scored: Sequence[Scored], *, dims: int) -> None:
    """Write the items of all rows that have bits, in the order of the rows and the least probable first.

    Args:
        path: of the .csv file; pictures of the extremes of one row, the reference of the table, lie beside it.
        run, dataset, split: of the evaluation.
        scored: its rows.
        dims: of an item where all are of one size.

    Raises:
        RunError: the disk refused.
    """
    with_bits = [each for each in scored if each.bits_N is not None]
    if not with_bits:
        say(f"no model of {run.path} has bits, so {path} was not written")
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for each in with_bits:
        table.writerows(_lines(each, dataset, split, dims))
    write_atomic(path, text.getvalue().encode())
    shown = reference_of(with_bits) or with_bits[0]
    numbers_M, per_dim_M, _ = _per_dim(shown, len(dataset.split(split)), dims)
    order_M = np.argsort(-per_dim_M, kind="stable")
    pictures = modality_of(run.recipe).pictures(run.recipe, dataset)
    names = _names(dataset, split)
    for what, rows in (("least", order_M[:EXTREMES]), ("most", order_M[::-1][:EXTREMES])):
        titles = [f"{names[numbers_M[row]] or numbers_M[row]}: {per_dim_M[row]:.3f}" for row in rows]
        picture = path.with_name(f"{path.stem}-{what}-probable.png")
        write_atomic(picture, _sheet(pictures, dataset, split, numbers_M[rows], titles))
    say(
        f"written: {path}, the items of {len(with_bits)} rows; {path.stem}-least-probable.png and "
        f"{path.stem}-most-probable.png, those of {shown.row.name}"
    )


def _per_dim(scored: Scored, items: int, dims: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers in the split, bits/dim and dimensions of the items of a row."""
    assert scored.bits_N is not None
    searched = scored.row.search_items
    numbers_M = np.arange(items) if searched is None else evenly(items, searched)
    if scored.sizes_N is None:
        return numbers_M, scored.bits_N, np.full(len(numbers_M), dims)
    return numbers_M, scored.bits_N / scored.sizes_N, scored.sizes_N


def _lines(scored: Scored, dataset: Dataset, split: str, dims: int) -> Iterator[list[object]]:
    """A row's items as lines, the least probable first."""
    items = dataset.split(split)
    names = _names(dataset, split)
    numbers_M, per_dim_M, dims_M = _per_dim(scored, len(items), dims)
    scores_M, unit = anomaly_scores(per_dim_M), dims if scored.sizes_N is None else 1
    assert scored.bits_N is not None
    for row in np.argsort(-per_dim_M, kind="stable"):
        number = int(numbers_M[row])
        bits = float(scored.bits_N[row]) * unit
        parts: list[object] = ["", "", ""]
        if scored.distortion_N is not None and scored.rate_N is not None:
            distortion, rate = float(scored.distortion_N[row]) * unit, float(scored.rate_N[row]) * unit
            parts = [distortion, rate, bits - distortion - rate if scored.sizes_N is not None else 0.0]
        label = dataset.classes[items.labels[number]] if dataset.classes else ""
        speaker = dataset.speakers[items.speakers[number]] if dataset.speakers else ""
        measured = [bits, *parts, float(per_dim_M[row]), float(scores_M[row])]
        yield [scored.row.name, number, names[number], label, speaker, int(dims_M[row]), *measured]


def _names(dataset: Dataset, split: str) -> Sequence[str]:
    items = dataset.split(split)
    return items.names or [""] * len(items)


def _sheet(pictures: Pictures, dataset: Dataset, split: str, rows: np.ndarray, titles: Sequence[str]) -> bytes:
    """A PNG of items, with axes and titles where their kind has such figures."""
    items = pictures.items(dataset.split(split), rows.tolist())
    across = range(0, len(items), _ACROSS)
    lines, said = [items[s : s + _ACROSS] for s in across], [titles[s : s + _ACROSS] for s in across]
    figure = pictures.figure(lines, said)
    if figure is not None:
        return figure
    pixels_NCHW = to_bytes(pictures.of(items), pictures.levels)
    return png(grid(pixels_NCHW, columns=_ACROSS), scale=display_scale(pixels_NCHW.shape[-1]))
