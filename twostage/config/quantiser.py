"""Settings of the discrete bottleneck, which of them each kind of quantiser reads, and their check. Without torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from twostage.errors import UsageError
from twostage.printable import shown

LARGEST_CODEBOOK = 65536
"""Codes of a codebook: they are kept in 16 bits."""

QuantiserKind = Literal["vq", "residual", "fsq", "cosine", "simvq"]


@dataclass(frozen=True, kw_only=True)
class QuantiserConfig:
    """The discrete bottleneck."""

    kind: QuantiserKind = "vq"
    """How vectors become codes: the nearest of a codebook (`vq`); codes that each quantise what those before left over
    (`residual`); channels rounded to a few levels (`fsq`); the nearest direction of few channels (`cosine`); the
    nearest of random vectors under a learned linear map (`simvq`)."""
    codebook_size: int = 512
    """K, vectors per codebook."""
    codebooks: int = 1
    """G, codes per grid position: parts of the embedding (`vq`, `simvq`), levels (`residual`), groups of the channels
    of `fsq_levels` (`fsq`), or as many times code_dim channels (`cosine`)."""
    embedding_dim: int = 64
    """Channels at the bottleneck, all codebooks together."""
    update: Literal["ema", "loss"] = "ema"
    """How the codebook learns: moving averages of the assigned vectors, or gradients of the codebook loss."""
    gradient: Literal["straight-through", "rotation"] = "straight-through"
    """Gradient past the quantiser: copied, or rotated and scaled with the vector (rotation trick)."""
    commitment_beta: float = 0.25
    """Weight of the commitment term |sg(e) - z|^2; with `fsq` of what lies beyond the outermost levels."""
    decay: float = 0.99
    """Decay of the moving averages (counts are tracked in both modes)."""
    init: Literal["kmeans", "random"] = "kmeans"
    """Codebook at step 0: k-means on encoded training images, or small random vectors."""
    revival_threshold: float = 0.03
    """A code used less than this share of the tokens expected per code moves onto an encoded vector; 0: never."""
    rate_weight: float = 0.0
    """What a bit of a code counts beside the squared distance when codes are chosen, as a share of the variance of the
    codes' vectors; its bits are those of running frequencies. 0.01 to 0.1 save rate at some distortion; 0: nearest."""
    quantiser_dropout: float = 0.0
    """Share of the training items of which the decoder sees a random prefix of the levels of `residual`: codes then
    decode from any number of them."""
    code_dim: int = 32
    """Channels in which a code of `cosine` is chosen; linear layers lead there and back."""
    fsq_levels: tuple[int, ...] = (8, 5, 5, 5)
    """Levels of every channel that `fsq` rounds; K is the product of those of a codebook."""
    auxiliary_weight: float = 0.0
    """Training weight of a likelihood on the decoder's features alone, which keeps codes in use under autoregressive
    layers; it has no part in bits/dim. 0: none."""

    @property
    def starts_from_data(self) -> bool:
        """Whether k-means places the codebook before step 0."""
        return self.init == "kmeans" and "init" in QUANTISERS[self.kind].reads

    @property
    def size(self) -> int:
        """K: as chosen, or as the levels of the kind have it.

        Raises:
            UsageError: the levels do not give every codebook as many codes.
        """
        levels = "fsq_levels" in QUANTISERS[self.kind].reads
        return size_of_levels(self.fsq_levels, self.codebooks) if levels else self.codebook_size

    @property
    def update_rule(self) -> Literal["ema", "loss", "fixed"]:
        """How the codebook learns: as chosen, or as the kind has it."""
        facts = QUANTISERS[self.kind]
        return self.update if "update" in facts.reads else facts.update

    def arguments(self, *, update: str | None) -> dict[str, Any]:
        """Keyword arguments of a model: the kind and what it reads; with this update where that is a choice."""
        own = {key: getattr(self, key) for key in QUANTISERS[self.kind].reads if key != "init"}
        if "update" in own:
            own["update"] = update
        return {"quantiser": self.kind, "embedding_dim": self.embedding_dim, **own}


@dataclass(frozen=True, kw_only=True)
class QuantiserFacts:
    """What a recipe must know of a kind of quantiser."""

    reads: tuple[str, ...]
    """Settings that do something, beside those of every kind (`_SHARED`)."""
    splits: bool = False
    """Whether the embedding is split into a part for each codebook."""
    update: Literal["loss", "fixed"] = "loss"
    """How its codebook learns where `update` is not read."""
    levels: bool = False
    """Whether codebooks are levels, the first of which decode by themselves; there are at least two."""
    distances: bool = True
    """Whether codes are chosen by the distance to a vector of each."""


