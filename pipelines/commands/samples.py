"""Flags of the verbs that make or pass on images and sounds: generate, reconstruct, convert, encode, decode."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from twostage.errors import UsageError

from .arguments import (
    DecoderChoice,
    Device,
    DryRun,
    Files,
    Levels,
    OutFolder,
    PixelSeed,
    RunArgument,
    RunModel,
    Speaker,
    check_named,
    check_seed,
    require,
    require_files,
)

_CHOSEN = "(default: as evaluate chose, or 1)"


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Sample new images or sounds: codes from the prior (or latents of a baseline), then the decoder.

    With --complete FILE --keep-rows N the first N rows of the file's codes are kept and the others sampled, of a
    recording with --keep-seconds S the codes of the first S seconds, and the prior goes on. The encoder looks a little
    ahead, so the kept codes know some of what comes after them. The completions are named after the file; in their
    pictures the original comes first.

    Of recordings it writes WAV files, each with a picture of its waveform and spectrogram.

    Samples of an earlier call are removed from RUN/samples; a folder named by --out is only added to.
    """

    run: RunArgument
    count: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 64 images, 16 sounds)")] = None
    """Images or sounds to make."""
    label: Annotated[str | None, arg(metavar="CLASS", help_behavior_hint="")] = None
    """Class of every sample, by name; by its number from 0 on, which the report lists, where no class has a number as
    its name. Unless given, the classes with training items take turns; completions go without a label if the prior
    can."""
    speaker: Speaker = None
    """Runs on recordings: speaker of every sound, by name. Unless given, those with training recordings take turns, and
    completions are spoken by whom the name of the file says."""
    seconds: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Runs on recordings: length of every sound, rounded up to whole codes. Unless given, the prior says when it ends;
    sounds of a VAE are as long as training recordings, which take turns."""
    decoder: DecoderChoice = "convolutional"
    levels: Levels = None
    unlabelled: Annotated[
        FlagCreatePairsOff[bool],
        arg(help="Sample without a label; the prior must have been trained with label dropout."),
    ] = False
    complete: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Image or recording to complete, read as by reconstruct."""
    keep_rows: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """Rows of codes to keep of an image, from the top; one is as many image rows as stage one downsamples by. Of a
    hierarchy rows of the coarsest grid, with those of finer grids that lie under them."""
    keep_seconds: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Seconds to keep of a recording, rounded up to whole codes."""
    temperature: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=_CHOSEN)] = None
    """Divides the prior's logits: below 1 safer, above 1 more varied."""
    top_k: int = 0
    """Draw each code from the k most likely ones; 0 admits all."""
    top_p: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=_CHOSEN)] = None
    """Draw each code from the smallest set of codes that holds this probability; 1 admits all."""
    guidance: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint=_CHOSEN)] = None
    """Above 1 items say their label and speaker more clearly, 1 is off; of priors with label dropout. With temperature,
    top-k or top-p given, what of these is not given changes nothing."""
    seed: int = 0
    """Of codes and, where the decoder is autoregressive, of pixels: same seed, same files."""
    nearest: Annotated[
        FlagCreatePairsOff[bool],
        arg(help="Also write nearest.png: samples beside their nearest training items. Reads the data."),
    ] = False
    out: OutFolder = None
    model: RunModel = ""
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.out or self.run / "samples"

    def resolved(self) -> "Generate":
        """The command, checked."""
        require("--count", self.count, self.count is None or self.count >= 1, "at least 1")
        if self.unlabelled and self.label is not None:
            raise UsageError(f"--unlabelled and --label {self.label} contradict one another: give one of them.")
        within = self.seconds is None or 0 < self.seconds < math.inf
        require("--seconds", self.seconds, within, "more than 0 and finite")
        if (self.complete is None) != (self.keep_rows is None and self.keep_seconds is None):
            raise UsageError(
                "--complete FILE and --keep-rows N go together, of recordings --complete FILE and --keep-seconds S: "
                "give both or neither."
            )
        kept = self.keep_seconds is None or 0 < self.keep_seconds < math.inf
        require("--keep-seconds", self.keep_seconds, kept, "more than 0 and finite")
        require("--keep-rows", self.keep_rows, self.keep_rows is None or self.keep_rows >= 1, "at least 1")
        warm = self.temperature is None or 0 < self.temperature < math.inf
        require("--temperature", self.temperature, warm, "more than 0 and finite")
        require("--top-k", self.top_k, self.top_k >= 0, "at least 0")
        require("--top-p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "more than 0 and at most 1")
        guided = self.guidance is None or 0 <= self.guidance < math.inf
        require("--guidance", self.guidance, guided, "at least 0 and finite")
        check_seed(self.seed)
        check_named(self.model)
        return self


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Send image or sound files through encoder, codebook and decoder; write originals beside reconstructions."""

    run: RunArgument
    files: Files
    """Image files of the size that the model was trained on, or recordings."""
    speaker: Speaker = None
    """Runs on recordings of several speakers: who speaks in the files. Unless given, their names must say it as those
    of the data set do."""
    label: Annotated[str | None, arg(metavar="CLASS", help_behavior_hint="")] = None
    """Class of the files, by name, or by number as for generate; needed by the conditional VAE (cvae) alone."""
    decoder: DecoderChoice = "convolutional"
    levels: Levels = None
    seed: PixelSeed = 0
    out: OutFolder = None
    model: RunModel = ""
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.out or self.run / "samples"

    def resolved(self) -> "Reconstruct":
        """The command, checked."""
        require_files("reconstruct", self.files)
        check_seed(self.seed)
        check_named(self.model)
        return self


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Turn image or sound files into a file of codes; `twostage decode` turns it back into them, with loss.

    The file holds the codes, the names of the files and the digest of the codebook, without which it is worth nothing;
    of recordings also who speaks and their exact lengths.

    For language models --format npy or jsonl writes a sequence of ids an item. Of C codebooks of K codes (G a position,
    coarser grids of a hierarchy first) code c of codebook g is the id g * K + c; bos is C * K, eos C * K + 1, pad
    C * K + 2. FILE.vocabulary.json beside it says so too. decode takes safetensors alone.
    """

    run: RunArgument
    files: Files
    """Image files of the size that the model was trained on, or recordings; no two of one name."""
    out: Annotated[Path, arg(metavar="FILE", help_behavior_hint="(required, ends in the format)")]
    """File of codes to write; an existing one is replaced."""
    format: Literal["safetensors", "npy", "jsonl"] = "safetensors"
    """safetensors, which decode takes; npy: int32 [items, ids], padded; jsonl: a line with name and ids an item."""
    vectors: FlagCreatePairsOff[bool] = False
    """Also write FILE.vectors.npy, fp32: the codebook vector of every id, a row each."""
    speaker: Speaker = None
    """Runs on recordings of several speakers: who speaks in the files. Unless given, what their names say as those of
    the data set do; where they do not, decode asks for a voice."""
    model: RunModel = ""
    device: Device = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Encode":
        """The command, checked."""
        require_files("encode", self.files)
        suffix = f".{self.format}"
        require("--out", self.out, self.out.suffix == suffix, f"a file name that ends in {suffix}")
        check_named(self.model)
        return self


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Turn a file of codes into images, one PNG per item and grid.png, or into sounds, one WAV file per item.

    They are named after the files that were encoded; codes of a data set are numbered.
    """

    run: RunArgument
    codes: Annotated[Positional[Path], arg(metavar="CODES")]
    """File that `twostage encode` or `train-prior` wrote, of a codebook of this run."""
    speaker: Speaker = None
    """Runs on recordings of several speakers: whose voice. Unless given, every item has its own."""
    decoder: DecoderChoice = "convolutional"
    levels: Levels = None
    seed: PixelSeed = 0
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Folder for the files (default: RUN/decoded)", help_behavior_hint="")
    ] = None
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def folder(self) -> Path:
        """Where the files go; not RUN/samples, where their names could be those of generated images."""
        return self.out or self.run / "decoded"

    def resolved(self) -> "Decode":
        """The command, checked."""
        check_seed(self.seed)
        return self


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Say recordings in another voice: their codes, decoded for another speaker."""

    run: RunArgument
    files: Files
    """Recordings: WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64 or NIST."""
    speaker: Annotated[str, arg(metavar="NAME", help_behavior_hint="(required)")]
    """Whose voice, by name."""
    label: Annotated[str | None, arg(metavar="CLASS", help_behavior_hint="")] = None
    """Class of the files, as for reconstruct."""
    decoder: DecoderChoice = "convolutional"
    levels: Levels = None
    seed: PixelSeed = 0
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Folder for the files (default: RUN/converted)", help_behavior_hint="")
    ] = None
    model: RunModel = ""
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return self.out or self.run / "converted"

    def resolved(self) -> "Convert":
        """The command, checked."""
        require_files("convert", self.files)
        check_seed(self.seed)
        check_named(self.model)
        return self
