"""What a code file says about its codes, and whether that can be: nothing here knows the file's format.

Numbers, names and digests out of a file may be anything; what passes here can be printed, and names become names of
files.
"""

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath, PureWindowsPath

from twostage.grids import Grid, Grids

DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
FILES = "files"
"""The split of codes of single files, which are no part of a data set."""
_LARGEST_NUMBER = 1 << 31
_LONGEST_NAME_BYTES = 255  # what file systems take


@dataclass(frozen=True)
class CodeHeader:
    """What a code file says about its codes."""

    dataset: str
    split: str
    model: str
    """Name of the model within the run (`vq-vae`)."""
    codebook_size: int
    """K: a code is one of 0..K-1."""
    codebooks: int
    """G, codes per grid position."""
    grids: Grids
    """Grid of every level, coarsest first (`twostage.grids`): one of (H, W) for images, of (T,) for audio, and several
    (H, W) for a hierarchy."""
    classes: int
    """A label is one of 0..classes-1; 0 where no labels are known, and all of them are 0."""
    stage1_sha256: str
    """Hexadecimal SHA-256 of the stage-one weights file."""
    speakers: int = 0
    """Like `classes`, of speakers."""
    names: tuple[str, ...] = ()
    """One plain file name without its suffix per item, all different; empty for the items of a data set."""


def json_structure(text: str) -> str:
    """JSON without its strings: what takes far more memory once it is parsed shows in it before."""
    # Text and not bytes, which Python joins at the cost of eighty bytes for each piece.
    return re.sub(r'"[^"]*"', "", text.replace("\\\\", "").replace('\\"', ""))


class Refused(Exception):
    """Why bytes are no valid code file: a clause, finished by the caller."""


def is_plain_name(name: str) -> bool:
    """Whether a file may be named so: printable, and neither a folder nor a path on any system."""
    parts = (PurePosixPath(name).name, PureWindowsPath(name).name)
    return parts == (name, name) and name not in ("", "..") and name.isprintable()


def check_header(header: CodeHeader) -> None:
    """What the header says on its own."""
    if header.codebook_size < 1 or header.codebooks < 1 or header.classes < 0:
        raise Refused("codebook size and codebooks must be at least 1, classes at least 0 and K at most 2^31")
    sides = [side for grid in header.grids for side in grid]
    numbers = (header.codebook_size, header.codebooks, header.classes, header.speakers, *sides)
    lengths = {len(grid) for grid in header.grids}
    if max(numbers) > _LARGEST_NUMBER or not lengths or lengths - {1, 2} or min(sides) < 1:
        raise Refused("its header must state one or two lengths of the grid, at least 1, and no number beyond 2^31")
    if any(not _finer(*pair) for pair in pairwise(header.grids)):
        raise Refused("its header must state grids of two lengths, each a multiple of those of the grid before")
    for text in (header.dataset, header.split, header.model):
        if not text.isprintable() or len(text) > _LONGEST_NAME_BYTES:
            raise Refused(f"it names its data, split or model {text!r:.60}, which is no printable short name")
    if not DIGEST.fullmatch(header.stage1_sha256):
        raise Refused(f"it gives {header.stage1_sha256!r:.80} as the SHA-256 of its codebook")


def _finer(coarse: Grid, fine: Grid) -> bool:
    """Whether a grid of a hierarchy can follow another."""
    both_2d = len(coarse) == len(fine) == 2
    return both_2d and coarse != fine and not any(b % a for a, b in zip(coarse, fine, strict=True))


def check_names(names: tuple[str, ...], items: int) -> None:
    if names and len(names) != items:
        raise Refused(f"it holds {len(names)} names for {items} items")
    for name in names:
        if not isinstance(name, str) or not is_plain_name(name):
            raise Refused(f"it holds the name {name!r:.60}, which is no plain file name")
        if len(name.encode()) > _LONGEST_NAME_BYTES:
            raise Refused(f"it holds the name {name[:40]!r}..., which is too long for a file")
    if len(set(names)) < len(names):
        raise Refused("it holds a name twice")


def parse_names(text: str) -> tuple[str, ...]:
    """The names in a header: a list of strings and nothing else."""
    if not re.fullmatch(r"\[[, ]*\]", json_structure(text)):
        raise Refused("its names are of the wrong kind: something in their list is no plain file name")
    return tuple(json.loads(text))