_SHARED = ("kind", "embedding_dim", "auxiliary_weight")
_COMMITTED = ("codebook_size", "codebooks", "gradient", "commitment_beta")
_LEARNED = (*_COMMITTED, "update", "decay", "init", "revival_threshold", "rate_weight")

QUANTISERS: Mapping[QuantiserKind, QuantiserFacts] = {
    "vq": QuantiserFacts(reads=_LEARNED, splits=True),
    "residual": QuantiserFacts(reads=(*_LEARNED, "quantiser_dropout"), levels=True),
    "fsq": QuantiserFacts(reads=("fsq_levels", "codebooks", "commitment_beta"), update="fixed", distances=False),
    "cosine": QuantiserFacts(reads=(*_LEARNED, "code_dim")),
    "simvq": QuantiserFacts(reads=_COMMITTED, splits=True),
}
"""An entry for every kind."""


def size_of_levels(levels: Sequence[int], codebooks: int) -> int:
    """K of each of `codebooks` equal groups of channels with so many levels.

    Raises:
        UsageError: a channel of fewer than 2 levels, or levels that do not split into groups of one size and one K.
    """
    if not levels or min(levels) < 2 or codebooks < 1 or len(levels) % codebooks:
        raise UsageError(
            "quantiser.fsq_levels must be at least 2 in every channel, for a number of channels that "
            f"quantiser.codebooks ({codebooks}) divides, but is {shown(tuple(levels))}."
        )
    width = len(levels) // codebooks
    sizes = {math.prod(levels[first : first + width]) for first in range(0, len(levels), width)}
    if len(sizes) > 1 or max(sizes) > LARGEST_CODEBOOK:
        given = "more" if max(sizes) > LARGEST_CODEBOOK else " or ".join(map(str, sorted(sizes)))
        raise UsageError(
            f"quantiser.fsq_levels must give every codebook the same number of codes, at most {LARGEST_CODEBOOK}, but "
            f"{shown(tuple(levels))} in {codebooks} codebooks give {given}."
        )
    return sizes.pop()


def unread(config: QuantiserConfig, models: Sequence[str]) -> dict[str, Any]:
    """Settings that are not at their defaults, which come back, and that neither the kind nor a model reads."""
    read = {*QUANTISERS[config.kind].reads, *_SHARED, *(("codebooks",) if "vimco" in models else ())}
    return {
        item.name: item.default
        for item in fields(config)
        if item.name not in read and getattr(config, item.name) != item.default
    }


def has_update(config: QuantiserConfig, model: str) -> bool:
    """Whether a model's name leaves open how its codebook learns, or that is a choice."""
    return model not in ("vq-vae-ema", "vq-vae-loss") or "update" in QUANTISERS[config.kind].reads


def check_update(config: QuantiserConfig, model: str, *, source: str) -> None:
    """Raise UsageError for a model's name that says how a codebook learns, where that is no choice."""
    if not has_update(config, model):
        raise UsageError(
            f"{source}: {model} says how a codebook learns, which is no choice with quantiser.kind {config.kind}: "
            "leave it out, vq-vae is that model."
        )


def check_quantiser(config: QuantiserConfig, models: tuple[str, ...], *, searched: bool, source: str) -> None:
    """Raise UsageError for settings that do not fit one another, or that the kind does not read: they would do nothing.

    Args:
        models: names of the recipe's models.
        searched: whether the evaluation searches codes.
        source: names the file or the command line.
    """
    facts, where = QUANTISERS[config.kind], f"{source}: quantiser"
    for name, default in unread(config, models).items():
        raise UsageError(
            f"{where}.{name} is not read by quantiser.kind {config.kind}, but is {shown(getattr(config, name))}: leave "
            f"it out, or set it back to {shown(default)}."
        )
    if (facts.splits or "vimco" in models) and config.embedding_dim % config.codebooks:
        raise UsageError(
            f"{where}.embedding_dim must be a multiple of quantiser.codebooks ({config.codebooks}), "
            f"but is {config.embedding_dim}."
        )
    if "fsq_levels" in facts.reads:
        try:
            size_of_levels(config.fsq_levels, config.codebooks)
        except UsageError as error:
            raise UsageError(f"{source}: {error}") from None
    if facts.levels and config.codebooks == 1:
        raise UsageError(
            f"{where}.kind {config.kind} with a single level is the kind vq: set quantiser.codebooks, which is 1, to "
            "the number of levels, or choose vq."
        )
    for name in models:
        check_update(config, name, source=f"{source}: models")
    if searched and config.kind != "vq":
        raise UsageError(
            f"{source}: evaluation.search_items searches among near vectors of a codebook, which quantiser.kind "
            f"{config.kind} does not have: it must be 0."
        )
