"""Pictures of recordings, looked at as pixels: loud is bright, high is up, late is right, and scales are shared."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from twostage.data.audio.spectral import log_mel_settings
from twostage_pipelines.media import spectrograms as pictures
from twostage_pipelines.media.spectrograms import picture_of, picture_of_pair, sheet

RATE = 8000
SETTINGS = log_mel_settings(RATE)
EDGE = 3
"""Pixels at the inside of a frame that are mixed with it."""


def tone(frequency_hz: float, *, seconds: float = 0.5, amplitude: float = 8000.0, rate: int = RATE) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return np.rint(amplitude * np.sin(2 * np.pi * frequency_hz * time)).astype(np.int16)


def opened(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def spectrograms(pixels: np.ndarray) -> list[np.ndarray]:
    """Brightness of the spectrograms from top to bottom and left to right: grey rectangles inside black frames.

    What else has a frame is the waveform, which is blue, and the colour bar, which is narrow.
    """
    inside, _ = label(pixels.sum(-1) > 0)
    boxes = [box for index, box in enumerate(find_objects(inside), 1) if (inside[box] == index).mean() > 0.95]
    boxes = [box for box in boxes if min(pixels[box].shape[:2]) > 60 and np.ptp(pixels[box], axis=-1).max() < 60]
    boxes.sort(key=lambda box: (box[0].start // 20, box[1].start))
    return [pixels[box][EDGE:-EDGE, EDGE:-EDGE].sum(-1) / 765 for box in boxes]


@pytest.fixture(autouse=True)
def _grey(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brightness grows with the level, and no colour is the black of a frame."""
    from matplotlib.colors import LinearSegmentedColormap

    monkeypatch.setattr(pictures, "_COLOURS", LinearSegmentedColormap.from_list("grey", [(0.15,) * 3, (0.8,) * 3]))


def brightest_row(panel: np.ndarray) -> float:
    """Where the brightest row is, from 0 at the bottom to 1 at the top."""
    rows = panel.mean(1)
    middle = float(np.mean(np.flatnonzero(rows >= rows.max() - 1e-3))) + 0.5
    return 1 - (middle + EDGE) / (len(rows) + 2 * EDGE)


def test_a_tone_stands_at_its_frequency() -> None:
    """On the HTK scale, from 0 Hz at the bottom to half the rate at the top."""
    tones_hz = (500.0, 1000.0, 3000.0)
    found = spectrograms(opened(sheet([[tone(f) for f in tones_hz]], settings=SETTINGS, titles=[["x"] * 3])))
    for frequency_hz, panel in zip(tones_hz, found, strict=True):
        expected = np.log1p(frequency_hz / 700) / np.log1p(4000 / 700)
        assert brightest_row(panel) == pytest.approx(expected, abs=0.03)


def test_the_marks_at_the_side_are_where_tones_are() -> None:
    for settings in (SETTINGS, log_mel_settings(16000)):
        for frequency_hz in (500, 1000, 2000):
            place = pictures._band(frequency_hz, settings)
            sound = tone(frequency_hz, rate=settings.sample_rate_hz)
            loudest = pictures._decibels(sound, settings).mean(1).argmax()
            assert abs(place - loudest) <= 1


def test_time_runs_to_the_right_and_what_is_over_is_no_silence() -> None:
    late = np.concatenate([np.zeros(2000, np.int16), tone(1000, seconds=0.25)])
    first, second = spectrograms(
        opened(picture_of_pair(late, late[:3000], settings=SETTINGS, titles=("late", "shorter")))
    )
    columns = first.max(0)
    assert columns[: int(0.45 * len(columns))].max() < 0.5 < columns[int(0.55 * len(columns)) :].min()
    over = second[:, int(0.8 * second.shape[1]) :]
    np.testing.assert_allclose(over, 0.85, atol=0.01)


def test_a_pair_shares_its_scales() -> None:
    loud, quiet = tone(1000), tone(1000, amplitude=80)
    pixels = opened(picture_of_pair(loud, quiet, settings=SETTINGS, titles=("loud", "quiet")))
    above, below = spectrograms(pixels)
    assert above.max() - below.max() == pytest.approx(0.65 * 40 / 70, abs=0.05)  # a hundredth is 40 dB
    blue = (pixels[..., 2] - pixels[..., 0] > 60).sum(1)
    height = len(blue) // 2
    assert np.count_nonzero(blue[:height]) > 10 * np.count_nonzero(blue[height:])


def test_a_sheet_has_a_spectrogram_per_recording_and_one_colour_scale() -> None:
    rows = [[tone(500), tone(3000)], [tone(1000, amplitude=80)]]
    found = spectrograms(opened(sheet(rows, settings=SETTINGS, titles=[["a", "b"], ["c"]])))
    assert len(found) == 3
    places = [brightest_row(panel) for panel in found]
    assert places[0] < places[2] < places[1]
    assert found[2].max() < found[0].max() - 0.2


def test_silence_alone_is_dark() -> None:
    """A decoder that says nothing must not look like one that is loud everywhere."""
    (panel,) = spectrograms(opened(picture_of(np.zeros(4000, np.int16), settings=SETTINGS, title="x")))
    assert panel.max() < 0.6


@pytest.mark.parametrize("samples", [1, 2, 63])
def test_a_recording_shorter_than_a_window_has_a_picture(samples: int) -> None:
    sound = tone(1000, seconds=samples / RATE) + np.int16(5)
    assert len(spectrograms(opened(picture_of(sound, settings=SETTINGS, title="short")))) == 1


def test_names_are_no_formulas_and_may_be_of_any_script() -> None:
    """Neither a mark of mathematics nor a letter that the font lacks is an error or a warning."""
    plain = opened(picture_of(tone(500), settings=SETTINGS, title="7 / theo"))
    odd = opened(picture_of(tone(500), settings=SETTINGS, title=r"$x_$ \frac{ 数字"))
    assert plain.shape == odd.shape
    assert (plain != odd).any()


def test_a_long_waveform_keeps_its_extremes_in_few_points() -> None:
    sound = np.zeros(1_000_001, np.int16)
    sound[123_456], sound[1_000_000] = 20_000, -30_000
    seconds, amplitudes = pictures._outline(sound, RATE)
    assert len(seconds) == len(amplitudes) <= 4002
    assert (amplitudes.max(), amplitudes.min()) == (20_000 / 32768, -30_000 / 32768)
    assert seconds[amplitudes.argmax()] == pytest.approx(123_456 / RATE, abs=0.1)
    short, same = pictures._outline(sound[:3000], RATE)
    assert (len(short), short[-1], len(same)) == (3000, 2999 / RATE, 3000)


def test_the_same_recording_gives_the_same_bytes() -> None:
    first, second = (picture_of(tone(500), settings=SETTINGS, title="x") for _ in range(2))
    assert first == second
