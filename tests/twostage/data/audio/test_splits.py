"""Splits from names alone: by index, by speaker, by list, by digest."""

from itertools import chain
from pathlib import Path

import pytest

from twostage.data.audio.listing import Listing, Recording
from twostage.data.audio.splits import SplitRule, split_recordings
from twostage.errors import DataError, UsageError

SPEAKERS = ("ann", "bob", "cy")


def listing(*, speakers: tuple[str, ...] = SPEAKERS, indices: int = 10, numbered: bool = True) -> Listing:
    found = [
        Recording(Path(f"{speaker}_{index}.wav"), f"{speaker}_{index}.wav", 0, row, index if numbered else None)
        for row, speaker in enumerate(speakers)
        for index in range(indices)
    ]
    kept = speakers if len(speakers) > 1 else ()
    return Listing(tuple(sorted(found, key=lambda item: item.name)), (), kept, {}, frozenset({"ignored.wav"}))


def split(found: Listing, rule: SplitRule, root: Path = Path("data")) -> dict[str, list[str]]:
    parts, _ = split_recordings(root, found, rule)
    assert list(parts) == ["train", "validation", "test"]
    result = {name: [item.name for item in part] for name, part in parts.items()}
    assert sorted(chain.from_iterable(result.values())) == [item.name for item in found.recordings]
    return result


def test_by_index() -> None:
    parts = split(listing(indices=20), SplitRule(test_indices="0-4", validation_indices="5,7-9"))
    assert parts["test"] == [f"{speaker}_{index}.wav" for speaker in SPEAKERS for index in range(5)]
    assert {name.split("_")[1] for name in parts["validation"]} == {"5.wav", "7.wav", "8.wav", "9.wav"}


def test_by_speaker() -> None:
    parts = split(listing(), SplitRule(test_speakers=("bob",), validation_speakers=("cy",)))
    assert [{name[:2] for name in part} for part in parts.values()] == [{"an"}, {"cy"}, {"bo"}]


def test_by_list(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("./bob_3.wav\n\nann_1.wav\r\nignored.wav\n", encoding="utf-8")
    (tmp_path / "v.txt").write_text("cy_0.wav", encoding="utf-8")
    parts = split(listing(), SplitRule(test_list="t.txt", validation_list="v.txt"), tmp_path)
    assert parts["test"] == ["ann_1.wav", "bob_3.wav"]
    assert parts["validation"] == ["cy_0.wav"]


def test_by_digest_never_moves() -> None:
    """Scores of different versions are comparable only if these names stay where they are."""
    parts = split(listing(), SplitRule())
    assert parts["test"] == ["ann_3.wav", "cy_3.wav", "cy_8.wav"]
    assert parts["validation"] == ["bob_3.wav", "bob_7.wav", "cy_7.wav"]
    assert [len(part) for part in split(listing(indices=1), SplitRule()).values()] == [1, 1, 1]


def test_validation_is_a_tenth_of_the_rest_where_only_test_is_stated() -> None:
    parts = split(listing(indices=20), SplitRule(test_speakers=("ann",)))
    assert [len(part) for part in parts.values()] == [36, 4, 20]
    assert {name[:2] for name in parts["validation"]} <= {"bo", "cy"}


def test_the_rule_is_said_in_words() -> None:
    said = split_recordings(Path("x"), listing(), SplitRule(test_indices="0-1", validation_indices="5"))[1]
    assert said == "test: indices 0-1; validation: indices 5"
    said = split_recordings(Path("x"), listing(), SplitRule(test_speakers=("ann",)))[1]
    assert said == "test: speakers ann; validation: a tenth by SHA-256 of names"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (SplitRule(test_indices="0", validation_speakers=("ann",)), "by indices and by speakers"),
        (SplitRule(validation_indices="0"), "recordings.test_indices beside"),
        (SplitRule(test_indices="0-4", validation_indices="4-5"), "3 recordings are in both: 'ann_4.wav'"),
        (SplitRule(test_indices="4-0"), "expected ranges"),
        (SplitRule(test_indices="a"), "expected ranges"),
        (SplitRule(test_indices="1-"), "expected ranges"),
        (SplitRule(test_speakers=("eve", "ann")), r"\(ann, bob, cy\), but 'eve' came"),
        (SplitRule(test_list="../list.txt"), "inside data"),
        (SplitRule(test_list="/etc/passwd"), "inside data"),
    ],
)
def test_wrong_rules(rule: SplitRule, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        split(listing(), rule)


def test_a_split_by_index_needs_indices() -> None:
    with pytest.raises(UsageError, match=r"\{index\} in recordings\.pattern"):
        split(listing(numbered=False), SplitRule(test_indices="0"))


def test_rules_that_leave_a_split_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names none"):
        split(listing(), SplitRule(test_indices="10-99"))
    with pytest.raises(DataError, match="is left for train"):
        split(listing(), SplitRule(test_indices="0-4", validation_indices="5-9"))
    with pytest.raises(DataError, match="is left for"):
        split(listing(), SplitRule(test_indices="0-9"))
    with pytest.raises(DataError, match="is left for"):
        split(listing(speakers=("ann", "bob"), indices=1), SplitRule())


def test_a_split_by_speaker_needs_two() -> None:
    with pytest.raises(DataError, match="at least 2 speakers"):
        split(listing(speakers=("ann",)), SplitRule(test_speakers=("ann",)))


def test_lists_that_do_not_fit(tmp_path: Path) -> None:
    rule = SplitRule(test_list="t.txt")
    with pytest.raises(DataError, match="could not be read"):
        split(listing(), rule, tmp_path)
    (tmp_path / "t.txt").write_text("ignored.wav", encoding="utf-8")
    with pytest.raises(DataError, match="names none"):
        split(listing(), rule, tmp_path)
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no UTF-8 text"):
        split(listing(), rule, tmp_path)
    (tmp_path / "t.txt").write_text("ann_1.wav\neve_1.wav", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of 2 are not there: 'eve_1\.wav'"):
        split(listing(), rule, tmp_path)
