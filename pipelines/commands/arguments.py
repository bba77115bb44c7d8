"""Arguments that several commands share, as types that tyro turns into flags, and their checks. Without torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

from twostage.config.check import check_recipe
from twostage.config.dial import Size
from twostage.config.load import user_path
from twostage.config.model_names import check_model
from twostage.config.schema import Recipe
from twostage.errors import UsageError

SOURCE = "command line"

RecipeArgument = Annotated[
    Positional[str], arg(metavar="RECIPE", help="A shipped recipe (see `twostage recipes`) or the path of a TOML file.")
]
RunArgument = Annotated[Positional[Path], arg(metavar="RUN", help="Run folder that `train` or `train-codebook` wrote.")]
FlatRecipe = Annotated[Recipe, arg(name="")]
OutRun = Annotated[
    Path | None, arg(metavar="RUN", help="Run folder to write (default: runs/RECIPE)", help_behavior_hint="")
]
OutFolder = Annotated[
    Path | None, arg(metavar="DIR", help="Folder for the files (default: RUN/samples)", help_behavior_hint="")
]
RunModel = Annotated[
    str, arg(metavar="NAME", help="Model of the run (default: the recipe's main model)", help_behavior_hint="")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], arg(help="Where to compute; auto takes a CUDA device when there is one.")
]
Sized = Annotated[
    Size | None,
    arg(
        metavar="SIZE",
        help="Networks, codebook and budgets that fit the size and number of the items, in place of the recipe's: "
        "small for minutes, medium for about an hour, large for a day or a GPU. Settings given as flags stand.",
        help_behavior_hint="",
    ),
]
Given = Suppress[frozenset[str]]
"""Settings that flags gave, such as `stage1.channels`; filled in by the command line, and no flag."""
Resume = Annotated[
    Literal["auto", "never", "must"],
    arg(
        metavar="WHETHER",
        help="auto goes on with what was begun, never refuses to, must refuses to begin.",
    ),
]
Extend = Annotated[
    FlagCreatePairsOff[bool],
    arg(
        help="Go on to a larger number of steps. With a constant learning rate this is the training of that many "
        "steps; a cosine goes back up to where the longer one is and decreases once more.",
        help_behavior_hint="",
    ),
]
Log = Literal["none", "tensorboard"]
Logged = Annotated[
    Log,
    arg(
        metavar="WHERE",
        help="tensorboard: its events, too (extra twostage[tensorboard]).",
        help_behavior_hint="",
    ),
]
Timeout = Annotated[
    float, arg(help="Under torchrun, seconds to wait for a process that hangs or is out of reach; then the job ends.")
]
DryRun = Annotated[
    FlagCreatePairsOff[bool],
    arg(help="Check everything, say what would be done, where and at what cost; do nothing.", help_behavior_hint=""),
]
Files = Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...", help_behavior_hint="(one or more)")]
PixelSeed = Annotated[
    int, arg(help="Of what is drawn, such as the pixels of an autoregressive decoder: same seed, same files.")
]
DecoderChoice = Annotated[
    str,
    arg(
        metavar="NAME",
        help="Which decoder: convolutional, that of the codebook, or the one that train-decoder trained, of images "
        "picture, for the eye, of recordings wavenet, which draws sample after sample and takes its time.",
    ),
]
Levels = Annotated[
    int | None,
    arg(
        metavar="INT",
        help="Of the quantiser residual: decode the first so many codes of every position alone (default: all).",
        help_behavior_hint="",
    ),
]
Speaker = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class DataPlace:
    """Where the data of a run are."""

    path: str | None = None
    """Folder or file that the run's data were moved to; they must be the same to the last bit. Kept in the run's
    config.toml. Unless given, they are where that says."""

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe, with its data at this place if one is given."""
        if self.path is None:
            return recipe
        return replace(recipe, data=replace(recipe.data, path=str(user_path(self.path).resolve())))


AS_STORED = DataPlace()
CodebookModel = Literal["vq-vae", "vq-vae-ema", "vq-vae-loss", "vq-vae-joint"]


def resolved_recipe(recipe: Recipe) -> Recipe:
    """Checked, with an absolute data path: the run folder's config.toml is read from other working directories too."""
    check_recipe(recipe, source=SOURCE)
    return DataPlace(path=recipe.data.path).of(recipe)


def check_named(model: str, *, kind: Literal["any", "baseline"] = "any") -> None:
    if model:
        check_model(model, source="--model")
    if kind == "baseline" and model.startswith("vq-vae"):
        raise UsageError(
            f"--model {model} is not a baseline: expected ae, vae, beta-vae, cvae or vimco, or use train-codebook."
        )


def require_files(verb: str, files: tuple[Path, ...]) -> None:
    if not files:
        raise UsageError(f"{verb} needs at least one file: twostage {verb} RUN FILE...")


def check_seed(seed: int) -> None:
    require("--seed", seed, 0 <= seed < 2**32, "between 0 and 4294967295")


def require(flag: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"{flag} must be {expected}, but is {value}.")
