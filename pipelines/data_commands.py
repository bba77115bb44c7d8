"""Commands about data sets rather than runs: their flags (see `commands`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

from twostage.errors import UsageError

Kind = Literal["images", "recordings"]


@dataclass(frozen=True, kw_only=True)
class CheckData:
    """Read every image or recording of a folder and say which cannot be used and why; nothing is written.

    Training refuses at its start what this refuses, and reads as this reads: by default it takes no unreadable file at
    all. A JPEG that was cut and closed again with an end marker is found, too, unless only its last block is missing,
    or only later scans of a progressive one. Files of formats that are not read are counted. Exit code 0 where all is
    well, 1 where something is not. Sizes and rates are counted, not judged: which are wanted is the recipe's matter.
    """

    path: Annotated[Positional[Path], arg(metavar="FOLDER")]
    kind: Literal["auto", "images", "recordings"] = "auto"
    """What to look for; auto takes the kind of which the folder has more files."""
    pattern: Annotated[str | None, arg(metavar="PATTERN", help_behavior_hint="")] = None
    """As recordings.pattern. Unless given, the first sub-folder is the label."""
    ignore: tuple[str, ...] = ()
    """As recordings.ignore: shell patterns of recordings to pass over."""
    all: Annotated[FlagCreatePairsOff[bool], arg(help="Name every unusable file, not only the first hundred.")] = False

    def resolved(self) -> "CheckData":
        """The command, checked."""
        if self.kind == "images" and (self.pattern is not None or self.ignore):
            raise UsageError("--pattern and --ignore are settings of recordings, but --kind is images: leave them out.")
        return self
