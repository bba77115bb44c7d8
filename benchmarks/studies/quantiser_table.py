"""Tables and the picture of what `quantiser_comparison.py` has measured.

    python benchmarks/studies/quantiser_table.py mnist.jsonl natural32.jsonl --picture quantisers.png

Means over the seeds of a setting, and the standard deviation of their totals where there are several. The picture has
a panel for every data set: rate under the learned prior to the right, distortion upwards, a line for every kind through
its sizes; on a light line the total is the same.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window, whatever the user's settings say

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

Line = dict[str, Any]
HEADINGS = (
    "quantiser", "codes", "used", "perplexity", "distortion", "uniform rate", "learned rate", "total", "± s.d.",
    "PSNR, dB", "Fréchet", "parameters", "s", "seeds",
)  # fmt: skip


def settings(lines: Sequence[Line]) -> list[list[Line]]:
    """The lines of every setting, in the order of sizes and, within one, of the first time."""
    first = {line["quantiser"]: place for place, line in reversed(list(enumerate(lines)))}

    def place(line: Line) -> tuple[int, int]:
        return line["combinations"], first[line["quantiser"]]

    return [list(group) for _, group in groupby(sorted(lines, key=place), place)]


def average(group: Sequence[Line], key: str) -> float:
    """Mean over the seeds."""
    return mean(float(line[key]) for line in group)


def total(line: Line) -> float:
    """Bits/dim of the two-part code."""
    return float(line["distortion"] + line["learned_rate"])


def row(group: Sequence[Line]) -> str:
    """One line of the table."""
    first = group[0]
    cells = [first["quantiser"], str(first["possible"]), f"{100 * average(group, 'used') / first['possible']:.0f} %"]
    cells += [f"{average(group, 'perplexity'):.1f}"]
    cells += [f"{average(group, key):.4f}" for key in ("distortion", "uniform_rate", "learned_rate")]
    totals = [total(line) for line in group]
    cells += [f"{mean(totals):.4f}", f"{stdev(totals):.4f}" if len(totals) > 1 else "-"]
    cells += [f"{average(group, 'psnr_db'):.2f}"]
    cells += ["-" if first["frechet"] is None else f"{average(group, 'frechet'):.1f}"]
    cells += [str(first["parameters"]), f"{average(group, 'seconds'):.0f}", str(len(group))]
    return "| " + " | ".join(cells) + " |"


def table(lines: Sequence[Line]) -> str:
    """Markdown of a data set, and a line for every model whose prefixes decode."""
    rows = ["| " + " | ".join(HEADINGS) + " |", "|---|" + "---:|" * (len(HEADINGS) - 1)]
    rows += [row(group) for group in settings(lines)]
    for line in lines:
        if line["prefix_psnr_db"]:
            prefixes = ", ".join(f"{psnr:.2f}" for psnr in line["prefix_psnr_db"])
            rows += ["", f"PSNR of the first 1, 2, ... codes of `{line['quantiser']}`: {prefixes} dB."]
    return "\n".join(rows)


def budgets(line: Line) -> str:
    """What all trainings of a data set share."""
    said = f"{line['steps']} steps of stage one and {line['prior_steps']} of the prior, batches of {line['batch_size']}"
    real = line["real_frechet"]
    return f"{said}." if real is None else f"{said}; Fréchet distance of training items {real:.1f}."


def panel(axis: Axes, lines: Sequence[Line], kinds: Sequence[str]) -> None:
    """Distortion against learned rate of a data set; the place of a kind among `kinds` decides its colour."""
    for kind, name in enumerate(kinds):
        groups = settings([line for line in lines if line["quantiser"] == name])
        rates = [average(group, "learned_rate") for group in groups]
        distortions = [average(group, "distortion") for group in groups]
        axis.plot(rates, distortions, marker="osD^v"[kind // 2 % 5], color=f"C{kind}", linewidth=1, label=name)
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    for level in MaxNLocator(12).tick_values(left + bottom, right + top):
        axis.plot([left, right], [level - left, level - right], color="0.88", linewidth=0.8, zorder=0)
    axis.set(xlim=(left, right), ylim=(bottom, top), title=lines[0]["data"])
    axis.set(xlabel="rate under the learned prior, bits/dim", ylabel="distortion, bits/dim")


def picture(data: Sequence[Sequence[Line]], path: Path) -> None:
    """A panel for every data set, one legend."""
    # Models whose prefixes decode spend other bits a position.
    compared = [[line for line in lines if not line["prefix_psnr_db"]] for lines in data]
    kinds = list(dict.fromkeys(line["quantiser"] for lines in compared for line in lines))
    figure, axes = plt.subplots(1, len(data), figsize=(4.8 * len(data) + 2.0, 4.2), squeeze=False)
    for axis, lines in zip(axes[0], compared, strict=True):
        panel(axis, lines, kinds)
    axes[0, -1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Print the tables, a heading for every data set; draw the picture if it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="+", type=Path, help="JSON lines of a data set each")
    parser.add_argument("--picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    data = [[json.loads(line) for line in path.read_text().splitlines()] for path in arguments.lines]
    for lines in data:
        print(f"## {lines[0]['data']}\n\n{budgets(lines[0])}\n\n{table(lines)}\n")
    if arguments.picture:
        picture(data, arguments.picture)


if __name__ == "__main__":
    main()
