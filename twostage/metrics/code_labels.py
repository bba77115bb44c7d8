"""What codes stand for: each mapped to its most likely label, and speaker, and judged on recordings it never saw.

The phoneme experiment of van den Oord et al. 2017 (section 4.3): 128 codes, each mapped to its most likely phoneme,
named 49.3 % of them where always naming the commonest gets 7.2 %. Departures: a class belongs to a whole recording
here, a word or a speaker and not a phoneme, so that a code that stands for one sound of several words cannot name its
word; what the codes of a recording say together is therefore asked too, by a vote. Maps come from training codes and
are judged on held-out ones.

Accuracy shows only what the first choice says. Information shows all of it: how many bits a code saves to someone who
guesses the class of its position. Two estimates surround it in practice, because counts of rare codes flatter: that of
the training counts, too high, and that of the training counts on held-out codes, too low and below zero for codes that
say nothing.

G codebooks are mapped one by one: each code of a position is a guess, a vote and an amount of information of its own.

Shapes: N items, G codebooks, T positions, K codes, Y classes, M positions of all items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Meaning:
    """What the codes say about one attribute of held-out recordings."""

    attribute: str
    """`label` or `speaker`."""
    classes: int
    """Y."""
    items: int
    """Held-out recordings."""
    positions: int
    """Their codes, G at every position."""
    unseen_positions: int
    """Of these, codes without a map because they do not occur in training: they name the commonest class."""
    accuracy: float
    """Share of codes that name their recording's class."""
    chance: float
    """Largest share of one class in the held-out codes: the most that one answer for all would get."""
    item_accuracy: float
    """Share of recordings whose class most of their codes name."""
    item_chance: float
    """Largest share of one class in the held-out recordings."""
    information_bits: float
    """Bits that a held-out code saves in naming its class, by the training counts, smoothed."""
    training_information_bits: float
    """Mutual information of code and class in the training counts; the same for held-out codes if these counts were
    all there is to know."""
    entropy_bits: float
    """Of the class of a training position: the most that information could be."""


@dataclass(frozen=True)
class CodeMeaning:
    """What the codes of one model say."""

    attributes: tuple[Meaning, ...]
    """Of label and speaker, those that there are to tell apart."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "CodeMeaning":
        """What `dataclasses.asdict` made of one."""
        return cls(attributes=tuple(Meaning(**meaning) for meaning in data["attributes"]))


def code_meaning(
    *,
    train_codes: np.ndarray,
    train_lengths: np.ndarray,
    train_labels: np.ndarray,
    train_speakers: np.ndarray,
    codes: np.ndarray,
    lengths: np.ndarray,
    labels: np.ndarray,
    speakers: np.ndarray,
    codebook_size: int,
    classes: int,
    voices: int,
) -> CodeMeaning:
    """Map codes to classes by training recordings and judge the maps on others.

    Args:
        train_codes: integers 0..codebook_size - 1, `[N, G, T]`.
        train_lengths: positions of each item that are no padding, `[N]`, at least 1.
        train_labels: class of each item, `[N]`.
        train_speakers: speaker of each item, `[N]`.
        codes: of at least one held-out item, `[N, G, T]`; N and T are their own.
        lengths: of these.
        labels: of these.
        speakers: of these.
        codebook_size: K.
        classes: Y of labels; below 2 there is nothing to say about them.
        voices: Y of speakers.
    """
    train_codes_MG, train_items_M = positions(train_codes, train_lengths)
    codes_MG, items_M = positions(codes, lengths)

    def judged(attribute: str, train_N: np.ndarray, values_N: np.ndarray, choices: int) -> Meaning:
        taught_M = train_N[train_items_M]
        counts_GKY = class_counts(train_codes_MG, taught_M, codebook_size=codebook_size, classes=choices)
        return _judge(attribute, counts_GKY, codes_MG, items_M, values_N)

    attributes = (
        judged(attribute, train_N, values_N, choices)
        for attribute, train_N, values_N, choices in (
            ("label", train_labels, labels, classes),
            ("speaker", train_speakers, speakers, voices),
        )
        if choices > 1
    )
    return CodeMeaning(attributes=tuple(attributes))


def positions(codes_NGT: np.ndarray, lengths_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int64 `[M, G]` of all positions that are no padding, and the item of each, int64 `[M]`."""
    mask_NT = np.arange(codes_NGT.shape[2]) < lengths_N[:, None]
    return codes_NGT.transpose(0, 2, 1)[mask_NT].astype(np.int64), np.repeat(np.arange(len(lengths_N)), lengths_N)


