"""A folder of recordings: labels and speakers from names, fixed splits, and one sentence for all that is wrong."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from twostage.data.audio import AudioDataset, folder, load_recordings
from twostage.data.audio.splits import SplitRule
from twostage.errors import DataError, UsageError

FSDD = "{label}_{speaker}_{index}"
SPLITS = ("train", "validation", "test")


def save(path: Path, value: int, *, length: int = 20, rate: int = 8000) -> None:
    """A recording whose first sample is `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.arange(length, dtype=np.int16)
    samples[0] = value
    soundfile.write(path, samples, rate)


def fill(root: Path, *, labels: str = "ab", speakers: str = "xyz", indices: int = 10) -> int:
    """One recording per label, speaker and index, of lengths that differ; their number."""
    count = 0
    for label in labels:
        for speaker in speakers:
            for index in range(indices):
                count += 1
                save(root / f"{label}_{speaker}_{index}.wav", 1000 + count, length=10 + count)
    return count


def load(root: Path, **settings: Any) -> AudioDataset:
    return load_recordings(str(root), **{"sample_rate_hz": 8000, "pattern": FSDD, **settings})


def refusal(root: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as raised:
        load(root, **settings)
    assert str(raised.value).startswith("expected ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def names(dataset: AudioDataset) -> dict[str, tuple[str, ...]]:
    return {split: dataset.split(split).names for split in SPLITS}


def everything(dataset: AudioDataset) -> list[str]:
    return sorted(name for part in names(dataset).values() for name in part)


class TestContents:
    def test_samples_labels_speakers_and_names_belong_together(self, tmp_path: Path) -> None:
        count = fill(tmp_path)
        dataset = load(tmp_path, split_rule=SplitRule(test_indices="0-1", validation_indices="2"))
        assert (dataset.classes, dataset.speakers, dataset.sample_rate_hz) == (("a", "b"), ("x", "y", "z"), 8000)
        assert [len(dataset.split(split)) for split in SPLITS] == [42, 6, 12]
        seen = []
        for split in map(dataset.split, SPLITS):
            assert split.names == tuple(sorted(split.names))
            for row, (name, samples) in enumerate(zip(split.names, split.recordings(), strict=True)):
                label, speaker, index = name.removesuffix(".wav").split("_")
                value = 1 + "ab".index(label) * 30 + "xyz".index(speaker) * 10 + int(index)
                assert (samples[0], len(samples)) == (1000 + value, 10 + value)
                assert samples[1:].tolist() == list(range(1, 10 + value))
                assert dataset.classes[split.labels[row]] == label
                assert dataset.speakers[split.speakers[row]] == speaker
                seen.append(value)
        assert sorted(seen) == list(range(1, count + 1))

    def test_durations_and_digest(self, tmp_path: Path) -> None:
        fill(tmp_path)
        dataset = load(tmp_path)
        lengths = [len(samples) for samples in dataset.test.recordings()]
        np.testing.assert_allclose(dataset.durations_seconds("test"), np.array(lengths) / 8000)
        assert load(tmp_path).sha256 == dataset.sha256
        save(tmp_path / "a_x_0.wav", 1002, length=11)
        assert load(tmp_path).sha256 != dataset.sha256
        with pytest.raises(UsageError, match="expected the split"):
            dataset.split("tests")

    def test_threads_change_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(tmp_path)
        digests = set()
        for cores in ({0}, {0, 1, 2, 3}):
            monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: cores, raising=False)
            digests.add(load(tmp_path).sha256)
        assert len(digests) == 1

    def test_every_kind_of_file_at_any_depth_and_nothing_else(self, tmp_path: Path) -> None:
        for index, suffix in enumerate((".wav", ".FLAC", ".ogg", ".Wav", ".flac")):
            save(tmp_path / ("x" if index % 2 else "") / f"{index}{suffix}", 9)
        for other in ("readme.txt", ".hidden.wav", "x/notes.m4a"):
            (tmp_path / other).write_bytes(b"")
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache" / "x.wav").write_bytes(b"")
        dataset = load(tmp_path, pattern="**{index}")
        assert everything(dataset) == ["0.wav", "2.ogg", "4.flac", "x/1.FLAC", "x/3.Wav"]
        assert (dataset.classes, dataset.speakers) == ((), ())

    def test_conversions_are_said_once_with_their_number(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(tmp_path)
        save(tmp_path / "a_x_0.wav", 1, rate=16_000)
        soundfile.write(tmp_path / "a_x_1.wav", [0.0, 2.0, 2.0, -2.0], 8000, subtype="FLOAT")
        assert load(tmp_path).clipped_samples == 3
        said = capsys.readouterr().err
        assert "1 of 60 recordings: of another rate and resampled (first: 'a_x_0.wav')" in said
        assert (
            "1 of 60 recordings: clipped at the limits of 16 bits (first: 'a_x_1.wav'), 3 samples on the way, from "
            "up to 2 times full scale\n" in said
        )

    def test_losses_are_said_with_their_number_and_the_worst(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(tmp_path)
        wave = np.random.default_rng(0).uniform(-1, 1, 100)
        for index, other in enumerate((-0.9 * wave, -0.95 * wave, 0.9 * wave)):
            soundfile.write(tmp_path / f"a_x_{index}.wav", np.stack([wave, other], 1), 8000, subtype="FLOAT")
        for index, peak in enumerate((1.5, 3, 2)):
            soundfile.write(tmp_path / f"b_x_{index}.wav", [0, 0.5, 0.5, peak, 0, 0, 0, 0], 8000, subtype="FLOAT")
        load(tmp_path)
        said = capsys.readouterr().err
        assert (
            "2 of 60 recordings: with channels of opposite phase, which cancel when they are averaged (first: "
            "'a_x_0.wav'), which leaves down to 0.07% of the power ('a_x_1.wav')\n" in said
        )
        assert (
            "3 of 60 recordings: clipped at the limits of 16 bits (first: 'b_x_0.wav'), 3 samples on the way, from "
            "up to 3 times full scale ('b_x_1.wav')\n" in said
        )

    def test_held_out_recordings_that_are_trained_on_are_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(tmp_path)
        rule = SplitRule(test_indices="0-1", validation_indices="2")
        load(tmp_path, split_rule=rule)
        assert "warning" not in capsys.readouterr().err
        for index in range(2):
            save(tmp_path / f"b_z_{index}.wav", 1003 + index, length=13 + index)  # a_x_2 and a_x_3
            save(tmp_path / f"a_y_{index}.wav", 1003 + index, length=12)  # the same but for their ends
        load(tmp_path, split_rule=rule)
        said = capsys.readouterr().err
        assert "warning: 1 of 12 test recordings also stand in the training data, sample for sample\n" in said
        assert "validation recordings" not in said

    def test_sound_of_kinds_that_are_not_read_is_counted_and_the_rest_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for index, suffix in enumerate((".mp3", ".aiff", ".Aif", ".au", ".caf", ".w64", ".sph")):
            kinds = {".mp3": "MP3", ".aiff": "AIFF", ".Aif": "AIFF", ".au": "AU", ".caf": "CAF", ".w64": "W64"}
            noise = np.random.default_rng(index).uniform(-0.3, 0.3, 4000)
            soundfile.write(tmp_path / f"{index}{suffix}", noise, 8000, format=kinds.get(suffix, "NIST"))
        for name in ("b.m4a", "a.WMA", "c.m4a", "notes.txt", ".hidden.m4a"):
            (tmp_path / name).write_bytes(b"x")
        dataset = load(tmp_path, pattern=None)
        assert len(everything(dataset)) == 7
        said = capsys.readouterr().err
        passed_over = "3 files of sound of kinds that are not read: .m4a (2), .wma (1), first 'a.WMA'"
        assert f"passed over in {tmp_path}: {passed_over}\n" in said
        load(tmp_path, pattern=None, ignore=("*.m4a", "*.WMA"))
        assert "passed over" not in capsys.readouterr().err
        for path in tmp_path.glob("[0-9]*"):
            path.unlink()
        assert "besides 3 files of sound of kinds that are not read: .m4a (2), .wma (1)" in refusal(
            tmp_path, pattern=None
        )


class TestLayouts:
    """Tiny folders in the layout of well-known sets."""

    def test_speechcommands(self, tmp_path: Path) -> None:
        listed = {
            "testing_list.txt": ["no/1b_nohash_0.wav", "yes/2c_nohash_1.wav"],
            "validation_list.txt": ["no/2c_nohash_0.wav"],
        }
        for word in ("no", "yes"):
            for speaker in ("0a", "1b", "2c"):
                for index in (0, 1):
                    save(tmp_path / word / f"{speaker}_nohash_{index}.wav", 1, rate=16_000, length=160)
        save(tmp_path / "_background_noise_" / "doing the dishes.wav", 1)
        for file, lines in listed.items():
            (tmp_path / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        dataset = load(
            tmp_path,
            sample_rate_hz=16_000,
            pattern="{label}/{speaker}_nohash_{index}",
            ignore=("_background_noise_/*",),
            split_rule=SplitRule(test_list="testing_list.txt", validation_list="validation_list.txt"),
        )
        assert names(dataset)["test"] == tuple(listed["testing_list.txt"])
        assert names(dataset)["validation"] == tuple(listed["validation_list.txt"])
        assert len(dataset.train) == 9
        assert (dataset.classes, dataset.speakers) == (("no", "yes"), ("0a", "1b", "2c"))

    def test_vctk(self, tmp_path: Path) -> None:
        for speaker in ("p225", "p226", "p227"):
            for index in range(1, 4):
                for microphone in ("mic1", "mic2"):
                    name = f"{speaker}_{index:03d}_{microphone}.flac"
                    save(tmp_path / "wav48_silence_trimmed" / speaker / name, 1, rate=48_000, length=4800)
        dataset = load(
            tmp_path,
            pattern="wav48_silence_trimmed/{speaker}/{speaker}_{index}_mic1",
            ignore=("*_mic2.flac",),
            split_rule=SplitRule(test_speakers=("p227",), validation_speakers=("p225",)),
        )
        assert (dataset.classes, dataset.speakers) == ((), ("p225", "p226", "p227"))
        assert [set(dataset.split(split).speakers.tolist()) for split in SPLITS] == [{1}, {0}, {2}]
        assert set(dataset.train.lengths.tolist()) == {800}

    def test_ljspeech(self, tmp_path: Path) -> None:
        for index in range(1, 21):
            save(tmp_path / "wavs" / f"LJ001-{index:04d}.wav", index, rate=22_050)
        (tmp_path / "metadata.csv").write_text("LJ001-0001|x|x\n", encoding="utf-8")
        dataset = load(tmp_path, pattern=None, sample_rate_hz=22_050)
        assert (dataset.classes, dataset.speakers) == ((), ())
        assert [len(dataset.split(split)) for split in SPLITS] == [16, 2, 2]

    def test_sub_folders_are_labels_unless_a_pattern_says_otherwise(self, tmp_path: Path) -> None:
        for word in ("dog", "cat"):
            for index in range(5):
                save(tmp_path / word / "deep" / f"{index}.wav", 1)
        dataset = load(tmp_path, pattern=None)
        assert (dataset.classes, dataset.speakers) == (("cat", "dog"), ())
        for split in map(dataset.split, SPLITS):
            assert [dataset.classes[label] for label in split.labels] == [name[:3] for name in split.names]
        dataset = load(tmp_path, pattern="{speaker}/{label}/*")
        assert (dataset.classes, dataset.speakers) == ((), ("cat", "dog"))
        save(tmp_path / "beside.wav", 1)
        assert "'beside.wav' is not: move the 1" in refusal(tmp_path, pattern=None)


class TestRefusals:
    def test_all_faults_are_named_and_counted_at_once(self, tmp_path: Path) -> None:
        fill(tmp_path)
        (tmp_path / "a_x_0.wav").write_bytes(b"")
        os.truncate(tmp_path / "a_x_1.wav", 50)
        soundfile.write(tmp_path / "a_x_2.wav", [0.1, np.nan], 8000, subtype="FLOAT")
        soundfile.write(tmp_path / "a_x_3.wav", np.zeros(99), 8000)
        (tmp_path / "a_x_10.wav").symlink_to(tmp_path / "a_x_9.wav")
        message = refusal(tmp_path, minimum_samples=16)
        assert "6 of 61 files" in message
        for part in (
            "'a_x_0.wav' is empty",
            "'a_x_1.wav' is truncated",
            "'a_x_2.wav' has 1 samples that are NaN",
            "'a_x_3.wav' is silent",
            "'a_x_4.wav' has 15 samples",
            "'a_x_10.wav' is a symbolic link",
            "data.skip_unreadable 6",
        ):
            assert part in message

    def test_skipping_is_asked_for_capped_recorded_and_moves_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fill(tmp_path)
        before = load(tmp_path)
        gone = {part[0] for part in names(before).values()}
        for name in gone:
            os.truncate(tmp_path / name, 0)
        assert "data.skip_unreadable admits 2" in refusal(tmp_path, skip_unreadable=2)
        after = load(tmp_path, skip_unreadable=3)
        assert set(after.skipped) == gone
        assert "left out 3 of 60 files" in capsys.readouterr().err
        for split in SPLITS:
            assert names(after)[split] == names(before)[split][1:]
            for old, new in zip(
                list(before.split(split).recordings())[1:], after.split(split).recordings(), strict=True
            ):
                np.testing.assert_array_equal(old, new)

    def test_nothing_left_of_a_split(self, tmp_path: Path) -> None:
        fill(tmp_path, indices=3)
        for path in tmp_path.glob("*_2.wav"):
            os.truncate(path, 0)
        rule = SplitRule(test_indices="2")
        assert "a readable recording for test" in refusal(tmp_path, split_rule=rule, skip_unreadable=99)

    def test_names_that_do_not_match(self, tmp_path: Path) -> None:
        fill(tmp_path)
        save(tmp_path / "a_x_3_old.wav", 1)
        save(tmp_path / "noise" / "a_x_3.wav", 1)
        message = refusal(tmp_path)
        assert "2 of 62 files do not match: 'a_x_3_old.wav', 'noise/a_x_3.wav'; correct recordings.pattern" in message
        assert len(everything(load(tmp_path, ignore=("*_old.wav", "noise/*")))) == 60
        assert "60 of 60 files do not match" in refusal(
            tmp_path, pattern="{label}/{index}", ignore=("*old*", "noise/*")
        )

    def test_folders_without_recordings(self, tmp_path: Path) -> None:
        assert "not there" in refusal(tmp_path / "absent")
        (tmp_path / "file").write_bytes(b"")
        assert "is a file" in refusal(tmp_path / "file")
        assert "(1 others, 0 passed over by recordings.ignore)" in refusal(tmp_path)
        save(tmp_path / "a.wav", 1)
        assert "(1 others, 1 passed over by recordings.ignore)" in refusal(tmp_path, ignore=("*.wav",))
        with pytest.raises(UsageError, match=r"--data\.path"):
            load_recordings(None, sample_rate_hz=8000)

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        fill(tmp_path / "secret")
        root = tmp_path / "data"
        fill(root)
        (root / "outside").symlink_to(tmp_path / "secret")
        (root / "circle").symlink_to(root)
        (root / "notes").symlink_to(root / "absent.txt")
        message = refusal(root)
        assert "2 of 62 files" in message
        assert "'circle' is a symbolic link, 'outside' is a symbolic link" in message

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
    def test_a_pipe_with_the_name_of_a_recording_is_not_waited_for(self, tmp_path: Path) -> None:
        fill(tmp_path)
        os.mkfifo(tmp_path / "pipe.wav")
        assert "'pipe.wav' is no regular file" in refusal(tmp_path)

    def test_more_than_the_memory_holds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object, **__: object) -> None:
            raise MemoryError

        fill(tmp_path)
        monkeypatch.setattr(folder, "decode_recording", full)
        assert "0 of 60 files" in refusal(tmp_path)


def test_fsdd() -> None:
    root = os.environ.get("TWOSTAGE_DATA")
    if not root or not (Path(root) / "fsdd").is_dir():
        pytest.skip("TWOSTAGE_DATA names no folder with fsdd/")
    path = Path(root) / "fsdd"
    dataset = load(path, split_rule=SplitRule(test_indices="0-4", validation_indices="5-9"))
    assert [len(dataset.split(split)) for split in SPLITS] == [2400, 300, 300]
    assert dataset.classes == tuple("0123456789")
    assert len(dataset.speakers) == 6
    for split, indices in (("test", range(5)), ("validation", range(5, 10)), ("train", range(10, 50))):
        assert {int(name[:-5].split("_")[2]) for name in names(dataset)[split]} == set(indices)
    row = dataset.test.names.index("7_theo_3.flac")
    np.testing.assert_array_equal(dataset.test.recording(row), soundfile.read(path / "7_theo_3.flac", dtype="int16")[0])
    minutes = sum(dataset.durations_seconds(split).sum() for split in SPLITS) / 60
    assert 21.8 < minutes < 21.9
    assert dataset.sha256[:12] == "66cd1ccda222"
