"""Parts of a model that belong together: what follows a codebook was fitted to its codes; and how large they are."""

import re
from typing import Any

import torch

from twostage.errors import RunError
from twostage.storage.models import Loaded, load_model, shapes_only

__all__ = ["Loaded", "check_made_for", "load_model", "parameter_count", "shapes_only"]

_CODEBOOK = re.compile(r"quantiser\.([0-9]+\.)?codebook")
_TRAINING_ALONE = ("decoder.auxiliary.", "discriminator.")
"""How names of parameters begin that nothing but a training asks."""


def check_made_for(follower: Loaded[Any], stage1: Loaded[Any], what: str) -> None:
    """Raise RunError where a prior or a decoder (`what`) was fitted to the codes of another codebook."""
    fitted_to = follower.record["stage1_sha256"]
    if fitted_to != stage1.sha256:
        raise RunError(
            f"the {what} in {follower.checkpoint.path.parent} was fitted to codebook {fitted_to[:12]}, but the run's "
            f"codebook is {stage1.sha256[:12]}: remove the {what} folder and run train-{what} again"
        )


def parameter_count(model: torch.nn.Module) -> int:
    """Numbers a model consists of: an EMA codebook is a buffer, but the decoder needs it as much as any parameter.

    What is there for training alone has no part here: the auxiliary likelihood of an autoregressive decoder, and a
    discriminator.
    """
    buffers = dict(model.named_buffers())  # of a hierarchy `quantiser.0.codebook` and so on
    codebooks = {name: buffer for name, buffer in buffers.items() if _CODEBOOK.fullmatch(name)}
    own = {**dict(model.named_parameters()), **codebooks}
    return sum(values.numel() for name, values in own.items() if not name.startswith(_TRAINING_ALONE))
