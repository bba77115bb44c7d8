"""Settings of experiments on recordings: the sections of a `Recipe` that images have no use for (see `schema`)."""

from dataclasses import dataclass
from typing import Literal

AUDIO_DATA = ("recordings", "vowels")
"""Data sets of recordings: a recipe with one of them is about sound and has the sections for it."""


@dataclass(frozen=True, kw_only=True)
class RecordingsConfig:
    """How a folder of recordings is read, for data.name = recordings."""

    sample_rate_hz: int = 8000
    """Rate of the data set; files of another are resampled, several channels mixed down."""
    pattern: str | None = None
    """What a file's path without its suffix says, such as `{label}_{speaker}_{index}`. Unless given, the first
    sub-folder is the label."""
    ignore: tuple[str, ...] = ()
    """Shell patterns of paths to pass over."""
    test_indices: str | None = None
    """Hold out by {index}: ranges such as 0-4. Without any rule a tenth is held out by digests of names."""
    validation_indices: str | None = None
    """As test_indices, for validation; without it, a tenth of the rest."""
    test_speakers: tuple[str, ...] = ()
    """Hold out these speakers."""
    validation_speakers: tuple[str, ...] = ()
    """As test_speakers, for validation."""
    test_list: str | None = None
    """Hold out the files named in this file of the folder, one a line."""
    validation_list: str | None = None
    """As test_list, for validation."""


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Encoder, convolutional decoder and likelihood of sound, shared by the VQ-VAE and its baselines."""

    likelihood: Literal["mu-law", "logistic-mixture"] = "logistic-mixture"
    """p(x|z) of a sample: `mu-law`, a categorical over 256 mu-law levels, or `logistic-mixture`, discretised over all
    65536 levels of 16 bits. Bits of the two have different alphabets and cannot be compared."""
    mixtures: int = 10
    """Components per sample, read by `logistic-mixture` alone."""
    downsampling_layers: int = 6
    """Stride-2 convolutions: a code stands for 2 to that power samples."""
    channels: int = 128
    """Width of encoder and decoder at the rate of the codes; narrower towards the samples."""
    residual_blocks: int = 2
    """Residual blocks at the rate of the codes, on each side."""
    residual_channels: int = 128
    """Width inside a residual block."""
    head_channels: int = 32
    """Features per sample that the decoder hands to the likelihood and to the waveform."""
    speaker_channels: int = 32
    """Width of a speaker's embedding in the decoders, where the recordings have speakers, and of a cvae's labels."""
    spectral_weight: float = 1.0
    """Weight of the spectral loss, which trains the waveform that the convolutional decoder is heard by."""
    segment_samples: int = 4096
    """Samples of a training segment."""


@dataclass(frozen=True, kw_only=True)
class WaveNetDecoderConfig:
    """The autoregressive decoder of sound, trained on the codes of a finished codebook."""

    blocks: int = 2
    """Repetitions of the dilations; 0: no such decoder."""
    layers_per_block: int = 9
    """Layers with dilations 1, 2, 4, ... in one repetition."""
    channels: int = 64
    """Width of the residual path."""
    kernel: Literal[2, 3] = 2
    """Taps per layer."""
    head_channels: int = 64
    """Features per sample that it hands to the likelihood."""
    dropout: float = 0.0
    """Dropout inside each gated layer."""
    likelihood: Literal["mu-law", "logistic-mixture"] = "logistic-mixture"
    """As audio.likelihood."""
    mixtures: int = 10
    """As audio.mixtures."""
    coarse_bits: int = 0
    """Lowest bits of 16 that are 0 throughout in some of the recordings, as the 8 of an 8-bit one are: the likelihood
    `logistic-mixture` then finds out which. 0: it knows of none."""
    segment_samples: int = 4096
    """Samples of a training segment."""


@dataclass(frozen=True, kw_only=True)
class WaveNetPriorConfig:
    """The WaveNet over sequences of codes."""

    blocks: int = 2
    """Repetitions of the dilations."""
    layers_per_block: int = 5
    """Layers with dilations 1, 2, 4, ... in one repetition."""
    channels: int = 64
    """Width of the residual path."""
    kernel: Literal[2, 3] = 2
    """Taps per layer."""
    dropout: float = 0.0
    """Dropout inside each gated layer."""
    conditional: bool = True
    """Condition on label and speaker where the recordings have them."""
    label_dropout: float = 0.0
    """Share of training items whose label and speaker are hidden: above 0, the same prior also samples without."""
    attention_every: int = 0
    """A block of causal self-attention after every so many gated layers, but not after the last, so fewer than
    blocks times layers_per_block; 0: none."""
    attention_heads: int = 4
    """Heads of such a block."""
    attention_head_channels: int = 16
    """Width of each head."""
    max_seconds: float = 0.0
    """Longest sound that has a probability; 0: twice the longest training recording."""
