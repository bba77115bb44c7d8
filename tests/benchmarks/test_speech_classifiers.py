"""What classifiers hear in sounds they were not trained on, and how it is counted."""

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import speech_classifiers as speech
from named_sounds import NOBODY, Sounds, read_sounds, sounds_of
from trained_classifiers import Classifiers, Reading, features, mel_settings, train_classifiers

from twostage.data.audio import AudioDataset, AudioSplit, load_recordings, load_synthetic_vowels
from twostage.data.audio.splits import SplitRule
from twostage.errors import DataError, UsageError

VOWELS = load_synthetic_vowels()
SETTINGS = mel_settings(VOWELS.sample_rate_hz)
TITLE = "test recordings"


@pytest.fixture(scope="module")
def classifiers() -> Classifiers:
    return train_classifiers(VOWELS)


def a_score(**shares: speech.Share | None) -> speech.Score:
    return speech.Score(**{"title": "sounds", "label": None, "speaker": None, "misheard": (), **shares})  # type: ignore[arg-type]


class Deaf:
    """Hears what it was told to."""

    def __init__(self, labels: list[int], speakers: list[int] | None) -> None:
        self.reading = Reading(np.array(labels), None if speakers is None else np.array(speakers))

    def read(self, recordings: Any) -> Reading:
        return self.reading


