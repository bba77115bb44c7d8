"""Pictures of recordings: the waveform above its log-mel spectrogram, and sheets of spectrograms, as PNG bytes.

One picture has one colour scale: decibels of power per mel band below the loudest of all recordings in it, 70 dB deep.
Time is in seconds; a column of a spectrogram stands for `hop` samples around its middle. Mel bands have one height
each, and the marks at their side are the frequencies in Hz.

Shapes: S samples, M mels, T frames.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from twostage.data.audio.spectral import LogMelSettings, log_mel, waveform

from .plain_text import plain_text, shortened

DEPTH_DB = 70.0
_COLOURS = "magma"
_POINTS = 2000
"""Parts of a waveform that are drawn; of longer ones the extremes within each part."""
_FEW = 50
"""Fewer samples than these are marked one by one: a line through one of them would be invisible."""
_TITLE, _SHEET_TITLE = 80, 48
"""Characters that fit above a picture, and above one of a sheet."""
_MARKS_HZ = (250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000)


_LEFT, _RIGHT, _TOP, _BELOW = 0.7, 0.75, 0.3, 0.45
"""Inches around the axes: at the right for the colour bar, below for the marks of time."""


class _Paper:
    """A figure on which everything has a place in inches from the top left: layout engines take longer than drawing."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes of that size, their frame's top left corner at (left, top)."""
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def png(self, image: AxesImage) -> bytes:
        """The figure as PNG, with a colour bar at its right."""
        bar = self.figure.colorbar(image, cax=self.axes(self.width - _RIGHT, _TOP, 0.12, self.height - _TOP - _BELOW))
        bar.set_label("dB below the loudest", fontsize=8)
        bar.ax.tick_params(labelsize=7)
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        return buffer.getvalue()


MOST_PICTURES = 32
"""Files of one command that get a picture: a hundred pairs take a core 16 s, and nobody looks at them."""


def which_have_pictures(count: int) -> str:
    """What a command says of the pictures of its `count` sounds."""
    if count <= MOST_PICTURES:
        return "with a picture" if count == 1 else "each with a picture"
    return f"pictures for the first {MOST_PICTURES}, since drawing many takes long (take fewer at a time to see more)"


def picture_of(samples_S: np.ndarray, *, settings: LogMelSettings, title: str) -> bytes:
    """Waveform above log-mel spectrogram of int16 samples."""
    return _stacked([samples_S], settings, [title])


def picture_of_pair(
    first_S: np.ndarray, second_S: np.ndarray, *, settings: LogMelSettings, titles: tuple[str, str]
) -> bytes:
    """Two recordings, one above the other, on the same scales of time, amplitude and colour."""
    return _stacked([first_S, second_S], settings, titles)


@plain_text()
def sheet(rows: Sequence[Sequence[np.ndarray]], *, settings: LogMelSettings, titles: Sequence[Sequence[str]]) -> bytes:
    """Spectrograms in rows and columns; a row has one scale of time, and may have fewer columns than others.

    Args:
        rows: int16 samples per row and column, such as a recording and its reconstructions.
        settings: of the spectrograms.
        titles: of the same shape.
    """
    width, height, gap, above = 2.5, 1.1, 0.2, 0.45
    columns = max(map(len, rows))
    paper = _Paper(_LEFT + columns * (width + gap) + _RIGHT, _TOP + len(rows) * (height + above) - above + _BELOW)
    pictures_dB = [[_decibels(samples_S, settings) for samples_S in row] for row in rows]
    top_dB = _loudest([picture_dB for row in pictures_dB for picture_dB in row], settings)
    for row, (samples, pictures) in enumerate(zip(rows, pictures_dB, strict=True)):
        seconds = max(map(len, samples)) / settings.sample_rate_hz
        for column, (picture_dB, title) in enumerate(zip(pictures, titles[row], strict=True)):
            axis = paper.axes(_LEFT + column * (width + gap), _TOP + row * (height + above), width, height)
            image = _spectrogram(axis, picture_dB - top_dB, settings, seconds)
            axis.set_title(shortened(title, _SHEET_TITLE), fontsize=8, pad=3)
            axis.tick_params(labelsize=7, labelleft=column == 0)
            if column == 0:
                axis.set_ylabel("Hz", fontsize=7)
            if row == len(rows) - 1:
                axis.set_xlabel("seconds", fontsize=7)
    return paper.png(image)


