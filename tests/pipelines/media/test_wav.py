"""Recordings out and in: 16 bits survive, other kinds are converted and said, and what is no recording is refused."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from twostage.errors import DataError, RunError
from twostage_pipelines.media.wav import clipped_samples, read_recording, to_int16, wav_bytes, write_wav

LEVELS = np.random.default_rng(0).permutation(np.arange(-32768, 32768)).astype(np.int16)
NOISE = np.random.default_rng(1).integers(-9000, 9000, 4000).astype(np.int16)


def test_all_65536_levels_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.wav"
    write_wav(path, LEVELS, 8000)
    np.testing.assert_array_equal(read_recording(path, 8000), LEVELS)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.wav"]


def test_a_file_is_plain_16_bit_mono_wav() -> None:
    data = wav_bytes(NOISE, 11025)
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        assert (sound.format, sound.subtype, sound.channels) == ("WAV", "PCM_16", 1)
        assert (sound.samplerate, sound.frames) == (11025, len(NOISE))
    assert len(data) == 44 + 2 * len(NOISE)


@pytest.mark.parametrize("samples", [NOISE / 32768, NOISE.astype(np.int32), NOISE.reshape(2, -1), NOISE[:0]])
def test_what_is_no_row_of_16_bit_samples_is_not_written(tmp_path: Path, samples: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected int16 samples"):
        write_wav(tmp_path / "x.wav", samples, 8000)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_write_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.wav"
    write_wav(path, NOISE, 8000)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(RunError, match="no space left"):
        write_wav(path, LEVELS, 8000)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_recording(path, 8000), NOISE)


@pytest.mark.parametrize(("suffix", "kind"), [("flac", "FLAC"), ("wav", "WAVEX")])
def test_other_lossless_kinds_are_read_exactly_and_nothing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str, kind: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    soundfile.write(path, NOISE, 8000, format=kind, subtype="PCM_16")
    np.testing.assert_array_equal(read_recording(path, 8000), NOISE)
    assert capsys.readouterr().err == ""


def test_another_rate_and_stereo_are_converted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.ogg"
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(path, np.stack([tone, -0.5 * tone], 1), 16000)
    samples = read_recording(path, 8000)
    assert (len(samples), samples.dtype) == (8000, np.int16)
    spectrum = np.abs(np.fft.rfft(samples / 32768.0))
    assert spectrum.argmax() == 440
    assert spectrum.max() / 4000 == pytest.approx(0.075, rel=0.05)  # the mean of the channels
    said = capsys.readouterr().err
    assert "several channels, which are averaged" in said
    assert "of another rate and resampled" in said
    assert "compressed with loss" in said


def test_clipping_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.array([0.0, 1.5, -2.0, 3.0, 0.1]), 8000, subtype="FLOAT")
    assert read_recording(path, 8000).tolist()[:4] == [0, 32767, -32768, 32767]
    assert "clipped at the limits of 16 bits, 3 samples on the way" in capsys.readouterr().err


def _no_file(path: Path) -> None:
    pass


def _folder(path: Path) -> None:
    path.mkdir()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("no sound at all, only words")


def _half(path: Path) -> None:
    path.write_bytes(wav_bytes(NOISE, 8000)[:3000])


def _silence(path: Path) -> None:
    write_wav(path, np.zeros(100, np.int16), 8000)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_no_file, "could not be read \\(No such file or directory\\)"),
        (_folder, "could not be read \\(Is a directory\\)"),
        (_empty, "is empty"),
        (_text, "is no WAV, FLAC, OGG, MP3"),
        (_half, "truncated"),
        (_silence, "is silent"),
    ],
)
def test_what_is_no_recording_is_refused_in_one_sentence(tmp_path: Path, make: object, reason: str) -> None:
    path = tmp_path / "x.wav"
    make(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=reason) as raised:
        read_recording(path, 8000)
    assert str(path) in str(raised.value)
    assert str(raised.value).endswith("give another file")
    assert "\n" not in str(raised.value)


def test_a_recording_of_one_sample_is_one(tmp_path: Path) -> None:
    write_wav(tmp_path / "x.wav", np.array([-5], np.int16), 8000)
    assert read_recording(tmp_path / "x.wav", 8000).tolist() == [-5]


def test_waveforms_of_samples_come_back_as_the_samples(capsys: pytest.CaptureFixture[str]) -> None:
    wave = LEVELS.reshape(256, 256).astype(np.float32) / np.float32(32768)
    np.testing.assert_array_equal(to_int16(wave), LEVELS.reshape(256, 256))
    assert capsys.readouterr().err == ""


def test_waveforms_are_rounded_and_what_lies_beyond_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    wave = np.array([0.6, -0.6, 0.4, 32767.7, 32768.0, -32768.0, 32770.0, -99999.0]) / 32768
    assert to_int16(wave).tolist() == [1, -1, 0, 32767, 32767, -32768, 32767, -32768]
    assert clipped_samples(wave) == 2  # neither +1 nor -1 is beyond
    assert "2 of 8 samples lay beyond 16 bits" in capsys.readouterr().err


def test_a_decoder_that_makes_no_numbers_is_told_so() -> None:
    with pytest.raises(RunError, match="2 samples that are NaN or infinite"):
        to_int16(np.array([0.0, np.nan, 0.5, -np.inf]))
