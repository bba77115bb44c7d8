"""What items are to be: labels and speakers, by name or number, of one or of each, as numbers of those met in training.

The same for new items, which take turns unless something is asked for, for items that are passed through a model, and
for every kind of data; where the data have no labels or no speakers, there is nothing to ask for.

Shapes: N items, A attributes of the condition of a prior.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twostage.errors import UsageError
from twostage.printable import printable, show

from ..runs.class_numbers import check_trained, class_number, labels_of, trained_numbers

Labels = str | int | Sequence[str | int] | Tensor | None
"""One label, one for each item, "in turn", or None: no label, for a prior trained with label dropout."""
Speakers = str | int | Sequence[str | int]
"""One speaker, one for each item, or "in turn"."""
Record = Mapping[str, Any]
_IN_TURN = "in turn"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What draws new items, as far as they can be asked to be something."""

    record: Record
    """Of its training: names of labels and speakers, and those it has met."""
    knows_labels: bool
    """Whether it is conditioned on labels."""
    labels_optional: bool
    """Whether it can also do without."""
    refuses: str
    """Why it takes no labels, where it takes none: a clause."""
    needs: str
    """Why it needs labels, where it does: a clause."""


@dataclass(frozen=True)
class Wanted:
    """What new items are to be."""

    labels: list[int]
    """Number of the label of every item; empty where there is none."""
    speakers: list[int]
    """Number of the speaker of every item, which a decoder needs; empty where the data have none."""
    conditioned: bool
    """Whether what draws the latents is conditioned on them."""

    @property
    def condition_NA(self) -> Tensor | None:
        """What a prior is conditioned on, int64; None for nothing."""
        columns = [column for column in (self.labels, self.speakers) if column]
        return torch.tensor(columns).T if self.conditioned else None


def wanted_from(
    count: int,
    source: Source,
    *,
    labels: Labels = _IN_TURN,
    speakers: Speakers = _IN_TURN,
    flags: tuple[str, str] = ("labels", "speakers"),
) -> Wanted:
    """Label and speaker of every new item.

    Labels are those that the source is conditioned on: an item must not be named after one that nobody asked for. Where
    both are in turn, every label comes in every voice before any pair comes again.

    Args:
        count: N.
        source: what draws them.
        labels: see `Labels`.
        speakers: see `Speakers`; of those met in training.
        flags: what errors call the two.

    Raises:
        UsageError: the source has no such label or speaker, knows none, or cannot do without.
    """
    if count < 1:
        raise UsageError(f"expected a count of at least 1, got {count}")
    record = source.record
    numbers = _labels(count, source, labels, flag=flags[0])
    conditioned = source.knows_labels and labels is not None
    if not _is_in_turn(speakers):
        wanted = one_each(speakers, count, flag=flags[1])
        return Wanted(numbers, [asked_voice(each, record, flag=flags[1]) for each in wanted], conditioned)
    heard = trained_numbers(record, "speakers")
    every = len(set(numbers)) if _is_in_turn(labels) and numbers else 1
    return Wanted(numbers, [heard[(item // every) % len(heard)] for item in range(count)] if heard else [], conditioned)


def _labels(count: int, source: Source, labels: Labels, *, flag: str) -> list[int]:
    """Number of every label; empty for none."""
    if labels is None:
        if source.knows_labels and not source.labels_optional:
            raise UsageError(f"expected {flag}, because {source.needs}")
        return []
    if _is_in_turn(labels):
        return labels_of(count, label=None, record=source.record, conditioned=source.knows_labels)
    if not source.knows_labels:
        raise UsageError(f"expected no {flag}, because {source.refuses}")
    classes = tuple(source.record["classes"])
    numbers = [asked_number(each, classes, flag=flag) for each in one_each(labels, count, flag=flag)]
    check_trained(numbers, classes, trained_numbers(source.record, "labels"), what=flag)
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


def asked_voice(wanted: str | int, record: Record, *, flag: str = "speakers") -> int:
    """Number of a speaker, given by name or number, whose voice a decoder is to have.

    Raises:
        UsageError: there is no such speaker, or no training item of one.
    """
    speakers, heard = speakers_known(record), trained_numbers(record, "speakers")
    if not speakers:
        raise UsageError(f"{flag} {wanted} was asked for, but the items of this run have no speakers")
    number = asked_number(wanted, speakers, flag=flag)
    if number not in heard:
        raise UsageError(
            f"{flag} must be one of the training recordings, {show([speakers[voice] for voice in heard])}, but "
            f"{speakers[number]} is held out and the model has never heard that voice"
        )
    return number


def speakers_known(record: Record) -> tuple[str, ...]:
    """Names of the speakers by number, held-out ones included."""
    return tuple(record.get("speakers", ()))


def stated_speakers(
    speakers: str | int | Sequence[str | int | None] | None, known: tuple[str, ...], count: int
) -> np.ndarray | None:
    """Who speaks in `count` items, int64 `[count]`, -1 where None was given; None where none are `known`.

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
    count: int,
    record: Record,
    speakers: str | int | Sequence[str | int] | None,
    *,
    own_N: np.ndarray | None = None,
    names: Sequence[str] = (),
    flag: str = "speakers",
) -> list[int]:
    """Number of the voice of every item: as `speakers` says, or its own; empty where the data have none.

    Raises:
        UsageError: the voice of an item is not known, or was never heard in training.
    """
    if speakers is None:
        return own_voices(own_N, record, names, flag=flag)
    return [asked_voice(each, record, flag=flag) for each in one_each(speakers, count, flag=flag)]


def own_voices(
    speakers_N: np.ndarray | None, record: Record, names: Sequence[str], *, flag: str, otherwise: str = ""
) -> list[int]:
    """The speakers of items as voices of a decoder: each must be known, and heard in training.

    Args:
        speakers_N: their numbers, -1 where that is not known; None where the data have no speakers.
        record: of the model.
        names: of the items, for errors; empty where they have none.
        flag: what errors call the argument that would say it.
        otherwise: what else would say who speaks, the end of the sentence.

    Raises:
        UsageError: nothing says who speaks in one of them, or the model has never heard that voice.
    """
    if speakers_N is None:
        return []
    speakers, heard = speakers_known(record), trained_numbers(record, "speakers")
    for item, speaker in enumerate(speakers_N.tolist()):
        if speaker in heard:
            continue
        name = printable(names[item]) if names else f"recording {item}"
        fault = (
            f"nothing says who speaks in {name}"
            if speaker < 0
            else f"{name} is spoken by {speakers[speaker]}, who is held out and whose voice the model has never heard"
        )
        instead = otherwise if speaker < 0 else ""
        raise UsageError(f"{fault}: give {flag}, one of {show([speakers[voice] for voice in heard])}{instead}")
    return [int(speaker) for speaker in speakers_N]


def labels_for(wanted: Labels, count: int, record: Record, *, classes: int, name: str, flag: str) -> list[int]:
    """Number of the label of every item that a model is given; empty for a model of no `classes`.

    Raises:
        UsageError: a label is unknown or missing, or the model takes none; `name` is the model's, `flag` what the
            errors call the argument.
    """
    if not classes:
        if wanted is not None:
            raise UsageError(f"{flag} says what a conditional VAE is given, but {name} takes no label: leave it out")
        return []
    if wanted is None:
        raise UsageError(f"model {name} is given the label of every item: say {flag} CLASS, the class of these files")
    return [asked_number(each, tuple(record["classes"]), flag=flag) for each in one_each(wanted, count, flag=flag)]
