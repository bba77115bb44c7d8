"""Ranges and agreements between settings that types cannot express, checked without pydantic or torch.

Files and command-line flags end in the same `Recipe`, so both pass through `check_recipe`. `LIMITS` holds one entry for
every numeric field of the schema (a test sees to it); a field without a sensible bound would have no business there.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from twostage.config.audio_schema import AudioConfig, RecordingsConfig, WaveNetDecoderConfig, WaveNetPriorConfig
from twostage.config.kinds import KINDS, check_model_exists, kind_of
from twostage.config.model_names import check_model
from twostage.config.quantiser import LARGEST_CODEBOOK, QuantiserConfig, check_quantiser
from twostage.config.schema import (
    DataConfig,
    EvaluationConfig,
    GaussianConfig,
    PriorConfig,
    Recipe,
    Stage1Config,
    TrainingConfig,
    VimcoConfig,
)
from twostage.errors import UsageError
from twostage.printable import shown

_RECIPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Limit:
    """Closed or half-open interval of a number; `odd` for kernel sides."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    odd: bool = False

    def admits(self, value: float) -> bool:
        """True when `value` is finite and inside; NaN is outside of everything."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        # Comparisons first: NaN fails them, and an integer too long for a float never reaches isfinite.
        return above and below and (isinstance(value, int) or math.isfinite(value)) and (not self.odd or value % 2 == 1)

    def __str__(self) -> str:
        parts = [f"{'more than' if self.low_open else 'at least'} {self.low:.12g}"]
        if self.high != math.inf:
            parts.append(f"{'less than' if self.high_open else 'at most'} {self.high:.12g}")
        return ("odd, " if self.odd else "") + " and ".join(parts)


_COUNT = Limit(1, 2**31 - 1)
_NOT_NEGATIVE = Limit(0)
_POSITIVE = Limit(0, low_open=True)
_SHARE = Limit(0, 1, high_open=True)
_ATTENTION = {
    "attention_every": _NOT_NEGATIVE,
    "attention_heads": Limit(1, 64),
    "attention_head_channels": Limit(1, 512),
}

LIMITS: dict[type, dict[str, Limit]] = {
    Recipe: {"seed": Limit(0, 2**32 - 1), "threads": Limit(0, 256)},
    DataConfig: {"image_size": Limit(2, 4096), "skip_unreadable": _NOT_NEGATIVE},
    RecordingsConfig: {"sample_rate_hz": Limit(1000, 192_000)},
    AudioConfig: {
        "mixtures": Limit(1, 1024),
        "downsampling_layers": Limit(4, 7),
        "channels": Limit(8, 65536),
        "residual_blocks": _NOT_NEGATIVE,
        "residual_channels": _COUNT,
        "head_channels": _COUNT,
        "speaker_channels": _COUNT,
        "spectral_weight": _NOT_NEGATIVE,
        "segment_samples": Limit(128, 2**24),
    },
    WaveNetDecoderConfig: {
        "blocks": Limit(0, 64),
        "layers_per_block": Limit(1, 16),
        "channels": _COUNT,
        "kernel": Limit(2, 3),
        "head_channels": _COUNT,
        "dropout": _SHARE,
        "mixtures": Limit(1, 1024),
        "segment_samples": Limit(128, 2**24),
    },
    WaveNetPriorConfig: {
        "blocks": Limit(1, 64),
        "layers_per_block": Limit(1, 16),
        "channels": _COUNT,
        "kernel": Limit(2, 3),
        "dropout": _SHARE,
        "label_dropout": _SHARE,
        **_ATTENTION,
        "max_seconds": _NOT_NEGATIVE,
    },
    Stage1Config: {
        # Half as many at twice the grid's side.
        "channels": Limit(2),
        "residual_blocks": _NOT_NEGATIVE,
        "residual_channels": _COUNT,
        "head_channels": _COUNT,
        "mixtures": Limit(1, 1024),
        "autoregressive_layers": _NOT_NEGATIVE,
        "autoregressive_channels": _COUNT,
        "autoregressive_kernel": Limit(3, odd=True),
    },
    QuantiserConfig: {
        "codebook_size": Limit(2, LARGEST_CODEBOOK),
        "codebooks": _COUNT,
        "embedding_dim": _COUNT,
        "commitment_beta": _NOT_NEGATIVE,
        "decay": _SHARE,
        "revival_threshold": _SHARE,
        "quantiser_dropout": Limit(0, 1),
        # On a sphere of one dimension there are two codes.
        "code_dim": Limit(2, 65536),
        "auxiliary_weight": _NOT_NEGATIVE,
    },
    GaussianConfig: {
        "latent_channels": _COUNT,
        "latent_dim": Limit(0, 65536),
        "mlp_layers": Limit(1, 64),
        "mlp_width": _COUNT,
        "kl_warmup_steps": _NOT_NEGATIVE,
        "free_bits": _NOT_NEGATIVE,
        "auxiliary_weight": _NOT_NEGATIVE,
    },
    VimcoConfig: {"samples": Limit(2, 1024)},
    PriorConfig: {
        "layers": _COUNT,
        "channels": _COUNT,
        # A masked kernel of side 1 sees no neighbour: the prior would be blind.
        "first_kernel": Limit(3, odd=True),
        "kernel": Limit(3, odd=True),
        "dropout": _SHARE,
        "label_dropout": _SHARE,
        **_ATTENTION,
    },
    TrainingConfig: {
        "steps": _COUNT,
        "batch_size": _COUNT,
        "accumulate": _COUNT,
        "learning_rate": _POSITIVE,
        "warmup_steps": _NOT_NEGATIVE,
        "weight_decay": _NOT_NEGATIVE,
        "clip_norm": _NOT_NEGATIVE,
        "weight_ema": _SHARE,
        "patience": _NOT_NEGATIVE,
        "validate_every": _COUNT,
        "checkpoint_every": _COUNT,
    },
    EvaluationConfig: {
        "iwae_samples": _COUNT,
        "batch_size": _COUNT,
        "batch_samples": _COUNT,
        "sampled_items": _NOT_NEGATIVE,
        "search_items": _NOT_NEGATIVE,
        "search_candidates": Limit(2, 65536),
        "search_sweeps": _COUNT,
        "coded_items": _NOT_NEGATIVE,
        "frechet_samples": _NOT_NEGATIVE,
    },
}


def check_recipe(recipe: Recipe, *, source: str) -> None:
    """Raise `UsageError` for the first setting out of range; `source` names the file or the command line."""
    for key, value, limit in _limited(recipe, ""):
        if not limit.admits(value):
            raise UsageError(f"{source}: {key} must be {limit}, but is {shown(value)}.")
    if not _RECIPE_NAME.fullmatch(recipe.name):
        raise UsageError(
            f"{source}: name must be made of letters, digits and . _ + - (it names the run folder), "
            f"but is {shown(recipe.name)}."
        )
    _check_models(recipe.models, source)
    check_quantiser(recipe.quantiser, recipe.models, searched=recipe.evaluation.search_items > 0, source=source)
    _check_kind(recipe, source)
    _check_images(recipe, source)
    _check_audio(recipe, source)
    _check_attention(recipe, source)
    for section in ("codebook_training", "decoder_training", "prior_training", "baseline_training"):
        training: TrainingConfig = getattr(recipe, section)
        if training.patience and training.validate_every > training.steps:
            raise UsageError(
                f"{source}: {section}.patience counts validations, but {section}.validate_every "
                f"({training.validate_every}) is more than {section}.steps ({training.steps})."
            )
        if training.accumulate > training.batch_size:
            raise UsageError(
                f"{source}: {section}.accumulate must be at most {section}.batch_size ({training.batch_size}), "
                f"but is {training.accumulate}."
            )
        if training.warmup_steps > training.steps:
            raise UsageError(
                f"{source}: {section}.warmup_steps must be at most {section}.steps ({training.steps}), "
                f"but is {training.warmup_steps}."
            )


def _check_kind(recipe: Recipe, source: str) -> None:
    """No setting of another kind of data, such as one of images in a recipe of sound: it would do nothing."""
    for name in recipe.models:
        check_model_exists(name, recipe, source=f"{source}: models")
    own, untouched = KINDS[kind_of(recipe)], type(recipe)()
    for other in KINDS.values():
        sections = [section for section in other.sections if hasattr(recipe, section)]
        keys = [(section, item.name) for section in sections for item in fields(getattr(recipe, section))]
        keys += [(section, key) for section, names in other.settings.items() for key in names]
        for section, key in keys:
            value = getattr(getattr(recipe, section), key)
            if not own.has(section, key) and value != getattr(getattr(untouched, section), key):
                raise UsageError(
                    f"{source}: {section}.{key} is a setting of {other.about}, but data.name is {recipe.data.name} and "
                    f"it is {shown(value)}: leave it out."
                )


def _check_images(recipe: Recipe, source: str) -> None:
    data = recipe.data
    if data.test_folder and not data.train_folder:
        raise UsageError(f"{source}: data.test_folder needs data.train_folder, which is not given.")
    if recipe.stage1.likelihood == "mse" and recipe.stage1.autoregressive_layers:
        raise UsageError(
            f"{source}: stage1.likelihood mse has no distribution over pixels to draw from, so "
            f"stage1.autoregressive_layers must be 0, but is {recipe.stage1.autoregressive_layers}."
        )
    for section in ("quantiser", "gaussian"):
        if getattr(recipe, section).auxiliary_weight and not recipe.stage1.autoregressive_layers:
            raise UsageError(
                f"{source}: {section}.auxiliary_weight is for autoregressive decoders, but "
                "stage1.autoregressive_layers is 0."
            )
    if recipe.gaussian.network == "mlp" and not recipe.gaussian.latent_dim:
        raise UsageError(
            f"{source}: gaussian.network mlp has a vector of latents, so gaussian.latent_dim must be at least 1, but "
            "is 0."
        )
    if recipe.prior.label_dropout and not recipe.prior.conditional:
        raise UsageError(
            f"{source}: prior.label_dropout hides labels of a conditional prior, but prior.conditional is false."
        )
    if recipe.stage1.likelihood == "mse" and recipe.evaluation.search_items:
        raise UsageError(
            f"{source}: stage1.likelihood mse has no bits that a search could lower, so evaluation.search_items must "
            f"be 0, but is {recipe.evaluation.search_items}."
        )
    if (recipe.stage1.likelihood == "bernoulli") != (data.binarise != "none"):
        raise UsageError(
            f"{source}: stage1.likelihood bernoulli and data.binarise static or dynamic go together, but they are "
            f"{recipe.stage1.likelihood} and {data.binarise}."
        )


def _check_audio(recipe: Recipe, source: str) -> None:
    if recipe.wavenet_prior.label_dropout and not recipe.wavenet_prior.conditional:
        raise UsageError(
            f"{source}: wavenet_prior.label_dropout hides labels of a conditional prior, but wavenet_prior.conditional "
            "is false."
        )
    if recipe.data.name == "vowels" and recipe.recordings != RecordingsConfig():
        raise UsageError(f"{source}: [recordings] says how a folder is read, but data.name is vowels: leave it out.")
    for section in ("audio", "wavenet_decoder"):
        samples, stride = getattr(recipe, section).segment_samples, 2**recipe.audio.downsampling_layers
        if samples % stride:
            raise UsageError(
                f"{source}: {section}.segment_samples must be a multiple of the {stride} samples of a code, but is "
                f"{samples}."
            )


def _check_attention(recipe: Recipe, source: str) -> None:
    sound = recipe.wavenet_prior
    for section, layers in (("prior", recipe.prior.layers), ("wavenet_prior", sound.blocks * sound.layers_per_block)):
        every = getattr(recipe, section).attention_every
        if every >= layers:
            raise UsageError(
                f"{source}: {section}.attention_every must be below its {layers} gated layers (none follows the last), "
                f"but is {every}."
            )


def _check_models(models: tuple[str, ...], source: str) -> None:
    if not models:
        raise UsageError(f"{source}: models must name at least one model, but is empty.")
    for name in models:
        check_model(name, source=f"{source}: models")
    if len(set(models)) < len(models):
        raise UsageError(f"{source}: models must name every model once, but is {shown(list(models))}.")


def _limited(config: Any, prefix: str) -> Iterator[tuple[str, float, Limit]]:
    limits = LIMITS.get(type(config), {})
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from _limited(value, f"{prefix}{item.name}.")
        elif item.name in limits:
            yield prefix + item.name, value, limits[item.name]