def class_counts(codes_MG: np.ndarray, values_M: np.ndarray, *, codebook_size: int, classes: int) -> np.ndarray:
    """How often each code occurs in recordings of each class, int64 `[G, K, Y]`."""
    cells_GM = codes_MG.T * classes + values_M
    counts_GC = np.stack([np.bincount(cells_M, minlength=codebook_size * classes) for cells_M in cells_GM])
    return counts_GC.reshape(-1, codebook_size, classes).astype(np.int64)


def code_map(counts_GKY: np.ndarray) -> np.ndarray:
    """Most likely class of every code, int64 `[G, K]`; the lower one of equals, the commonest for codes that never
    occur."""
    commonest = counts_GKY.sum(axis=(0, 1)).argmax()
    return np.where(counts_GKY.any(axis=2), counts_GKY.argmax(axis=2), commonest)


def _judge(
    attribute: str, counts_GKY: np.ndarray, codes_MG: np.ndarray, items_M: np.ndarray, values_N: np.ndarray
) -> Meaning:
    codebooks, classes, values_M = np.arange(codes_MG.shape[1]), counts_GKY.shape[2], values_N[items_M]
    guesses_MG = code_map(counts_GKY)[codebooks, codes_MG]
    votes_C = np.bincount((items_M[:, None] * classes + guesses_MG).ravel(), minlength=len(values_N) * classes)
    heard_N = votes_C.reshape(-1, classes).argmax(axis=1)
    return Meaning(
        attribute=attribute,
        classes=classes,
        items=len(values_N),
        positions=codes_MG.size,
        unseen_positions=int((counts_GKY.sum(axis=2)[codebooks, codes_MG] == 0).sum()),
        accuracy=float((guesses_MG == values_M[:, None]).mean()),
        chance=_largest_share(values_M),
        item_accuracy=float((heard_N == values_N).mean()),
        item_chance=_largest_share(values_N),
        information_bits=float(_told_bits(counts_GKY)[codebooks, codes_MG, values_M[:, None]].mean()),
        training_information_bits=_mutual_information_bits(counts_GKY),
        entropy_bits=_entropy_bits(counts_GKY[0].sum(axis=0)),
    )


def _largest_share(values: np.ndarray) -> float:
    return float(np.bincount(values).max() / len(values))


def _told_bits(counts_GKY: np.ndarray) -> np.ndarray:
    """log2 p(class | code) / p(class) by smoothed counts, `[G, K, Y]`; 0 for codes that never occur."""
    seen_Y = counts_GKY[0].sum(axis=0) + 1.0  # add-one: a class may be missing in training
    common_Y = seen_Y / seen_Y.sum()
    # One more occurrence of every code, spread over the classes as they are common.
    given_GKY = (counts_GKY + common_Y) / (counts_GKY.sum(axis=2, keepdims=True) + 1.0)
    return np.log2(given_GKY / common_Y)


def _mutual_information_bits(counts_GKY: np.ndarray) -> float:
    """Of the frequencies as they are, mean over codebooks."""
    shared = [
        _entropy_bits(counts_KY.sum(axis=0)) + _entropy_bits(counts_KY.sum(axis=1)) - _entropy_bits(counts_KY.ravel())
        for counts_KY in counts_GKY
    ]
    return max(0.0, float(np.mean(shared)))  # max: rounding where codes and classes are independent


def _entropy_bits(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return max(0.0, float(-(share * np.log2(share)).sum()))  # max: -0.0 for a single class


def meaning_table(meaning: CodeMeaning) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what codes stand for."""
    headings = [
        "codes as", "classes", "per code", "chance", "per recording, by vote", "chance", "bits given", "in training",
        "of at most",
    ]  # fmt: skip
    cells = [
        [
            told.attribute,
            str(told.classes),
            f"{told.accuracy:.1%}",
            f"{told.chance:.1%}",
            f"{told.item_accuracy:.1%}",
            f"{told.item_chance:.1%}",
            f"{told.information_bits:.3f}",
            f"{told.training_information_bits:.3f}",
            f"{told.entropy_bits:.3f}",
        ]
        for told in meaning.attributes
    ]
    return headings, cells
