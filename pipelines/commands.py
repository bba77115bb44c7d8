"""The command of each verb: one frozen dataclass, which is also its flags and its help text.

tyro turns a class into a parser; `cli` fills the defaults from the recipe or the run folder named first, calls
`resolved()`, and hands the result to the verb's runner. `resolved()` returns the command in normal form and raises
`UsageError` for values out of range, so that runners need no checks of their own. Nothing here imports torch.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, Suppress, arg

from twostage.config.check import baseline_beta, baseline_name, check_model, check_recipe
from twostage.config.load import user_path
from twostage.config.schema import EvaluationConfig, GaussianConfig, PriorConfig, Recipe, TrainingConfig
from twostage.errors import UsageError

_SOURCE = "command line"

RecipeArgument = Annotated[
    Positional[str], arg(metavar="RECIPE", help="A shipped recipe (see `twostage recipes`) or the path of a TOML file.")
]
RunArgument = Annotated[Positional[Path], arg(metavar="RUN", help="Run folder that `train` or `train-codebook` wrote.")]
FlatRecipe = Annotated[Recipe, arg(name="")]
OutRun = Annotated[
    Path | None, arg(metavar="RUN", help="Run folder to write (default: runs/RECIPE)", help_behavior_hint="")
]
OutFolder = Annotated[
    Path | None, arg(metavar="DIR", help="Folder for the PNG files (default: RUN/samples)", help_behavior_hint="")
]
RunModel = Annotated[
    str, arg(metavar="NAME", help="Model of the run (default: the recipe's main model)", help_behavior_hint="")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], arg(help="Where to compute; auto takes a CUDA device when there is one.")
]
Resume = Annotated[
    Literal["auto", "never", "must"],
    arg(help="auto continues what was begun, never refuses to, must refuses to start afresh."),
]
DryRun = Annotated[
    FlagCreatePairsOff[bool], arg(help="Check everything, say what would be done and where; do nothing.")
]
ImageFiles = Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE...", help_behavior_hint="(one or more)")]
PixelSeed = Annotated[
    int, arg(help="Of what is drawn, such as the pixels of an autoregressive decoder: same seed, same files.")
]
CodebookModel = Literal["vq-vae", "vq-vae-ema", "vq-vae-loss"]


@dataclass(frozen=True, kw_only=True)
class TrainCodebook:
    """Train stage one: encoder, codebook and decoder of a recipe, into a run folder."""

    source: RecipeArgument
    recipe: FlatRecipe
    model: CodebookModel = "vq-vae"
    """vq-vae takes the recipe's codebook update; vq-vae-ema and vq-vae-loss force one."""
    out: OutRun = None
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / self.recipe.name

    def resolved(self) -> "TrainCodebook":
        """The command with its recipe checked and the data path absolute."""
        return replace(self, recipe=_resolved_recipe(self.recipe))


@dataclass(frozen=True, kw_only=True)
class TrainPrior:
    """Train stage two: extract the codes of a run and fit the prior over them."""

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    prior: PriorConfig
    prior_training: TrainingConfig
    seed: int
    """Seed of initialisation, batch order and dropout."""
    model: CodebookModel = "vq-vae"
    """Model of the run whose codes are modelled."""
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(self.stored, seed=self.seed, prior=self.prior, prior_training=self.prior_training)

    def resolved(self) -> "TrainPrior":
        """The command, checked."""
        check_recipe(self.recipe, source=_SOURCE)
        return self


