"""Simple classifiers of recordings, one for labels and one for speakers: do synthesised sounds say what they should?

    python benchmarks/studies/speech_classifiers.py score --data FOLDER --wavs reconstructions/ --conversions converted/
    python benchmarks/studies/speech_classifiers.py check --data FOLDER

What the classifiers are, and what they do not hear by construction, stands in trained_classifiers.py. They always name
a class, noise included: compare with chance.

`score` reads folders of WAV files. What a file should say stands in its name: `--patterns` for `--wavs` (label, and
speaker where the sound has one), `--conversion-patterns` for `--conversions` (label, source and target speaker); unless
given, names are those of fsdd, and those that `reconstruct`, `generate` and `convert` make of them. A file that cannot
be read, or is silent, counts as not heard and is named on stderr. `check` reads test recordings that were
damaged in known ways (damaged_sounds.py). Tables go to stdout as Markdown.

The data set is a folder (`--data`, with fsdd's pattern, rate and splits unless told otherwise) or that of a run
(`--run RUN`).

Shapes: N recordings.
"""

import argparse
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from damaged_sounds import damages
from named_sounds import Sounds, read_sounds, sounds_of
from trained_classifiers import Classifiers, train_classifiers

from twostage.config.load import load_run_recipe
from twostage.data.audio import AudioDataset, load_recordings
from twostage.data.audio.splits import SplitRule
from twostage.errors import TwoStageError, UsageError
from twostage_pipelines.modality.choose import load_data

PATTERNS = (
    "{label}_{speaker}_{index}",
    "{label}_{speaker}_{index}-reconstructed",
    "*sound-{index}-{label}-{speaker}",
    "*sound-{index}-{label}",
)
CONVERSION_PATTERNS = ("{label}_{source}_{index}-as-{target}",)
DAMAGED_MELS = 64
"""Of the spectrograms that `check` makes new sounds for: finer than what the classifiers see."""


@dataclass(frozen=True)
class Share:
    """How often something was heard."""

    hits: int
    of: int

    @property
    def value(self) -> float:
        return self.hits / self.of

    def __str__(self) -> str:
        return f"{self.value:.1%} ± {math.sqrt(self.value * (1 - self.value) / self.of):.1%}"


def share(hits_N: np.ndarray) -> Share:
    return Share(hits=int(hits_N.sum()), of=len(hits_N))


@dataclass(frozen=True)
class Score:
    """What was heard in sounds that should say a label and a speaker; None where they need not."""

    title: str
    label: Share | None
    speaker: Share | None
    misheard: tuple[str, ...]
    """Most frequent confusions of labels, `said -> heard (times)`."""


def score(classifiers: Classifiers, sounds: Sounds, dataset: AudioDataset) -> Score:
    """Read the sounds and compare."""
    heard = classifiers.read(sounds.recordings)
    confusions: Counter[tuple[int, int]] = Counter()
    label = speaker = None
    if heard.labels is not None and sounds.labels is not None:
        label = share(heard.labels == sounds.labels)
        confusions.update(pair for pair in zip(sounds.labels, heard.labels, strict=True) if pair[0] != pair[1])
    if heard.speakers is not None and sounds.speakers is not None:
        speaker = share(heard.speakers == sounds.speakers)
    names = (*dataset.classes, "nothing")  # the last is what NOBODY, which is -1, picks
    misheard = tuple(f"{names[said]} -> {names[it]} ({times})" for (said, it), times in confusions.most_common(3))
    return Score(title=sounds.title, label=label, speaker=speaker, misheard=misheard)


@dataclass(frozen=True)
class ConversionScore:
    """What was heard in conversions from speakers to others."""

    title: str
    target: Share
    source: Share
    label: Share | None
    kept: int
    """Files whose target is their source, which are left out."""

    @property
    def other(self) -> Share:
        """Neither of the two."""
        return Share(hits=self.target.of - self.target.hits - self.source.hits, of=self.target.of)


def score_conversions(classifiers: Classifiers, sounds: Sounds) -> ConversionScore:
    """Read the sounds and compare.

    Raises:
        UsageError: the data set or the names have no speakers, or no file has another target than its source.
    """
    heard = classifiers.read(sounds.recordings)
    if heard.speakers is None or sounds.speakers is None or sounds.targets is None:
        raise UsageError(f"expected source and target speakers of {sounds.title}, but there are none to tell apart")
    moved = sounds.speakers != sounds.targets
    if not moved.any():
        raise UsageError(f"expected conversions to other speakers in {sounds.title}, but every target is the source")
    label = None
    if heard.labels is not None and sounds.labels is not None:
        label = share((heard.labels == sounds.labels)[moved])
    return ConversionScore(
        title=sounds.title,
        target=share((heard.speakers == sounds.targets)[moved]),
        source=share((heard.speakers == sounds.speakers)[moved]),
        label=label,
        kept=int((~moved).sum()),
    )


