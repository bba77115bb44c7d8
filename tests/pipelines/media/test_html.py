"""The element holds the recording itself, and its caption cannot break the page."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
import soundfile

from twostage_pipelines.media.html import audio_element

NOISE = np.random.default_rng(1).integers(-32768, 32768, 500).astype(np.int16)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "audio":
            self.attributes = dict(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_the_samples() -> None:
    page = Page(audio_element(NOISE, 8000, "7 / theo"))
    assert page.tags == ["figure", "audio", "figcaption"]
    assert "controls" in page.attributes
    kind, encoded = (page.attributes["src"] or "").split(",")
    assert kind == "data:audio/wav;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(encoded)), dtype="int16")
    np.testing.assert_array_equal(samples, NOISE)
    assert rate == 8000


def test_a_caption_is_text_and_nothing_else() -> None:
    caption = """<script>alert("x")</script> & 'b.wav'"""
    page = Page(audio_element(NOISE, 8000, caption))
    assert page.tags == ["figure", "audio", "figcaption"]
    assert page.text == caption
    assert page.attributes["aria-label"] == caption
