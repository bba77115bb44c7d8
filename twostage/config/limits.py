"""The range of every number of a recipe, without pydantic or torch.

`LIMITS` holds one entry for every numeric field of the schema (a test sees to it); a field without a sensible bound
would have no business there.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from twostage.config.audio_schema import AudioConfig, RecordingsConfig, WaveNetDecoderConfig, WaveNetPriorConfig
from twostage.config.quantiser import LARGEST_CODEBOOK, QuantiserConfig
from twostage.config.schema import (
    DataConfig,
    EvaluationConfig,
    GaussianConfig,
    PictureDecoderConfig,
    PriorConfig,
    Recipe,
    Stage1Config,
    TrainingConfig,
    VimcoConfig,
)


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
_LARGEST_FACTOR = 1e18
"""The product of two such factors, ten times as much in Adam's first step, is still a number of fp32."""
_FACTOR = Limit(0, _LARGEST_FACTOR)
_SHARE = Limit(0, 1, high_open=True)
_ATTENTION = {
    "attention_every": _NOT_NEGATIVE,
    "attention_heads": Limit(1, 64),
    "attention_head_channels": Limit(1, 512),
}

LIMITS: dict[type, dict[str, Limit]] = {
    Recipe: {"seed": Limit(0, 2**32 - 1), "threads": Limit(0, 256)},
    DataConfig: {"levels": Limit(0, 65536), "skip_unreadable": _NOT_NEGATIVE},
    RecordingsConfig: {"sample_rate_hz": Limit(1000, 192_000)},
    AudioConfig: {
        "mixtures": Limit(1, 1024),
        "downsampling_layers": Limit(4, 7),
        "channels": Limit(8, 65536),
        "residual_blocks": _NOT_NEGATIVE,
        "residual_channels": _COUNT,
        "head_channels": _COUNT,
        "speaker_channels": _COUNT,
        "spectral_weight": _FACTOR,
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
        "coarse_bits": Limit(0, 15),
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
        "hierarchy": _COUNT,
        # Half as many at twice the grid's side.
        "channels": Limit(2),
        "residual_blocks": _NOT_NEGATIVE,
        "residual_channels": _COUNT,
        "attention_blocks": _NOT_NEGATIVE,
        "head_channels": _COUNT,
        "mixtures": Limit(1, 1024),
        "mean_weight": _NOT_NEGATIVE,
        "autoregressive_layers": _NOT_NEGATIVE,
        "autoregressive_channels": _COUNT,
        "autoregressive_kernel": Limit(3, odd=True),
    },
    PictureDecoderConfig: {
        # As of stage1.
        "channels": Limit(2),
        "residual_blocks": _NOT_NEGATIVE,
        "residual_channels": _COUNT,
        "head_channels": _COUNT,
        "feature_weight": _FACTOR,
        "adversarial_weight": _FACTOR,
        "adversarial_start": _NOT_NEGATIVE,
        "discriminator_channels": _COUNT,
        "discriminator_layers": Limit(1, 8),
    },
    QuantiserConfig: {
        "codebook_size": Limit(2, LARGEST_CODEBOOK),
        "codebooks": _COUNT,
        "embedding_dim": _COUNT,
        "commitment_beta": _FACTOR,
        "decay": _SHARE,
        "revival_threshold": _SHARE,
        "rate_weight": _FACTOR,
        "quantiser_dropout": Limit(0, 1),
        # On a sphere of one dimension there are two codes.
        "code_dim": Limit(2, 65536),
        "auxiliary_weight": _FACTOR,
    },
    GaussianConfig: {
        "latent_channels": _COUNT,
        "latent_dim": Limit(0, 65536),
        "mlp_layers": Limit(1, 64),
        "mlp_width": _COUNT,
        "kl_warmup_steps": _NOT_NEGATIVE,
        "free_bits": _FACTOR,
        "auxiliary_weight": _FACTOR,
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
        "learning_rate": Limit(0, _LARGEST_FACTOR, low_open=True),
        "warmup_steps": _NOT_NEGATIVE,
        "weight_decay": _FACTOR,
        "clip_norm": _FACTOR,
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


def limited(config: Any, prefix: str = "") -> Iterator[tuple[str, float, Limit]]:
    """Dotted key, value and range of every number of a recipe or of a section."""
    limits = LIMITS.get(type(config), {})
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            yield from limited(value, f"{prefix}{item.name}.")
        elif item.name in limits:
            yield prefix + item.name, value, limits[item.name]
