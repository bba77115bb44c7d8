"""The table of how near reconstructions come to images, and what its columns mean."""

from collections.abc import Sequence

from .columns import Column, cells_of, figure
from .rows import SECOND_DECODERS, Evaluation, Row

MEANINGS = {
    "SSIM": "structural similarity: 1 is equal, 0 unrelated",
    "explained": "share of the variance of the pixels; 0 is no nearer than one mean image",
    "sharpness": "energy of the gradients, over that of the originals: below 1 blurred, above 1 noise or a pattern",
    "colour error": "mean distance in CIELAB (CIE76): about 2.3 is just noticed",
    "chroma": "mean distance of colours from grey, over that of the originals",
    "colour spread": "deviation of colours from their mean, over that of the originals: 0 is grey or one tint",
    "grid dB": "power at the harmonics of the code grid, over what those beside it let expect: 0 is no grid",
}
"""By heading."""


def _columns() -> list[Column[Row]]:
    return [
        figure("SSIM", lambda row: row.ssim, 3),
        figure("explained", lambda row: row.explained_share, 3),
        figure("sharpness", lambda row: row.sharpness, 3),
        figure("colour error", lambda row: row.colour_error, 1),
        figure("chroma", lambda row: row.colourfulness, 2),
        figure("colour spread", lambda row: row.colour_spread, 2),
        figure("grid dB", lambda row: row.grid_db, 1, sign="+"),
    ]


def _measured(evaluation: Evaluation) -> Sequence[Row]:
    """One row of every model, decoder and choice of items: what pays for codes does not change what they decode to."""
    rows = (row for row in evaluation.rows if row.sharpness is not None or row.explained_share is not None)
    return list({(row.model, row.decoder, row.search_items, row.searched): row for row in rows}.values())


def _name(row: Row) -> str:
    parts = [row.model, *([SECOND_DECODERS[row.decoder]] if row.decoder in SECOND_DECODERS else [])]
    parts += [] if row.search_items is None else [f"{row.search_items} items", *["searched"] * row.searched]
    return ", ".join(parts)


def reconstruction_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, a line a model; no line where nothing of it was measured, as of recordings."""
    return cells_of([Column("reconstructions", _name), *_columns()], _measured(evaluation))


def reconstruction_notes(evaluation: Evaluation) -> list[str]:
    """What the columns that stand there mean, a line each."""
    headings, lines = reconstruction_table(evaluation)
    notes = [f"{heading}: {MEANINGS[heading]}" for heading in headings if lines and heading in MEANINGS]
    drawn = any(row.psnr_of == "sample" for row in _measured(evaluation))
    return notes + ["of an autoregressive decoder, reconstructions are draws, with the noise of draws"] * drawn
