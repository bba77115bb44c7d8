"""Figures of the diagnosis, drawn with matplotlib into PNG bytes: latents, their rates, and what codes cost where.

Shapes: N items, Z latents, h x w grid of codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no window, whatever the user's settings say

from matplotlib import pyplot as plt

from twostage.grids import named_grids, parsed_grids, split_levels

from ..evaluate.latent_diagnosis import PosteriorDiagnosis
from ..media.figures import figure_png
from ..media.plain_text import legend, plain_text

MOST_COLOURS = 20
"""More classes than this share one colour: nobody tells them apart."""
_PRIOR_RADIUS = 2.448
"""Of the circle that holds 95 % of N(0, I) in two dimensions."""


@dataclass(frozen=True)
class LatentCloud:
    """Latents of one model in two dimensions."""

    title: str
    points_N2: np.ndarray
    labels_N: np.ndarray
    """Index of each item's class; all 0 without classes."""
    axes: tuple[str, str] = ("latent 0", "latent 1")
    has_prior: bool = True
    """Whether the model has the prior N(0, I); an autoencoder has none."""


def in_two_dimensions(
    title: str, latents_NZ: np.ndarray, labels_N: np.ndarray, *, has_prior: bool = True
) -> LatentCloud:
    """Two latents as they are; of more the two principal components, which the axes say with their share of variance.

    A single latent is drawn against zero.
    """
    if latents_NZ.shape[1] == 1:
        points_N2 = np.pad(latents_NZ, ((0, 0), (0, 1)))
        return LatentCloud(title, points_N2, labels_N, axes=("latent 0", ""), has_prior=has_prior)
    if latents_NZ.shape[1] == 2:
        return LatentCloud(title, latents_NZ, labels_N, has_prior=has_prior)
    centred_NZ = latents_NZ - latents_NZ.mean(0)
    left, sizes, _ = np.linalg.svd(centred_NZ, full_matrices=False)
    points_N2 = np.zeros((len(latents_NZ), 2))
    points_N2[:, : len(sizes)] = (left * sizes)[:, :2]  # of a single item there is one component
    share = (points_N2**2).sum(0) / max(float((sizes**2).sum()), 1e-300)
    first, second = (f"component {index + 1} ({share[index]:.0%} of variance)" for index in (0, 1))
    return LatentCloud(title, points_N2, labels_N, axes=(first, second), has_prior=has_prior)


