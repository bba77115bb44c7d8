"""Any folder of recordings (WAV, FLAC, OGG, MP3 and others that libsndfile reads) as a data set.

Names decide which files, labels, speakers and splits there are (`twostage.data.audio.listing`, `.pattern`, `.splits`),
contents how a file is read (`twostage.data.audio.decode`). Every file is read before anything is said, so that one
error names all that is wrong. A file that is left out (`skip_unreadable`) leaves its split and moves no other file.

Unpacked folders of well-known sets, beside `path` and a rate:

- fsdd: pattern `{label}_{speaker}_{index}`, test_indices `0-4`, validation_indices `5-9`;
- SPEECHCOMMANDS: pattern `{label}/{speaker}_nohash_{index}`, ignore `_background_noise_/*`, test_list
  `testing_list.txt`, validation_list `validation_list.txt`: the split that torchaudio's class makes;
- VCTK 0.92: pattern `wav48_silence_trimmed/{speaker}/{speaker}_{index}_mic1`, ignore `*_mic2.flac`;
- LJSPEECH: no pattern: one speaker and nothing to tell apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twostage.config.load import user_path
from twostage.data.audio.containers import KINDS
from twostage.data.audio.dataset import AudioDataset, AudioSplit
from twostage.data.audio.decode import Decoded, decode_recording
from twostage.data.audio.libraries import load_soundfile
from twostage.data.audio.listing import Listing, Recording, list_recordings
from twostage.data.audio.part import Unreadable
from twostage.data.audio.remarks import Remarks
from twostage.data.audio.splits import SplitRule, split_recordings
from twostage.data.left_out import left_out
from twostage.data.reading import mapper
from twostage.data.repeated import tell_repeated
from twostage.data.walk import SPLITS
from twostage.errors import DataError, UsageError
from twostage.printable import counted
from twostage.progress import Progress, say


@dataclass(frozen=True)
class _Read:
    """What the files hold, those that could be read one after the other."""

    samples: np.ndarray
    """int16 [S]."""
    lengths: list[int]
    """Per file; 0: not read."""
    faults: dict[str, str]
    """Name and fault of what could not be read."""
    remarks: Remarks
    clipped_samples: int


def load_recordings(
    path: str | None,
    *,
    sample_rate_hz: int,
    pattern: str | None = None,
    ignore: tuple[str, ...] = (),
    split_rule: SplitRule | None = None,
    minimum_samples: int = 1,
    skip_unreadable: int = 0,
) -> AudioDataset:
    """The recordings below `path`, mono, 16 bits, at one rate.

    Args:
        path: the folder.
        sample_rate_hz: rate of the data set; files of another are resampled.
        pattern: what names say (`twostage.data.audio.pattern`); None: the first sub-folder is the label.
        ignore: shell patterns of names to pass over.
        split_rule: what is held out (`twostage.data.audio.splits`); None: by digests of names.
        minimum_samples: what a recording must have at least, at that rate.
        skip_unreadable: how many unreadable files may be left out: damaged, silent or short ones, too.

    Raises:
        UsageError: no folder is named, or the pattern or the rule for the splits is wrong.
        DataError: the folder or recordings are missing, unreadable, too few, or have names that do not fit.
        RunError: soundfile cannot be loaded.
    """
    if path is None:
        raise UsageError(
            f"the data set recordings needs a folder of {KINDS} files: name it with --data.path FOLDER, or as path "
            "under [data] in the recipe"
        )
    path = str(user_path(path))
    listing = list_recordings(path, pattern=pattern, ignore=ignore)
    parts, rule_in_words = split_recordings(Path(path), listing, split_rule or SplitRule())
    files = [recording for split in SPLITS for recording in parts[split]]
    read = _read(path, files, sample_rate_hz, minimum_samples)
    skipped = _check_readable(path, listing, read.faults, skip_unreadable)
    _tell(path, listing, read, len(files))
    splits = _splits(path, parts, read)
    tell_repeated(
        splits["train"].recordings(),
        {split: splits[split].recordings() for split in ("validation", "test")},
        kind="recordings",
        alike="sample for sample",
    )
    return AudioDataset(
        name="recordings",
        sample_rate_hz=sample_rate_hz,
        classes=listing.classes,
        speakers=listing.speakers,
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        split_rule=rule_in_words,
        skipped=skipped,
        clipped_samples=read.clipped_samples,
    )


def _read(path: str, files: Sequence[Recording], sample_rate_hz: int, minimum_samples: int) -> _Read:
    def read(file: Recording) -> Decoded | str:
        try:
            return decode_recording(file.path, sample_rate_hz=sample_rate_hz, minimum_samples=minimum_samples)
        except Unreadable as error:
            return str(error)

    load_soundfile()
    lengths: list[int] = []
    faults: dict[str, str] = {}
    remarks = Remarks()
    clipped = 0
    block = bytearray()  # grows in place, by an eighth at a time: how long files will be is not known before
    try:
        with Progress("recordings", total=len(files), unit="file") as progress, mapper() as mapped:
            for file, outcome in zip(files, mapped(read, files), strict=True):
                progress.advance()
                if isinstance(outcome, str):
                    faults[file.name] = outcome
                    lengths.append(0)
                    continue
                block += outcome.samples.data
                lengths.append(len(outcome.samples))
                clipped += outcome.clipped_samples
                remarks.add(file.name, outcome)
    except MemoryError as error:
        raise DataError(
            f"expected the recordings to fit into memory, but after {len(lengths)} of {len(files)} files in {path} "
            f"({len(block) / 2**30:.1f} GiB) they do not: set a lower recordings.sample_rate_hz or use fewer files"
        ) from error
    return _Read(np.frombuffer(block, dtype=np.int16), lengths, faults, remarks, clipped)


def _check_readable(path: str, listing: Listing, found: dict[str, str], most: int) -> tuple[str, ...]:
    """Names of what is left out."""
    faults = listing.unusable | found
    total = len(listing.recordings) + len(listing.unusable)
    return left_out("recordings", path, faults, total=total, most=most)


def _tell(path: str, listing: Listing, read: _Read, total: int) -> None:
    if listing.ignored:
        say(f"passed over {counted(len(listing.ignored), 'files')} in {path} that match recordings.ignore")
    if listing.foreign.counts:
        say(f"passed over in {path}: {listing.foreign}")
    for line in read.remarks.lines(total):
        say(line)


def _splits(path: str, parts: dict[str, list[Recording]], read: _Read) -> dict[str, AudioSplit]:
    """The splits, each a slice of one block of samples."""
    splits: dict[str, AudioSplit] = {}
    row = start = 0
    for name in SPLITS:
        count = len(parts[name])
        split = _split(path, name, parts[name], read.lengths[row : row + count], read.samples[start:])
        splits[name] = split
        row, start = row + count, start + len(split.samples)
    return splits


def _split(
    path: str, name: str, files: Sequence[Recording], lengths: Sequence[int], samples_S: np.ndarray
) -> AudioSplit:
    """The split whose recordings begin at the beginning of `samples_S`."""
    kept = [(file, length) for file, length in zip(files, lengths, strict=True) if length]
    if not kept:
        raise DataError(
            f"expected a readable recording for {name}, but all {len(files)} in {path} were left out: add some"
        )
    offsets_N = np.concatenate([[0], np.cumsum([length for _, length in kept])]).astype(np.int64)
    return AudioSplit(
        samples=samples_S[: offsets_N[-1]],
        offsets=offsets_N,
        labels=np.array([file.label for file, _ in kept], dtype=np.int64),
        speakers=np.array([file.speaker for file, _ in kept], dtype=np.int64),
        names=tuple(file.name for file, _ in kept),
    )
