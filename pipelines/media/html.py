"""Pieces of a report: one HTML file that needs nothing beside it."""

import base64
import html
from collections.abc import Sequence

import numpy as np

from .wav import wav_bytes

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { padding: 3px 9px; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f4f4f4; }
figure.sound { display: inline-block; margin: .3rem .8rem .3rem 0; }
img { max-width: 100%; } img.pixels { image-rendering: pixelated; }
figure { margin: 1rem 0; } figcaption { color: #555; }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; font-size: 12px; }
"""


def image(data: bytes, caption: str, *, pixels: bool = False) -> str:
    """A figure; `pixels` keeps the edges of enlarged pixels sharp."""
    kind = ' class="pixels"' if pixels else ""
    encoded = base64.b64encode(data).decode()
    text = html.escape(caption)
    picture = f'<img{kind} alt="{text}" src="data:image/png;base64,{encoded}">'
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A table, first column left, the others right."""
    head = "".join(f"<th>{html.escape(h)}</th>" for h in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def page(title: str, sections: Sequence[str]) -> str:
    """The whole file."""
    text = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{text}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><h1>{text}</h1>{''.join(sections)}</body></html>\n"
    )


def audio_element(samples_S: np.ndarray, sample_rate_hz: int, caption: str) -> str:
    """A figure with a player of int16 samples, the WAV file in base64 inside it, and a caption."""
    encoded = base64.b64encode(wav_bytes(samples_S, sample_rate_hz)).decode()
    text = html.escape(caption)
    return (
        f'<figure class="sound"><audio controls preload="metadata" aria-label="{text}" '
        f'src="data:audio/wav;base64,{encoded}"></audio><figcaption>{text}</figcaption></figure>'
    )
