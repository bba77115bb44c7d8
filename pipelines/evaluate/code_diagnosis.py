"""What codes cost under their prior and under simpler ones, and where.

Codes of held-out items are priced four ways, in bits per code: uniform (log2 K), unigram (training frequencies), the
learned prior, and the learned prior on training codes, as in `bits`: the labels of grids are marginalised, those of
sequences given. Unigram less learned is what the prior found beyond frequencies; held-out less training is what it
learned by heart.

Bits per position split the held-out rate by the chain rule: position p costs -log2 p(codes of p | codes before p). Of
grids the labels are marginalised at every step, so that the map adds up to the rate of an item. Sequences end where
they end: theirs are means over those that have a position, for the positions that at least half of them have.

Shapes: N items, G codebooks, Y labels, K codes per codebook, T the axes of the codes, P positions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from stage2_prior import Prior
from twostage.grids import Grid, named_grids, split_levels
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly, mean_and_error
from twostage.printable import counted
from twostage.storage.codes import CodeFile

from ..bits.rate import label_frequencies, learned_rate, unigram_bits

OVERFITTED_SHARE = 0.10
"""Gap between held-out and training bits per code, as a share of the latter."""


@dataclass(frozen=True)
class LevelCost:
    """What the codes of one level of a hierarchy cost under the learned prior, given those of coarser levels."""

    number: int
    """From 1, the coarsest."""
    grid: Grid
    bits_per_code: float
    bits_per_item: float

    @property
    def sentence(self) -> str:
        """Both costs."""
        return (
            f"Level {self.number} ({named_grids((self.grid,))}): {self.bits_per_code:.3f} bits a code, "
            f"{self.bits_per_item:.1f} an item."
        )


@dataclass(frozen=True)
class PriorDiagnosis:
    """Bits per code of one prior, means over items."""

    items: int
    """Held-out items; as many training items, spread over all, give `train_bits_per_code`."""
    uniform_bits_per_code: float
    unigram_bits_per_code: float
    held_out_bits_per_code: float
    held_out_standard_error: float | None
    """Of the mean over items; None for a single item."""
    train_bits_per_code: float
    train_standard_error: float | None
    bits_by_position: np.ndarray
    """Bits of all G codes of a position: `[h, w]`, of which the sum is the rate of an item, `[P]` of sequences and of
    the grids of a hierarchy one behind the other."""
    levels: tuple["LevelCost", ...] = ()
    """Of a hierarchy, coarsest first; otherwise none."""

    @property
    def overfit_gap(self) -> float:
        """Held-out less training bits per code; below 0 within the noise of the two means."""
        return self.held_out_bits_per_code - self.train_bits_per_code

    @property
    def overfitted(self) -> bool:
        """Whether the gap is above `OVERFITTED_SHARE` and above twice its standard error."""
        errors = (self.held_out_standard_error or 0.0, self.train_standard_error or 0.0)
        return self.overfit_gap > max(OVERFITTED_SHARE * self.train_bits_per_code, 2 * math.hypot(*errors))

    @property
    def found_share(self) -> float | None:
        """Share of the unigram rate that the learned prior saves; below 0 where it is worse, None of no rate at all."""
        left = ratio(self.held_out_bits_per_code, self.unigram_bits_per_code)
        return None if left is None else 1 - left

    def sentence(self, item: str = "item", *, given: str = "") -> str:
        """What a code costs under every prior; `given` is what the learned one is conditioned on, in words."""
        return (
            f"A code costs {self.held_out_bits_per_code:.3f} bits under the learned prior"
            f"{f' given {given}' if given else ''}, {self.train_bits_per_code:.3f} on training codes, "
            f"{self.unigram_bits_per_code:.3f} by frequency alone, {self.uniform_bits_per_code:.3f} uniformly "
            f"({counted(self.items, f'{item}s')})." + "".join(f" {level.sentence}" for level in self.levels)
        )

    def record(self) -> dict[str, Any]:
        """Numbers for a JSON file."""
        return {
            "items": self.items,
            "uniform_bits_per_code": self.uniform_bits_per_code,
            "unigram_bits_per_code": self.unigram_bits_per_code,
            "held_out_bits_per_code": self.held_out_bits_per_code,
            "held_out_standard_error": self.held_out_standard_error,
            "train_bits_per_code": self.train_bits_per_code,
            "train_standard_error": self.train_standard_error,
            "bits_by_position": self.bits_by_position.tolist(),
            **({"grids": named_grids(tuple(level.grid for level in self.levels))} if self.levels else {}),
        }


def items_of(file: CodeFile, rows: np.ndarray) -> CodeFile:
    """Some items of a file."""
    return replace(
        file,
        codes=file.codes[rows],
        labels=file.labels[rows],
        lengths=None if file.lengths is None else file.lengths[rows],
        speakers=None if file.speakers is None else file.speakers[rows],
        samples=None if file.samples is None else file.samples[rows],
    )


Condition = Callable[[CodeFile], np.ndarray | None]
"""What a conditional prior is given of the items of a file, `[N, A]`; None where labels are marginalised."""


def position_bits(
    prior: Prior,
    file: CodeFile,
    train_labels: np.ndarray,
    condition_of: Condition,
    *,
    device: torch.device,
    batch_size: int,
) -> np.ndarray:
    """`[N, *T]` bits of each position's codes, given those before it; 0 behind the end of a sequence."""
    condition = condition_of(file) if prior.classes else None
    rate = learned_rate(
        prior,
        file.codes,
        file.lengths,
        condition=condition,
        frequencies=label_frequencies(prior, train_labels) if condition is None else None,
        by_position=True,
        device=device,
        batch_size=batch_size,
        label="bits by position",
    )
    assert rate.by_position is not None
    return rate.by_position


