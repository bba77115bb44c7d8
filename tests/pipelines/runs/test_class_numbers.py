"""Labels and speakers by number: which have training items, what is said of the others, and the report's list."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twostage.data import ImageDataset, Split
from twostage.data.audio import AudioDataset, load_synthetic_vowels
from twostage.errors import UsageError
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.html import audio_element, image, page, table
from twostage_pipelines.report.class_section import class_section
from twostage_pipelines.runs.class_numbers import (
    class_number,
    labels_of,
    tell_untrained,
    trained_names,
    trained_numbers,
    warn_of_untrained_labels,
)

STRANGE = ("$1 to $5", "_x_", """<img src=x onerror="alert('1')">&amp;""")


def _images(labels: dict[str, list[int]], classes: tuple[str, ...]) -> ImageDataset:
    splits = {
        name: Split(images=np.zeros((len(rows), 1, 2, 2), np.uint8), labels=np.array(rows, np.int64))
        for name, rows in labels.items()
    }
    return ImageDataset(name="images", levels=256, classes=classes, **splits)


IMAGES = _images({"train": [2, 0, 2], "validation": [0], "test": [1, 1, 2]}, STRANGE)


@pytest.fixture(scope="module")
def vowels() -> AudioDataset:
    """Of five vowels in three voices only the last vowel, by the last voice, is trained on."""
    whole = load_synthetic_vowels()
    labels, speakers = np.full_like(whole.train.labels, 4), np.full_like(whole.train.speakers, 2)
    return replace(whole, train=replace(whole.train, labels=labels, speakers=speakers))


def test_the_record_names_what_was_trained_on(vowels: AudioDataset) -> None:
    assert trained_names(IMAGES) == {"trained_labels": [STRANGE[0], STRANGE[2]], "trained_speakers": []}
    assert trained_names(replace(IMAGES, classes=())) == {"trained_labels": [], "trained_speakers": []}
    assert trained_names(vowels) == {
        "trained_labels": [vowels.classes[4]],
        "trained_speakers": [vowels.speakers[2]],
    }


def test_what_was_met_in_training_takes_turns() -> None:
    record = {"classes": ["a", "b", "c"], "trained_labels": ["c", "a"], "speakers": [], "trained_speakers": []}
    assert trained_numbers(record, "labels") == [0, 2]
    assert trained_numbers(record, "speakers") == []
    assert labels_of(3, label=None, record=record) == [0, 2, 0]
    assert labels_of(3, label=None, record={**record, "trained_labels": ["b"]}) == [1, 1, 1]
    assert labels_of(3, label=None, record=record, conditioned=False) == []


def test_no_labels_are_named_as_such() -> None:
    with pytest.raises(UsageError, match=r"--label 0 names a label, but .* have no labels .* leave the flag out"):
        class_number("0", (), flag="--label")


def test_labels_and_speakers_without_training_items_are_named(
    vowels: AudioDataset, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_untrained(load_synthetic_vowels())
    assert capsys.readouterr().err == ""
    tell_untrained(IMAGES)
    said = capsys.readouterr().err
    assert said.startswith("warning: labels without a training item, 1 of 3: _x_; generate refuses them")
    tell_untrained(vowels)
    labels, speakers = capsys.readouterr().err.splitlines()
    assert f"labels without a training item, 4 of 5: {', '.join(vowels.classes[:4])};" in labels
    assert f"speakers without a training item, 2 of 3: {', '.join(vowels.speakers[:2])};" in speakers


def test_an_evaluation_on_labels_never_met_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_untrained_labels(IMAGES, "validation")
    assert capsys.readouterr().err == ""
    warn_of_untrained_labels(IMAGES, "test")
    assert "the test items have labels without a training item (_x_)" in capsys.readouterr().err


def test_a_training_begins_with_the_labels_that_it_does_not_see(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, names in (("fit", ("1", "2", "10")), ("try", ("2", "11"))):
        for name in names:
            for index in range(8):
                path = tmp_path / folder / name / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), 10 * int(name) + index).save(path)
    flags = "--data.image-size 8 --data.train-folder fit --data.test-folder try --codebook-training.batch-size 4"
    small = "--quantiser.codebook-size 8 --stage1.downsampling 2 --codebook-training.precision fp32 --dry-run"
    command = ["train-codebook", "images", "--data.path", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main([*command, *flags.split(), *small.split()]) == 0
    assert capsys.readouterr().err.count("labels without a training item, 1 of 4: 11;") == 1


class _Page(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_lists_number_and_items_of_every_label_and_speaker(vowels: AudioDataset) -> None:
    listed = _Page(class_section(IMAGES)).texts
    assert listed == [
        "Labels", "label", "number", "training items", "validation items", "test items",
        STRANGE[0], "0", "1", "1", "0",
        STRANGE[1], "1", "0", "0", "2",
        STRANGE[2], "2", "2", "0", "1",
    ]  # fmt: skip
    sounds = _Page(class_section(vowels)).texts
    assert sounds[sounds.index(vowels.speakers[2]) + 1 :] == ["2", "480", "20", "20"]
    assert class_section(replace(IMAGES, classes=())) == ""
    many = _images({"train": [0], "validation": [0], "test": [0]}, tuple(str(number) for number in range(100)))
    assert ("details", {}) in _Page(class_section(many)).elements


@pytest.mark.parametrize("name", STRANGE)
def test_a_page_holds_names_as_text(name: str) -> None:
    parts = [image(b"", name), table([name], [[name]]), audio_element(np.arange(9, dtype=np.int16), 8000, name)]
    plain = [image(b"", "x"), table(["x"], [["x"]]), audio_element(np.arange(9, dtype=np.int16), 8000, "x")]
    found, expected = _Page(page(name, parts)), _Page(page("x", plain))
    assert found.texts.count(name) == expected.texts.count("x") == 6
    assert [(tag, list(given)) for tag, given in found.elements] == [
        (tag, list(given)) for tag, given in expected.elements
    ]
    assert [given[key] for _, given in found.elements for key in ("alt", "aria-label") if key in given] == [name] * 2
