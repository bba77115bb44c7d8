"""What new sounds are to say and in whose voices: names or numbers, of one or of each, to the condition of a prior.

Shapes: N sounds, A attributes of the condition.
"""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostage.errors import UsageError
from twostage.storage.codes import CodeFile

from ..runs.class_numbers import check_trained, class_number, labels_of, trained_numbers
from ..runs.loading import LoadedWaveNet
from .voices import own_voices, trained_voices, voice_number, voices_in_turn

Labels = str | int | Sequence[str | int] | None
"""One label, one for each sound, "in turn", or None: no label, for a prior trained with label dropout."""
Speakers = str | int | Sequence[str | int]
"""One speaker, one for each sound, or "in turn"."""
_IN_TURN = "in turn"


@dataclass(frozen=True)
class Asked:
    """What new sounds are to be."""

    labels: list[int]
    """Number of the label of every sound; empty where the prior is told none."""
    speakers: list[int]
    """Number of the speaker of every sound, which the decoder needs; empty where the data have none."""
    told: bool
    """Whether the prior is told of them."""

    @property
    def condition_NA(self) -> Tensor | None:
        """What the prior is told, int64; None for nothing."""
        columns = [column for column in (self.labels, self.speakers) if column]
        return torch.tensor(columns).T if self.told else None


def asked_for(
    count: int,
    prior: LoadedWaveNet,
    *,
    labels: Labels,
    speakers: Speakers,
    flags: tuple[str, str] = ("labels", "speakers"),
) -> Asked:
    """Label and speaker of every sound.

    Labels are those that the prior is told: a sound must not be named after one that nobody asked for. Where both are
    in turn, every label comes in every voice before any pair comes again.

    Args:
        count: N.
        prior: what draws them.
        labels: see `Labels`.
        speakers: see `Speakers`; of those heard in training.
        flags: what errors call the two.

    Raises:
        UsageError: the prior has no such label or speaker, knows none, or cannot do without.
    """
    if count < 1:
        raise UsageError(f"expected a count of at least 1, got {count}")
    record = prior.record
    numbers = _labels(count, prior, labels, flag=flags[0])
    told = bool(prior.model.classes) and labels is not None
    if not _is_in_turn(speakers):
        wanted = one_each(speakers, count, flag=flags[1])
        return Asked(numbers, [asked_voice(each, record, flag=flags[1]) for each in wanted], told)
    heard = trained_voices(record)
    if _is_in_turn(labels) and numbers and heard:
        return Asked(numbers, [heard[(item // len(set(numbers))) % len(heard)] for item in range(count)], told)
    return Asked(numbers, voices_in_turn(count, record), told)


def _labels(count: int, prior: LoadedWaveNet, labels: Labels, *, flag: str) -> list[int]:
    """Number of every label; empty for none."""
    model, classes = prior.model, tuple(prior.record["classes"])
    if labels is None:
        if model.classes and not model.condition_optional:
            raise UsageError(
                f"expected {flag}, because this prior was trained with labels only: give them, or train one with "
                "wavenet_prior.label_dropout above 0"
            )
        return []
    if _is_in_turn(labels):
        return labels_of(count, label=None, record=prior.record, told=bool(model.classes))
    if classes and not model.classes:
        raise UsageError(
            f"expected no {flag}, because this prior was trained with wavenet_prior.conditional false and is told no "
            "label: leave it out"
        )
    numbers = [asked_number(each, classes, flag=flag) for each in one_each(labels, count, flag=flag)]
    check_trained(numbers, classes, trained_numbers(prior.record, "labels"), what=flag)
    return numbers


def _is_in_turn(wanted: Labels | Speakers) -> bool:
    return isinstance(wanted, str) and wanted == _IN_TURN


def one_each(wanted: Any, count: int, *, flag: str) -> list[Any]:
    """`count` values of one for all, or of a sequence of as many.

    Raises:
        UsageError: the sequence has another length.
    """
    if np.ndim(wanted) == 0:
        return [wanted] * count
    if len(wanted) != count:
        raise UsageError(f"expected one for all or {count} {flag}, got {len(wanted)}")
    return list(wanted)


def asked_number(wanted: str | int, names: tuple[str, ...], *, flag: str) -> int:
    """Number of a class or speaker: of that name (a text of digits that is no name is a number), or that number.

    Raises:
        UsageError: there is none.
    """
    if isinstance(wanted, str):
        return class_number(wanted, names, flag=flag)
    try:
        number = operator.index(wanted)
    except TypeError:
        raise UsageError(f"expected {flag} by name or number, got {wanted!r:.60}") from None
    if not 0 <= number < len(names):
        known = f"0 to {len(names) - 1}" if names else "none, because the data have none"
        raise UsageError(f"expected {flag} by name or number, {known}, got {number}")
    return number


def asked_voice(wanted: str | int, record: dict[str, Any], *, flag: str) -> int:
    """Number of a speaker, given by name or number, whose voice a decoder is to have.

    Raises:
        UsageError: there is no such speaker, or no training recording of one.
    """
    speakers = tuple(record["speakers"])
    if isinstance(wanted, str):
        return voice_number(wanted, record, flag=flag)
    return voice_number(speakers[asked_number(wanted, speakers, flag=flag)], record, flag=flag)


def stated_speakers(
    speakers: str | int | Sequence[str | int | None] | None, known: tuple[str, ...], count: int
) -> np.ndarray | None:
    """Who speaks in `count` recordings, int64 `[count]`, -1 where None was given; None where none are `known`.

    Raises:
        UsageError: there is no such speaker, or the run has none.
    """
    if not known:
        if speakers is not None:
            raise UsageError("speakers were given, but the recordings of this run have none: leave them out")
        return None
    wanted = one_each(speakers, count, flag="speakers")
    return np.array([-1 if each is None else asked_number(each, known, flag="speakers") for each in wanted], np.int64)


def voices_for(
    codes: CodeFile,
    record: dict[str, Any],
    speakers: str | int | Sequence[str | int] | None,
    *,
    flag: str = "speakers",
) -> list[int]:
    """Number of the voice of every item, its own unless `speakers` says otherwise; empty where the data have none.

    Raises:
        UsageError: the voice of an item is not known, or was never heard in training.
    """
    if speakers is None:
        return own_voices(codes.speakers, record, codes.header.names, flag=flag)
    return [asked_voice(each, record, flag=flag) for each in one_each(speakers, len(codes.codes), flag=flag)]


def codes_in(seconds: float, prior: LoadedWaveNet, stride: int, *, flag: str = "seconds") -> int:
    """Whole codes of `stride` samples that hold that many seconds; `flag` is what errors call them.

    Raises:
        UsageError: the prior has no sound so long.
    """
    rate, most = prior.record["sample_rate_hz"], prior.model.max_length
    length = max(1, -(-round(seconds * rate) // stride)) if 0 < seconds < math.inf else 0
    if not 0 < length <= most:
        raise UsageError(
            f"{flag} must be at most {most * stride / rate:.2f}, the longest sound of this prior, and more than 0, but "
            f"is {seconds:g}"
        )
    return length
