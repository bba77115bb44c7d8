"""Sound in a report: an HTML element with the recording inside, which any browser plays.

Shapes: S samples.
"""

import base64
import html

import numpy as np

from .files import wav_bytes


def audio_element(samples_S: np.ndarray, sample_rate_hz: int, caption: str) -> str:
    """A figure with a player of int16 samples, the WAV file in base64 inside it, and a caption."""
    encoded = base64.b64encode(wav_bytes(samples_S, sample_rate_hz)).decode()
    text = html.escape(caption)
    return (
        f'<figure class="sound"><audio controls preload="metadata" aria-label="{text}" '
        f'src="data:audio/wav;base64,{encoded}"></audio><figcaption>{text}</figcaption></figure>'
    )
