"""Figures of the report, drawn with matplotlib into PNG bytes.

Shapes: N items, K codes.
"""

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no window, whatever the user's settings say

from matplotlib import pyplot as plt
from matplotlib.figure import Figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def curves(runs: Mapping[str, list[dict[str, Any]]], *, key: str, title: str, unit: str) -> bytes:
    """One line per training: `key` on training batches (thin) and on validation data (dots), against steps."""
    figure, axis = plt.subplots(figsize=(6.0, 3.4))
    for index, (name, rows) in enumerate(runs.items()):
        colour = f"C{index}"
        train = [(row["step"], row[key]) for row in rows if key in row]
        validation = [(r["step"], r[f"validation_{key}"]) for r in rows if f"validation_{key}" in r]
        if train:
            axis.plot(*zip(*train, strict=True), color=colour, alpha=0.35, linewidth=1)
        if validation:
            axis.plot(*zip(*validation, strict=True), "o-", color=colour, markersize=3, linewidth=1, label=name)
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
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return _png(figure)


def code_histogram(counts_K: np.ndarray, *, title: str) -> bytes:
    """Usage of every code, most used first."""
    share_K = np.sort(counts_K)[::-1] / max(1, counts_K.sum())
    figure, axis = plt.subplots(figsize=(6.0, 2.6))
    axis.bar(np.arange(len(share_K)), share_K, width=1.0, color="C0")
    axis.axhline(1 / len(share_K), color="C3", linewidth=1, label="equal use")
    axis.set(title=title, xlabel="codes, most used first", ylabel="share of tokens")
    axis.legend(fontsize=8)
    return _png(figure)


def stacked_bits(rows: list[tuple[str, float, float]], *, unit: str) -> bytes:
    """Distortion and rate of every row, stacked; `rows` holds (name, distortion, rate)."""
    figure, axis = plt.subplots(figsize=(6.4, 0.7 + 0.42 * len(rows)))
    names = [name for name, _, _ in rows][::-1]
    distortion = np.array([d for _, d, _ in rows])[::-1]
    rate = np.array([r for _, _, r in rows])[::-1]
    axis.barh(names, distortion, color="C0", label="distortion")
    axis.barh(names, rate, left=distortion, color="C1", label="rate")
    for index, total in enumerate(distortion + rate):
        axis.text(total, index, f" {total:.3f}", va="center", fontsize=8)
    axis.set_xlim(0, float((distortion + rate).max()) * 1.15)
    axis.set_xlabel(unit)
    # Beside the bars: inside it would hide the total of one of them.
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return _png(figure)
