"""FLAC sizes are those of files that hold the samples."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from twostage.data.audio.decode import decode_recording
from twostage.metrics.flac import flac_size, flac_sizes, frames_start

NOISE = np.random.default_rng(1).integers(-32768, 32768, 20_000).astype(np.int16)


def _file(samples: np.ndarray, **comments: str) -> bytes:
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 8000, 1, "PCM_16", format="FLAC", compression_level=1.0) as sound:
        for key, value in comments.items():
            setattr(sound, key, value)
        sound.write(samples)
    return buffer.getvalue()


def _tone() -> np.ndarray:
    return np.rint(9000 * np.sin(0.1 * np.arange(9000)) + NOISE[:9000] / 300).astype(np.int16)


def test_noise_of_all_levels_takes_all_its_bits_and_a_constant_almost_none() -> None:
    assert 16 * len(NOISE) < flac_size(NOISE, 8000).frame_bits < 16.2 * len(NOISE)
    assert flac_size(np.full(20_000, 7, np.int16), 8000).file_bits < 0.1 * 20_000


def test_the_size_is_that_of_a_file_at_the_strongest_level(tmp_path: Path) -> None:
    tone = _tone()
    soundfile.write(tmp_path / "x.flac", tone, 8000, subtype="PCM_16", compression_level=1.0)
    soundfile.write(tmp_path / "weak.flac", tone, 8000, subtype="PCM_16", compression_level=0.0)
    bits = flac_size(tone, 8000).file_bits
    assert bits == 8 * (tmp_path / "x.flac").stat().st_size
    assert bits < 8 * (tmp_path / "weak.flac").stat().st_size


def test_frames_are_what_no_metadata_changes() -> None:
    """Comments make the file longer and leave the frames, which begin with their synchronisation code."""
    plain, tagged = _file(_tone()), _file(_tone(), title="x" * 1000, artist="y")
    assert len(tagged) > len(plain) + 1000
    assert plain[frames_start(plain) :] == tagged[frames_start(tagged) :]
    assert plain[frames_start(plain) :][:2] in (b"\xff\xf8", b"\xff\xf9")
    assert flac_size(_tone(), 8000).frame_bits == 8 * len(plain[frames_start(plain) :])


def test_every_kind_of_metadata_block_is_passed_over() -> None:
    plain = _file(_tone())
    padding, seek_table = b"\x01\x00\x20\x00" + bytes(8192), b"\x03\x00\x00\x12" + bytes(18)
    streaminfo, rest = plain[4:42], plain[42:]
    padded = plain[:4] + streaminfo + padding + seek_table + rest
    assert frames_start(padded) == frames_start(plain) + len(padding) + len(seek_table)
    assert np.array_equal(soundfile.read(io.BytesIO(padded), dtype="int16")[0], _tone())
    # The padding may also be the last block.
    alone = plain[:4] + streaminfo + b"\x81" + padding[1:] + plain[frames_start(plain) :]
    assert alone[frames_start(alone) :] == plain[frames_start(plain) :]


@pytest.mark.parametrize("file", [b"", b"RIFF", b"fLaC", b"fLaC\x00\x00", b"fLaC\x80\x00\x00\x22" + bytes(10)])
def test_what_is_no_whole_header_has_no_frames(file: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        frames_start(file)


def test_frames_of_pieces_are_beside_their_files() -> None:
    pieces = np.split(NOISE // 64, 20)
    sizes = flac_sizes(pieces, 8000)
    assert sizes.file_bits.tolist() == [flac_size(piece, 8000).file_bits for piece in pieces]
    assert sizes.frame_bits.tolist() == [flac_size(piece, 8000).frame_bits for piece in pieces]
    assert (sizes.file_bits - sizes.frame_bits >= 8 * (4 + 38)).all()  # the marker and the one block that must be there
    saved = sizes.file_bits.sum() - flac_size(np.concatenate(pieces), 8000).file_bits
    assert saved > 19 * 8 * 80


def test_a_single_sample_has_a_file() -> None:
    size = flac_size(np.array([3], np.int16), 8000)
    assert 8 * 42 < size.file_bits < 8 * 200
    assert 0 < size.frame_bits < 8 * 20


@pytest.mark.parametrize("samples", [NOISE / 32768, NOISE.reshape(2, -1), NOISE[:0]])
def test_what_is_no_row_of_16_bit_samples_has_no_size(samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected int16 samples"):
        flac_size(samples, 8000)


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
    sizes = flac_sizes(recordings, 8000)
    assert sizes.file_bits.sum() / samples == pytest.approx(8.886, abs=0.03)
    assert sizes.frame_bits.sum() / samples == pytest.approx(8.687, abs=0.03)
    assert flac_size(np.concatenate(recordings), 8000).file_bits / samples == pytest.approx(8.739, abs=0.03)