def score_lines(scores: Sequence[Score], originals: Score) -> list[str]:
    """Markdown: what was heard, beside what is heard in `originals`."""
    lines = [
        "| sounds | files | label heard | of originals | speaker heard | of originals | labels most often misheard |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in scores:
        files = next((found.of for found in (row.label, row.speaker) if found is not None), 0)
        pairs = ((row.label, originals.label), (row.speaker, originals.speaker))
        cells = [cell for heard, original in pairs for cell in (_shown(heard), _relative(heard, original))]
        lines.append(f"| {row.title} | {files} | {' | '.join(cells)} | {', '.join(row.misheard) or '-'} |")
    return lines


def conversion_lines(scores: Sequence[ConversionScore], originals: Score) -> list[str]:
    """Markdown: whose voice was heard, and whether the label still was."""
    lines = [
        "| conversions | files | target heard | source heard | another, or nothing | label heard | of originals |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in scores:
        voices = " | ".join(map(str, (row.target, row.source, row.other)))
        label = f"{_shown(row.label)} | {_relative(row.label, originals.label)}"
        lines.append(f"| {row.title} | {row.target.of} | {voices} | {label} |")
    kept = [f"{row.kept} of {row.title}" for row in scores if row.kept]
    return lines + ([f"\nLeft out because their target is their source: {', '.join(kept)}."] if kept else [])


def _shown(heard: Share | None) -> str:
    return "-" if heard is None else str(heard)


def _relative(heard: Share | None, original: Share | None) -> str:
    return "-" if heard is None or original is None or not original.hits else f"{heard.value / original.value:.1%}"


def read_dataset(arguments: argparse.Namespace) -> AudioDataset:
    """The recordings of the folder or the run."""
    if arguments.run is not None:
        dataset = load_data(load_run_recipe(arguments.run))
        if not isinstance(dataset, AudioDataset):
            raise UsageError(f"expected a run on recordings, but {arguments.run} is on images: name another")
        return dataset
    rule = SplitRule(test_indices=arguments.test_indices, validation_indices=arguments.validation_indices)
    return load_recordings(
        str(arguments.data), sample_rate_hz=arguments.rate, pattern=arguments.data_pattern, split_rule=rule
    )


def report(arguments: argparse.Namespace) -> None:
    """Train, read, print."""
    dataset = read_dataset(arguments)
    # Before training: a wrong name should not cost it.
    wavs, conversions = (
        [read_sounds(folder, patterns, dataset) for folder in folders]
        for folders, patterns in (
            (arguments.wavs, arguments.patterns),
            (arguments.conversions, arguments.conversion_patterns),
        )
    )
    start = time.perf_counter()
    classifiers = train_classifiers(dataset)
    seconds = time.perf_counter() - start
    sounds = [sounds_of(f"{name} recordings", dataset.split(name), dataset) for name in ("validation", "test")]
    originals = score(classifiers, sounds[1], dataset)
    settings = classifiers.settings
    if arguments.verb == "check":
        damaged = damages(list(dataset.test.recordings()), replace(settings, mels=DAMAGED_MELS))
        wavs += [replace(sounds[1], title=f"test, {name}", recordings=tuple(each)) for name, each in damaged.items()]
    chances = ", ".join(
        f"{attribute} {1 / len(names):.1%}"
        for attribute, names in (("label", dataset.classes), ("speaker", dataset.speakers))
        if names
    )
    print(
        f"Trained on {len(dataset.train)} training recordings, with and without noise, in {seconds:.0f} s on a thread; "
        f"{settings.mels} log-mels, windows of {settings.n_fft} and hops of {settings.hop} samples at "
        f"{settings.sample_rate_hz} Hz; a blind guess among equals: {chances}.\n"
    )
    print("\n".join(score_lines([score(classifiers, each, dataset) for each in sounds + wavs], originals)))
    if conversions:
        print()
        print("\n".join(conversion_lines([score_conversions(classifiers, each) for each in conversions], originals)))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = argparse.ArgumentParser(add_help=False)
    source = data.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FOLDER", help="recordings, read as the next flags say")
    source.add_argument("--run", type=Path, help="run folder: its recordings and splits")
    data.add_argument("--data-pattern", default="{label}_{speaker}_{index}")
    data.add_argument("--rate", type=int, default=8000, metavar="HZ")
    data.add_argument("--test-indices", default="0-4")
    data.add_argument("--validation-indices", default="5-9")
    verbs = parser.add_subparsers(dest="verb", required=True)
    scorer = verbs.add_parser("score", parents=[data], help="read folders of WAV files")
    scorer.add_argument("--wavs", type=Path, nargs="+", default=[], metavar="DIR")
    scorer.add_argument(
        "--patterns", nargs="+", default=PATTERNS, help="what the names of --wavs say; the first that fits counts"
    )
    scorer.add_argument("--conversions", type=Path, nargs="+", default=[], metavar="DIR")
    scorer.add_argument(
        "--conversion-patterns", nargs="+", default=CONVERSION_PATTERNS, help="what the names of --conversions say"
    )
    checker = verbs.add_parser("check", parents=[data], help="read test recordings that were damaged in known ways")
    checker.set_defaults(wavs=[], patterns=[], conversions=[], conversion_patterns=[])
    return parser.parse_args()


def main() -> None:
    """Print Markdown."""
    arguments = read_arguments()
    torch.set_num_threads(1)
    try:
        report(arguments)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
