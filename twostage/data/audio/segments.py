"""What training and evaluation read of a split: random segments of one length, or whole recordings, padded at the end.

An epoch has one segment per begun segment length of every recording, in random order, at a
random offset: every sample is equally likely to be read, apart from the ends of recordings, while one segment per
recording would read long ones less. Recordings shorter than a segment are read whole and padded.

Padding is silence (0) behind a mask; nothing may count where the mask is false.

Shapes: B items, S samples, N recordings of the split.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twostage.data.audio.dataset import AudioSplit


@dataclass(frozen=True)
class RecordingBatch:
    """Pieces of recordings of unequal length."""

    samples: np.ndarray
    """int16 [B, S]; 0 behind the end."""
    mask: np.ndarray
    """bool [B, S]: true for samples of the recording, which come first; false for padding."""
    labels: np.ndarray
    """int64 [B]."""
    speakers: np.ndarray
    """int64 [B]."""
    items: np.ndarray
    """Index of the recording in the split, int64 [B]."""
    offsets: np.ndarray
    """Where in the recording the piece begins, int64 [B]."""

    @property
    def lengths(self) -> np.ndarray:
        """Samples that are no padding, int64 [B]."""
        return self.mask.sum(axis=1, dtype=np.int64)


def segment_count(split: AudioSplit, *, segment_samples: int) -> int:
    """Segments of an epoch: one per begun segment length of every recording.

    Raises:
        ValueError: a segment below one sample.
    """
    return int(_ends(split, segment_samples)[-1])


def segments_at(
    split: AudioSplit, places_B: np.ndarray, draws_B: np.ndarray, *, segment_samples: int, multiple: int = 1
) -> RecordingBatch:
    """Segments `[B, segment_samples]` at places of an epoch.

    Args:
        split: where they come from.
        places_B: integers 0..segment_count - 1; each belongs to a recording.
        draws_B: integers below 2**32, evenly distributed: where in its recording a segment begins.
        segment_samples: S, at least 1.
        multiple: segments begin at multiples of it (of samples per code); the last of a recording may then be padded.

    Raises:
        ValueError: a segment below one sample.
    """
    items_B = _items_at(split, places_B, segment_samples)
    choices_B = -(-np.maximum(split.lengths[items_B] - segment_samples, 0) // multiple) + 1
    offsets_B = ((draws_B.astype(np.uint64) * choices_B.astype(np.uint64)) >> np.uint64(32)).astype(np.int64) * multiple
    return _gather(split, items_B, offsets_B, segment_samples)


def segment_lengths(split: AudioSplit, places_B: np.ndarray, *, segment_samples: int) -> np.ndarray:
    """Samples that are no padding, int64 [B], of segments at places of an epoch, wherever they begin (multiple 1)."""
    return np.minimum(split.lengths[_items_at(split, places_B, segment_samples)], segment_samples)


def _items_at(split: AudioSplit, places_B: np.ndarray, segment_samples: int) -> np.ndarray:
    """The recordings that the places belong to."""
    return np.searchsorted(_ends(split, segment_samples), places_B, side="right")


def _ends(split: AudioSplit, segment_samples: int) -> np.ndarray:
    """Where each recording's share of the places of an epoch ends, int64 [N]."""
    if segment_samples < 1:
        raise ValueError(f"expected segment_samples >= 1, but {segment_samples} came")
    return np.cumsum(-(-split.lengths // segment_samples))


def whole_batch(split: AudioSplit, items: Sequence[int] | np.ndarray, *, multiple: int = 1) -> RecordingBatch:
    """Whole recordings, padded to the longest of them, rounded up to a multiple (of samples per code).

    Args:
        split: where they come from.
        items: indices of recordings, at least one.
        multiple: S is a multiple of it.
    """
    items_B = np.asarray(items, dtype=np.int64)
    longest = int(split.lengths[items_B].max())
    return _gather(split, items_B, np.zeros(len(items_B), dtype=np.int64), -(-longest // multiple) * multiple)


def length_batches(lengths_N: np.ndarray, *, most_samples: int) -> list[np.ndarray]:
    """Every recording once, in batches of similar length: what evaluation reads.

    Args:
        lengths_N: samples per recording.
        most_samples: most samples of a batch, padding included; a longer recording is a batch of its own.

    Returns:
        Indices int64 [B] per batch, longest recordings first (what does not fit into memory fails at once), equally
        long ones in order.
    """
    order_N = np.argsort(-lengths_N, kind="stable")
    batches, start = [], 0
    while start < len(order_N):
        count = max(1, most_samples // int(lengths_N[order_N[start]]))
        batches.append(order_N[start : start + count].astype(np.int64))
        start += count
    return batches


def _gather(split: AudioSplit, items_B: np.ndarray, offsets_B: np.ndarray, length: int) -> RecordingBatch:
    samples_BS = np.zeros((len(items_B), length), dtype=np.int16)
    mask_BS = np.zeros(samples_BS.shape, dtype=bool)
    for row, (item, offset) in enumerate(zip(items_B, offsets_B, strict=True)):
        piece = split.recording(int(item))[offset : offset + length]
        samples_BS[row, : len(piece)] = piece
        mask_BS[row, : len(piece)] = True
    return RecordingBatch(
        samples=samples_BS,
        mask=mask_BS,
        labels=split.labels[items_B],
        speakers=split.speakers[items_B],
        items=items_B,
        offsets=offsets_B,
    )
