"""Recordings as `Files`: WAV files, with a picture of each.

Shapes: N items, B items of a batch, S samples, G codebooks, T positions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stage1_vqvae.batch import Batch
from stage1_vqvae.interface import Stage1Model
from twostage.class_names import number_of
from twostage.config.model_names import MAIN_MODEL
from twostage.config.schema import Recipe
from twostage.data.audio import AudioSplit, length_batches, whole_batch
from twostage.data.audio.arrays import samples_of_array
from twostage.data.audio.pattern import name_pattern
from twostage.data.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.distributed import own_share
from twostage.errors import RunError, UsageError
from twostage.grids import Grids
from twostage.storage.atomic import write_atomic
from twostage.storage.codes import CodeFile

from ..media.wav import read_recording, to_int16, write_wav
from .files import Kept, Record, Shown


@dataclass(frozen=True)
class Sound:
    """A recording that a model made."""

    samples: np.ndarray
    """int16 [S]."""
    sample_rate_hz: int
    label: str | None = None
    """What the model was asked to say; None where it was asked for none."""
    speaker: str | None = None
    """In whose voice; None where the data have no speakers."""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.sample_rate_hz


_SUFFIX = ".wav"


class AudioFiles:
    """See `Files`."""

    item, source = "sound", "recording"
    count = 16
    unit, apart = "bits/sample", ", length and speaker apart"
    one_overview, have_lengths = False, True

    def suffixes(self, record: Record) -> tuple[str, ...]:
        return (_SUFFIX,)

    def prefix_of(self, model: str) -> str:
        return "sound-" if model == MAIN_MODEL else f"{model}-sound-"

    def batches(
        self,
        split: AudioSplit,
        model: Stage1Model,
        *,
        recipe: Recipe,
        device: torch.device,
        rows: np.ndarray | None = None,
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        rows_N = np.arange(len(split)) if rows is None else rows
        lengths_N, most_samples = split.lengths[rows_N], recipe.evaluation.batch_samples
        for part in own_share(length_batches(lengths_N, most_samples=most_samples)):
            items_B = rows_N[part]
            batch = whole_batch(split, items_B)
            yield (
                items_B,
                Batch(
                    items=torch.from_numpy(items_B),
                    x=torch.from_numpy(batch.samples).to(device),
                    lengths=torch.from_numpy(split.lengths[items_B]).to(device),
                    labels=torch.from_numpy(batch.labels).to(device) if model.classes else None,
                    speakers=torch.from_numpy(batch.speakers).to(device) if model.speakers else None,
                ),
            )

    def read(self, path: Path, record: Record, recipe: Recipe) -> np.ndarray:
        return read_recording(path, record["sample_rate_hz"])

    def arrays(self, given: object, record: Record, rate_hz: int | None) -> list[np.ndarray]:
        several = list(given) if isinstance(given, list | tuple) else [given]
        if not several:
            raise UsageError("expected recordings, got an empty list")
        own_hz = record["sample_rate_hz"]
        arrays = [each.detach().cpu().numpy() if isinstance(each, Tensor) else each for each in several]
        return [samples_of_array(each, own_hz if rate_hz is None else rate_hz, own_hz) for each in arrays]

    def split_of(
        self, items: Sequence[np.ndarray], labels: Sequence[int] = (), speakers: Sequence[int] = ()
    ) -> AudioSplit:
        nothing_N = np.zeros(len(items), np.int64)
        return AudioSplit(
            samples=np.concatenate(items),
            offsets=np.cumsum([0, *map(len, items)], dtype=np.int64),
            labels=np.array(labels, np.int64) if len(labels) else nothing_N,
            speakers=np.array(speakers, np.int64) if len(speakers) else nothing_N,
            names=tuple(map(str, range(len(items)))),
        )

    def speakers_in(self, paths: Sequence[Path], recipe: Recipe, speakers: tuple[str, ...]) -> list[int | None]:
        pattern = recipe.recordings.pattern
        if pattern is None:
            return [None] * len(paths)
        compiled, depth = name_pattern(pattern), pattern.count("/") + 1
        fields = [compiled.match("/".join(path.absolute().parts[-depth:])) for path in paths]
        return [
            None if found is None or found.speaker is None else number_of(found.speaker, speakers) for found in fields
        ]

    def together(self, recipe: Recipe) -> int:
        return 64

    def lengths_of(self, split: AudioSplit) -> np.ndarray:
        return split.lengths

    def grids_of(self, split: AudioSplit, model: Any) -> Grids:
        return ((-(-int(split.lengths.max()) // model.stride),),)

    def length_of(self, seconds: float, model: Any, record: Record, most: int | None, *, flag: str) -> int:
        rate, stride = record["sample_rate_hz"], model.stride
        codes = max(1, -(-round(seconds * rate) // stride)) if 0 < seconds < math.inf else 0
        if codes < 1 or (most is not None and codes > most):
            limit = "finite" if most is None else f"at most {most * stride / rate:.2f}, the longest sound of this prior"
            raise UsageError(f"{flag} must be {limit}, and more than 0, but is {seconds:g}")
        return codes * stride

    def length_after(self, positions: Tensor, model: Any) -> Tensor:
        return positions * model.stride

    def kept(self, command: Any, codes: Tensor, item: np.ndarray, model: Any, record: Record) -> Kept:
        rate = record["sample_rate_hz"]
        samples = self.length_of(command.keep_seconds, model, record, None, flag="--keep-seconds")
        positions, every = samples // model.stride, codes.shape[2]
        if positions > every:
            raise UsageError(
                f"--keep-seconds must be at most the {len(item) / rate:.2f} seconds of {command.complete}, but is "
                f"{command.keep_seconds:g}"
            )
        seconds = min(samples, len(item)) / rate
        said = f"{positions} of {every} codes of {command.complete}: {seconds:.2f} of {len(item) / rate:.2f} s"
        return Kept(codes[:, :, :positions], None, said)

    def check_codes(self, codes: CodeFile, model: Any, record: Record, *, name: str, source: str, remedy: str) -> None:
        if len(codes.header.grids[0]) != 1 or codes.lengths is None:
            raise RunError(f"expected codes that fit model {name}, but {source} holds others: {remedy}")
        if codes.samples is None or codes.header.speakers != len(record["speakers"]):
            raise RunError(
                f"expected codes with their speakers and numbers of samples, but {source} does not state them: {remedy}"
            )
        if (-(-codes.samples // model.stride) != codes.lengths).any():
            raise RunError(
                f"expected a code for every {model.stride} samples, but {source} states other numbers of them: {remedy}"
            )

    def made(self, decoded: Tensor, lengths: Tensor | None) -> list[np.ndarray]:
        assert lengths is not None
        sounds_BS = to_int16(decoded.cpu().numpy())
        return [sound_S[:length] for sound_S, length in zip(sounds_BS, lengths.tolist(), strict=True)]

    def handed(
        self, items: Sequence[np.ndarray], record: Record, labels: Sequence[int], speakers: Sequence[int]
    ) -> list[Sound]:
        return [
            Sound(
                samples=samples_S,
                sample_rate_hz=int(record["sample_rate_hz"]),
                label=record["classes"][labels[item]] if labels else None,
                speaker=record["speakers"][speakers[item]] if speakers else None,
            )
            for item, samples_S in enumerate(items)
        ]

    def difference(self, own: np.ndarray, made: np.ndarray, record: Record) -> str:
        first, second = (waveform(torch.from_numpy(np.array(sound)))[None] for sound in (own, made))
        mask, settings = torch.ones_like(first, dtype=torch.bool), log_mel_settings(record["sample_rate_hz"])
        return f"log-mel L1 {float(log_mel_distance(first, second, mask, settings)):.3f}"

    def write(self, folder: Path, shown: Shown, record: Record, *, what: str) -> str:
        """Also pictures of the first sounds that have titles, below their originals."""
        from ..media.spectrograms import MOST_PICTURES, picture_of, picture_of_pair, which_have_pictures

        rate, own = int(record["sample_rate_hz"]), shown.originals
        settings = log_mel_settings(rate)
        for index, (stem, samples_S) in enumerate(zip(shown.stems, shown.items, strict=True)):
            write_wav(folder / f"{stem}{_SUFFIX}", samples_S, rate)
            if index >= MOST_PICTURES or not shown.titles:
                continue
            titles = shown.titles[index]
            if own:
                first_S = own[0 if len(own) == 1 else index]
                drawn = picture_of_pair(first_S, samples_S, settings=settings, titles=(titles[0], titles[1]))
            else:
                drawn = picture_of(samples_S, settings=settings, title=f"{titles[0]}, {len(samples_S) / rate:.2f} s")
            write_atomic(folder / f"{stem}.png", drawn)
        seconds = f"{sum(map(len, shown.items)) / rate:.1f} s"
        pictures = f", {which_have_pictures(len(shown.items))}," if shown.titles else ""
        return f"{what}{pictures} in {folder} ({seconds})"
