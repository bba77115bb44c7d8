"""`twostage check-data`: every fault in one list, counts of everything else, and memory that files do not add to."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from twostage.data import survey
from twostage.data.audio import load_recordings
from twostage.data.walk import Found
from twostage.errors import DataError, UsageError
from twostage_pipelines.cli.check_data import run_check_data
from twostage_pipelines.commands.tools import CheckData

NOISE = np.random.default_rng(0).integers(-9000, 9000, 20_000).astype(np.int16)


def check(root: Path, **settings: Any) -> None:
    run_check_data(CheckData(path=root, **settings).resolved())


def save(path: Path, *, size: tuple[int, int] = (4, 4), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def record(path: Path, *, rate: int = 8000, channels: int = 1, seconds: float = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([NOISE[: int(rate * seconds)]] * channels, 1), rate)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_images_are_counted_by_class_size_and_channels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        save(tmp_path / "cat" / f"{number}.png")
    save(tmp_path / "dog" / "0.jpg", size=(9, 7), mode="L")
    save(tmp_path / "dog" / "1.png", mode="P")
    check(tmp_path)
    assert lines(capsys) == [
        f"{tmp_path}: 5 images can be used, 0 cannot",
        "classes: 'cat' (3), 'dog' (2)",
        "sizes (height x width): 4x4 (4), 7x9 (1)",
        "channels: RGB (3), L (1), P (1)",
        "conversions: with a palette, whose colours are looked up (1)",
    ]


def test_what_is_no_image_that_is_read_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("0.png", "1.jfif", "2.tiff", "3.bmp", "4.gif", "5.avif", "6.dib"):
        path = tmp_path / name
        Image.new("RGB", (4, 4)).save(path, format={".jfif": "JPEG", ".dib": "BMP"}.get(path.suffix))
    for name in ("a.heic", "b.heic", "c.dng", "list.csv"):
        (tmp_path / name).write_bytes(b"")
    check(tmp_path)
    said = lines(capsys)
    assert said[0] == f"{tmp_path}: 7 images can be used, 0 cannot"
    assert said[-1] == (
        "passed over, not being images that are read: .heic (2), .dng (1), .csv (1); convert the 3 images among them "
        "to PNG or JPEG to have them read"
    )
    (tmp_path / "none").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "none" / "x.heif")
    with pytest.raises(DataError, match=r"\(but \.heif \(1\)\): correct the path; convert the 1 images"):
        check(tmp_path / "none")


def test_recordings_are_counted_by_speaker_rate_channels_and_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        record(tmp_path / f"a_x_{number}.wav")
    record(tmp_path / "b_y_0.flac", rate=16_000, channels=2, seconds=0.5)
    record(tmp_path / "noise" / "0.wav")
    check(tmp_path, pattern="{label}_{speaker}_{index}", ignore=("noise/*",))
    assert lines(capsys) == [
        f"{tmp_path}: 4 recordings can be used, 0 cannot",
        "classes: 'a' (3), 'b' (1)",
        "speakers: 'x' (3), 'y' (1)",
        "rates: 8000 Hz (3), 16000 Hz (1)",
        "channels: 1 (3), 2 (1)",
        "kinds: WAV PCM_16 (3), FLAC PCM_16 (1)",
        "lengths: 1 to 2 s (3), below 1 s (1)",
    ]


def test_recordings_that_lose_something_and_sound_that_is_not_read_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tone = np.sin(np.arange(8000) * 0.3)
    record(tmp_path / "0.wav", rate=44_101, seconds=0.1)
    record(tmp_path / "1.aiff")
    record(tmp_path / "2.mp3")
    soundfile.write(tmp_path / "3.wav", np.stack([tone, -0.9 * tone], 1), 8000)
    soundfile.write(tmp_path / "4.wav", 1.5 * tone, 8000, subtype="FLOAT")
    (tmp_path / "5.m4a").write_bytes(b"x")
    check(tmp_path)
    beyond = np.count_nonzero(np.abs(np.float32(1.5 * tone)) * 32768 > 32767.5)
    assert lines(capsys) == [
        f"{tmp_path}: 5 recordings can be used, 0 cannot",
        "rates: 8000 Hz (4), 44101 Hz (1)",
        "channels: 1 (4), 2 (1)",
        "kinds: WAV PCM_16 (2), AIFF PCM_16 (1), MP3 MPEG_LAYER_III (1), WAV FLOAT (1)",
        "lengths: 1 to 2 s (4), below 1 s (1)",
        "1 of 5 recordings: with channels of opposite phase, which cancel when they are averaged (first: '3.wav'), "
        "which leaves 0.28% of the power",
        f"1 of 5 recordings: clipped at the limits of 16 bits (first: '4.wav'), {beyond} samples on the way, from up "
        "to 1.5 times full scale",
        "passed over: 1 files of sound of kinds that are not read: .m4a (1), first '5.m4a'",
    ]
    assert len(load_recordings(str(tmp_path), sample_rate_hz=8000).train) == 3
    soundfile.write(tmp_path / "4.wav", 1e4 * tone, 8000, subtype="FLOAT")
    with pytest.raises(DataError, match="1 of 5 files cannot be used"):
        check(tmp_path)
    fault = next(line.strip() for line in lines(capsys) if "4.wav" in line)
    assert fault.startswith("'4.wav' is far too loud (7998 of 8000 samples beyond full scale, up to 1e+04 times")
    with pytest.raises(DataError) as raised:
        load_recordings(str(tmp_path), sample_rate_hz=8000)
    assert fault in str(raised.value)


def test_every_fault_is_in_one_list_and_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        save(tmp_path / "data" / f"{number}.png")
    root = tmp_path / "data"
    (root / "b.png").write_bytes(b"")
    (root / "a\n.png").write_bytes(b"x")
    os.mkfifo(root / "c.png")
    (root / "in.png").symlink_to(root / "0.png")
    (root / "out.png").symlink_to("/etc/hostname")
    (root / "outside").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"6 of 10 files cannot be used; .* data.skip_unreadable 6") as raised:
        check(root)
    assert raised.value.exit_code == 1
    assert lines(capsys) == [
        f"{root}: 4 images can be used, 6 cannot",
        r"  'a\n.png' is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image, or its beginning is damaged",
        "  'b.png' is empty",
        "  'c.png' is no regular file",
        "  'in.png' is a symbolic link",
        "  'out.png' is a symbolic link out of the folder",
        "  'outside' is a symbolic link out of the folder",
        "sizes (height x width): 4x4 (4)",
        "channels: RGB (4)",
        "symbolic links, which are not followed: 3, 2 of them out of the folder",
    ]


def test_a_hundred_faults_are_named_unless_all_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(150):
        (tmp_path / f"{number:03d}.png").write_bytes(b"")
    with pytest.raises(DataError, match="150 of 150"):
        check(tmp_path)
    said = lines(capsys)
    assert said[1:101] == [f"  '{number:03d}.png' is empty" for number in range(100)]
    assert said[101] == "  and 50 more: --all names every one"
    with pytest.raises(DataError, match="150 of 150"):
        check(tmp_path, all=True)
    assert len([line for line in lines(capsys) if "is empty" in line]) == 150


def test_the_kind_is_that_of_more_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        record(tmp_path / f"{number}.wav")
    save(tmp_path / "cover.jpg")
    (tmp_path / "link").symlink_to(tmp_path)  # of no kind: it must not be counted for one
    with pytest.raises(DataError, match="1 of 5"):
        check(tmp_path)
    assert lines(capsys)[:2] == [
        "1 images beside them are not looked at: give --kind images for those",
        f"{tmp_path}: 4 recordings can be used, 1 cannot",
    ]
    (tmp_path / "link").unlink()
    check(tmp_path)
    with pytest.raises(DataError, match=r"1 image is too few for train, validation, test; add some$"):
        check(tmp_path, kind="images")
    with pytest.raises(UsageError, match="are settings of recordings"):
        check(tmp_path, kind="images", pattern="{label}")


def test_names_that_do_not_match_are_a_problem_of_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(4):
        record(tmp_path / f"{number}.wav")
    with pytest.raises(DataError, match=r"4 recordings do not match the pattern '\{label\}_\{index\}'"):
        check(tmp_path, pattern="{label}_{index}")
    with pytest.raises(UsageError, match="as fields of recordings"):
        check(tmp_path, pattern="{lable}")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is not there"),
        (lambda path: path.write_bytes(b""), "is a file"),
        (lambda path: path.mkdir(), "no name in it ends in .png"),
        (lambda path: (path.mkdir(), (path / "x.txt").write_bytes(b"")), "no name in it ends in .png"),
    ],
)
def test_what_is_no_data_folder(tmp_path: Path, make: Any, said: str) -> None:
    make(tmp_path / "a\nb")
    with pytest.raises(DataError, match=said) as raised:
        check(tmp_path / "a\nb")
    assert str(raised.value).isprintable()


def test_a_tally_stops_telling_kinds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MOST_KINDS", 12)
    tally = survey.Tally()
    for number in range(40):
        tally.add(str(number % 20))
    assert str(tally) == (
        "0 (2), 1 (2), 10 (2), 11 (2), 2 (2), 3 (2), 4 (2), 5 (2), 6 (2), 7 (2) and at least 2 more kinds (20)"
    )


def test_memory_does_not_grow_with_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of 6000 files, every tenth unusable, each in a class and of a size of its own, pass through."""
    count = 0

    def walk(*_: object) -> Iterator[Found]:
        nonlocal count
        for count in range(6000):
            yield Found(f"{count:06d}/{'x' * 250}.png", "unusable" if count % 10 == 0 else "file", "is no regular file")

    monkeypatch.setattr(survey, "walk", walk)
    monkeypatch.setattr(survey, "MOST_KINDS", 100)
    monkeypatch.setattr(survey, "_bytes", lambda _: 0)
    monkeypatch.setattr(survey, "inspect_image", lambda path, bits: survey_image(int(path.parent.name)))
    tracemalloc.start()
    found = survey.survey_folder(tmp_path, "images", total=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.readable, found.unusable) == (5400, 600)
    assert sum(found.classes.counts.values()) + found.classes.others == 5400
    assert peak < 1 << 19  # the names alone are 2 MB


