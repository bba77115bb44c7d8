"""Figures of the report, drawn with matplotlib into PNG bytes.

Shapes: N items, K codes.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no window, whatever the user's settings say

from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .plain_text import legend, plain_text, shortened


def figure_png(figure: Figure) -> bytes:
    """A finished figure as PNG; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


@plain_text()
def curves(runs: Mapping[str, list[dict[str, Any]]], *, key: str, title: str, unit: str) -> bytes:
    """One line per training: `key` on training batches (thin) and on validation data (dots), against steps."""
    figure, axis = plt.subplots(figsize=(6.0, 3.4))
    named = []
    for index, (name, rows) in enumerate(runs.items()):
        colour = f"C{index}"
        train = [(row["step"], row[key]) for row in rows if key in row]
        validation = [(r["step"], r[f"validation_{key}"]) for r in rows if f"validation_{key}" in r]
        if train:
            axis.plot(*zip(*train, strict=True), color=colour, alpha=0.35, linewidth=1)
        if validation:
            (dots,) = axis.plot(*zip(*validation, strict=True), "o-", color=colour, markersize=3, linewidth=1)
            named.append((dots, name))
    # Early steps dwarf the rest: show the range of the later three quarters.
    values = [
        row[name]
        for rows in runs.values()
        for row in rows[len(rows) // 4 :]
        for name in (key, f"validation_{key}")
        if name in row
    ]
    if values:
        low, high = min(values), max(values)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low) + 1e-9)
    axis.set(title=title, xlabel="optimiser steps", ylabel=unit)
    legend(axis, named, fontsize=8)
    axis.grid(alpha=0.3)
    return figure_png(figure)


@plain_text()
def code_histogram(counts_K: np.ndarray, *, title: str) -> bytes:
    """Usage of every code, most used first."""
    share_K = np.sort(counts_K)[::-1] / max(1, counts_K.sum())
    figure, axis = plt.subplots(figsize=(6.0, 2.6))
    axis.bar(np.arange(len(share_K)), share_K, width=1.0, color="C0")
    axis.axhline(1 / len(share_K), color="C3", linewidth=1, label="equal use")
    axis.set(title=title, xlabel="codes, most used first", ylabel="share of tokens")
    axis.legend(fontsize=8)
    return figure_png(figure)


_ROW_CHARACTERS = 60
"""Of the name of a row, whose end says which prior, which decoder and how many items it is of."""


@plain_text()
def stacked_bits(rows: list[tuple[str, float, float]], *, unit: str) -> bytes:
    """Distortion and rate of every row, stacked; `rows` holds (name, distortion, rate)."""
    figure, axis = plt.subplots(figsize=(6.4, 0.7 + 0.42 * len(rows)))
    distortion = np.array([d for _, d, _ in rows])[::-1]
    rate = np.array([r for _, _, r in rows])[::-1]
    places = np.arange(len(rows))
    axis.barh(places, distortion, color="C0", label="distortion")
    axis.barh(places, rate, left=distortion, color="C1", label="rate")
    axis.set_yticks(places, [shortened(name, _ROW_CHARACTERS) for name, _, _ in rows][::-1])
    for index, total in enumerate(distortion + rate):
        axis.text(total, index, f" {total:.3f}", va="center", fontsize=8)
    axis.set_xlim(0, float((distortion + rate).max()) * 1.15)
    axis.set_xlabel(unit)
    # Beside the bars: inside it would hide the total of one of them.
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure_png(figure)


@dataclass(frozen=True)
class RatePoint:
    """One way of scoring one model, as a point of its rate and distortion."""

    name: str
    rate: float
    distortion: float
    rate_deviation: float = 0.0
    """Over seeds; 0 for a single one."""
    distortion_deviation: float = 0.0
    beta: float | None = None
    """Of a VAE: those with a beta are joined by a line, in the order of it."""


@plain_text()
def rate_distortion(points: Sequence[RatePoint], *, unit: str, totals: Mapping[str, float], title: str) -> bytes:
    """Rate to the right, distortion upwards, one point per row; nearer to the lower left corner is better.

    Args:
        points: at least one.
        unit: of both axes.
        totals: published numbers, whose parts are unknown: dashed lines along which rate + distortion is that total.
        title: of the figure.
    """
    figure, axis = plt.subplots(figsize=(6.4, 4.4))
    family = sorted((point for point in points if point.beta is not None), key=lambda point: point.beta or 0.0)
    if len(family) > 1:
        axis.plot([p.rate for p in family], [p.distortion for p in family], color="0.6", linewidth=1, zorder=1)
    named: list[tuple[Artist | Container, str]] = []
    for index, point in enumerate(points):
        drawn = axis.errorbar(
            point.rate,
            point.distortion,
            xerr=point.rate_deviation or None,
            yerr=point.distortion_deviation or None,
            fmt="osD^v"[index // 10 % 5],
            color=f"C{index % 10}",
            markersize=6,
            capsize=2,
        )
        named.append((drawn, f"{point.name} ({point.rate + point.distortion:.3f})"))
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    middle = (left + right) / 2
    bottom, top = (
        min([bottom, *(t - middle for t in totals.values())]),
        max([top, *(t - middle for t in totals.values())]),
    )
    for total in MaxNLocator(10).tick_values(left + bottom, right + top):
        axis.plot([left, right], [total - left, total - right], color="0.88", linewidth=0.8, zorder=0)
    for index, (name, total) in enumerate(totals.items()):
        style: dict[str, Any] = {"linestyle": "--", "color": f"{0.2 + 0.2 * index:.1f}"}
        (line,) = axis.plot([left, right], [total - left, total - right], **style)
        named.append((line, f"{name} ({total:g})"))
    axis.set(xlim=(left, right), ylim=(bottom, top), xlabel=f"rate, {unit}", ylabel=f"distortion, {unit}")
    axis.set_title(f"{title}; light lines: equal total", fontsize=10)
    # Beside the points: inside it would hide one of them.
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
    legend(axis, named, fontsize=8, title="total in brackets", title_fontsize=8, **beside)
    return figure_png(figure)