@dataclass(frozen=True, kw_only=True)
class TrainBaseline:
    """Train the continuous baseline of a run: a VAE or beta-VAE with the same encoder and decoder."""

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    gaussian: GaussianConfig
    baseline_training: TrainingConfig
    seed: int
    """Seed of initialisation, batch order and latent noise."""
    model: str = "vae"
    """vae, beta-vae (with --beta), or beta-vae-B, which is how a beta-VAE is named in the run folder."""
    beta: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Weight of the KL term in training; bits/dim are always measured at 1. 1 unless given or part of the name."""
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(self.stored, seed=self.seed, gaussian=self.gaussian, baseline_training=self.baseline_training)

    def resolved(self) -> "TrainBaseline":
        """The command, checked, with `model` the name in the run folder (`vae`, `beta-vae-4`) and `beta` a number."""
        check_recipe(self.recipe, source=_SOURCE)
        beta = self.beta
        if self.model == "beta-vae" and beta is None:
            raise UsageError("--model beta-vae needs --beta, for example --beta 4.")
        if self.model not in ("vae", "beta-vae"):
            _check_named(self.model, kind="baseline")
            if beta is not None and beta != baseline_beta(self.model):
                raise UsageError(f"--model {self.model} and --beta {beta:g} disagree: give one of them.")
            beta = baseline_beta(self.model)
        beta = 1.0 if beta is None else beta
        if not 0 < beta < math.inf:
            raise UsageError(f"--beta must be more than 0 and finite, but is {beta:g}.")
        return replace(self, model=baseline_name(beta), beta=beta)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train every model of a recipe in order (codebooks, priors, baselines), then evaluate and report."""

    source: RecipeArgument
    recipe: FlatRecipe
    out: OutRun = None
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / self.recipe.name

    def resolved(self) -> "Train":
        """The command with its recipe checked and the data path absolute."""
        return replace(self, recipe=_resolved_recipe(self.recipe))


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Sample new images: codes from the prior (or latents from the VAE), then the decoder.

    With --complete FILE --keep-rows N the first N rows of the file's codes are kept and the others sampled. The encoder
    looks a little ahead, so the kept codes know some of what lies below them. The completions are named after the file;
    in their grid the first picture is the original.

    Images of an earlier call are removed from RUN/samples; a folder named by --out is only added to.
    """

    run: RunArgument
    count: int = 64
    """Images to make."""
    label: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """Class of every image. Unless given, the classes take turns; completions go without a label if the prior can."""
    unlabelled: Annotated[
        FlagCreatePairsOff[bool],
        arg(help="Sample without a label; the prior must have been trained with label dropout."),
    ] = False
    complete: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Image to complete, read as by reconstruct."""
    keep_rows: Annotated[int | None, arg(metavar="INT", help_behavior_hint="")] = None
    """Rows of codes to keep of it, from the top; one row of codes is as many image rows as stage one downsamples by."""
    temperature: float = 1.0
    """Divides the prior's logits: below 1 safer, above 1 more varied."""
    top_k: int = 0
    """Draw each code from the k most likely ones; 0 admits all."""
    top_p: float = 1.0
    """Draw each code from the smallest set of codes that holds this probability; 1 admits all."""
    seed: int = 0
    """Of codes and, where the decoder is autoregressive, of pixels: same seed, same files."""
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
        _require("--count", self.count, self.count >= 1, "at least 1")
        _require("--label", self.label, self.label is None or self.label >= 0, "at least 0")
        if self.unlabelled and self.label is not None:
            raise UsageError(f"--unlabelled and --label {self.label} contradict one another: give one of them.")
        if (self.complete is None) != (self.keep_rows is None):
            raise UsageError("--complete FILE and --keep-rows N go together: give both or neither.")
        _require("--keep-rows", self.keep_rows, self.keep_rows is None or self.keep_rows >= 1, "at least 1")
        _require("--temperature", self.temperature, 0 < self.temperature < math.inf, "more than 0 and finite")
        _require("--top-k", self.top_k, self.top_k >= 0, "at least 0")
        _require("--top-p", self.top_p, 0 < self.top_p <= 1, "more than 0 and at most 1")
        _check_seed(self.seed)
        _check_named(self.model)
        return self


@dataclass(frozen=True, kw_only=True)
class Reconstruct:
    """Send image files through encoder, codebook and decoder, and write originals beside reconstructions."""

    run: RunArgument
    files: ImageFiles
    """Image files of the size that the model was trained on."""
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
        _require_files("reconstruct", self.files)
        _check_seed(self.seed)
        _check_named(self.model)
        return self


