"""Arrays as recordings: the samples that a file of the same values is read as, and a sentence for what is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from twostage.data.audio.arrays import samples_of_array
from twostage.data.audio.decode import decode_recording
from twostage.errors import UsageError

WAVE = np.random.default_rng(0).integers(-32768, 32768, 3001).astype(np.int16)


@pytest.mark.parametrize("rate_hz", [8000, 16000, 11025, 44_101])
@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_an_array_becomes_what_a_file_of_it_is_read_as(tmp_path: Path, rate_hz: int, dtype: str) -> None:
    soundfile.write(tmp_path / "x.wav", WAVE, rate_hz, subtype="PCM_16")
    expected = decode_recording(tmp_path / "x.wav", sample_rate_hz=8000).samples
    array = WAVE if dtype == "int16" else (WAVE / 32768).astype(dtype)
    found = samples_of_array(array, rate_hz, 8000)
    assert found.dtype == np.int16
    assert np.array_equal(found, expected)
    assert len(found) == -(-3001 * 8000 // rate_hz)


def test_the_limits_of_floats() -> None:
    assert samples_of_array(np.array([1.0, -1.0, 0.0, 0.49 / 32768]), 8000, 8000).tolist() == [32767, -32768, 0, 0]


def test_what_resampling_carries_beyond_16_bits_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    square = np.where(np.arange(4000) // 50 % 2, 32767, -32768).astype(np.int16)
    found = samples_of_array(square, 16000, 8000)
    assert found.min() == -32768
    assert found.max() == 32767
    assert "samples lay beyond 16 bits after resampling and are clipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("array", "rate_hz", "said"),
    [
        (np.zeros((10, 2)), 8000, "of the shape (10, 2) came: average channels"),
        (np.zeros(0), 8000, "of the shape (0,)"),
        (0.5, 8000, "of the shape ()"),
        ("a.wav", 8000, "of the shape ()"),
        (WAVE.astype(np.int32), 8000, "but int32 came"),
        (np.zeros(5, np.uint8), 8000, "but uint8 came"),
        (WAVE.astype(float), 8000, "samples up to 32764 in size came: divide by 32768"),
        (np.array([0.0, np.nan, np.inf]), 8000, "2 of 3 samples that came are NaN or infinite"),
        (WAVE, 999, "a whole rate within 1000 to 384000 Hz, but 999 came"),
        (WAVE, 8000.5, "but 8000.5 came"),
        (WAVE, float("nan"), "but nan came"),
    ],
)
def test_what_is_no_recording(array: Any, rate_hz: Any, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        samples_of_array(array, rate_hz, 8000)
    assert said in str(raised.value)
