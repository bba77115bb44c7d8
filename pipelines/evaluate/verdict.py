"""What is wrong with a discrete model: its codebook, its decoder or its prior, and which of them limits the result.

The verdict goes through these rules in order and stops at the first that holds:

1. stage one, *codes ignored*: another item's codes raise the distortion by fewer bits/dim than the codes cost. A plain
   decoder sees nothing but its codes and cannot ignore them: there it is *codes say little*, and passed over where rule
   3 finds the training unfinished. A WaveNet decoder of sound follows finished codes: to ignore them is its own fault,
   and passed over in the same way;
2. stage one, *codebook collapsed*: of a codebook fewer than half of the codes are used, or their perplexity is below a
   tenth of K (`twostage.metrics.codebook_usage.collapse_of`);
3. *undertrained*, the stage whose validation number decreased by more than 2 % over the last quarter of its steps;
   stage one first, because a decoder and a prior follow its codebook;
4. stage two, *overfitted*: held-out codes cost more than 10 % more than training codes;
5. stage two, *no structure found*: the learned prior saves less than 5 % of the unigram rate;
6. otherwise the stage with the larger share of the bits: stage one has the distortion, stage two the rate. What is left
   of a stage's share once it is perfect is not known, so the share is the most that work on it can save.

A model trained on squared error has no bits of distortion: rules 1 and 6 are passed over, and where no other holds,
neither stage is said to limit it.
"""

from dataclasses import dataclass
from typing import Literal

from twostage.metrics.codebook_usage import CodebookUsage, collapse_of
from twostage.training.record import UNDERTRAINED_DECREASE

from .code_diagnosis import PriorDiagnosis

FOUND_SHARE = 0.05
"""What a learned prior should save of the unigram rate."""


@dataclass(frozen=True)
class StageFacts:
    """What the verdict is read from."""

    distortion_bits_per_dim: float | None
    """None where the likelihood has no bits."""
    rate_bits_per_dim: float | None
    """Under the learned prior; None where there is no distortion beside it."""
    autoregressive: bool
    """Whether the decoder sees earlier pixels or samples beside its codes."""
    swapped_distortion_bits_per_dim: float | None
    """With the codes of another item; None for a single item, or without bits."""
    usage: CodebookUsage
    """Over the same items."""
    prior: PriorDiagnosis
    stage1_decrease: float | None
    prior_decrease: float | None
    """`validation_decrease` of each stage's training; None where its record is too short to tell."""
    second_decoder: bool = False
    """Whether the decoder is a WaveNet that was trained on the codes of the finished stage one."""
    decoder_decrease: float | None = None
    """Of its training."""
    unit: str = "bits/dim"
    item: str = "item"
    """What one of the data is called."""


Stage = Literal["stage one", "WaveNet decoder", "stage two"]


@dataclass(frozen=True)
class Verdict:
    """Which stage limits the result, by the rules of this module."""

    stage: Stage
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
        name = f"The {self.stage}" if self.stage == "WaveNet decoder" else self.stage.capitalize()
        return f"{name} limits the result ({self.cause}): {self.reason}."


def limiting_stage(facts: StageFacts) -> Verdict | None:
    """The first rule of this module that holds; None only without bits, of distortion or at all."""
    return _stage_one_broken(facts) or _undertrained(facts) or _stage_two_broken(facts) or _larger_share(facts)


def _stage_one_broken(facts: StageFacts) -> Verdict | None:
    swapped, own, rate = facts.swapped_distortion_bits_per_dim, facts.distortion_bits_per_dim, facts.rate_bits_per_dim
    unfinished = any(map(_unfinished, (facts.stage1_decrease, facts.decoder_decrease)))
    if swapped is not None and own is not None and rate is not None and swapped - own < rate:
        found = (
            f"another {facts.item}'s codes cost {max(swapped - own, 0.0):.4f} {facts.unit} more, less than the "
            f"{rate:.4f} that the codes cost"
        )
        if facts.second_decoder and not unfinished:
            return Verdict("WaveNet decoder", "codes ignored", f"{found}; weaken it, or train it longer")
        if facts.autoregressive and not facts.second_decoder:
            advice = "weaken the decoder or give it an auxiliary likelihood"
            return Verdict("stage one", "codes ignored", f"{found}; {advice}")
        if not facts.autoregressive and not unfinished:
            return Verdict("stage one", "codes say little", f"{found}; fewer codes, or a wider encoder and decoder")
    collapse = collapse_of(facts.usage)
    if collapse is not None:
        return Verdict(
            "stage one", "codebook collapsed", f"{collapse}; fewer codes, or revival where quantiser.kind has it"
        )
    return None


def _unfinished(decrease: float | None) -> bool:
    return decrease is not None and decrease > UNDERTRAINED_DECREASE


def undertrained_reason(decrease: float | None) -> str | None:
    """Of a training that ended before it came to rest, in words; None of others."""
    if decrease is None or decrease <= UNDERTRAINED_DECREASE:
        return None
    return f"its validation number decreased by {decrease:.1%} over the last quarter of its steps; train it longer"


def _undertrained(facts: StageFacts) -> Verdict | None:
    decreases: dict[Stage, float | None] = {
        "stage one": facts.stage1_decrease,
        "WaveNet decoder": facts.decoder_decrease,
        "stage two": facts.prior_decrease,
    }
    for stage, decrease in decreases.items():
        reason = undertrained_reason(decrease)
        if reason is not None:
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
    if distortion is None or rate is None:
        return None
    total = distortion + rate
    if total == 0:  # there is nothing to save
        return None
    if distortion >= rate:
        return Verdict(
            "stage one",
            "distortion share",
            f"{distortion / total:.0%} of the bits are distortion, and the best prior could save no more than "
            f"{rate:.4f} {facts.unit}; more codes, a wider or a stronger decoder",
        )
    return Verdict(
        "stage two",
        "rate share",
        f"{rate / total:.0%} of the bits are codes; a larger prior, or fewer codes",
    )
