"""The settings of encoder, decoder and likelihood that all models of sound share, spelled once."""

from dataclasses import dataclass
from typing import TypedDict

from twostage.errors import UsageError

HALVINGS = (4, 5, 6, 7)
"""Numbers of stride-2 layers: 16 to 128 samples per code."""


class AudioNetworkSettings(TypedDict, total=False):
    """Keyword arguments that every model of sound takes; `AudioNetworks` says what they mean and their defaults."""

    likelihood: str
    mixtures: int
    speakers: int
    speaker_channels: int
    downsampling_layers: int
    channels: int
    residual_blocks: int
    residual_channels: int
    head_channels: int
    spectral_weight: float


@dataclass(frozen=True, kw_only=True)
class AudioNetworks:
    """The settings, complete.

    Raises:
        UsageError: a number of layers that is none of `HALVINGS`.
    """

    likelihood: str = "logistic-mixture"
    """See `twostage.likelihoods.audio.AudioLikelihood`, as for `mixtures`."""
    mixtures: int = 10
    """Components of the mixture."""
    speakers: int = 0
    """Number of speakers that the decoder is conditioned on; 0: none."""
    speaker_channels: int = 32
    """V, width of the embedding of a speaker or a label, added at the rate of the codes and to the features."""
    downsampling_layers: int = 6
    """Halvings of the rate; a code stands for 2 to that power samples."""
    channels: int = 128
    """C, width of encoder and decoder at the rate of the codes."""
    residual_blocks: int = 2
    """Depth of encoder and decoder at the rate of the codes."""
    residual_channels: int = 128
    """Width inside a residual block."""
    head_channels: int = 32
    """F, features per sample handed to the likelihood."""
    spectral_weight: float = 1.0
    """Of the spectral loss, beside one nat per sample."""

    def __post_init__(self) -> None:
        if self.downsampling_layers not in HALVINGS:
            raise UsageError(
                f"downsampling_layers must be {HALVINGS[0]} to {HALVINGS[-1]}, not {self.downsampling_layers}"
            )

    @property
    def stride(self) -> int:
        """Samples per code."""
        return 1 << self.downsampling_layers