@dataclass(frozen=True, kw_only=True)
class Encode:
    """Turn image files into a file of codes; `twostage decode` turns it back into images, with loss.

    The file holds the codes, the names of the images and the digest of the codebook, without which it is worth nothing.
    """

    run: RunArgument
    files: ImageFiles
    """Image files of the size that the model was trained on, no two of one name."""
    out: Annotated[Path, arg(metavar="FILE", help_behavior_hint="(required, ends in .safetensors)")]
    """File of codes to write; an existing one is replaced."""
    model: RunModel = ""
    device: Device = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Encode":
        """The command, checked."""
        _require_files("encode", self.files)
        _require("--out", self.out, self.out.suffix == ".safetensors", "a file name that ends in .safetensors")
        _check_named(self.model)
        return self


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Turn a file of codes into images, one PNG per item and grid.png.

    They are named after the image files that were encoded; codes of a data set are numbered.
    """

    run: RunArgument
    codes: Annotated[Positional[Path], arg(metavar="CODES")]
    """File that `twostage encode` or `train-prior` wrote, of a codebook of this run."""
    seed: PixelSeed = 0
    out: Annotated[
        Path | None, arg(metavar="DIR", help="Folder for the PNG files (default: RUN/decoded)", help_behavior_hint="")
    ] = None
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def folder(self) -> Path:
        """Where the files go; not RUN/samples, where their names could be those of generated images."""
        return self.out or self.run / "decoded"

    def resolved(self) -> "Decode":
        """The command, checked."""
        _check_seed(self.seed)
        return self


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Measure bits/dim of all models of a run; prints the table and writes evaluation.json."""

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    evaluation: EvaluationConfig
    seed: int
    """Seed of the latents that the VAE's bounds draw."""
    split: Literal["test", "validation"] = "test"
    """Test data give the final number only; choose between settings by validation data."""
    device: Device = "auto"
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(self.stored, seed=self.seed, evaluation=self.evaluation)

    def resolved(self) -> "Evaluate":
        """The command, checked."""
        check_recipe(self.recipe, source=_SOURCE)
        return self


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html: results, pictures and diagnosis of a run in one self-contained file."""

    run: RunArgument
    seed: int = 0
    """Seed of the samples shown."""
    device: Device = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Report":
        """The command, checked."""
        _check_seed(self.seed)
        return self


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
    """Train codebook, prior and VAE on real handwritten digits, offline, with pictures and a report."""

    out: Annotated[Path, arg(metavar="RUN")] = Path("runs/demo")
    """Run folder to write."""
    seed: int = 0
    """Seed of training and samples."""
    device: Device = "auto"
    resume: Resume = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Demo":
        """The command, checked."""
        _check_seed(self.seed)
        return self


Command = (
    TrainCodebook
    | TrainPrior
    | TrainBaseline
    | Train
    | Generate
    | Reconstruct
    | Encode
    | Decode
    | Evaluate
    | Report
    | Recipes
    | Doctor
    | Demo
)


def _resolved_recipe(recipe: Recipe) -> Recipe:
    """Checked, with an absolute data path: the run folder's config.toml is read from other working directories too."""
    check_recipe(recipe, source=_SOURCE)
    if recipe.data.path is None:
        return recipe
    return replace(recipe, data=replace(recipe.data, path=str(user_path(recipe.data.path).resolve())))


def _check_named(model: str, *, kind: Literal["any", "baseline"] = "any") -> None:
    if model:
        check_model(model, source="--model")
    if kind == "baseline" and model.startswith("vq-vae"):
        raise UsageError(f"--model {model} is not a baseline: expected vae or beta-vae, or use train-codebook.")


def _require_files(verb: str, files: tuple[Path, ...]) -> None:
    if not files:
        raise UsageError(f"{verb} needs at least one image file: twostage {verb} RUN FILE...")


def _check_seed(seed: int) -> None:
    _require("--seed", seed, 0 <= seed < 2**32, "between 0 and 4294967295")


def _require(flag: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise UsageError(f"{flag} must be {expected}, but is {value}.")
