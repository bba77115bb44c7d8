"""Flags of the verb `export`. Without torch."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from .arguments import Device, DryRun, RunArgument, RunModel, check_named, check_seed, require

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Export:
    """Make a folder of a trained model that others can use: weights, recipe, table, pictures, and a README.md.

    It holds safetensors and text alone, neither training states nor paths of this machine, and is laid out for model
    hubs. Every verb that reads a RUN reads it, too, as do `load_run`, `VQVAE.from_folder` and the like; data are given
    with --data.path where a verb needs them. What is finished of the model is in it: for sound both decoders.
    """

    run: RunArgument
    to: Annotated[Path, arg(metavar="FOLDER", help_behavior_hint="(required)")]
    """Folder to write, which is not there yet."""
    model: RunModel = ""
    licence: Annotated[str, arg(metavar="ID")] = "unknown"
    """Of the weights, for the card, by its identifier: mit, cc-by-4.0, ... What the data allow is yours to know."""
    seed: int = 0
    """Of the samples that the card shows."""
    device: Device = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Export":
        """The command, checked."""
        check_named(self.model)
        check_seed(self.seed)
        identifier = _LICENCE.fullmatch(self.licence) is not None
        require("--licence", self.licence, identifier, "an identifier of small letters, digits and . + -, such as mit")
        return self
