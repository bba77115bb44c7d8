"""Items of every kind as files and arrays: batches that hold every item once, and what comes back from a decoder."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from twostage import distributed
from twostage.config.schema import EvaluationConfig, Recipe
from twostage.data import Split
from twostage.data.audio import AudioSplit
from twostage_pipelines.modality.audio_files import AudioFiles
from twostage_pipelines.modality.files import Files
from twostage_pipelines.modality.image_files import ImageFiles

CPU = torch.device("cpu")
CONDITIONAL, FREE = SimpleNamespace(classes=3, speakers=2), SimpleNamespace(classes=0, speakers=0)


def images() -> Split:
    numbers = np.random.default_rng(0)
    return Split(numbers.integers(0, 9, (7, 1, 2, 3)).astype(np.uint8), numbers.integers(0, 3, 7))


def recordings() -> AudioSplit:
    numbers, lengths = np.random.default_rng(0), [5, 90, 1, 40, 41, 7, 64]
    return AudioSplit(
        samples=numbers.integers(-99, 99, sum(lengths)).astype(np.int16),
        offsets=np.cumsum([0, *lengths]),
        labels=numbers.integers(0, 3, 7),
        speakers=numbers.integers(0, 2, 7),
        names=tuple("abcdefg"),
    )


def small(recipe: Recipe | None = None) -> Recipe:
    return replace(recipe or Recipe(), evaluation=EvaluationConfig(batch_size=3, batch_samples=100))


@pytest.fixture(params=[(ImageFiles(), images), (AudioFiles(), recordings)], ids=["images", "recordings"])
def kind(request: pytest.FixtureRequest) -> tuple[Files, Any]:
    files, make = request.param
    return files, make()


def _own(files: Files, split: Any, item: int) -> np.ndarray:
    return split.images[item] if isinstance(split, Split) else split.recording(item)


def test_batches_hold_every_item_once_with_its_labels_and_length(kind: tuple[Files, Any]) -> None:
    files, split = kind
    seen: list[int] = []
    for items_B, batch in files.batches(split, CONDITIONAL, recipe=small(), device=CPU):
        seen += items_B.tolist()
        assert batch.items.tolist() == items_B.tolist()
        assert batch.labels is not None
        assert batch.labels.tolist() == split.labels[items_B].tolist()
        for row, item in enumerate(items_B.tolist()):
            own = _own(files, split, item)
            length = own.shape[-1] if batch.lengths is None else int(batch.lengths[row])
            assert length == own.shape[-1]
            assert np.array_equal(batch.x[row, ..., :length].numpy(), own)
    assert sorted(seen) == list(range(7))
    for _, batch in files.batches(split, FREE, recipe=small(), device=CPU):
        assert batch.labels is None
        assert batch.speakers is None


def test_batches_of_some_rows_keep_their_numbers(kind: tuple[Files, Any]) -> None:
    files, split = kind
    rows = np.array([6, 1, 3, 2])
    batches = list(files.batches(split, CONDITIONAL, recipe=small(), device=CPU, rows=rows))
    assert sorted(item for items_B, _ in batches for item in items_B.tolist()) == [1, 2, 3, 6]
    for items_B, batch in batches:
        assert np.array_equal(
            batch.x[0].numpy()[..., : _own(files, split, items_B[0]).shape[-1]], _own(files, split, items_B[0])
        )


def test_processes_share_the_batches_of_one(kind: tuple[Files, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    files, split = kind

    def numbers() -> list[list[int]]:
        return [items_B.tolist() for items_B, _ in files.batches(split, FREE, recipe=small(), device=CPU)]

    alone, shared = numbers(), []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for own in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda own=own: own)
        shared += numbers()
    assert sorted(shared) == sorted(alone)


def test_items_as_arrays_are_a_split_again(kind: tuple[Files, Any]) -> None:
    files, split = kind
    own = [_own(files, split, item) for item in range(7)]
    again = files.split_of(own, labels=split.labels.tolist(), speakers=split.speakers.tolist())
    assert all(np.array_equal(_own(files, again, item), own[item]) for item in range(7))
    assert again.labels.tolist() == split.labels.tolist()
    assert again.speakers.tolist() == split.speakers.tolist()


def test_what_a_decoder_gives_is_cut_to_the_length_of_each_item() -> None:
    wave = torch.tensor([[0.5, -1.0, 0.25], [1.0, 0.0, 0.0]])
    long, short = AudioFiles().made(wave, torch.tensor([3, 1]))
    assert long.tolist() == [16384, -32768, 8192]
    assert short.tolist() == [32767]
    mean = torch.rand(2, 1, 2, 3)
    assert np.array_equal(np.stack(ImageFiles().made(mean, None)), mean.numpy())
