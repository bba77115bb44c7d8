"""Names of classes and speakers: one spelling everywhere, numbers in their order, and no index taken for a name."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from twostage.class_names import MOST_FILE_BYTES, as_file_name, composed, in_order, number_of, place_of
from twostage.config.model_names import near_matches
from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.data.audio import AudioDataset, load_recordings
from twostage.data.audio.pattern import Fields, name_pattern
from twostage.data.audio.splits import SplitRule
from twostage.errors import UsageError

CAFE, JOSE = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "jos\N{LATIN SMALL LETTER E WITH ACUTE}"


def apart(name: str) -> str:
    """The name as macOS writes it."""
    taken_apart = unicodedata.normalize("NFD", name)
    assert taken_apart != name
    return taken_apart


class TestNames:
    def test_numbers_are_in_the_order_of_their_values(self) -> None:
        assert in_order(["10", "2", "1", "12"]) == ("1", "2", "10", "12")
        assert in_order(["07", "7", "6"]) == ("6", "07", "7")
        assert in_order(["10", "2", "b"]) == ("10", "2", "b")
        assert in_order([]) == ()

    def test_a_name_is_found_in_either_form(self) -> None:
        assert number_of(CAFE, ("a", CAFE)) == number_of(apart(CAFE), ("a", CAFE)) == 1
        assert number_of("cafe", ("a", CAFE)) is None

    def test_a_number_is_a_place_only_where_no_name_is_a_number(self) -> None:
        assert [place_of(text, ("cat", "dog")) for text in ("0", "1", "2", "-1", "x", "", "1" * 30)] == [
            0, 1, None, None, None, None, None,
        ]  # fmt: skip
        for number in ("1", "12", "-3", "1.5", "1,5", "٣"):
            assert place_of("0", (number, "cat")) is None
        assert place_of("0", ("3d", "v2")) == 0

    @pytest.mark.parametrize(
        ("name", "part"),
        [
            ("T-shirt/top", "T-shirt_top"),
            ("..", ".."),
            ('a\\b:c*d?e"f<g>h|i j\tk', "a_b_c_d_e_f_g_h_i_j_k"),
            ("$1 & 'x'`;%", "_1____x____"),
            ("日本", "日本"),
            ("हिन्दी", "हिन्दी"),
            (apart(CAFE), CAFE),
        ],
    )
    def test_a_name_becomes_part_of_a_file_name(self, name: str, part: str) -> None:
        assert as_file_name(name) == part

    def test_a_long_name_is_cut_between_characters(self) -> None:
        assert as_file_name("日" * 100) == "日" * (MOST_FILE_BYTES // 3)
        assert as_file_name("x" * 300) == "x" * MOST_FILE_BYTES

    def test_what_was_meant_is_found_in_either_form_and_case(self) -> None:
        assert near_matches(apart("Cafés"), [CAFE, "dog"]) == f" Did you mean {CAFE}?"
        assert near_matches("CAFÉ", [apart(CAFE)]) == f" Did you mean {apart(CAFE)}?"


def _save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), len(path.as_posix()) % 256).save(path)


def test_image_folders_of_one_name_in_two_forms_are_one_class(tmp_path: Path) -> None:
    for index in range(6):
        _save_image(tmp_path / "fit" / apart(CAFE) / f"{index}.png")
        _save_image(tmp_path / "fit" / "dog" / f"{index}.png")
    _save_image(tmp_path / "try" / CAFE / "0.png")
    _save_image(tmp_path / "try" / "dog" / "0.png")
    config = DataConfig(name="images", path=str(tmp_path), image_size=4, train_folder="fit", test_folder="try")
    dataset = load_dataset(config)
    assert dataset.classes == (CAFE, "dog")
    assert sorted(dataset.test.labels.tolist()) == [0, 1]


def test_folders_1_to_12_are_labels_in_that_order(tmp_path: Path) -> None:
    for name in range(1, 13):
        for index in range(2):
            _save_image(tmp_path / str(name) / f"{index}.png")
    dataset = load_dataset(DataConfig(name="images", path=str(tmp_path), image_size=4))
    assert dataset.classes == tuple(str(name) for name in range(1, 13))


class TestRecordings:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Two speakers, one of whom is written in both forms, behind a word that is written in one."""
        for index in range(6):
            for speaker in (JOSE, apart(JOSE), "ann"):
                path = tmp_path / f"{apart(CAFE)}_{speaker}_{index + 10 * (speaker == JOSE)}.wav"
                samples = np.arange(20, dtype=np.int16) + np.int16(index + len(speaker) * 100 + (speaker == JOSE))
                soundfile.write(path, samples, 8000)
        return tmp_path

    def load(self, folder: Path, **settings: object) -> AudioDataset:
        pattern = f"{CAFE}_{{speaker}}_{{index}}"
        return load_recordings(str(folder), sample_rate_hz=8000, pattern=pattern, **settings)  # type: ignore[arg-type]

    def test_names_match_a_pattern_in_the_other_form(self, folder: Path) -> None:
        dataset = self.load(folder)
        assert dataset.speakers == ("ann", JOSE)
        for form in (composed, apart):
            pattern = name_pattern(form(CAFE) + "/{speaker}_{index}")
            for other in (composed, apart):
                assert pattern.match(f"{other(CAFE)}/{other(JOSE)}_3.wav") == Fields(None, JOSE, 3)

    @pytest.mark.parametrize("form", [composed, apart])
    def test_speakers_lists_and_patterns_of_either_form_hold_out(self, folder: Path, form: object) -> None:
        assert callable(form)
        held_out = self.load(folder, split_rule=SplitRule(test_speakers=(form(JOSE),)))
        assert set(held_out.test.speakers.tolist()) == {1}
        assert len(held_out.test) == 12
        (folder / "list.txt").write_text(f"{form(CAFE)}_{form(JOSE)}_3.wav\n", encoding="utf-8")
        listed = self.load(folder, split_rule=SplitRule(test_list="list.txt"))
        assert [composed(name) for name in listed.test.names] == [f"{CAFE}_{JOSE}_3.wav"]
        ignored = self.load(folder, ignore=(f"*_{form(JOSE)}_*",))
        assert sum(len(ignored.split(split)) for split in ("train", "validation", "test")) == 6

    def test_an_unknown_speaker_comes_with_a_hint(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=f"Did you mean {JOSE}"):
            self.load(folder, split_rule=SplitRule(test_speakers=(apart("José") + "e",)))
