"""Names of models: a closed list, and the family of beta-VAEs beside it. Without torch."""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from twostage.class_names import composed
from twostage.config.quantiser import QUANTISERS, check_update
from twostage.config.schema import Recipe
from twostage.errors import UsageError
from twostage.printable import shown

MODEL_NAMES = ("vq-vae", "vq-vae-ema", "vq-vae-loss", "vq-vae-joint", "ae", "vae", "cvae", "vimco")
"""Fixed model names; `beta-vae-B`, B a positive number such as 4 or 0.5, is the open family beside them."""

_BETA_VAE = re.compile(r"beta-vae-(\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def check_model(name: str, *, source: str) -> None:
    """Raise `UsageError` unless `name` is one of `MODEL_NAMES` or the `baseline_name` of a beta > 0."""
    match = _BETA_VAE.fullmatch(name)
    if name in MODEL_NAMES or (match and 0 < float(match[1]) < math.inf and baseline_name(float(match[1])) == name):
        return
    raise UsageError(
        f"{source}: expected a model out of {', '.join(MODEL_NAMES)} or beta-vae-B with B > 0, B != 1 (beta-vae-4), "
        f"but got {shown(name)}.{near_matches(name, MODEL_NAMES)}"
    )


def baseline_name(beta: float) -> str:
    """Name of the VAE trained at `beta`: `vae` at 1, else `beta-vae-4`, `beta-vae-0.5`."""
    return "vae" if beta == 1 else f"beta-vae-{beta:.12g}"


def baseline_beta(name: str) -> float:
    """The beta that `baseline_name` was given; 1 for `vae`."""
    return float(name.removeprefix("beta-vae-")) if name.startswith("beta-vae-") else 1.0


def near_matches(name: str, names: Iterable[str]) -> str:
    """` Did you mean ...?` with a leading space, or nothing when nothing is near."""
    spelled = {composed(each).casefold(): each for each in names}
    near = difflib.get_close_matches(composed(name).casefold(), list(spelled), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(spelled[key] for key in near)}?" if near else ""


MAIN_MODEL = "vq-vae"
JOINT_MODEL = "vq-vae-joint"
"""The main model, gone on with: stage one trained with what the finished prior asks for its codes, then the prior."""

Kind = Literal["vq-vae", "ae", "vae", "cvae", "vimco"]


def check_joint(recipe: Recipe, *, source: str) -> None:
    """Raise UsageError where codes cannot be trained by their price."""
    if not QUANTISERS[recipe.quantiser.kind].distances:
        raise UsageError(
            f"{source}: {JOINT_MODEL} moves vectors between codes by their distances, which quantiser.kind "
            f"{recipe.quantiser.kind} does not have: leave it out, or choose another kind."
        )
    if recipe.stage1.likelihood == "mse":
        raise UsageError(
            f"{source}: {JOINT_MODEL} adds the bits of the codes to those of the images, which stage1.likelihood mse "
            "does not have: leave it out, or choose another likelihood."
        )


@dataclass(frozen=True)
class ModelSpec:
    """What a model's name stands for."""

    name: str
    kind: Kind
    codebook_update: Literal["ema", "loss", "fixed"] | None = None
    """None for models without a codebook."""
    beta: float | None = None
    """Weight of the KL term in training; None for models without one."""
    starts_from: str | None = None
    """Model of the same run whose finished stage one and prior this one goes on from, under a name of its own."""


def model_spec(name: str, recipe: Recipe) -> ModelSpec:
    """The specification behind a name.

    Raises:
        UsageError: no model has that name, it says of a quantiser how it learns where that is no choice, or it has no
            price to train with.
    """
    check_model(name, source="model")
    check_update(recipe.quantiser, name, source="model")
    if name.startswith("vq-vae"):
        if name == JOINT_MODEL:
            check_joint(recipe, source="model")
        own = recipe.quantiser.update_rule
        update = own if name in (MAIN_MODEL, JOINT_MODEL) else "ema" if name.endswith("ema") else "loss"
        start = MAIN_MODEL if name == JOINT_MODEL else None
        return ModelSpec(name=name, kind="vq-vae", codebook_update=update, starts_from=start)
    if name == "ae":
        return ModelSpec(name=name, kind="ae")
    if name == "vimco":
        return ModelSpec(name=name, kind="vimco")
    return ModelSpec(name=name, kind="cvae" if name == "cvae" else "vae", beta=baseline_beta(name))
