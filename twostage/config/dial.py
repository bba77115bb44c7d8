"""The dial `--size small|medium|large`: networks, codebook and budgets from the size of the items and their number.

Everything is in `IMAGES`, `SOUND` and two formulas. `codebook_size`: the largest power of two that the size admits and
that leaves `VECTORS_PER_CODE` training vectors to a code, so that K never exceeds the vectors there are.
`training_steps`: so many passes over the training items, within the bounds of the size. The code grid is the finest of
at most so many codes a side that a factor of `MIN_FACTOR` or more gives and that has at least `SMALLEST_GRID` codes a
side, where there is one; but 32 codes a side are admitted wherever fewer would make one stand for more than
`MAX_FACTOR` pixels a side, which a decoder fills with blur. Images above `WHOLE_BATCHES` pixels a side have smaller
batches, fewer features per pixel and as many steps, so that memory and time grow more slowly than their area. What a
flag says stands, and the rest follows from it: K from a given downsampling, a warm-up from given steps.

Small is for minutes on one core, medium for about an hour (a thousand photographs of 64x64 pixels), large for a day, or
for a GPU. Nothing depends on the machine, so that the same command makes the same recipe everywhere.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

from twostage.config.quantiser import QUANTISERS
from twostage.config.schema import Recipe, Stage1Config

Size = Literal["small", "medium", "large"]

VECTORS_PER_CODE = 32
SMALLEST_GRID = 7
MIN_FACTOR = 4
"""Of images that it leaves a grid of `SMALLEST_GRID` codes a side: half of it does for smaller ones."""
MAX_FACTOR = 8
"""Pixels a side that a code stands for at most, as long as that makes no more than `LARGEST_GRID` codes a side."""
LARGEST_GRID = 32
WHOLE_BATCHES = 64
"""Pixels a side up to which batches are those of the tables: half of them at twice the side, and so on."""
FEWEST_FEATURES = 16
"""Features per pixel that are left to the likelihood of the largest images."""
EVALUATED_PIXELS = 128 * 64**2
"""Most pixels of the images that are evaluated side by side."""
CODES_PER_SECOND = 125
"""About what speech needs: 64 samples a code at 8 kHz."""
_WARMUP_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Budget of one training: passes over the training items, within bounds."""

    passes: float
    fewest: int
    most: int
    """Optimiser steps."""
    batch_size: int
    validations: int = 10

    @property
    def quarter(self) -> "Passes":
        """A fourth of it, of a training that goes on from another."""
        return replace(self, passes=self.passes // 4, fewest=self.fewest // 4, most=self.most // 4)

    def with_batches(self, batch_size: int) -> "Passes":
        """As many steps with smaller batches."""
        return replace(self, batch_size=batch_size, passes=self.passes * batch_size / self.batch_size)

    def steps(self, items: int) -> int:
        """Optimiser steps over so many items, in whole hundreds."""
        wanted = self.passes * items / self.batch_size
        return 100 * round(min(max(wanted, self.fewest), self.most) / 100)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one size of the dial sets."""

    largest_grid: int = 0
    """Codes a side, of images."""
    largest_codebook: int
    settings: Mapping[str, Mapping[str, int]]
    """By section and key."""
    budgets: Mapping[str, Passes]
    """By section."""


IMAGES: dict[Size, Row] = {
    "small": Row(
        largest_grid=8,
        largest_codebook=128,
        settings={
            "stage1": {"channels": 64, "residual_blocks": 1, "residual_channels": 32, "head_channels": 32},
            "quantiser": {"embedding_dim": 32},
            "prior": {"layers": 6, "channels": 32},
        },
        budgets={
            "codebook_training": Passes(passes=20, fewest=500, most=1500, batch_size=16),
            "prior_training": Passes(passes=20, fewest=300, most=800, batch_size=32),
            "baseline_training": Passes(passes=24, fewest=600, most=1800, batch_size=16),
        },
    ),
    "medium": Row(
        largest_grid=16,
        largest_codebook=512,
        settings={
            "stage1": {"channels": 128, "residual_blocks": 2, "residual_channels": 64, "head_channels": 64},
            "quantiser": {"embedding_dim": 64},
            "prior": {"layers": 8, "channels": 64},
        },
        budgets={
            "codebook_training": Passes(passes=70, fewest=2000, most=10_000, batch_size=16),
            "prior_training": Passes(passes=60, fewest=1000, most=4000, batch_size=32),
            "baseline_training": Passes(passes=80, fewest=2400, most=12_000, batch_size=16),
        },
    ),
    "large": Row(
        largest_grid=32,
        largest_codebook=1024,
        settings={
            "stage1": {"channels": 256, "residual_blocks": 4, "residual_channels": 128, "head_channels": 64},
            "quantiser": {"embedding_dim": 64},
            "prior": {"layers": 15, "channels": 128},
        },
        budgets={
            "codebook_training": Passes(passes=160, fewest=10_000, most=100_000, batch_size=32),
            "prior_training": Passes(passes=160, fewest=5000, most=50_000, batch_size=32),
            "baseline_training": Passes(passes=180, fewest=12_000, most=120_000, batch_size=32),
        },
    ),
}

SOUND: dict[Size, Row] = {
    "small": Row(
        largest_codebook=128,
        settings={
            "audio": {"channels": 64, "residual_blocks": 1, "residual_channels": 32, "head_channels": 16},
            "quantiser": {"embedding_dim": 32},
            "wavenet_decoder": {"blocks": 1, "layers_per_block": 8, "channels": 24, "head_channels": 24},
            "wavenet_prior": {"blocks": 1, "channels": 32},
        },
        budgets={
            "codebook_training": Passes(passes=4, fewest=300, most=1000, batch_size=8),
            "decoder_training": Passes(passes=2, fewest=300, most=1000, batch_size=4, validations=4),
            "prior_training": Passes(passes=10, fewest=300, most=1000, batch_size=16),
            "baseline_training": Passes(passes=4, fewest=300, most=1000, batch_size=8),
        },
    ),
    "medium": Row(
        largest_codebook=512,
        settings={
            "audio": {"channels": 128, "residual_blocks": 2, "residual_channels": 128, "head_channels": 32},
            "quantiser": {"embedding_dim": 64},
            "wavenet_decoder": {"blocks": 2, "layers_per_block": 9, "channels": 48, "head_channels": 48},
            "wavenet_prior": {"blocks": 2, "channels": 64},
        },
        budgets={
            "codebook_training": Passes(passes=20, fewest=1000, most=4000, batch_size=16),
            "decoder_training": Passes(passes=8, fewest=1000, most=4000, batch_size=4, validations=4),
            "prior_training": Passes(passes=30, fewest=1000, most=3000, batch_size=32),
            "baseline_training": Passes(passes=20, fewest=1000, most=4000, batch_size=16),
        },
    ),
    "large": Row(
        largest_codebook=1024,
        settings={
            "audio": {"channels": 256, "residual_blocks": 3, "residual_channels": 256, "head_channels": 64},
            "quantiser": {"embedding_dim": 64},
            "wavenet_decoder": {"blocks": 3, "layers_per_block": 10, "channels": 128, "head_channels": 128},
            "wavenet_prior": {"blocks": 3, "channels": 128},
        },
        budgets={
            "codebook_training": Passes(passes=40, fewest=10_000, most=100_000, batch_size=32),
            "decoder_training": Passes(passes=40, fewest=20_000, most=200_000, batch_size=16, validations=4),
            "prior_training": Passes(passes=60, fewest=10_000, most=100_000, batch_size=32),
            "baseline_training": Passes(passes=40, fewest=10_000, most=100_000, batch_size=32),
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Dialled:
    """What a size made of a recipe."""

    recipe: Recipe
    reasons: tuple[str, ...]
    """Lines that say what was chosen, and by what."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A turn of the dial."""

    recipe: Recipe
    size: Size
    given: Collection[str]
    """Settings that stand, such as `stage1.channels`: those that flags gave."""

    def stands(self, section: str, key: str) -> bool:
        """Whether a setting is not the dial's."""
        return f"{section}.{key}" in self.given


def downsampling(height: int, width: int, *, largest_grid: int) -> int | None:
    """Factor between pixels and codes; None where none that there is divides both sides."""
    choices = get_args(get_type_hints(Stage1Config)["downsampling"])
    fitting = [factor for factor in choices if height % factor == width % factor == 0]
    coarse = [factor for factor in fitting if min(height, width) // factor >= SMALLEST_GRID]
    wanted = [factor for factor in coarse if factor >= MIN_FACTOR] or coarse
    most = max(largest_grid, min(LARGEST_GRID, max(height, width) // MAX_FACTOR))
    small = [factor for factor in wanted if max(height, width) // factor <= most]
    return min(small) if small else max(wanted) if wanted else min(fitting, default=None)


def codebook_size(vectors: int, *, largest: int) -> int:
    """K of a codebook that so many training vectors are quantised by."""
    return min(largest, max(2, 2 ** int(math.log2(max(2, vectors / VECTORS_PER_CODE)))))


def dial_images(asked: Asked, *, height: int, width: int, items: int) -> Dialled:
    """The recipe of a size for so many training images of that size."""
    row, given = IMAGES[asked.size], asked.stands("stage1", "downsampling")
    factor = None if given else downsampling(height, width, largest_grid=row.largest_grid)
    factor = factor or asked.recipe.stage1.downsampling
    grid = (height // factor, width // factor)
    networks = {**row.settings["stage1"], "downsampling": factor}
    halvings = max(0, math.floor(math.log2(math.sqrt(height * width) / WHOLE_BATCHES)))
    networks["head_channels"] = max(FEWEST_FEATURES, networks["head_channels"] >> halvings)
    evaluated = max(1, min(asked.recipe.evaluation.batch_size, EVALUATED_PIXELS // (height * width)))
    budgets = {
        section: budget.with_batches(max(1, budget.batch_size >> halvings)) for section, budget in row.budgets.items()
    }
    return _dialled(
        asked,
        replace(row, budgets=budgets),
        {**row.settings, "stage1": networks, "evaluation": {"batch_size": evaluated}},
        items=items,
        units=dict.fromkeys(row.budgets, items),
        vectors=items * math.prod(grid),
        about=f"images of {height}x{width} as grids of {grid[0]}x{grid[1]} codes (downsampling {factor})",
    )


def dial_sound(asked: Asked, *, sample_rate_hz: int, samples: int, items: int) -> Dialled:
    """The recipe of a size for training recordings of that rate: so many, of so many samples in all."""
    row = SOUND[asked.size]
    layers = asked.recipe.audio.downsampling_layers
    if not asked.stands("audio", "downsampling_layers"):
        layers = min(max(round(math.log2(sample_rate_hz / CODES_PER_SECOND)), 4), 7)
    codes = max(1, samples // 2**layers)
    # Dilations 1, 2, 4, ... up to about the length of a recording.
    depth = min(max(math.ceil(math.log2(max(2, codes / items))), 4), 9)
    settings = {
        **row.settings,
        "audio": {**row.settings["audio"], "downsampling_layers": layers},
        "wavenet_prior": {**row.settings["wavenet_prior"], "layers_per_block": depth},
    }
    segments = {"prior_training": items}
    for section, own in (("codebook_training", "audio"), ("decoder_training", "wavenet_decoder")):
        segments[section] = max(items, samples // getattr(asked.recipe, own).segment_samples)
    return _dialled(
        asked,
        row,
        settings,
        items=items,
        units={**segments, "baseline_training": segments["codebook_training"]},
        vectors=codes,
        about=f"{2**layers} samples a code at {sample_rate_hz} Hz, {sample_rate_hz / 2**layers:.0f} codes a second",
    )


def _dialled(
    asked: Asked,
    row: Row,
    settings: Mapping[str, Mapping[str, int]],
    *,
    items: int,
    units: Mapping[str, int],
    vectors: int,
    about: str,
) -> Dialled:
    """The recipe with the row's networks, its K for so many training vectors, and its budgets.

    `units` are what a training goes over, items or segments of them; no batch has more than all `items`.
    """
    recipe, reasons = asked.recipe, [f"size {asked.size}: {about}"]
    for section, values in settings.items():
        recipe = _set(asked, recipe, section, values)
    if "codebook_size" in QUANTISERS[recipe.quantiser.kind].reads:
        largest = codebook_size(vectors, largest=row.largest_codebook)
        recipe = _set(asked, recipe, "quantiser", {"codebook_size": largest})
        reasons.append(f"K {recipe.quantiser.codebook_size}, with {vectors:,} training vectors")
    budgets = []
    wholes = {section: (budget, units[section]) for section, budget in row.budgets.items()}
    codebook = wholes["codebook_training"]
    for section, (budget, count) in {**wholes, "joint_training": (codebook[0].quarter, codebook[1])}.items():
        recipe = _trained(asked, recipe, section, budget, units=count, items=items)
        training = getattr(recipe, section)
        budgets.append(f"{section.removesuffix('_training')} {training.steps:,} x {training.batch_size}")
    reasons.append(f"steps x items: {', '.join(budgets)}")
    return Dialled(recipe=recipe, reasons=tuple(reasons))


def _trained(asked: Asked, recipe: Recipe, section: str, budget: Passes, *, units: int, items: int) -> Recipe:
    """The recipe with the budget of one training; what is counted in steps is fitted to those it has in the end."""
    batch_size = min(budget.batch_size, items)
    recipe = _set(asked, recipe, section, {"steps": budget.steps(units), "batch_size": batch_size})
    steps = getattr(recipe, section).steps
    fitted = {
        "warmup_steps": min(_WARMUP_STEPS, steps // 10),
        "validate_every": max(1, steps // budget.validations),
        "checkpoint_every": max(1, steps // 10),
    }
    return _set(asked, recipe, section, fitted)


def _set(asked: Asked, recipe: Recipe, section: str, values: Mapping[str, Any]) -> Recipe:
    """The recipe with those values of a section that are the dial's."""
    own = {key: value for key, value in values.items() if not asked.stands(section, key)}
    changed: Recipe = replace(recipe, **{section: replace(getattr(recipe, section), **own)})
    return changed
