"""Flags of the verbs that train."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Suppress, arg

from twostage.config.audio_schema import WaveNetDecoderConfig, WaveNetPriorConfig
from twostage.config.check import check_recipe
from twostage.config.kinds import check_model_exists, kind_of, reads_setting
from twostage.config.model_names import baseline_beta, baseline_name
from twostage.config.schema import (
    GaussianConfig,
    PictureDecoderConfig,
    PriorConfig,
    Recipe,
    TrainingConfig,
    VimcoConfig,
)
from twostage.errors import UsageError

from .arguments import (
    AS_STORED,
    SOURCE,
    CodebookModel,
    DataPlace,
    Device,
    DryRun,
    Extend,
    FlatRecipe,
    Given,
    Logged,
    OutRun,
    RecipeArgument,
    Resume,
    RunArgument,
    Sized,
    Timeout,
    check_named,
    require,
    resolved_recipe,
)


@dataclass(frozen=True, kw_only=True)
class TrainCodebook:
    """Train stage one: encoder, codebook and decoder of a recipe, into a run folder."""

    source: RecipeArgument
    recipe: FlatRecipe
    model: CodebookModel = "vq-vae"
    """vq-vae takes the recipe's codebook update; vq-vae-ema and vq-vae-loss force one; vq-vae-joint goes on from the
    finished vq-vae of the run, with what its prior asks for codes in the loss."""
    size: Sized = None
    given: Given = frozenset()
    out: OutRun = None
    device: Device = "auto"
    resume: Resume = "auto"
    extend: Extend = False
    log: Logged = "none"
    timeout_seconds: Timeout = 600.0
    dry_run: DryRun = False

    reads: ClassVar = ("data", "recordings", "stage1", "audio", "quantiser", "codebook_training")
    """Sections of the recipe that do something here; the others are kept in the run for other verbs."""

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / self.recipe.name

    def resolved(self) -> "TrainCodebook":
        """The command with its recipe checked and the data path absolute."""
        return replace(self, recipe=resolved_recipe(self.recipe))


@dataclass(frozen=True, kw_only=True)
class TrainPrior:
    """Train stage two: extract the codes of a run and fit the prior over them."""

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    prior: PriorConfig
    wavenet_prior: WaveNetPriorConfig
    prior_training: TrainingConfig
    seed: int
    """Seed of initialisation, batch order and dropout."""
    model: CodebookModel = "vq-vae"
    """Model of the run whose codes are modelled."""
    data: DataPlace = AS_STORED
    device: Device = "auto"
    resume: Resume = "auto"
    extend: Extend = False
    log: Logged = "none"
    timeout_seconds: Timeout = 600.0
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(
            self.data.of(self.stored),
            seed=self.seed,
            prior=self.prior,
            wavenet_prior=self.wavenet_prior,
            prior_training=self.prior_training,
        )

    def resolved(self) -> "TrainPrior":
        """The command, checked."""
        check_recipe(self.recipe, source=SOURCE)
        return self


@dataclass(frozen=True, kw_only=True)
class TrainDecoder:
    """Train a second decoder on the codes of a run as they are.

    Of images it is the picture decoder, for the eye: sharper than the mean of a likelihood, and without bits. Of
    recordings it is a WaveNet, autoregressive over samples.
    """

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    picture_decoder: PictureDecoderConfig
    wavenet_decoder: WaveNetDecoderConfig
    decoder_training: TrainingConfig
    seed: int
    """Seed of initialisation, batch order and dropout."""
    model: CodebookModel = "vq-vae"
    """Model of the run whose codes are decoded."""
    data: DataPlace = AS_STORED
    device: Device = "auto"
    resume: Resume = "auto"
    extend: Extend = False
    log: Logged = "none"
    timeout_seconds: Timeout = 600.0
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(
            self.data.of(self.stored),
            seed=self.seed,
            picture_decoder=self.picture_decoder,
            wavenet_decoder=self.wavenet_decoder,
            decoder_training=self.decoder_training,
        )

    def resolved(self) -> "TrainDecoder":
        """The command, checked."""
        check_recipe(self.recipe, source=SOURCE)
        require("--wavenet-decoder.blocks", self.wavenet_decoder.blocks, self.wavenet_decoder.blocks > 0, "at least 1")
        start, steps = self.picture_decoder.adversarial_start, self.decoder_training.steps
        read = reads_setting(kind_of(self.stored), "picture_decoder", "adversarial_start")
        within = start < steps or not self.picture_decoder.adversarial_weight or not read
        require("--picture-decoder.adversarial-start", start, within, f"less than the {steps} steps of the training")
        return self


@dataclass(frozen=True, kw_only=True)
class TrainBaseline:
    """Train a baseline of a run with the same encoder and decoder: autoencoder, VAE, beta-VAE, conditional VAE, VIMCO.

    Runs on recordings have all but VIMCO.
    """

    run: RunArgument
    stored: Suppress[Recipe]
    """The run's own recipe, which the flags below change."""
    gaussian: GaussianConfig
    vimco: VimcoConfig
    baseline_training: TrainingConfig
    seed: int
    """Seed of initialisation, batch order and latent noise."""
    model: str = "vae"
    """ae, vae, beta-vae (with --beta), cvae (a VAE that is given the label), vimco, or beta-vae-B, which is how a
    beta-VAE is named in the run folder."""
    beta: Annotated[float | None, arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Weight of the KL term in training; bits/dim are always measured at 1. 1 unless given or part of the name."""
    data: DataPlace = AS_STORED
    device: Device = "auto"
    resume: Resume = "auto"
    extend: Extend = False
    log: Logged = "none"
    timeout_seconds: Timeout = 600.0
    dry_run: DryRun = False

    @property
    def recipe(self) -> Recipe:
        """The run's recipe with this command's settings."""
        return replace(
            self.data.of(self.stored),
            seed=self.seed,
            gaussian=self.gaussian,
            vimco=self.vimco,
            baseline_training=self.baseline_training,
        )

    def resolved(self) -> "TrainBaseline":
        """The command, checked, with `model` the name in the run folder (`vae`, `beta-vae-4`) and `beta` a number."""
        check_recipe(self.recipe, source=SOURCE)
        beta, family = self.beta, "vae" if self.model.startswith("beta-vae") else self.model
        check_model_exists(family, self.stored, source="--model")
        if self.model == "beta-vae" and beta is None:
            raise UsageError("--model beta-vae needs --beta, for example --beta 4.")
        if self.model not in ("vae", "beta-vae"):
            check_named(self.model, kind="baseline")
            if beta is not None and not self.model.startswith("beta-vae-"):
                raise UsageError(f"--beta is the weight of vae and beta-vae; leave it out with --model {self.model}.")
            if beta is not None and beta != baseline_beta(self.model):
                raise UsageError(f"--model {self.model} and --beta {beta:g} disagree: give one of them.")
            return replace(self, beta=baseline_beta(self.model))
        beta = 1.0 if beta is None else beta
        if not 0 < beta < math.inf:
            raise UsageError(f"--beta must be more than 0 and finite, but is {beta:g}.")
        return replace(self, model=baseline_name(beta), beta=beta)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train every model of a recipe in order (codebooks, priors, baselines), then evaluate and report."""

    source: RecipeArgument
    recipe: FlatRecipe
    size: Sized = None
    given: Given = frozenset()
    out: OutRun = None
    device: Device = "auto"
    resume: Resume = "auto"
    extend: Extend = False
    log: Logged = "none"
    timeout_seconds: Timeout = 600.0
    dry_run: DryRun = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out or Path("runs") / self.recipe.name

    def resolved(self) -> "Train":
        """The command with its recipe checked and the data path absolute."""
        return replace(self, recipe=resolved_recipe(self.recipe))
