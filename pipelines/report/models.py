"""The report's section on one model: samples, reconstructions, nearest training items, code usage, latents."""

import html
from collections.abc import Mapping

import numpy as np

from twostage.metrics.codebook_usage import codebook_usage
from twostage.metrics.statistics import evenly

from ..evaluate.rows import Evaluation
from ..generate.sheets import COMPARED, Sheet, neighbour_sheet, reconstruction_sheet
from ..media import figures
from ..media.html import image
from ..media.png import grid, to_bytes
from ..modality.pictures import to_levels
from .drawn import Drawn
from .latents import latents_part
from .shown import RECONSTRUCTED, ShownModel, part_of, stacked

COMPARED_BY_EAR = 4
"""Reconstructions that are played, beside their originals, where there is something to hear."""
_ACROSS = 4
"""Samples in a row of a figure."""


def extremes_of(evaluation: Evaluation, name: str) -> dict[str, np.ndarray]:
    """Test items that a model, with its own decoder, reconstructed worst and best; none of few, which are all shown."""
    row = next(row for row in evaluation.rows if row.model == name and row.search_items is None)
    found = {"worst": row.farthest_items, "best": row.nearest_items}
    few = evaluation.items <= RECONSTRUCTED
    return {} if few else {what: np.array(items) for what, items in found.items() if items}


def model_section(of: ShownModel, drawn: Drawn | None, extremes: Mapping[str, np.ndarray]) -> str:
    """Everything that is shown of one model; its sheets are also written as PNG files.

    Args:
        of: the model.
        drawn: what it drew, if it can.
        extremes: of `extremes_of`.
    """
    parts = [f"<h2>{html.escape(of.name)}</h2>"]
    if drawn is not None:
        parts.append(f"<h3>Samples</h3>{_samples(of, drawn)}")
    elif of.model.latents == "codes":
        parts.append("<p>No finished prior: train-prior brings its samples.</p>")
    parts.append(f"<h3>Reconstructions</h3>{_reconstructions(of, extremes)}")
    if drawn is not None:
        parts.append(f"<h3>Nearest training {of.shown.pictures.item}s</h3>{_neighbours(of, drawn)}")
    parts += [_usage(of), latents_part(of)]
    return "".join(parts)


def _samples(of: ShownModel, drawn: Drawn) -> str:
    """A sheet of all, and some to hear from every decoder."""
    pictures = of.shown.pictures
    sheet = grid(to_bytes(pictures.of(drawn.items), pictures.levels), columns=drawn.columns)
    parts = [of.shown.keep(f"{of.name}-samples", Sheet("samples", sheet, f"{of.name}: {drawn.source}."))]
    for voice, model in of.other_pictures.items():
        again = of.decode(drawn.latents, drawn.asked, by=model)
        sheet = grid(to_bytes(pictures.of(again), pictures.levels), columns=drawn.columns)
        caption = f"{of.name}: the same samples by the {voice}."
        parts.append(of.shown.keep(f"{of.name}-samples-{voice.replace(' ', '-')}", Sheet("samples", sheet, caption)))
    rows = slice(0, min(pictures.played, len(drawn.items)))
    for voice, model in of.voices.items() if pictures.played else ():
        heard, said = drawn.items[rows], drawn.said[rows]
        if model is not of.model:
            heard = of.decode(drawn.latents[rows], part_of(drawn.asked, rows), by=model)
        across = range(0, len(heard), _ACROSS)
        titled = [said[start : start + _ACROSS] for start in across]
        figure = pictures.figure([heard[start : start + _ACROSS] for start in across], titled)
        which = "" if voice == "reconstruction" else f", {voice}"
        if figure is not None:
            parts.append(image(figure, f"New {pictures.item}s, seed {of.shown.seed}{which}{drawn.wanted}."))
        parts.append(pictures.players(heard, said))
    return "".join(parts)


def _reconstructions(of: ShownModel, extremes: Mapping[str, np.ndarray]) -> str:
    """A sheet of pairs, and some of them to hear beside what other decoders make of them."""
    shown, pictures = of.shown, of.shown.pictures
    others = of.other_pictures
    again = [of.decode(stacked(of.latents), of.asked(shown.reconstructed), by=model) for model in others.values()]
    sheet = reconstruction_sheet(
        of.name,
        [pictures.of(items) for items in (shown.originals, of.reconstructions, *again)],
        levels=pictures.levels,
        item=pictures.item,
        sampled=of.model.autoregressive,
        others=list(others),
    )
    parts = [shown.keep(f"{of.name}-reconstructions", sheet), _extremes(of, extremes)]
    if not pictures.played:
        return "".join(parts)
    chosen = evenly(len(shown.reconstructed), COMPARED_BY_EAR)
    rows = shown.reconstructed[chosen]
    columns = {pictures.item: [shown.originals[place] for place in chosen]}
    for voice, model in of.voices.items():
        if model is of.model:
            columns[voice] = [of.reconstructions[place] for place in chosen]
        else:
            latents = stacked([of.latents[place] for place in chosen])
            columns[voice] = of.decode(latents, of.asked(rows), by=model)
    test = shown.dataset.test
    said = [of.named(int(test.labels[row]), int(test.speakers[row])) for row in rows]
    lines = [[items[place] for items in columns.values()] for place in range(len(rows))]
    titles = [[f"{name}: {what}" for what in columns] for name in said]
    figure = pictures.figure(lines, titles)
    if figure is not None:
        parts.append(image(figure, f"The same for a few {pictures.item}s, larger and on one colour scale."))
    return "".join(parts) + "".join(pictures.players(*line) for line in zip(lines, titles, strict=True))


def _extremes(of: ShownModel, rows_of: Mapping[str, np.ndarray]) -> str:
    """A sheet of the reconstructions of some test items for each choice of them; of a drawing decoder other draws."""
    pictures, parts = of.shown.pictures, list[str]()
    for what, rows in rows_of.items():
        sheet = reconstruction_sheet(
            of.name,
            [pictures.of(pictures.items(of.shown.dataset.test, rows)), pictures.of(of.reconstruct(rows))],
            levels=pictures.levels,
            item=pictures.item,
            sampled=of.model.autoregressive,
            which=f"{what} ",
        )
        parts.append(of.shown.keep(f"{of.name}-{sheet.kind}", sheet))
    return "".join(parts)


def _neighbours(of: ShownModel, drawn: Drawn) -> str:
    pictures = of.shown.pictures
    samples_NCHW = to_levels(pictures.of(drawn.items[:COMPARED]), pictures.levels)
    return of.shown.keep(f"{of.name}-neighbours", neighbour_sheet(of.name, samples_NCHW, of.shown.reference))


def _usage(of: ShownModel) -> str:
    """Histogram of every codebook on the validation set."""
    if of.model.latents != "codes" or "validation" not in of.codes:
        return ""
    file = of.codes["validation"]
    usage = codebook_usage(
        file.codes, codebook_size=of.model.codebook_size, lengths_N=file.lengths, grids=file.header.grids
    )
    parts = ["<h3>Code usage</h3>"]
    for single in usage.codebooks:
        title = f"{single.name}: {single.used} of {usage.codebook_size} used, perplexity {single.perplexity:.1f}"
        parts.append(image(figures.code_histogram(single.counts_K, title=title), "Usage on the validation set."))
    return "".join(parts)
