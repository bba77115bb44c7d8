"""What is wrong with a discrete model: its codebook, its prior, and which of the two stages limits the result.

Codes of held-out items are priced four ways, in bits per code: uniform (log2 K), unigram (training frequencies), the
learned prior, and the learned prior on training codes, all with labels marginalised as in `bits`. Unigram less learned
is what the prior found beyond frequencies; held-out less training is what it learned by heart.

The map of bits per position splits the held-out rate by the chain rule: position p costs -log2 p(codes of p | codes
before p), labels marginalised at every step, so that the map adds up to the rate of an item.

The verdict goes through these rules in order and stops at the first that holds:

1. stage one, *codes ignored*: another item's codes raise the distortion by fewer bits/dim than the codes cost. A plain
   decoder sees nothing but its codes and cannot ignore them: there it is *codes say little*, and passed over where rule
   3 finds the training unfinished;
2. stage one, *codebook collapsed*: of a codebook fewer than half of the codes are used, or their perplexity is below a
   tenth of K (`twostage.metrics.codebook_usage.collapse_of`);
3. *undertrained*, the stage whose validation number fell by more than 2 % over the last quarter of its steps; stage one
   first, because a prior follows its codebook;
4. stage two, *overfitted*: held-out codes cost more than 10 % more than training codes;
5. stage two, *no structure found*: the learned prior saves less than 5 % of the unigram rate;
6. otherwise the stage with the larger share of the bits: stage one has the distortion, stage two the rate. What is left
   of a stage's share once it is perfect is not known, so the share is the most that work on it can save.

A model trained on squared error has no bits of distortion: rules 1 and 6 are passed over, and where no other holds,
neither stage is said to limit it.

Shapes: N items, G codebooks, h x w grid, Y labels, K codes per codebook.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import torch

from stage2_prior import PixelCNN
from twostage.metrics.codebook_usage import CodebookUsage, collapse_of
from twostage.metrics.ratios import ratio
from twostage.metrics.statistics import evenly, standard_error
from twostage.training.record import UNDERTRAINED_DECREASE

from ..bits.rate import label_frequencies, learned_rate, unigram_bits

OVERFITTED_SHARE = 0.10
"""Gap between held-out and training bits per code, as a share of the latter."""
FOUND_SHARE = 0.05
"""What a learned prior should save of the unigram rate."""


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
    bits_hw: np.ndarray
    """`[h, w]`, bits of all G codes of a position; the sum is the rate of an item."""

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

    @property
    def sentence(self) -> str:
        """What a code costs under every prior."""
        return (
            f"A code costs {self.held_out_bits_per_code:.3f} bits under the learned prior, "
            f"{self.train_bits_per_code:.3f} on training codes, {self.unigram_bits_per_code:.3f} by frequency alone, "
            f"{self.uniform_bits_per_code:.3f} uniformly ({self.items:,} item{'s' if self.items > 1 else ''})."
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
            "bits_by_position": self.bits_hw.tolist(),
        }

    @classmethod
    def of_record(cls, numbers: dict[str, Any]) -> "PriorDiagnosis":
        """The inverse of `record`.

        Raises:
            KeyError, ValueError: the numbers are not those.
        """
        names = {f.name for f in fields(cls)} - {"bits_hw"}
        return cls(**{n: numbers[n] for n in names}, bits_hw=np.array(numbers["bits_by_position"], np.float64))


@dataclass(frozen=True)
class StageFacts:
    """What the verdict is read from."""

    distortion_bits_per_dim: float | None
    """None where the likelihood has no bits."""
    rate_bits_per_dim: float
    """Under the learned prior."""
    autoregressive: bool
    """Whether the decoder sees pixels beside its codes."""
    swapped_distortion_bits_per_dim: float | None
    """With the codes of another item; None for a single item, or without bits."""
    usage: CodebookUsage
    """Over the same items."""
    prior: PriorDiagnosis
    stage1_decrease: float | None
    prior_decrease: float | None
    """`validation_decrease` of each stage's training; None where its record is too short to tell."""


@dataclass(frozen=True)
class Verdict:
    """Which stage limits the result, by the rules of this module."""

    stage: Literal["stage one", "stage two"]
    cause: Literal[
        "codes ignored",
        "codes say little",
        "codebook collapsed",
        "undertrained",
        "overfitted",
        "no structure found",
        "distortion share",
        "rate share",
    ]
    reason: str
    """The numbers, and what would help."""

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        return f"{self.stage.capitalize()} limits the result ({self.cause}): {self.reason}."


def position_bits(
    prior: PixelCNN, codes: np.ndarray, frequency_Y: np.ndarray | None, *, device: torch.device, batch_size: int
) -> np.ndarray:
    """`[N, h, w]` bits of each position's codes `[N, G, h, w]`, given those before it, labels marginalised."""
    rate = learned_rate(
        prior,
        codes,
        frequencies=frequency_Y,
        by_position=True,
        device=device,
        batch_size=batch_size,
        label="bits by position",
    )
    assert rate.by_position is not None
    return rate.by_position


