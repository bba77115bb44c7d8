"""Patterns of names: fields, stars, one way only to read a name, and refusals of what is no pattern."""

import pytest

from twostage.data.audio.pattern import Fields, name_pattern
from twostage.errors import UsageError


@pytest.mark.parametrize(
    ("pattern", "name", "fields"),
    [
        ("{label}_{speaker}_{index}", "7_theo_31.flac", Fields("7", "theo", 31)),
        ("{label}/{speaker}_nohash_{index}", "right/a69b_nohash_0.wav", Fields("right", "a69b", 0)),
        ("w/{speaker}/{speaker}_{index}_mic1", "w/p225/p225_001_mic1.flac", Fields(None, "p225", 1)),
        ("{speaker}/{label}/**", "anna/la/at home/2.1.ogg", Fields("la", "anna", None)),
        ("{label}/*", "a/b.wav", Fields("a", None, None)),
        ("*-{index}", "x-y-007.wav", Fields(None, None, 7)),
        ("{speaker}{{label}".replace("{{", "-{"), "é-ü.wav", Fields("ü", "é", None)),
        ("a.b+{index}", "a.b+3.wav", Fields(None, None, 3)),
    ],
)
def test_fields_are_read(pattern: str, name: str, fields: Fields) -> None:
    assert name_pattern(pattern).match(name) == fields


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{label}_{speaker}_{index}", "7_the_o_31.flac"),  # two ways to read it
        ("{label}_{speaker}_{index}", "7_theo_3x.flac"),
        ("{label}_{speaker}_{index}", "7__3.flac"),
        ("{label}_{speaker}_{index}", "x/7_theo_3.flac"),
        ("{label}_{index}", "a\nb_3.wav"),
        ("{label}_{index}", "a_3\n.wav"),
        ("{label}_{index}", "a_٣.wav"),  # a digit elsewhere
        ("w/{speaker}/{speaker}_{index}", "w/p225/p226_001.flac"),
        ("{label}/*", "a/b/c.wav"),
        ("a.b{index}", "axb3.wav"),
    ],
)
def test_names_that_do_not_fit(pattern: str, name: str) -> None:
    assert name_pattern(pattern).match(name) is None


@pytest.mark.parametrize(
    "pattern", ["{lable}_{index}", "{label", "label}_{index}", "{}", "{label}{speaker}", "{label}*", "a/*", ""]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"expected .*recordings\.pattern"):
        name_pattern(pattern)


def test_long_names_take_no_long_search() -> None:
    pattern = name_pattern("{label}_{speaker}_{index}")
    assert pattern.match("a_" * 50_000 + ".wav") is None