def diagnose_prior(
    prior: Prior,
    held_out: CodeFile,
    train: CodeFile,
    condition_of: Condition,
    *,
    device: torch.device,
    batch_size: int,
    bits_by_position: np.ndarray | None = None,
) -> PriorDiagnosis:
    """Bits per code of held-out items, beside simpler priors and beside as many training items.

    `bits_by_position` are those of the held-out codes, `[N, *T]`, where they are known already.
    """

    def position_bits_of(file: CodeFile) -> np.ndarray:
        return position_bits(prior, file, train.labels, condition_of, device=device, batch_size=batch_size)

    if bits_by_position is None:
        bits_by_position = position_bits_of(held_out)
    seen = items_of(train, evenly(len(train.codes), len(held_out.codes)))
    held_out_bits, held_out_error = _per_code(bits_by_position, held_out)
    train_bits, train_error = _per_code(position_bits_of(seen), seen)
    unigram_N = unigram_bits(
        held_out.codes, train.codes, prior.codebook_size, held_out.lengths, train.lengths, grids=prior.grids
    )
    return PriorDiagnosis(
        items=len(held_out.codes),
        uniform_bits_per_code=math.log2(prior.codebook_size),
        unigram_bits_per_code=mean_and_error(unigram_N, _codes_N(held_out))[0] / _codes_of_all(held_out),
        held_out_bits_per_code=held_out_bits,
        held_out_standard_error=held_out_error,
        train_bits_per_code=train_bits,
        train_standard_error=train_error,
        bits_by_position=_by_position(bits_by_position, held_out.lengths),
        levels=_levels(bits_by_position, held_out),
    )


def _levels(bits_NT: np.ndarray, file: CodeFile) -> tuple[LevelCost, ...]:
    grids, costs = file.header.grids, []
    if len(grids) == 1:
        return ()
    for number, (grid, level) in enumerate(zip(grids, split_levels(bits_NT[:, None], grids), strict=True), start=1):
        bits = float(level.sum()) / len(bits_NT)
        costs.append(LevelCost(number, grid, bits / (math.prod(grid) * file.codes.shape[1]), bits))
    return tuple(costs)


def _codes_of_all(file: CodeFile) -> int:
    """Codes of an item where all have as many, else 1: then `_codes_N` says how many."""
    return math.prod(file.codes.shape[1:]) if file.lengths is None else 1


def _codes_N(file: CodeFile) -> np.ndarray | None:
    return None if file.lengths is None else file.lengths * file.codes.shape[1]


def _per_code(bits: np.ndarray, file: CodeFile) -> tuple[float, float | None]:
    """Bits per code and their standard error, of bits `[N, *T]` by position."""
    bits_N = bits.sum(tuple(range(1, bits.ndim)))
    return mean_and_error(bits_N / _codes_of_all(file), _codes_N(file))


def _by_position(bits: np.ndarray, lengths_N: np.ndarray | None) -> np.ndarray:
    """Means over the items that have a position, of those that at least half of them have."""
    if lengths_N is None:
        mean: np.ndarray = bits.mean(0)
        return mean
    having_T = (np.arange(bits.shape[1]) < lengths_N[:, None]).sum(0)
    usual_T = 2 * having_T >= len(bits)
    return bits.sum(0)[usual_T] / having_T[usual_T]
