"""From a model's name to the model: what `vq-vae-loss` or `beta-vae-4` means, how it is built, and how it is loaded.

Model kinds are a closed list; a checkpoint names its kind and the keyword arguments it was built with, never code.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from stage1_vqvae import VAE, VQVAE
from stage2_prior import PixelCNN
from twostage.checkpoint import Checkpoint, load_checkpoint
from twostage.config.check import baseline_beta, check_model
from twostage.config.schema import Recipe
from twostage.data import ImageDataset
from twostage.errors import RunError

MAIN_MODEL = "vq-vae"


@dataclass(frozen=True)
class ModelSpec:
    """What a model's name stands for."""

    name: str
    kind: Literal["vq-vae", "vae"]
    codebook_update: Literal["ema", "loss"] | None
    """None for continuous models."""
    beta: float | None
    """Weight of the KL term in training; None for discrete models."""


def model_spec(name: str, recipe: Recipe) -> ModelSpec:
    """The specification behind a name.

    Raises:
        UsageError: no model has that name.
    """
    check_model(name, source="model")
    if name.startswith("vq-vae"):
        update = recipe.quantiser.update if name == MAIN_MODEL else "ema" if name.endswith("ema") else "loss"
        return ModelSpec(name=name, kind="vq-vae", codebook_update=update, beta=None)
    return ModelSpec(name=name, kind="vae", codebook_update=None, beta=baseline_beta(name))


def stage1_architecture(spec: ModelSpec, recipe: Recipe, dataset: ImageDataset) -> dict[str, Any]:
    """Keyword arguments of `VQVAE` or `VAE` for this data set."""
    common = {"image_shape": dataset.shape, "levels": dataset.levels, **asdict(recipe.stage1)}
    if spec.kind == "vae":
        return {**common, **asdict(recipe.gaussian), "beta": spec.beta}
    quantiser = {k: v for k, v in asdict(recipe.quantiser).items() if k != "init"}
    return {**common, **quantiser, "update": spec.codebook_update}


def prior_architecture(recipe: Recipe, stage1: VQVAE, classes: int) -> dict[str, Any]:
    """Keyword arguments of `PixelCNN` over the codes of `stage1`."""
    settings = asdict(recipe.prior)
    conditional = settings.pop("conditional")
    groups, *grid = stage1.code_shape
    return {
        "codebook_size": stage1.codebook_size,
        "codebooks": groups,
        "grid": tuple(grid),
        "classes": (classes,) if conditional and classes else (),
        **settings,
    }


def _tuples(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """JSON turned the shapes into lists."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}


def build_stage1(kind: str, architecture: Mapping[str, Any]) -> VQVAE | VAE:
    """A freshly initialised model (torch's global generator) of one of the known kinds."""
    if kind == "vq-vae":
        return VQVAE(**_tuples(architecture))
    if kind == "vae":
        return VAE(**_tuples(architecture))
    raise RunError(f"this version knows the model kinds vq-vae and vae, not {kind!r}: update twostage")


@dataclass(frozen=True)
class LoadedStage1:
    """A trained stage one in eval mode, with its record."""

    model: VQVAE | VAE
    checkpoint: Checkpoint

    @property
    def sha256(self) -> str:
        """Digest of the weights file; codes and priors are tied to it."""
        return self.checkpoint.sha256["model.safetensors"]

    @property
    def record(self) -> dict[str, Any]:
        return self.checkpoint.state["record"]


@dataclass(frozen=True)
class LoadedPrior:
    """A trained prior in eval mode."""

    model: PixelCNN
    checkpoint: Checkpoint


def _restore(model: torch.nn.Module, checkpoint: Checkpoint, device: torch.device) -> None:
    try:
        model.load_state_dict(checkpoint.tensors["model"])
    except (RuntimeError, KeyError) as error:
        raise RunError(f"the weights in {checkpoint.path} do not fit the model it describes; train it again") from error
    model.to(device).eval()


def load_stage1(folder: Path, device: torch.device) -> LoadedStage1:
    """The best model of a stage-one training folder.

    Raises:
        RunError: there is none, or it is damaged.
    """
    checkpoint = load_checkpoint(folder / "best")
    record = checkpoint.state["record"]
    model = build_stage1(record["kind"], record["architecture"])
    _restore(model, checkpoint, device)
    return LoadedStage1(model=model, checkpoint=checkpoint)


def load_prior(folder: Path, stage1: LoadedStage1, device: torch.device) -> LoadedPrior:
    """The best prior of a training folder, checked to belong to the codebook of `stage1`.

    Raises:
        RunError: there is none, it is damaged, or it was fitted to the codes of another codebook.
    """
    checkpoint = load_checkpoint(folder / "best")
    record = checkpoint.state["record"]
    if record["stage1_sha256"] != stage1.sha256:
        raise RunError(
            f"the prior in {folder} was fitted to codebook {record['stage1_sha256'][:12]}, but the run's codebook is "
            f"{stage1.sha256[:12]}: remove the prior folder and run train-prior again"
        )
    model = PixelCNN(**_tuples(record["architecture"]))
    _restore(model, checkpoint, device)
    return LoadedPrior(model=model, checkpoint=checkpoint)


def parameter_count(model: torch.nn.Module) -> int:
    """Numbers a model consists of; an EMA codebook is a buffer, but the decoder needs it as much as any parameter."""
    codebook = model.quantiser.codebook if isinstance(model, VQVAE) else None
    buffered = 0 if codebook is None or isinstance(codebook, torch.nn.Parameter) else codebook.numel()
    # The auxiliary likelihood has no part in p(x|z).
    auxiliary = model.decoder.auxiliary if isinstance(model, VQVAE | VAE) else None
    unused = 0 if auxiliary is None else sum(parameter.numel() for parameter in auxiliary.parameters())
    return sum(parameter.numel() for parameter in model.parameters()) + buffered - unused
