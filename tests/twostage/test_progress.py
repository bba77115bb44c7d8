"""Progress never ends the work that it is about."""

import io
import sys

import pytest

from twostage.progress import Progress, say


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full()], ids=["closed", "full"])
def test_a_lost_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    say("a line")
    with Progress("work", total=2) as progress:
        progress.advance()
    assert progress.done == 1


def test_a_name_moves_no_cursor_and_breaks_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("skipped é\n\x1b[2Jtwostage: all is well\u202egnp.exe")
    assert capsys.readouterr().err == "skipped é\\n\\x1b[2Jtwostage: all is well\\u202egnp.exe\n"