def survey_image(number: int) -> Any:
    from twostage.data.images.decode import Inspected

    return Inspected(width=number, height=1, mode="RGB", remarks=())


def test_a_million_entries_are_listed_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk asks for the next entry only when it is asked for one itself."""
    for number in range(300):
        (tmp_path / f"{number}.png").write_bytes(b"")
    taken = 0
    scandir = os.scandir

    class Counting:
        def __init__(self, path: Path) -> None:
            self.entries = scandir(path)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            return self.count()

        def __exit__(self, *_: object) -> None:
            self.entries.close()

        def count(self) -> Iterator[os.DirEntry[str]]:
            nonlocal taken
            for entry in self.entries:
                taken += 1
                yield entry

    monkeypatch.setattr(os, "scandir", Counting)
    walked = survey.walk(tmp_path, (".png",))
    next(walked)
    assert taken == 1
    assert len(list(walked)) == 299


def test_arrays_are_described_and_every_fault_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "train.npz", images=np.arange(240).reshape(10, 4, 6).astype(np.uint16), labels=[3, 5] * 5)
    np.savez(tmp_path / "test.npz", images=np.zeros((2, 4, 6), np.uint16), labels=[3, 5])
    check(tmp_path)
    shape = "1x4x6 (channels x height x width), uint16"
    assert lines(capsys) == [
        f"'train.npz': 10 images, {shape}, levels 0 to 239; labels 3 (5), 5 (5)",
        f"'test.npz': 2 images, {shape}, levels 0 to 0; labels 3 (1), 5 (1)",
    ]
    check(tmp_path / "train.npz")
    capsys.readouterr()
    (tmp_path / "validation.npy").write_bytes(b"")
    np.savez(tmp_path / "test.npz", images=np.zeros((2, 4, 6)))
    with pytest.raises(DataError, match="2 things in it cannot be used, as listed"):
        check(tmp_path)
    said = lines(capsys)
    assert said[1].startswith("  'test.npz' has an array 'images' that holds float64")
    assert said[2] == "  'validation.npy' is empty"


def test_too_few_images_of_an_array_are_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(DataError, match="1 thing in it"):
        check(tmp_path / "x.npy")
    assert lines(capsys)[-1] == "  'x.npy' has 2 images for train, validation, test"


def test_sixteen_bits_can_be_used_where_they_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        Image.fromarray(np.full((4, 6), 999 * number, np.uint16)).save(tmp_path / f"{number}.png")
    check(tmp_path, bits=16)
    assert lines(capsys)[1:] == ["sizes (height x width): 4x6 (3)", "channels: I;16 (3)"]
    with pytest.raises(DataError, match="3 of 3 files cannot be used"):
        check(tmp_path)


@pytest.mark.parametrize("settings", [{"kind": "arrays"}, {"kind": "recordings"}, {"pattern": "{label}"}])
def test_bits_are_of_images(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--bits is a setting of images"):
        check(tmp_path, bits=16, **settings)