@plain_text()
def latent_scatter(clouds: Sequence[LatentCloud], *, classes: Sequence[str]) -> bytes:
    """Latents of every model side by side, coloured by label, with the circle that holds 95 % of the prior N(0, I).

    Models with that prior share one scale, so that the pull of a larger beta towards the middle shows.
    """
    figure, axes = plt.subplots(1, len(clouds), figsize=(4.2 * len(clouds), 4.2), squeeze=False)
    reach = max([_PRIOR_RADIUS, *(abs(cloud.points_N2).max() for cloud in clouds if cloud.has_prior)])
    coloured = 1 < len(classes) <= MOST_COLOURS
    named = []
    for axis, cloud in zip(axes[0], clouds, strict=True):
        for index, name in enumerate(classes if coloured else ("",)):
            points_N2 = cloud.points_N2[cloud.labels_N == index] if coloured else cloud.points_N2
            colour = plt.get_cmap("tab20" if len(classes) > 10 else "tab10")(index)
            size = float(np.clip(4000 / len(cloud.points_N2), 3, 14))
            drawn = axis.scatter(*points_N2.T, s=size, linewidths=0, alpha=0.6, color=colour)
            if coloured and axis is axes[0, 0]:
                named.append((drawn, name))
        if cloud.has_prior:
            axis.add_patch(plt.Circle((0, 0), _PRIOR_RADIUS, fill=False, color="0.4", linewidth=0.8, linestyle="--"))
            axis.set(xlim=(-1.05 * reach, 1.05 * reach), ylim=(-1.05 * reach, 1.05 * reach))
        axis.set(title=cloud.title, xlabel=cloud.axes[0], ylabel=cloud.axes[1])
        # A box keeps the limits: without a prior it would be a thin strip where one latent is much wider.
        axis.set_aspect("equal", adjustable="box" if cloud.has_prior else "datalim")
        axis.grid(alpha=0.3)
    legend(figure, named, fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    return figure_png(figure)


@plain_text()
def training_parts(runs: Mapping[str, list[dict[str, Any]]], *, dim: str = "dim") -> bytes:
    """Total, reconstruction and KL of every Gaussian training, against steps; thin: batches, dots: validation.

    Total is reconstruction plus KL at beta = 1, whatever beta the training used. Trainings on squared error are shown
    in nats/dim, the others in bits/dim: do not mix them in one figure.

    Args:
        runs: name of each model, and its rows of `read_metrics`.
        dim: what numbers of images and of sounds are per, `dim` and `sample`.
    """
    squared = any("half_squared_error" in row for rows in runs.values() for row in rows)
    reconstruction, scale = ("half_squared_error", np.log(2)) if squared else (f"distortion_bits_per_{dim}", 1.0)
    figure, axes = plt.subplots(1, 3, figsize=(12.0, 3.6))
    named = []
    for colour, (name, rows) in enumerate(runs.items()):
        for prefix, style in (("", {"alpha": 0.35}), ("validation_", {"marker": "o", "markersize": 3})):
            found = [
                (row["step"], row[prefix + reconstruction], scale * row.get(f"{prefix}rate_bits_per_{dim}", 0.0))
                for row in rows
                if prefix + reconstruction in row
            ]
            if not found:
                continue
            step, left, rate = np.array(found, np.float64).T
            for axis, values in zip(axes, (left + rate, left, rate), strict=True):
                (line,) = axis.plot(step, values, color=f"C{colour}", linewidth=1, **style)
                if prefix and axis is axes[0]:
                    named.append((line, name))
    titles = ("total at beta = 1", "squared error / 2" if squared else "reconstruction (distortion)", "KL (rate)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="optimiser steps", ylabel="nats/dim" if squared else f"bits/{dim}")
        axis.grid(alpha=0.3)
        _show_later_part(axis)
    legend(axes[0], named, fontsize=8)
    figure.tight_layout()
    return figure_png(figure)


def _show_later_part(axis: Any) -> None:
    """Limits of the later three quarters: the first steps dwarf the rest."""
    values = [value for line in axis.get_lines() for value in line.get_ydata()[len(line.get_ydata()) // 4 :]]
    if values:
        margin = 0.06 * (max(values) - min(values)) + 1e-9
        axis.set_ylim(min(values) - margin, max(values) + margin)


@plain_text()
def latent_rates(diagnosis: PosteriorDiagnosis, *, title: str) -> bytes:
    """KL of every latent in bits, highest first; latents that are not active are pale."""
    order_Z = np.argsort(diagnosis.kl_nats_Z)[::-1]
    bits_Z, active_Z = diagnosis.kl_nats_Z[order_Z] / np.log(2), diagnosis.active_Z[order_Z]
    figure, axis = plt.subplots(figsize=(6.0, 2.8))
    place_Z = np.arange(len(bits_Z))
    for chosen_Z, colour, label in ((active_Z, "C0", "active"), (~active_Z, "0.75", "not active")):
        if chosen_Z.any():
            axis.bar(place_Z[chosen_Z], bits_Z[chosen_Z], width=0.9, color=colour, label=label)
    if len(order_Z) <= 20:
        axis.set_xticks(place_Z, [str(index) for index in order_Z])
    of = "an item" if diagnosis.positions is None else "a position"
    axis.set(title=title, xlabel="latents, highest rate first", ylabel=f"KL, bits {of}")
    axis.legend(fontsize=8)
    return figure_png(figure)


@plain_text()
def correlations(diagnosis: PosteriorDiagnosis, *, title: str) -> bytes:
    """Correlations of the posterior means, latents in their own order."""
    figure, axis = plt.subplots(figsize=(4.6, 4.0))
    picture = axis.imshow(diagnosis.correlation_ZZ, vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    figure.colorbar(picture, ax=axis, shrink=0.8)
    axis.set(title=title, xlabel="latent", ylabel="latent")
    axis.locator_params(integer=True)
    return figure_png(figure)


@plain_text()
def code_costs(numbers: Mapping[str, Any], *, title: str) -> bytes:
    """Left: bits per code under every prior; right: bits of each position, under the learned prior.

    Args:
        numbers: of `Diagnosis`, those of `code_diagnosis.PriorDiagnosis`; what is not there is not drawn. Positions of
            a grid are a picture, those of a hierarchy one for every level, those of a sequence a line.
        title: of the left side.
    """
    maps = _maps(numbers)
    figure, (left, *right) = plt.subplots(
        1, 1 + len(maps), figsize=(5.6 + 4.0 * len(maps), 3.4), gridspec_kw={"width_ratios": [1.3, *[1] * len(maps)]}
    )
    bars = {
        "uniform": ("uniform", "0.75"),
        "unigram": ("unigram", "0.6"),
        "learned": ("held_out", "C0"),
        "learned,\ntraining codes": ("train", "C1"),
    }
    tallest = 0.0
    for name, (key, colour) in bars.items():
        bits, error = numbers.get(f"{key}_bits_per_code"), numbers.get(f"{key}_standard_error") or 0.0
        if bits is None:
            continue
        left.bar([name], [bits], color=colour)
        if error:
            left.errorbar([name], [bits], yerr=error, color="0.2", capsize=3)
        left.text(name, bits + error, f"{bits:.2f}", ha="center", va="bottom", fontsize=8)
        tallest = max(tallest, bits)
    left.set(title=title, ylabel="bits per code", ylim=(0, 1.12 * tallest))
    for axis, (name, bits_of_position) in zip(right, maps.items(), strict=True):
        axis.set(title=name)
        if bits_of_position.ndim == 1:
            axis.plot(bits_of_position, linewidth=1)
            axis.set(xlabel="position", ylim=(0, None))
            axis.grid(alpha=0.3)
        else:
            picture = axis.imshow(bits_of_position, vmin=0, cmap="viridis", interpolation="nearest")
            figure.colorbar(picture, ax=axis, shrink=0.9)
            axis.set(xticks=[], yticks=[])
    figure.tight_layout()
    return figure_png(figure)


def _maps(numbers: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Bits of each position, `[h, w]` or `[P]`, under what they are called."""
    bits, name = np.array(numbers["bits_by_position"], np.float64), "bits of each position"
    if "grids" not in numbers:
        return {name: bits}
    grids = parsed_grids(numbers["grids"])
    levels = zip(grids, split_levels(bits[None, None], grids), strict=True)
    return {f"{name}, {named_grids((grid,))}": level[0, 0] for grid, level in levels}
