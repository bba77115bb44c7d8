"""Segments at places of an epoch, whole recordings in batches, and padding that can be told apart."""

import numpy as np
import pytest

from twostage.data.audio import AudioSplit, RecordingBatch, length_batches, whole_batch
from twostage.data.audio.segments import segment_count, segments_at

LENGTHS = (5, 100, 33, 8, 1, 64)


def make(lengths: tuple[int, ...] = LENGTHS) -> AudioSplit:
    """Sample j of recording i is 1000 i + j + 1: never 0, and it says where it comes from."""
    return AudioSplit(
        samples=np.concatenate([1000 * row + 1 + np.arange(length) for row, length in enumerate(lengths)]).astype(
            np.int16
        ),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        labels=np.arange(len(lengths)) % 3,
        speakers=np.arange(len(lengths)) % 2,
        names=tuple(map(str, range(len(lengths)))),
    )


def draw(split: AudioSplit, seed: int, *, count: int = 7) -> RecordingBatch:
    """`count` segments of 16 samples, anywhere."""
    generator = np.random.default_rng(seed)
    places_B = generator.integers(segment_count(split, segment_samples=16), size=count)
    return segments_at(split, places_B, generator.integers(2**32, size=count), segment_samples=16)


class TestSegments:
    def test_pieces_are_where_they_say(self) -> None:
        split = make()
        for step in range(50):
            batch = draw(split, step)
            assert batch.samples.shape == batch.mask.shape == (7, 16)
            for row in range(7):
                item, offset = int(batch.items[row]), int(batch.offsets[row])
                piece = split.recording(item)[offset : offset + 16]
                assert len(piece) == min(16, LENGTHS[item])
                assert batch.samples[row, : len(piece)].tolist() == piece.tolist()
                assert batch.samples[row, len(piece) :].tolist() == [0] * (16 - len(piece))
                assert batch.mask[row].tolist() == [True] * len(piece) + [False] * (16 - len(piece))
                assert (batch.labels[row], batch.speakers[row]) == (item % 3, item % 2)
                assert batch.lengths[row] == len(piece)

    def test_an_epoch_reads_recordings_in_proportion_to_their_begun_segments(self) -> None:
        split, shares = make(), [-(-length // 16) for length in LENGTHS]
        places = np.random.default_rng(0).permutation(segment_count(split, segment_samples=16))
        items = segments_at(split, places, np.zeros(len(places), dtype=np.int64), segment_samples=16).items
        assert np.bincount(items).tolist() == shares

    def test_every_offset_is_drawn_about_as_often(self) -> None:
        split = make((20,))
        offsets = np.concatenate([draw(split, step, count=50).offsets for step in range(100)])
        counts = np.bincount(offsets, minlength=5)
        assert len(counts) == 5
        assert counts.min() > 900

    def test_a_recording_as_long_as_the_segment_is_read_whole(self) -> None:
        batch = draw(make((16,)), 0)
        assert batch.mask.all()
        assert set(batch.offsets.tolist()) == {0}

    def test_a_segment_has_samples(self) -> None:
        with pytest.raises(ValueError, match="expected segment_samples >= 1"):
            segment_count(make(), segment_samples=0)


class TestWhole:
    @pytest.mark.parametrize("multiple", [1, 8, 64])
    def test_recordings_are_whole_and_padding_is_masked(self, multiple: int) -> None:
        split = make()
        batch = whole_batch(split, [2, 0, 3], multiple=multiple)
        assert batch.samples.shape[1] == -(-33 // multiple) * multiple
        for row, item in enumerate((2, 0, 3)):
            assert batch.samples[row][batch.mask[row]].tolist() == split.recording(item).tolist()
            assert not batch.samples[row][~batch.mask[row]].any()
            assert batch.mask[row].tolist() == sorted(batch.mask[row].tolist(), reverse=True)
        assert batch.lengths.tolist() == [33, 5, 8]
        assert batch.offsets.tolist() == [0, 0, 0]

    def test_every_recording_is_in_one_batch_and_batches_are_small_enough(self) -> None:
        lengths = np.random.default_rng(0).integers(1, 500, 300)
        batches = length_batches(lengths, most_samples=2000)
        assert sorted(np.concatenate(batches).tolist()) == list(range(300))
        assert all(len(batch) * lengths[batch].max() <= 2000 for batch in batches)
        sizes = [len(batch) * lengths[batch].max() for batch in batches]
        padded = sum(sizes) / lengths.sum()
        assert padded < 1.1
        assert lengths[batches[0]].max() == lengths.max()

    def test_a_recording_beyond_the_limit_is_a_batch_of_its_own(self) -> None:
        assert [batch.tolist() for batch in length_batches(np.array([3, 900, 4]), most_samples=8)] == [[1], [2, 0]]


class TestSplit:
    def test_recordings_are_views(self) -> None:
        split = make()
        assert [len(samples) for samples in split.recordings()] == list(LENGTHS) == split.lengths.tolist()
        assert np.shares_memory(split.recording(1), split.samples)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"names": ("a",)},
            {"offsets": np.array([0, 2, 2])},
            {"offsets": np.array([0, 2, 5])},
            {"offsets": np.array([1, 2, 4])},
            {"samples": np.zeros(4)},
        ],
    )
    def test_parts_that_do_not_belong_together(self, wrong: dict[str, object]) -> None:
        parts = {
            "samples": np.zeros(4, dtype=np.int16),
            "offsets": np.array([0, 2, 4]),
            "labels": np.zeros(2, dtype=np.int64),
            "speakers": np.zeros(2, dtype=np.int64),
            "names": ("a", "b"),
        }
        AudioSplit(**parts)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="expected"):
            AudioSplit(**{**parts, **wrong})  # type: ignore[arg-type]


def test_segments_may_begin_at_multiples_and_then_reach_every_sample() -> None:
    split = make()
    places_N = np.arange(segment_count(split, segment_samples=16))
    seen = {item: set[int]() for item in range(len(LENGTHS))}
    begins = {item: set[int]() for item in range(len(LENGTHS))}
    for draw_number in np.linspace(0, 2**32 - 1, 60).astype(np.int64):
        draws_N = np.full(len(places_N), draw_number)
        batch = segments_at(split, places_N, draws_N, segment_samples=16, multiple=8)
        for item, offset, mask in zip(batch.items.tolist(), batch.offsets.tolist(), batch.mask, strict=True):
            assert mask.sum() == min(16, LENGTHS[item] - offset)
            begins[item].add(offset)
            seen[item] |= set(range(offset, offset + int(mask.sum())))
    assert all(len(seen[item]) == length for item, length in enumerate(LENGTHS))
    assert begins[1] == set(range(0, 96, 8))
    assert begins[2] == {0, 8, 16, 24}
    assert begins[0] == begins[4] == {0}
