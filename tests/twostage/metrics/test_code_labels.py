"""What codes stand for: maps by hand, scores against plain loops, and codes that say nothing."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest

from twostage.metrics.code_labels import (
    CodeMeaning,
    Meaning,
    class_counts,
    code_map,
    code_meaning,
    meaning_table,
    positions,
)


@dataclass(frozen=True)
class Coded:
    """Codes of some recordings."""

    codes: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray
    speakers: np.ndarray
    size: int = 4
    classes: int = 2
    voices: int = 0


def coded(codes_NGT: Any, labels: Any, *, lengths: Any = None, speakers: Any = None, **sizes: int) -> Coded:
    codes_NGT = np.array(codes_NGT)
    count, _, longest = codes_NGT.shape
    lengths_N = np.full(count, longest) if lengths is None else np.array(lengths)
    speakers_N = np.zeros(count, int) if speakers is None else np.array(speakers)
    return Coded(codes_NGT, np.array(labels), lengths_N, speakers_N, **sizes)


def meanings(train: Coded, held_out: Coded) -> tuple[Meaning, ...]:
    return code_meaning(
        train_codes=train.codes,
        train_lengths=train.lengths,
        train_labels=train.labels,
        train_speakers=train.speakers,
        codes=held_out.codes,
        lengths=held_out.lengths,
        labels=held_out.labels,
        speakers=held_out.speakers,
        codebook_size=train.size,
        classes=train.classes,
        voices=train.voices,
    ).attributes


def counts(train: Coded) -> np.ndarray:
    codes_MG, items_M = positions(train.codes, train.lengths)
    return class_counts(codes_MG, train.labels[items_M], codebook_size=train.size, classes=train.classes)


def random_codes(seed: int, *, items: int = 30) -> Coded:
    """Two codebooks, of which the first leans on the label; with padding that is no code at all."""
    random = np.random.default_rng(seed)
    labels_N, lengths_N = random.integers(0, 3, items), random.integers(1, 8, items)
    codes_NGT = random.integers(0, 5, (items, 2, 7))
    codes_NGT[:, 0] = np.where(random.random((items, 7)) < 0.6, labels_N[:, None], codes_NGT[:, 0])
    codes_NGT[np.arange(7) >= lengths_N[:, None, None].repeat(2, 1)] = 5
    speakers_N = np.arange(items) % 2
    return coded(codes_NGT, labels_N, lengths=lengths_N, speakers=speakers_N, size=6, classes=3, voices=2)


def test_codes_are_mapped_to_their_most_likely_class_by_hand() -> None:
    train = coded(np.array([[[0, 0, 2, 3]], [[0, 1, 1, 3]]]), [0, 1], lengths=[3, 4])
    np.testing.assert_array_equal(counts(train), [[[2, 1], [0, 2], [1, 0], [0, 1]]])
    np.testing.assert_array_equal(code_map(counts(train)), [[0, 1, 0, 1]])


def test_ties_go_to_the_lower_class_and_unused_codes_to_the_commonest() -> None:
    train = coded(np.array([[[0, 1]], [[0, 1]], [[2, 2]]]), [0, 1, 1])
    np.testing.assert_array_equal(code_map(counts(train)), [[0, 0, 1, 1]])


def loops(train: Coded, held_out: Coded, classes: int) -> dict[str, float]:
    """The same, slowly."""
    table = np.zeros((2, 6, classes), int)
    for codes_GT, label, length in zip(train.codes, train.labels, train.lengths, strict=True):
        for g in range(2):
            for t in range(length):
                table[g, codes_GT[g, t], label] += 1
    marginal = table[0].sum(0)
    smoothed = (marginal + 1) / (marginal.sum() + classes)
    right, bits, votes_right, unseen, positions = 0, 0.0, 0, 0, 0
    per_class = np.zeros(classes)
    for codes_GT, label, length in zip(held_out.codes, held_out.labels, held_out.lengths, strict=True):
        votes = np.zeros(classes)
        for g in range(2):
            for t in range(length):
                row = table[g, codes_GT[g, t]]
                guess = row.argmax() if row.any() else marginal.argmax()
                unseen += not row.any()
                right += guess == label
                votes[guess] += 1
                bits += np.log2((row[label] + smoothed[label]) / (row.sum() + 1) / smoothed[label])
                positions += 1
                per_class[label] += 1
        votes_right += votes.argmax() == label
    return {
        "accuracy": right / positions,
        "chance": per_class.max() / positions,
        "item_accuracy": votes_right / len(held_out.codes),
        "information_bits": bits / positions,
        "positions": positions,
        "unseen_positions": unseen,
    }


def test_scores_equal_plain_loops_with_several_codebooks_and_padding() -> None:
    train, held_out = random_codes(0), random_codes(1)
    held_out.codes[0, :, 0] = 5  # not in training
    meaning = meanings(train, held_out)[0]
    assert meaning.attribute == "label"
    expected = loops(train, held_out, 3)
    assert expected["unseen_positions"] == 2
    for name, value in expected.items():
        assert getattr(meaning, name) == pytest.approx(value), name


def test_padding_says_nothing() -> None:
    train, held_out = random_codes(0), random_codes(1)
    before = meanings(train, held_out)
    for file in (train, held_out):
        file.codes[np.arange(7) >= file.lengths[:, None, None].repeat(2, 1)] = 1
    assert meanings(train, held_out) == before


def test_codes_that_are_the_label_tell_all_of_it() -> None:
    labels = np.arange(40) % 2
    file = coded(np.repeat(labels[:, None, None] + 2, 25, 2), labels, speakers=np.arange(40) // 2 % 2, voices=2)
    label, speaker = meanings(file, file)
    assert (label.accuracy, label.item_accuracy, label.chance) == (1.0, 1.0, 0.5)
    assert label.entropy_bits == pytest.approx(1.0)
    assert label.training_information_bits == pytest.approx(1.0)
    assert label.information_bits == pytest.approx(1.0, abs=0.01)
    assert (speaker.attribute, speaker.accuracy) == ("speaker", 0.5)
    assert speaker.training_information_bits == pytest.approx(0.0, abs=1e-9)
    assert speaker.information_bits == pytest.approx(0.0, abs=1e-9)


def test_rare_codes_flatter_the_training_counts_alone() -> None:
    """Codes drawn at random: told from training counts they would tell a good part of a bit."""
    random = np.random.default_rng(0)
    files = [coded(random.integers(0, 500, (60, 1, 10)), np.arange(60) % 2, size=500, classes=2) for _ in range(2)]
    (meaning,) = meanings(*files)
    assert meaning.training_information_bits > 0.4
    assert meaning.information_bits < 0.0
    assert meaning.accuracy == pytest.approx(0.5, abs=0.07)


def test_a_vote_hears_what_single_codes_only_hint_at() -> None:
    random = np.random.default_rng(0)

    def hints(items: int) -> Coded:
        labels_N = np.arange(items) % 2
        codes_NGT = np.where(
            random.random((items, 1, 101)) < 0.65, labels_N[:, None, None], 1 - labels_N[:, None, None]
        )
        return coded(codes_NGT, labels_N)

    (meaning,) = meanings(hints(50), hints(50))
    assert meaning.accuracy == pytest.approx(0.65, abs=0.03)
    assert meaning.item_accuracy > 0.95


def test_what_has_one_class_only_is_not_asked() -> None:
    file = coded(np.zeros((3, 1, 4), int), [0, 0, 0], classes=0)
    assert meanings(file, file) == ()


def test_the_table_shows_every_figure_beside_its_chance() -> None:
    meaning = Meaning(
        attribute="label",
        classes=10,
        items=300,
        positions=15_000,
        unseen_positions=0,
        accuracy=0.3456,
        chance=0.1234,
        item_accuracy=0.876,
        item_chance=0.1,
        information_bits=0.6543,
        training_information_bits=0.9876,
        entropy_bits=3.3,
    )
    told = CodeMeaning(attributes=(meaning,))
    headings, cells = meaning_table(told)
    assert cells == [["label", "10", "34.6%", "12.3%", "87.6%", "10.0%", "0.654", "0.988", "3.300"]]
    assert len(headings) == len(cells[0])
    assert CodeMeaning.from_json(json.loads(json.dumps(asdict(told)))) == told