def write(folder: Path, names: list[str], sounds: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, samples_S in zip(names, sounds, strict=True):
        soundfile.write(folder / f"{name}.wav", samples_S, VOWELS.sample_rate_hz, subtype="PCM_16")
    return folder


def test_unheard_vowels_are_read_right(classifiers: Classifiers) -> None:
    found = speech.score(classifiers, sounds_of(TITLE, VOWELS.test, VOWELS), VOWELS)
    assert found.label is not None
    assert found.speaker is not None
    assert min(found.label.value, found.speaker.value) > 0.95
    assert found.label.of == 60


def test_wrong_answers_are_counted_as_wrong(classifiers: Classifiers) -> None:
    """Every vowel under the next one's name."""
    sounds = sounds_of(TITLE, VOWELS.test, VOWELS)
    assert sounds.labels is not None
    renamed = Sounds(TITLE, sounds.recordings, (sounds.labels + 1) % len(VOWELS.classes), sounds.speakers)
    found = speech.score(classifiers, renamed, VOWELS)
    assert found.label is not None
    assert found.label.value < 0.05
    assert len(found.misheard) == 3
    assert re.fullmatch(r"[aeiou] -> [aeiou] \(\d+\)", found.misheard[0])


def test_loudness_does_not_count() -> None:
    """Not even where the spectrogram's floor would swallow the sound."""
    samples_S = VOWELS.test.recording(3)
    loud_F, quiet_F = (features(part, SETTINGS) for part in (samples_S, samples_S * 1e-4))
    np.testing.assert_allclose(loud_F, quiet_F, atol=1e-3)


def test_silence_around_does_not_count() -> None:
    """Apart from where frames fall: silence is a whole number of hops."""
    samples_S = VOWELS.test.recording(3)
    silence = np.zeros(10 * SETTINGS.hop, dtype=np.int16)
    padded_S = np.concatenate([silence, samples_S, silence])
    np.testing.assert_allclose(features(padded_S, SETTINGS), features(samples_S, SETTINGS), atol=0.05, rtol=0.02)


def test_a_sound_of_one_sample_and_one_of_zeros_can_be_looked_at() -> None:
    for samples_S in (np.array([7], dtype=np.int16), np.zeros(500, dtype=np.int16)):
        assert np.isfinite(features(samples_S, SETTINGS)).all()


def test_training_is_the_same_every_time(classifiers: Classifiers) -> None:
    again = train_classifiers(VOWELS)
    assert classifiers.label is not None
    assert again.label is not None
    seen_NF = np.stack([features(samples_S, SETTINGS) for samples_S in VOWELS.validation.recordings()])
    np.testing.assert_array_equal(again.label.decision_function(seen_NF), classifiers.label.decision_function(seen_NF))


def test_shares_have_their_standard_error() -> None:
    assert str(speech.share(np.array([True, True, True, False]))) == "75.0% ± 21.7%"


def test_a_file_that_cannot_be_read_counts_as_not_heard(
    tmp_path: Path, classifiers: Classifiers, capsys: pytest.CaptureFixture[str]
) -> None:
    vowel_S = VOWELS.test.recording(0)
    folder = write(tmp_path / "w", ["a_high_0", "a_high_1"], [vowel_S, np.zeros(900, dtype=np.int16)])
    sounds = read_sounds(folder, speech.PATTERNS, VOWELS)
    assert sounds.recordings[1] is None
    assert "1 of 2 files" in capsys.readouterr().err
    found = speech.score(classifiers, sounds, VOWELS)
    assert found.label == speech.Share(hits=1, of=2)
    assert found.misheard == ("a -> nothing (1)",)


def test_names_say_label_and_speaker_and_may_say_less(tmp_path: Path) -> None:
    vowel_S = VOWELS.test.recording(0)
    folder = write(tmp_path / "x" / "y", ["u_low_3", "e_middle_4"], [vowel_S, vowel_S])
    sounds = read_sounds(tmp_path, ["**/{label}_{speaker}_{index}"], VOWELS)
    assert sounds.labels is not None
    assert sounds.speakers is not None
    assert [VOWELS.classes[label] for label in sounds.labels] == ["e", "u"]
    assert [VOWELS.speakers[speaker] for speaker in sounds.speakers] == ["middle", "low"]
    less = read_sounds(folder, ["{label}_*"], VOWELS)
    assert less.speakers is None
    assert less.targets is None


def test_names_of_the_projects_own_sounds_are_understood(tmp_path: Path) -> None:
    names = ["u_low_3-reconstructed", "sound-0007-i-middle", "vq-vae-loss-sound-0000-a-high"]
    folder = write(tmp_path / "w", names, [VOWELS.test.recording(0)] * 3)
    sounds = read_sounds(folder, speech.PATTERNS, VOWELS)
    assert sounds.labels is not None
    assert sounds.speakers is not None
    assert [VOWELS.classes[label] for label in sounds.labels] == ["i", "u", "a"]
    assert [VOWELS.speakers[speaker] for speaker in sounds.speakers] == ["middle", "low", "high"]
    write(folder, ["sound-0008-e"], [VOWELS.test.recording(0)])
    assert read_sounds(folder, speech.PATTERNS, VOWELS).speakers is None


@pytest.mark.parametrize(
    ("names", "pattern", "sentence"),
    [
        (["a_high_0", "rubbish"], "{label}_{speaker}_{index}", "1 of 2 do not match"),
        (["y_high_0"], "{label}_{speaker}_{index}", "expected labels of the data set .* y came"),
        (["a_theo_0"], "{label}_{speaker}_{index}", "expected speakers of the data set .* theo came"),
        (["a_high_0-as-theo"], "{label}_{source}_{index}-as-{target}", "expected speakers .* theo came"),
        ([], "{label}_{speaker}_{index}", "expected WAV files"),
    ],
)
def test_names_that_say_something_else_are_refused(
    tmp_path: Path, names: list[str], pattern: str, sentence: str
) -> None:
    folder = write(tmp_path / "w", names, [VOWELS.test.recording(0)] * len(names))
    with pytest.raises(DataError, match=sentence):
        read_sounds(folder, [pattern], VOWELS)


def test_conversions_name_two_speakers(tmp_path: Path) -> None:
    folder = write(tmp_path / "w", ["a_high_0-as-low"], [VOWELS.test.recording(0)])
    sounds = read_sounds(folder, speech.CONVERSION_PATTERNS, VOWELS)
    assert sounds.speakers is not None
    assert sounds.targets is not None
    assert (VOWELS.speakers[sounds.speakers[0]], VOWELS.speakers[sounds.targets[0]]) == ("high", "low")


def conversions(sources: list[int], targets: list[int]) -> Sounds:
    labels = np.zeros(len(sources), dtype=np.int64)
    return Sounds("conversions", (None,) * len(sources), labels, np.array(sources), np.array(targets))


def test_target_source_and_another_are_told_apart_and_kept_voices_left_out() -> None:
    sounds = conversions([0, 0, 1, 1, 2, 2], [1, 2, 2, 0, 0, 2])
    deaf: Any = Deaf(labels=[0, 0, 0, 1, 0, 1], speakers=[1, 2, 1, 2, NOBODY, 2])
    found = speech.score_conversions(deaf, sounds)
    assert (found.target.hits, found.source.hits, found.other.hits) == (2, 1, 2)
    assert {found.target.of, found.source.of, found.other.of} == {5}
    assert found.label == speech.Share(hits=4, of=5)
    assert found.kept == 1
    lines = speech.conversion_lines([found], a_score(label=speech.Share(9, 10)))
    assert "| conversions | 5 | 40.0% ± 21.9% | 20.0% ± 17.9% | 40.0% ± 21.9% | 80.0% ± 17.9% | 88.9% |" in lines
    assert "1 of conversions" in lines[-1]


def test_conversions_without_speakers_or_to_the_same_one_are_refused() -> None:
    deaf: Any = Deaf(labels=[0], speakers=None)
    with pytest.raises(UsageError, match="expected source and target speakers"):
        speech.score_conversions(deaf, conversions([0], [1]))
    deaf = Deaf(labels=[0], speakers=[0])
    with pytest.raises(UsageError, match="every target is the source"):
        speech.score_conversions(deaf, conversions([1], [1]))


def test_a_table_shows_dashes_where_nothing_was_asked() -> None:
    lines = speech.score_lines([a_score(label=speech.Share(3, 4))], a_score(label=speech.Share(4, 4)))
    assert lines[-1] == "| sounds | 4 | 75.0% ± 21.7% | 75.0% | - | - | - |"


def without_names(dataset: AudioDataset, **changes: Any) -> AudioDataset:
    fields = {name: getattr(dataset, name) for name in dataset.__dataclass_fields__}
    return AudioDataset(**{**fields, **changes})


def thinned(split: AudioSplit, every: int) -> AudioSplit:
    rows = np.arange(0, len(split), every)
    sounds = [split.recording(int(row)) for row in rows]
    offsets = np.cumsum([0, *map(len, sounds)], dtype=np.int64)
    names = tuple(split.names[row] for row in rows)
    return AudioSplit(np.concatenate(sounds), offsets, split.labels[rows], split.speakers[rows], names)


def test_a_data_set_may_have_labels_alone_but_not_nothing() -> None:
    small = thinned(VOWELS.train, 3)
    mute = train_classifiers(without_names(VOWELS, train=small, speakers=()))
    assert mute.speaker is None
    found = speech.score(mute, sounds_of(TITLE, VOWELS.test, VOWELS), VOWELS)
    assert found.speaker is None
    assert found.label is not None
    with pytest.raises(UsageError, match="neither"):
        train_classifiers(without_names(VOWELS, classes=(), speakers=()))
    with pytest.raises(UsageError, match="4000"):
        train_classifiers(without_names(VOWELS, sample_rate_hz=4000))


def test_the_command_scores_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of its own as data; reconstructions that are originals, conversions that are the target's own vowels."""
    names: list[str] = []
    sounds: list[np.ndarray] = []
    for split in (VOWELS.test, VOWELS.validation, VOWELS.train):
        keep = [row for row, name in enumerate(split.names) if int(name.rpartition("_")[2]) < 18]
        names += [split.names[row] for row in keep]
        sounds += [split.recording(row) for row in keep]
    data = write(tmp_path / "data", names, sounds)
    held_out = [row for row, name in enumerate(names) if name.endswith("_0")]
    wavs = write(tmp_path / "wavs", [names[row] for row in held_out], [sounds[row] for row in held_out])
    to_low = [f"{names[row].replace('low', 'high')}-as-low" for row in held_out if "low" in names[row]]
    converted = write(tmp_path / "to", to_low, [sounds[row] for row in held_out if "low" in names[row]])
    command = ["score", "--data", str(data), "--test-indices", "0-3", "--validation-indices", "4-5"]
    monkeypatch.setattr(
        sys, "argv", ["speech_classifiers.py", *command, "--wavs", str(wavs), "--conversions", str(converted)]
    )
    speech.main()
    out = capsys.readouterr().out
    assert "Trained on 180 training recordings" in out
    assert re.search(r"\| test recordings \| 60 \| 9\d.\d% ± \d.\d% \| 100.0% ", out) or "| 60 | 100.0%" in out
    assert re.search(rf"\| {re.escape(str(wavs))} \| 15 \| (100.0|93.3)%", out)
    assert re.search(rf"\| {re.escape(str(converted))} \| 5 \| (100.0|80.0)% ± \d+.\d% \| 0.0%", out)


def test_a_wrong_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speech_classifiers.py", "check", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        speech.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("expected recordings in")


@pytest.mark.skipif("TWOSTAGE_DATA" not in os.environ, reason="TWOSTAGE_DATA names no folder of real recordings")
def test_real_digits_are_read_right() -> None:
    dataset = load_recordings(
        str(Path(os.environ["TWOSTAGE_DATA"]) / "fsdd"),
        sample_rate_hz=8000,
        pattern="{label}_{speaker}_{index}",
        split_rule=SplitRule(test_indices="0-4", validation_indices="5-9"),
    )
    trained = train_classifiers(without_names(dataset, train=thinned(dataset.train, 4)))
    found = speech.score(trained, sounds_of("validation", dataset.validation, dataset), dataset)
    assert found.label is not None
    assert found.speaker is not None
    assert found.label.value > 0.9
    assert found.speaker.value > 0.93
