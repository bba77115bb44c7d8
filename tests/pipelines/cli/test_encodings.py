"""What an output without a character shows in its place."""

import io

import pytest

from twostage_pipelines.cli.encodings import any_encoding


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Fréchet distance 0.1 ± 0.2", "Frechet distance 0.1 +- 0.2"),
        ("classes: 'café', 'cafe'", r"classes: 'caf\xe9', 'cafe'"),  # two classes stay two
        ("日本/é", r"\u65e5\u672c/\xe9"),
    ],
)
def test_own_words_are_written_plainly_and_names_spelt_out(text: str, shown: str) -> None:
    written = io.BytesIO()
    output = io.TextIOWrapper(written, encoding="ascii")
    with any_encoding(output):
        output.write(text)
        output.flush()
    assert written.getvalue().decode() == shown
