"""Every kind of file that libsndfile writes: read as check-data judges it, whole, and refused where it is not."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from twostage.data.audio import decode
from twostage.data.audio.containers import check_whole
from twostage.data.audio.decode import CANCELLED, FORMATS, JOINED, decode_recording
from twostage.data.audio.part import Unreadable
from twostage.data.survey import survey_folder

RATE = 8000
_TIME = np.arange(7000) / RATE
TONE = 0.25 * np.sin(2 * np.pi * 200 * _TIME) * np.exp(-2 * _TIME) * np.minimum(1, 20 * _TIME)
"""Every codec keeps it."""
NOISE = np.random.default_rng(0).integers(-9000, 9000, 7000).astype(np.int16)


def written(kind: str, subtype: str | None = None, samples: np.ndarray = NOISE, **settings: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format=kind, subtype=subtype, **settings)
    return buffer.getvalue()


def _writable() -> list[tuple[str, str]]:
    found = []
    for kind in FORMATS:
        for subtype in soundfile.available_subtypes(kind):
            try:
                written(kind, subtype, TONE)
            except (soundfile.SoundFileError, ValueError):
                continue  # libsndfile reads it, but does not write it
            found.append((kind, subtype))
    return found


WRITABLE = _writable()


def test_the_kinds_are_many() -> None:
    kinds = {"WAV GSM610", "WAV G721_32", "WAV NMS_ADPCM_16", "AIFF DWVW_16", "AU G723_24", "MP3 MPEG_LAYER_III"}
    assert kinds <= {f"{kind} {subtype}" for kind, subtype in WRITABLE}
    assert len(WRITABLE) > 80


def test_check_data_and_reading_agree_on_everything_that_libsndfile_writes(tmp_path: Path) -> None:
    """Whole files are usable and hold what was written; halves are not usable; the survey says so of the same files."""
    usable, faults = set(), {}
    for kind, subtype, order in [(*each, order) for each in WRITABLE for order in ("FILE", "LITTLE", "BIG")]:
        name = f"{kind}-{subtype}-{order}"
        try:
            data = written(kind, subtype, TONE, endian=order)
        except (soundfile.SoundFileError, ValueError):
            assert order != "FILE"  # not every kind comes in both orders
            continue
        for part, content in (("whole", data), ("half", data[: len(data) // 2])):
            path = tmp_path / f"{name}-{part}.wav"
            path.write_bytes(content)
            try:
                decoded = decode_recording(path, sample_rate_hz=RATE)
            except Unreadable as error:
                faults[path.name] = str(error)
                continue
            usable.add(path.name)
            assert decoded.source.kind == f"{kind} {subtype}"
            # Codecs of blocks fill up their last one with silence.
            assert 0 <= len(decoded.samples) - len(TONE) < 1024, name
            heard = decoded.samples[: len(TONE)] / 32768
            assert np.abs(heard - TONE).max() < 0.06, name
            assert np.abs(decoded.samples[len(TONE) :] / 32768).max(initial=0) < 0.06, name
    assert {f"{kind}-{subtype}-FILE-whole.wav" for kind, subtype in WRITABLE} < usable
    assert len(usable) == len(faults) == len(list(tmp_path.iterdir())) / 2
    assert all("truncated" in fault or "damaged" in fault for fault in faults.values())
    lines: list[str] = []
    survey = survey_folder(tmp_path, "recordings", total=1, show=lines.append)
    assert survey.readable == len(usable)
    assert sorted(lines) == sorted(f"{name!r} {fault}" for name, fault in faults.items())


@pytest.mark.parametrize(("kind", "subtype"), [each for each in WRITABLE if each[0] in ("WAV", "AU", "AIFF", "MP3")])
def test_blocks_do_not_change_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, subtype: str
) -> None:
    path = tmp_path / "x"
    path.write_bytes(written(kind, subtype, TONE))
    samples_S = decode_recording(path).samples
    monkeypatch.setattr(decode, "_BLOCK_NUMBERS", 999)
    np.testing.assert_array_equal(decode_recording(path).samples, samples_S)


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [(kind, None) for kind in ("WAV", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF", "NIST", "MP3")]
    + [("OGG", "VORBIS"), ("OGG", "OPUS")],
)
class TestJoined:
    def test_every_part_is_read(self, tmp_path: Path, kind: str, subtype: str | None) -> None:
        one, two = written(kind, subtype, TONE), written(kind, subtype, 0.5 * TONE[:5000])
        alone = []
        for data in (one, two):
            (tmp_path / "x").write_bytes(data)
            alone.append(decode_recording(tmp_path / "x").samples)
        (tmp_path / "x").write_bytes(one + two + one)
        joined = decode_recording(tmp_path / "x")
        np.testing.assert_array_equal(joined.samples, np.concatenate([alone[0], alone[1], alone[0]]))
        assert JOINED in joined.remarks
        assert JOINED not in decode_recording_of(tmp_path, one).remarks

    def test_parts_of_different_rates_are_refused_by_name(self, tmp_path: Path, kind: str, subtype: str | None) -> None:
        other = io.BytesIO()
        soundfile.write(other, TONE, 16_000, format=kind, subtype=subtype)
        with pytest.raises(Unreadable, match=r"joins recordings of different kinds \(.*8000 Hz; .*16000 Hz\)"):
            decode_recording_of(tmp_path, written(kind, subtype, TONE) + other.getvalue())

    def test_behind_an_id3_tag(self, tmp_path: Path, kind: str, subtype: str | None) -> None:
        data = written(kind, subtype, TONE)
        whole = decode_recording_of(tmp_path, data).samples
        for tag in (id3(5), id3(300), id3(5) + id3(40_000)):
            np.testing.assert_array_equal(decode_recording_of(tmp_path, tag + data).samples, whole)


def decode_recording_of(folder: Path, data: bytes) -> decode.Decoded:
    (folder / "y").write_bytes(data)
    return decode_recording(folder / "y")


def id3(size: int) -> bytes:
    """An ID3v2 tag of that many bytes."""
    return b"ID3\x03\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + b"TIT2" + bytes(size - 4)


def test_a_part_that_is_cut_off_and_streams_side_by_side(tmp_path: Path) -> None:
    data = written("OGG", "VORBIS", TONE)
    with pytest.raises(Unreadable, match="before its last page"):
        decode_recording_of(tmp_path, data[: data.rindex(b"OggS")] + data)
    pages = [b"OggS" + page for page in data.split(b"OggS")[1:]]
    with pytest.raises(Unreadable, match="2 recordings side by side"):
        check_whole(io.BytesIO(pages[0] + b"".join(pages)))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x7FFFF000])
@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_that_pipes_leave_in_wav_headers(tmp_path: Path, size: int, channels: int) -> None:
    samples = np.stack([NOISE] * channels, 1)
    data = written("WAV", "PCM_24", samples)
    place = data.index(b"data")
    if size == 0x7FFFF000:
        size -= size % (3 * channels)  # sox rounds it down to whole samples
    head = data[:4] + struct.pack("<I", (size + place) & 0xFFFFFFFF)
    for content in (
        head + data[8 : place + 4] + struct.pack("<I", size) + data[place + 8 :],
        data[: place + 4] + struct.pack("<I", size) + data[place + 8 :],
    ):
        np.testing.assert_array_equal(decode_recording_of(tmp_path, content).samples, NOISE)


@pytest.mark.parametrize(("kind", "size"), [("AIFF", 0x7F000000), ("AIFF", 0xFFFFFFFF), ("AU", 0xFFFFFFFF)])
def test_sizes_that_pipes_leave_elsewhere(tmp_path: Path, kind: str, size: int) -> None:
    data = written(kind, "PCM_16")
    place = 8 if kind == "AU" else data.index(b"SSND") + 4
    content = data[:place] + struct.pack(">I", size) + data[place + 4 :]
    np.testing.assert_array_equal(decode_recording_of(tmp_path, content).samples, NOISE)


def _kept(path: Path) -> float:
    decoded = decode_recording(path)
    assert (CANCELLED in decoded.remarks) == (decoded.power_left <= 0.1)
    return decoded.power_left


@pytest.mark.parametrize(
    ("other", "left"),
    [
        (lambda left: left, 1.0),
        (lambda left: np.zeros_like(left), 0.5),
        (lambda left: -0.9 * left, 0.05**2 / 0.905),
        (lambda left: -left + 0.002, 1e-6 / 0.00677),
    ],
)
def test_what_averaging_leaves_of_the_power(
    tmp_path: Path, other: Callable[[np.ndarray], np.ndarray], left: float
) -> None:
    path = tmp_path / "x.wav"
    soundfile.write(path, np.stack([TONE, other(TONE)], 1), RATE, subtype="DOUBLE")
    if left > 1e-3:
        assert _kept(path) == pytest.approx(left, rel=1e-6)
    else:
        with pytest.raises(Unreadable, match="opposite phase"):
            _kept(path)
