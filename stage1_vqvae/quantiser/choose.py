"""Which quantisers there are, by name: a new one is a file in this folder, a line here and one in the recipe's table.

The table `QUANTISERS` of `twostage.config.quantiser` says which settings each kind reads, for a recipe and for keyword
arguments alike.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stage1_vqvae.quantiser.codebook import CodebookSettings
from stage1_vqvae.quantiser.cosine import CosineQuantiser
from stage1_vqvae.quantiser.fsq import FiniteScalarQuantiser
from stage1_vqvae.quantiser.interface import Quantiser
from stage1_vqvae.quantiser.quantiser import VectorQuantiser
from stage1_vqvae.quantiser.residual import ResidualQuantiser
from stage1_vqvae.quantiser.simvq import SimVQ
from twostage.config.quantiser import QUANTISERS, QuantiserKind
from twostage.errors import UsageError

_CLASSES: Mapping[QuantiserKind, Callable[..., Quantiser]] = {
    "vq": VectorQuantiser,
    "residual": ResidualQuantiser,
    "fsq": FiniteScalarQuantiser,
    "cosine": CosineQuantiser,
    "simvq": SimVQ,
}


class QuantiserSettings(CodebookSettings, total=False):
    """Settings of every kind in one flat space; see the classes, and `QuantiserConfig` for what they mean.

    One that the chosen kind does not read is refused.
    """

    codebook_size: int
    codebooks: int
    quantiser_dropout: float
    code_dim: int
    fsq_levels: Sequence[int]


def make_quantiser(kind: QuantiserKind, *, embedding_dim: int, **settings: Any) -> Quantiser:
    """A freshly initialised quantiser (torch's global generator) over `embedding_dim` channels.

    Args:
        settings: any of `QuantiserSettings`.

    Raises:
        UsageError: an unknown kind, a setting that it does not read, or sizes that do not fit.
    """
    if kind not in _CLASSES:
        raise UsageError(f"The quantiser is one of {', '.join(_CLASSES)}, got {kind!r}; choose one of them.")
    unread = sorted(settings.keys() - set(QUANTISERS[kind].reads))
    if unread:
        raise UsageError(f"The quantiser {kind} does not read {', '.join(unread)}; leave that out.")
    return _CLASSES[kind](embedding_dim=embedding_dim, **settings)


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keyword arguments of a model taken apart: those of its quantiser, and those of its networks."""
    own = {key: value for key, value in settings.items() if key in QuantiserSettings.__annotations__}
    return own, {key: value for key, value in settings.items() if key not in own}
