"""One file to 16-bit samples: bit-exact where it can be, rounded where it must be, refused where it is damaged."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from twostage.data.audio import decode, libraries
from twostage.data.audio.containers import check_whole
from twostage.data.audio.decode import CLIPPED, EMPTIED, FINER, MIXED, RESAMPLED, Decoded, decode_recording
from twostage.data.audio.part import Unreadable
from twostage.errors import RunError

LEVELS = np.arange(-32768, 32768).astype(np.int16)
NOISE = np.random.default_rng(0).integers(-9000, 9000, 20_000).astype(np.int16)


def read(path: Path, **settings: int) -> Decoded:
    return decode_recording(path, **{"sample_rate_hz": 8000, **settings})


def fault(path: Path, **settings: int) -> str:
    with pytest.raises(Unreadable) as raised:
        read(path, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestSamples:
    @pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64", "FLAC"])
    def test_all_65536_levels_are_exact(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "x.wav"
        shuffled = np.random.default_rng(0).permutation(LEVELS)
        soundfile.write(path, shuffled, 8000, format=kind, subtype="PCM_16")
        decoded = read(path)
        np.testing.assert_array_equal(decoded.samples, shuffled)
        assert decoded.samples.dtype == np.int16
        assert (decoded.clipped_samples, decoded.remarks) == (0, ())

    @pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
    def test_finer_samples_are_rounded_not_cut_off(self, tmp_path: Path, endian: str) -> None:
        path = tmp_path / "x.wav"
        steps = np.array([0.0, 0.4, 0.6, -0.4, -0.6, 1.4, -1.6, 100.0])
        soundfile.write(path, steps / 32768, 8000, subtype="PCM_24", endian=endian)
        decoded = read(path)
        assert decoded.samples.tolist() == [0, 0, 1, 0, -1, 1, -2, 100]
        assert decoded.remarks == (FINER,)

    def test_what_lies_beyond_16_bits_is_brought_to_the_limit_and_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, [0.0, 1.0, 2.0, -1.0, -1.5, 32767 / 32768, 0.5], 8000, subtype="FLOAT")
        decoded = read(path)
        assert decoded.samples.tolist() == [0, 32767, 32767, -32768, -32768, 32767, 16384]
        assert decoded.clipped_samples == 3
        assert decoded.remarks == (FINER, CLIPPED)

    def test_files_that_come_clipped_are_told(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        for samples, remarks in (([0, 32767, 32767, 5], (CLIPPED,)), ([0, 32767, -32768, 5], ())):
            soundfile.write(path, np.array(samples, dtype=np.int16), 8000)
            assert (read(path).remarks, read(path).clipped_samples) == (remarks, 0)

    def test_channels_are_averaged(self, tmp_path: Path) -> None:
        path = tmp_path / "x.flac"
        soundfile.write(path, np.array([[30000, 32000], [-3, -4], [5, 0]], dtype=np.int16), 8000)
        decoded = read(path)
        assert decoded.samples.tolist() == [31000, -4, 2]  # halves go to the even level
        assert decoded.remarks == (MIXED,)

    @pytest.mark.parametrize("rate", [16_000, 44_100, 6_000])
    def test_another_rate_keeps_pitch_length_and_loudness(self, tmp_path: Path, rate: int) -> None:
        path = tmp_path / "x.wav"
        wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
        soundfile.write(path, np.rint(wave * 32768).astype(np.int16), rate)
        decoded = read(path)
        expected = 0.5 * 32768 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        assert len(decoded.samples) == 8000
        assert np.abs(decoded.samples - expected)[100:-100].max() < 60
        assert decoded.remarks == (RESAMPLED,)

    def test_resampling_is_torchaudios(self, tmp_path: Path) -> None:
        import torch
        from torchaudio.functional import resample

        path = tmp_path / "x.wav"
        soundfile.write(path, NOISE, 22_050)
        theirs = resample(torch.from_numpy(NOISE / 32768), 22_050, 8000).numpy()
        np.testing.assert_array_equal(read(path).samples, np.rint(theirs * 32768))

    @pytest.mark.parametrize("rate", [44_101, 11_127, 7_999, 383_999])
    def test_rates_without_a_common_divisor(self, tmp_path: Path, rate: int) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate, subtype="PCM_16")
        expected = 0.5 * 32768 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        decoded = read(path)
        assert len(decoded.samples) == 8000
        assert np.abs(decoded.samples - expected)[100:-100].max() < 60

    def test_what_lies_above_half_of_the_rate_is_told_and_not_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, 2e-4 * np.sin(2 * np.pi * 19_000 * np.arange(4410) / 44_100), 44_100, subtype="FLOAT")
        assert read(path, sample_rate_hz=44_100).remarks == (FINER,)
        assert read(path, sample_rate_hz=1000).remarks == (FINER, RESAMPLED, EMPTIED)

    @pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
    def test_ogg(self, tmp_path: Path, subtype: str) -> None:
        path = tmp_path / "x.ogg"
        wave = np.rint(9000 * np.sin(np.arange(8000) * 0.3)).astype(np.int16)
        soundfile.write(path, wave, 8000, format="OGG", subtype=subtype)
        decoded = read(path)
        assert len(decoded.samples) == 8000
        assert np.abs(decoded.samples.astype(int) - wave)[500:-500].max() < 2500
        assert decoded.remarks == (FINER,)

    def test_the_content_decides_and_the_name_may_be_anything(self, tmp_path: Path) -> None:
        path = tmp_path / "lïne\nbreak\udcff.wav"
        soundfile.write(tmp_path / "x.flac", NOISE, 8000)
        (tmp_path / "x.flac").rename(path)
        np.testing.assert_array_equal(read(path).samples, NOISE)

    def test_one_sample_is_a_recording(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, np.array([7], dtype=np.int16), 8000)
        assert read(path).samples.tolist() == [7]


def encoded(kind: str, subtype: str) -> bytes:
    buffer = io.BytesIO()
    samples = NOISE / 32768 if subtype == "FLOAT" else NOISE
    soundfile.write(buffer, samples, 8000, format=kind, subtype=subtype)
    return buffer.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def last_byte(data: bytes) -> bytes:
    return data[:-1]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


def start(data: bytes) -> bytes:
    return data[:20]


CONTAINERS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("RF64", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
]


class TestDamage:
    @pytest.mark.parametrize(
        ("kind", "subtype", "damage"),
        [
            (*container, damage)
            for container in CONTAINERS
            for damage in (half, last_byte, start, flipped)
            if damage is not flipped or container[0] in ("FLAC", "OGG")  # the others have no checksums
        ],
    )
    def test_nothing_is_read_of_a_file_that_is_not_whole(
        self, tmp_path: Path, kind: str, subtype: str, damage: Callable[[bytes], bytes]
    ) -> None:
        path = tmp_path / "x.wav"
        path.write_bytes(encoded(kind, subtype))
        assert len(read(path).samples) == len(NOISE)
        path.write_bytes(damage(path.read_bytes()))
        assert "is truncated" in fault(path) or "is damaged" in fault(path)

    def test_half_a_wav_says_how_much_is_there(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        path.write_bytes(encoded("WAV", "PCM_16")[:10_044])
        assert fault(path) == "is truncated (10000 of 40000 bytes of samples)"

    def test_chunks_around_the_samples_do_not_matter(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        data = encoded("WAV", "PCM_16")
        odd = struct.pack("<4sI", b"LIST", 3) + b"abc\0"
        path.write_bytes(data[:12] + odd + data[12:] + odd[:-3])  # the last one is cut off
        np.testing.assert_array_equal(read(path).samples, NOISE)

    def test_a_wav_from_a_pipe_states_no_length(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        data = encoded("WAV", "PCM_16")
        path.write_bytes(data[:4] + b"\xff" * 4 + data[8:40] + b"\xff" * 4 + data[44:])
        np.testing.assert_array_equal(read(path).samples, NOISE)

    def test_a_page_of_ogg_that_is_missing_at_the_end(self) -> None:
        data = encoded("OGG", "VORBIS")
        check_whole(io.BytesIO(data))
        with pytest.raises(Unreadable, match="before its last page"):
            check_whole(io.BytesIO(data[: data.rindex(b"OggS")]))
        with pytest.raises(Unreadable, match="something other than a page"):
            check_whole(io.BytesIO(data + b"x" * 40))

    def test_empty_and_foreign_files(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        path.write_bytes(b"")
        assert fault(path) == "is empty"
        path.write_bytes(b"no sound at all")
        assert "is no WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64 or NIST file" in fault(path)
        path.write_bytes(b"RIFF\0\0\0\0AVI LIST")
        assert "is no WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64 or NIST file" in fault(path)
        path.write_bytes(b"RIFF\x04\0\0\0WAVE")
        assert "without samples" in fault(path)
        path.unlink()
        assert "could not be read (No such file" in fault(path)

    def test_no_samples(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, np.zeros(0, dtype=np.int16), 8000)
        assert fault(path) == "has no samples"

    def test_a_flac_file_from_a_pipe_is_read_to_its_end(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        data = bytearray(encoded("FLAC", "PCM_16"))
        data[21] &= 0xF0
        data[22:26] = bytes(4)
        path.write_bytes(data)
        np.testing.assert_array_equal(read(path).samples, NOISE)
        path.write_bytes(data[:-1000])
        assert "is damaged" in fault(path)


class TestContent:
    @pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
    def test_samples_that_are_no_numbers_are_counted(self, tmp_path: Path, odd: float) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, np.array([0.1, odd, 0.2, odd]), 8000, subtype="FLOAT")
        assert fault(path) == "has 2 samples that are NaN or infinite"

    @pytest.mark.parametrize(("level", "rate"), [(0, 8000), (-7, 8000), (50, 16_000)])
    def test_silence_at_any_level_and_rate(self, tmp_path: Path, level: int, rate: int) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, np.full(1000, level, dtype=np.int16), rate)
        assert "is silent" in fault(path)

    def test_what_is_too_quiet_for_16_bits_is_silent(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, 1e-6 * np.sin(np.arange(100)), 8000, subtype="FLOAT")
        assert fault(path) == "is silent (every sample is 0)"

    def test_shorter_than_the_minimum_at_the_new_rate(self, tmp_path: Path) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, NOISE[:128], 16_000)
        assert len(read(path, minimum_samples=64).samples) == 64
        assert fault(path, minimum_samples=65) == "has 64 samples at 8000 Hz, fewer than 65"

    @pytest.mark.parametrize("rate", [1, 999, 384_001, 2_000_000_000])
    def test_absurd_rates(self, tmp_path: Path, rate: int) -> None:
        path = tmp_path / "x.wav"
        soundfile.write(path, NOISE, rate)
        assert f"rate of {rate} Hz" in fault(path)

    def test_absurd_lengths_are_refused_before_decoding(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "x.flac"
        data = bytearray(encoded("FLAC", "PCM_16"))
        data[21] |= 0x0F  # the upper bits of the number of samples
        path.write_bytes(data)
        assert "more than 1800 seconds" in fault(path)
        path.write_bytes(encoded("FLAC", "PCM_16"))
        monkeypatch.setattr(decode, "LARGEST_SAMPLES", len(NOISE) - 1)
        assert "20000 samples in 1 channels" in fault(path)


@pytest.mark.parametrize("error", [ImportError("no torchaudio"), OSError("libcudart.so.13"), RuntimeError("CUDA 13.2")])
def test_without_torchaudio_recordings_are_read_and_what_needs_it_says_which_versions_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(name: str) -> object:
        if name.startswith("torchaudio"):
            raise error
        return soundfile

    monkeypatch.setattr(libraries, "import_module", refuse)
    soundfile.write(tmp_path / "other.wav", NOISE, 16_000)
    assert len(read(tmp_path / "other.wav").samples) == len(NOISE) // 2
    with pytest.raises(RunError) as raised:
        libraries.load_torchaudio("functional")
    assert str(error) in str(raised.value)
    assert "torchaudio 2.11 fits torch 2.11 to 2.14" in str(raised.value)


def test_without_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> object:
        raise OSError("sndfile library not found")

    monkeypatch.setattr(libraries, "import_module", refuse)
    with pytest.raises(RunError, match=r"sndfile library not found\): try pip install"):
        read(tmp_path / "x.wav")
