"""Flags of the verbs beside the pipeline: recipes, doctor, demo, check-data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from twostage.errors import UsageError

from .arguments import Device, DryRun, Resume, check_seed


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """List the shipped recipes, or print one to start from."""

    name: Annotated[Positional[str | None], arg(metavar="RECIPE", help_behavior_hint="")] = None
    """Print this recipe's file: twostage recipes digits > mine.toml"""

    def resolved(self) -> "Recipes":
        """The command as it is."""
        return self


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say which versions, devices and CPU features this installation has, and what does not fit."""

    def resolved(self) -> "Doctor":
        """The command as it is."""
        return self


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Train codebook, prior and VAE on real handwritten digits, or on synthetic vowels, offline, with a report."""

    audio: FlagCreatePairsOff[bool] = False
    """Sound instead of images."""
    out: Annotated[
        Path | None,
        arg(metavar="RUN", help="Run folder to write (default: runs/demo or runs/demo-audio)", help_behavior_hint=""),
    ] = None
    seed: int = 0
    """Seed of training and samples."""
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / ("demo-audio" if self.audio else "demo")

    def resolved(self) -> "Demo":
        """The command, checked."""
        check_seed(self.seed)
        return self


@dataclass(frozen=True, kw_only=True)
class CheckData:
    """Read all images, recordings or arrays of a folder and say which cannot be used and why; nothing is written.

    Training refuses at its start what this refuses, and reads as this reads: by default it takes no unreadable file at
    all. A JPEG that was cut and closed again with an end marker is found, too, unless only its last block is missing,
    or only later scans of a progressive one. Files of formats that are not read are counted. Exit code 0 where all is
    well, 1 where something is not. Sizes, levels and rates are counted, not judged: which are wanted is the recipe's
    matter.
    """

    path: Annotated[Positional[Path], arg(metavar="PATH")]
    kind: Literal["auto", "images", "recordings", "arrays"] = "auto"
    """What to look for; auto takes arrays where the path is a file of these or has one called train, else the kind of
    which the folder has more files."""
    bits: Literal[8, 16] = 8
    """As data.bits."""
    pattern: Annotated[str | None, arg(metavar="PATTERN", help_behavior_hint="")] = None
    """As recordings.pattern. Unless given, the first sub-folder is the label."""
    ignore: tuple[str, ...] = ()
    """As recordings.ignore: shell patterns of recordings to pass over."""
    all: Annotated[FlagCreatePairsOff[bool], arg(help="Name every unusable file, not only the first hundred.")] = False

    def resolved(self) -> "CheckData":
        """The command, checked."""
        of_sound = self.pattern is not None or bool(self.ignore)
        if self.kind in ("images", "arrays") and of_sound:
            raise UsageError(
                f"--pattern and --ignore are settings of recordings, but --kind is {self.kind}: leave them out."
            )
        if self.bits != 8 and (of_sound or self.kind in ("recordings", "arrays")):
            raise UsageError("--bits is a setting of images, but other data are asked about: leave it out.")
        return self
