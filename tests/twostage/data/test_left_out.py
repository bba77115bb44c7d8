"""Unreadable files of a folder: refused or left out by name, in words that fit their number."""

import pytest

from twostage.data.left_out import left_out
from twostage.errors import DataError


def test_one_is_spoken_of_as_one_and_several_as_several() -> None:
    with pytest.raises(DataError, match=r"1 of 9 files is not: 'b' is empty; repair or remove it, or leave it out"):
        left_out("images", "folder", {"b": "is empty"}, total=9, most=0)
    with pytest.raises(DataError, match=r"2 of 9 files are not, and .* admits 1: 'a' .* 'b' .* remove them, or leave"):
        left_out("images", "folder", {"b": "is empty", "a": "is damaged"}, total=9, most=1)


def test_as_many_as_are_admitted_are_left_out_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert left_out("images", "folder", {}, total=9, most=0) == ()
    assert capsys.readouterr().err == ""
    assert left_out("images", "folder", {"b": "is empty", "a": "is damaged"}, total=9, most=2) == ("a", "b")
    assert capsys.readouterr().err == "left out 2 of 9 files in folder: 'a' is damaged, 'b' is empty\n"