def diagnose_prior(
    prior: PixelCNN,
    codes: np.ndarray,
    train_codes: np.ndarray,
    train_labels: np.ndarray,
    *,
    device: torch.device,
    batch_size: int,
    bits_by_position: np.ndarray | None = None,
) -> PriorDiagnosis:
    """Bits per code of held-out codes `[N, G, h, w]`, beside simpler priors and beside training codes.

    `bits_by_position` are those of the held-out codes, `[N, h, w]`, where they are known already.
    """
    frequency_Y = label_frequencies(prior, train_labels)
    per_item = math.prod(codes.shape[1:])
    held_out_Nhw = bits_by_position
    if held_out_Nhw is None:
        held_out_Nhw = position_bits(prior, codes, frequency_Y, device=device, batch_size=batch_size)
    seen = train_codes[evenly(len(train_codes), len(codes))]
    seen_Nhw = position_bits(prior, seen, frequency_Y, device=device, batch_size=batch_size)
    held_out_N, seen_N = (bits.sum((1, 2)) / per_item for bits in (held_out_Nhw, seen_Nhw))
    return PriorDiagnosis(
        items=len(codes),
        uniform_bits_per_code=math.log2(prior.codebook_size),
        unigram_bits_per_code=float(unigram_bits(codes, train_codes, prior.codebook_size).mean()) / per_item,
        held_out_bits_per_code=float(held_out_N.mean()),
        held_out_standard_error=standard_error(held_out_N),
        train_bits_per_code=float(seen_N.mean()),
        train_standard_error=standard_error(seen_N),
        bits_hw=held_out_Nhw.mean(0),
    )


def limiting_stage(facts: StageFacts) -> Verdict | None:
    """The first rule of this module that holds; None only without bits, of distortion or at all."""
    return _stage_one_broken(facts) or _undertrained(facts) or _stage_two_broken(facts) or _larger_share(facts)


def _stage_one_broken(facts: StageFacts) -> Verdict | None:
    swapped, own = facts.swapped_distortion_bits_per_dim, facts.distortion_bits_per_dim
    unfinished = facts.stage1_decrease is not None and facts.stage1_decrease > UNDERTRAINED_DECREASE
    if swapped is not None and own is not None and swapped - own < facts.rate_bits_per_dim:
        found = (
            f"another item's codes cost {swapped - own:.4f} bits/dim more, less than the {facts.rate_bits_per_dim:.4f} "
            "that the codes cost"
        )
        if facts.autoregressive:
            advice = "weaken the decoder or give it an auxiliary likelihood"
            return Verdict("stage one", "codes ignored", f"{found}; {advice}")
        if not unfinished:
            return Verdict("stage one", "codes say little", f"{found}; fewer codes, or a wider encoder and decoder")
    collapse = collapse_of(facts.usage)
    if collapse is not None:
        return Verdict("stage one", "codebook collapsed", f"{collapse}; revive codes, or use fewer")
    return None


def _undertrained(facts: StageFacts) -> Verdict | None:
    falls: tuple[tuple[Literal["stage one", "stage two"], float | None], ...] = (
        ("stage one", facts.stage1_decrease),
        ("stage two", facts.prior_decrease),
    )
    for stage, fall in falls:
        if fall is not None and fall > UNDERTRAINED_DECREASE:
            reason = f"its validation number fell by {fall:.1%} over the last quarter of its steps; train it longer"
            return Verdict(stage, "undertrained", reason)
    return None


def _stage_two_broken(facts: StageFacts) -> Verdict | None:
    prior = facts.prior
    if prior.overfitted:
        return Verdict(
            "stage two",
            "overfitted",
            f"held-out codes cost {prior.held_out_bits_per_code:.3f} bits each, training codes "
            f"{prior.train_bits_per_code:.3f}; more data, dropout or a smaller prior",
        )
    if prior.found_share is not None and prior.found_share < FOUND_SHARE:
        return Verdict(
            "stage two",
            "no structure found",
            f"the learned prior costs {prior.held_out_bits_per_code:.3f} bits a code, their frequencies alone "
            f"{prior.unigram_bits_per_code:.3f}; a larger prior or more steps, unless the codes are independent",
        )
    return None


def _larger_share(facts: StageFacts) -> Verdict | None:
    distortion, rate = facts.distortion_bits_per_dim, facts.rate_bits_per_dim
    if distortion is None:
        return None
    total = distortion + rate
    if total == 0:  # there is nothing to save
        return None
    if distortion >= rate:
        return Verdict(
            "stage one",
            "distortion share",
            f"{distortion / total:.0%} of the bits are distortion, and the best prior could save no more than "
            f"{rate:.4f} bits/dim; more codes, a wider or a stronger decoder",
        )
    return Verdict(
        "stage two",
        "rate share",
        f"{rate / total:.0%} of the bits are codes; a larger prior, or fewer codes",
    )
