"""Agreements between settings that types cannot express, checked without pydantic or torch.

Files and command-line flags end in the same `Recipe`, so both pass through `check_recipe`. Ranges of single numbers are
in `limits`.
"""

import re
from dataclasses import fields

from twostage.config.audio_schema import RecordingsConfig
from twostage.config.image_size import sides_of
from twostage.config.kinds import KINDS, check_model_exists, kind_of
from twostage.config.limits import limited
from twostage.config.model_names import JOINT_MODEL, MAIN_MODEL, check_joint, check_model
from twostage.config.quantiser import check_quantiser
from twostage.config.schema import (
    Recipe,
    TrainingConfig,
)
from twostage.errors import UsageError
from twostage.printable import shown

_RECIPE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def check_recipe(recipe: Recipe, *, source: str) -> None:
    """Raise `UsageError` for the first setting out of range; `source` names the file or the command line."""
    for key, value, limit in limited(recipe):
        if not limit.admits(value):
            raise UsageError(f"{source}: {key} must be {limit}, but is {shown(value)}.")
    if not _RECIPE_NAME.fullmatch(recipe.name):
        raise UsageError(
            f"{source}: name must be made of letters, digits and . _ + - (it names the run folder), "
            f"but is {shown(recipe.name)}."
        )
    _check_models(recipe, source)
    check_quantiser(recipe.quantiser, recipe.models, searched=recipe.evaluation.search_items > 0, source=source)
    _check_kind(recipe, source)
    _check_images(recipe, source)
    _check_audio(recipe, source)
    _check_attention(recipe, source)
    for section in ("codebook_training", "decoder_training", "prior_training", "joint_training", "baseline_training"):
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
    try:
        sides_of(data.image_size)
    except UsageError as error:
        raise UsageError(f"{source}: {error}.") from None
    if data.test_folder and not data.train_folder:
        raise UsageError(f"{source}: data.test_folder needs data.train_folder, which is not given.")
    if recipe.stage1.hierarchy > 1 and not any(name.startswith("vq-vae") for name in recipe.models):
        raise UsageError(
            f"{source}: stage1.hierarchy is of a VQ-VAE, which models does not name, so it must be 1, but is "
            f"{recipe.stage1.hierarchy}."
        )
    if recipe.stage1.likelihood == "mse" and recipe.stage1.autoregressive_layers:
        raise UsageError(
            f"{source}: stage1.likelihood mse has no distribution over pixels to draw from, so "
            f"stage1.autoregressive_layers must be 0, but is {recipe.stage1.autoregressive_layers}."
        )
    if recipe.stage1.mean_weight and not recipe.stage1.has_mean_weight:
        raise UsageError(
            f"{source}: stage1.mean_weight is for logistic-mixture without autoregressive layers, but "
            f"stage1.likelihood is {recipe.stage1.likelihood} with {recipe.stage1.autoregressive_layers} of them: "
            "set it to 0."
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
    if recipe.wavenet_decoder.coarse_bits and recipe.wavenet_decoder.likelihood == "mu-law":
        raise UsageError(
            f"{source}: wavenet_decoder.coarse_bits are bits of 16, but wavenet_decoder.likelihood is mu-law: leave "
            "one of them out."
        )
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


def _check_models(recipe: Recipe, source: str) -> None:
    models = recipe.models
    if not models:
        raise UsageError(f"{source}: models must name at least one model, but is empty.")
    for name in models:
        check_model(name, source=f"{source}: models")
    if len(set(models)) < len(models):
        raise UsageError(f"{source}: models must name every model once, but is {shown(list(models))}.")
    if JOINT_MODEL in models:
        check_joint(recipe, source=f"{source}: models")
        if MAIN_MODEL not in models[: models.index(JOINT_MODEL)]:
            raise UsageError(
                f"{source}: models must name {MAIN_MODEL} before {JOINT_MODEL}, which goes on from it, but is "
                f"{shown(list(models))}."
            )