@plain_text()
def _stacked(recordings: Sequence[np.ndarray], settings: LogMelSettings, titles: Sequence[str]) -> bytes:
    """Waveform and spectrogram of each, from top to bottom."""
    width, wave_height, height, gap, above = 6.2, 1.2, 1.8, 0.1, 0.45
    each = wave_height + gap + height + above
    paper = _Paper(_LEFT + width + 0.2 + _RIGHT, _TOP + len(recordings) * each - above + _BELOW)
    pictures_dB = [_decibels(samples_S, settings) for samples_S in recordings]
    top_dB = _loudest(pictures_dB, settings)
    seconds = max(map(len, recordings)) / settings.sample_rate_hz
    peak = max(float(np.abs(samples_S.astype(np.int32)).max()) for samples_S in recordings) / 32768
    for index, (samples_S, picture_dB, title) in enumerate(zip(recordings, pictures_dB, titles, strict=True)):
        start = _TOP + index * each
        wave = paper.axes(_LEFT, start, width, wave_height)
        style = ".-" if len(samples_S) < _FEW else "-"
        wave.plot(*_outline(samples_S, settings.sample_rate_hz), style, linewidth=0.6, color="C0")
        wave.set_xlim(0.0, seconds)
        wave.set_ylim(-1.05 * max(peak, 1e-3), 1.05 * max(peak, 1e-3))
        wave.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        wave.set_ylabel("amplitude", fontsize=8)
        wave.set_title(shortened(title, _TITLE), fontsize=10, pad=4)
        wave.grid(alpha=0.3)
        wave.tick_params(labelsize=8, labelbottom=False)
        spectrum = paper.axes(_LEFT, start + wave_height + gap, width, height)
        image = _spectrogram(spectrum, picture_dB - top_dB, settings, seconds)
        spectrum.set_ylabel("Hz", fontsize=8)
        spectrum.tick_params(labelsize=8)
    spectrum.set_xlabel("seconds", fontsize=8)
    return paper.png(image)


def _decibels(samples_S: np.ndarray, settings: LogMelSettings) -> np.ndarray:
    """Log-mel spectrogram in dB, `[M, T]`."""
    wave_1S = waveform(torch.from_numpy(np.array(samples_S)))[None]
    with torch.inference_mode():
        spectrum_MT: np.ndarray = log_mel(wave_1S, settings)[0].numpy()
    return spectrum_MT * (10.0 / math.log(10.0))


def _loudest(pictures_dB: Sequence[np.ndarray], settings: LogMelSettings) -> float:
    """What 0 dB is; at least 40 dB above the least power there is, so that silence alone is dark too."""
    least_dB = 10.0 * math.log10(settings.floor)
    return max(least_dB + 40.0, *(float(picture_dB.max()) for picture_dB in pictures_dB))


def _spectrogram(axis: Axes, picture_dB: np.ndarray, settings: LogMelSettings, seconds: float) -> AxesImage:
    """Draw a spectrogram whose loudest possible value is 0 dB, on a scale of that many seconds."""
    mels, frames = picture_dB.shape
    hop = settings.hop / settings.sample_rate_hz
    image = axis.imshow(
        picture_dB,
        origin="lower",
        aspect="auto",
        extent=(-hop / 2, (frames - 0.5) * hop, -0.5, mels - 0.5),
        cmap=_COLOURS,
        vmin=-DEPTH_DB,
        vmax=0.0,
    )
    # Sound that is over is not silence: the rest of the axis stays grey.
    axis.set_facecolor("0.85")
    axis.set_xlim(0.0, seconds)
    axis.set_ylim(-0.5, mels - 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    marks_hz = [mark for mark in _MARKS_HZ if mark <= settings.sample_rate_hz / 2]
    axis.set_yticks([_band(mark, settings) for mark in marks_hz], [str(mark) for mark in marks_hz])
    return image


def _band(frequency_hz: float, settings: LogMelSettings) -> float:
    """Where a frequency lies on the axis of mel bands; band i is at the middle of its triangle."""
    highest = math.log1p(settings.sample_rate_hz / 2 / 700)
    return math.log1p(frequency_hz / 700) / highest * (settings.mels + 1) - 1


def _outline(samples_S: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and amplitudes of a line that looks like the waveform, and has few points however long that is."""
    size = math.ceil(len(samples_S) / _POINTS)
    if size <= 2:
        return np.arange(len(samples_S)) / sample_rate_hz, samples_S / 32768
    starts = np.arange(0, len(samples_S), size)
    extremes = np.stack([np.minimum.reduceat(samples_S, starts), np.maximum.reduceat(samples_S, starts)], 1)
    return np.repeat(starts, 2) / sample_rate_hz, extremes.ravel() / 32768
