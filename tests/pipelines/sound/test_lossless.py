"""FLAC sizes are those of files that hold the samples."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from twostage.audio.decode import decode_recording
from twostage_pipelines.sound.lossless import flac_bits

NOISE = np.random.default_rng(1).integers(-32768, 32768, 20_000).astype(np.int16)


def test_noise_of_all_levels_takes_all_its_bits_and_a_constant_almost_none() -> None:
    assert 16 * len(NOISE) < flac_bits(NOISE, 8000) < 16.2 * len(NOISE)
    assert flac_bits(np.full(20_000, 7, np.int16), 8000) < 0.1 * 20_000


def test_the_size_is_that_of_a_file_at_the_strongest_level(tmp_path: Path) -> None:
    tone = np.rint(9000 * np.sin(0.1 * np.arange(9000)) + NOISE[:9000] / 300).astype(np.int16)
    soundfile.write(tmp_path / "x.flac", tone, 8000, subtype="PCM_16", compression_level=1.0)
    soundfile.write(tmp_path / "weak.flac", tone, 8000, subtype="PCM_16", compression_level=0.0)
    bits = flac_bits(tone, 8000)
    assert bits == 8 * (tmp_path / "x.flac").stat().st_size
    assert bits < 8 * (tmp_path / "weak.flac").stat().st_size


def test_one_stream_saves_the_headers() -> None:
    pieces = np.split(NOISE // 64, 20)
    saved = sum(flac_bits(piece, 8000) for piece in pieces) - flac_bits(np.concatenate(pieces), 8000)
    assert saved > 19 * 8 * 80


def test_a_single_sample_has_a_file() -> None:
    assert 8 * 42 < flac_bits(np.array([3], np.int16), 8000) < 8 * 200


@pytest.mark.parametrize("samples", [NOISE / 32768, NOISE.reshape(2, -1), NOISE[:0]])
def test_what_is_no_row_of_16_bit_samples_has_no_size(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected int16 samples"):
        flac_bits(samples, 8000)


def test_spoken_digits_take_less_than_nine_bits_per_sample() -> None:
    """A reference that other libFLACs may better or miss by a little, measured on the first five of every kind."""
    if not os.environ.get("TWOSTAGE_DATA"):
        pytest.skip("needs the spoken digits in the folder that TWOSTAGE_DATA names")
    files = sorted(Path(os.environ["TWOSTAGE_DATA"], "fsdd").glob("*.flac"))
    test = [path for path in files if re.search(r"_[0-4]\.flac$", path.name)]
    assert len(test) == 300
    recordings = [decode_recording(path, sample_rate_hz=8000).samples for path in test]
    samples = sum(map(len, recordings))
    assert samples == 1_034_030
    assert sum(flac_bits(recording, 8000) for recording in recordings) / samples == pytest.approx(8.886, abs=0.03)
    assert flac_bits(np.concatenate(recordings), 8000) / samples == pytest.approx(8.739, abs=0.03)
