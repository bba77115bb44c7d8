"""Every setting of an experiment, as frozen dataclasses without torch.

One `Recipe` is one experiment. Its sections are read from a flat TOML file (`twostage.config.load`), shown as typed
flags on the command line, and written back, complete, as `config.toml` in the run folder. The docstring under a field
is its help text. Modules never see these classes: pipelines unpack them into plain keyword arguments.
"""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from twostage.config.audio_schema import (
    AUDIO_DATA,
    AudioConfig,
    RecordingsConfig,
    WaveNetDecoderConfig,
    WaveNetPriorConfig,
)
from twostage.config.image_size import plain_size
from twostage.config.quantiser import QuantiserConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images or recordings are modelled."""

    name: Literal[
        "digits", "shapes", "mnist", "fashion-mnist", "cifar10", "images", "arrays", "recordings", "vowels"
    ] = "digits"
    """Data set: digits, shapes (drawn, with known factors) and vowels (synthetic) are built in; mnist, fashion-mnist
    and cifar10 come from their official files; images and recordings are any folder of images or sound files; arrays
    are images in .npy or .npz files."""
    path: str | None = None
    """Folder of the files (cifar10: or its archive; arrays: or one file). Unless given, named sets are downloaded once,
    checksummed."""
    image_size: int | str = 32
    """Pixels of the images made from a folder: the side of a square, or HEIGHTxWIDTH, such as 64x96."""
    fit: Literal["exact", "crop", "resize"] = "resize"
    """Folder images to that size: `resize` (until both sides cover it, then centre crop), centre `crop`, or refuse all
    but `exact`."""
    colour: Literal["rgb", "grey"] = "rgb"
    """Channels of folder images."""
    bits: Literal[8, 16] = 8
    """Bits per channel of folder images: 16 reads grey PNG and TIFF files of 16 bits, with all their levels."""
    levels: int = 0
    """Size of the alphabet of arrays; 0: 256 of 8-bit ones, else the least power of two above the training levels."""
    train_folder: str | None = None
    """Sub-folder of training and validation images. Unless given: all, split by digests of their names."""
    test_folder: str | None = None
    """Sub-folder of test images. Unless given: a tenth of all images is held out. Goes with train_folder."""
    skip_unreadable: int = 0
    """Unreadable files of a folder of images or recordings that may be left out, by name in the record; one more is an
    error."""
    horizontal_flips: bool = False
    """Mirror training images at random; the prior sees the codes of both sides."""
    binarise: Literal["none", "static", "dynamic"] = "none"
    """Grey levels to 0 or 1, drawn with probability level/(levels - 1): once (`static`), or anew for every training
    batch with fixed validation and test draws (`dynamic`)."""

    def __post_init__(self) -> None:
        """Keep a size as it is written elsewhere, or 64x64 and 64 would be two settings."""
        object.__setattr__(self, "image_size", plain_size(self.image_size))


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Encoder, decoder and likelihood, shared by the VQ-VAE and the VAE baseline."""

    downsampling: Literal[2, 4, 8, 16, 32] = 4
    """Image side divided by code-grid side: one stride-2 convolution per factor of two."""
    hierarchy: int = 1
    """Levels of a VQ-VAE (VQ-VAE-2): grids of codes, the finest that of `downsampling`, the sides of each coarser one
    half as long; 1: that grid alone, which is all that other models have."""
    upsampling: Literal["transposed", "nearest-convolution", "subpixel"] = "transposed"
    """The decoder's way back: `transposed` convolutions; `nearest-convolution`, nearest neighbours and a convolution,
    which leave less of a grid in pictures; or `subpixel` convolutions, which start without one."""
    channels: int = 256
    """Width of the encoder and decoder at the code grid."""
    residual_blocks: int = 2
    """Residual blocks (ReLU, 3x3, ReLU, 1x1) on each side."""
    residual_channels: int = 128
    """Width between the 3x3 and the 1x1 convolution of a residual block."""
    normalisation: Literal["none", "group"] = "none"
    """Layers that normalise maps of encoder and decoder in front of their ReLUs, but for those at the full size of the
    image: `group` normalisation, or `none`, as in the paper."""
    attention_blocks: int = 0
    """Blocks of self-attention over the code grid (of a hierarchy the coarsest) behind the residual blocks of encoder
    and decoder; 0: none. Their time grows with the square of the number of positions."""
    head_channels: int = 64
    """Channels per pixel that the decoder hands to the likelihood."""
    likelihood: Literal["categorical", "hurdle", "logistic-mixture", "bernoulli", "mse"] = "categorical"
    """p(x|z) over the levels: `categorical`, `hurdle` (P(0), then a categorical over the others), both up to 4096
    levels, `logistic-mixture` (discretised, sub-pixels in order), `bernoulli` (binarised data), or `mse`, which has
    PSNR but no bits/dim."""
    mixtures: int = 10
    """Components per pixel, read by `logistic-mixture` alone."""
    mean_weight: float = 0.0
    """Training of `logistic-mixture` adds half of this times the squared error of the mean, levels scaled to [-1, 1],
    to the nats; bits/dim have no part of it. 0: nothing. Not with autoregressive layers."""
    autoregressive_layers: int = 0
    """Gated masked layers over the pixels on top of the decoder; 0: pixels are independent given the codes."""
    autoregressive_channels: int = 32
    """Width of those layers, read where there are any."""
    autoregressive_kernel: int = 5
    """Kernel side of the first of them; the later ones have 3."""

    @property
    def has_mean_weight(self) -> bool:
        """Whether a decoder of these settings can be given a `mean_weight`."""
        return self.likelihood == "logistic-mixture" and not self.autoregressive_layers

    @property
    def networks(self) -> dict[str, Any]:
        """Keyword arguments that all models of images take: the settings without the hierarchy."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "hierarchy"}


@dataclass(frozen=True, kw_only=True)
class PictureDecoderConfig:
    """The second decoder of images, trained for the eye on the codes of a finished codebook: pictures without bits."""

    channels: int = 128
    """Width at the code grid."""
    residual_blocks: int = 2
    """Residual blocks at the code grid."""
    residual_channels: int = 64
    """Width inside a residual block."""
    head_channels: int = 64
    """Features per pixel that the picture is made of."""
    upsampling: Literal["transposed", "nearest-convolution", "subpixel"] = "nearest-convolution"
    """As stage1.upsampling."""
    feature_weight: float = 0.0
    """Pull of the distance of features at a picture, over that of its absolute error; the features are those of the
    codebook's own encoder. More of it keeps pictures nearer to their originals, and less sharp. 0: none."""
    adversarial_weight: float = 1.0
    """The same of the discriminator's verdict on the patches of a picture: more is sharper, and invents more. 0: no
    discriminator is trained."""
    adversarial_start: int = 200
    """Steps before the verdict counts; the discriminator learns from the first step on, and needs a start."""
    discriminator_channels: int = 32
    """Width of the discriminator's first layer; it doubles from layer to layer, three times at most."""
    discriminator_layers: int = 3
    """Its layers that halve the sides, fewer on small pictures: a verdict is on a patch of 46 pixels with 3 of them."""


@dataclass(frozen=True, kw_only=True)
class GaussianConfig:
    """The continuous bottleneck of the baselines: autoencoder, VAE, beta-VAE and conditional VAE."""

    latent_channels: int = 8
    """Gaussian latents per grid position, or position of a sound."""
    latent_dim: int = 0
    """Length of a vector of latents; 0: a grid with latent_channels per position."""
    network: Literal["convolutional", "mlp"] = "convolutional"
    """Encoder and decoder around a vector: the convolutions of stage1, or hidden layers over all pixels."""
    mlp_layers: int = 1
    """Hidden layers on each side, read by `mlp` alone."""
    mlp_width: int = 512
    """Their width."""
    kl_warmup_steps: int = 0
    """Steps over which the weight of the KL term grows from zero to beta."""
    free_bits: float = 0.0
    """Nats per latent, of sounds per channel and position, below which training lowers the KL no further."""
    auxiliary_weight: float = 0.0
    """As quantiser.auxiliary_weight. Above 0 the baseline is no longer trained on the bound that it is scored by."""


@dataclass(frozen=True, kw_only=True)
class VimcoConfig:
    """Training of the baseline with the discrete latents of the VQ-VAE but without its quantiser (VIMCO)."""

    samples: int = 10
    """k of the training bound; a step decodes k times. The paper used 50."""


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """The gated PixelCNN over the codes."""

    layers: int = 15
    """Gated layers, the first (mask A) included."""
    channels: int = 64
    """Width of both stacks."""
    first_kernel: int = 7
    """Kernel side of the first layer."""
    kernel: int = 3
    """Kernel side of every later layer."""
    dropout: float = 0.0
    """Dropout inside each gated layer."""
    conditional: bool = True
    """Condition on the class label where the data set has labels."""
    label_dropout: float = 0.0
    """Share of training items whose label is hidden: above 0, the same prior also samples without a label."""
    attention_every: int = 0
    """A block of causal self-attention after every so many gated layers, but not after the last, so fewer than the
    layers; 0: none. Training takes longer, and a step of sampling the longer the more codes came before."""
    attention_heads: int = 4
    """Heads of such a block."""
    attention_head_channels: int = 16
    """Width of each head."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One optimisation: Adam, a fixed number of steps, checkpoints on the way."""

    steps: int = 10_000
    """Optimiser steps; the only budget, seconds are reported and never used to stop."""
    batch_size: int = 128
    """Items per step, of all processes together."""
    accumulate: int = 1
    """Parts of a process's share of the batch that are worked through one after the other: less memory, the same step
    up to rounding."""
    learning_rate: float = 2e-4
    """Adam's peak learning rate."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or cosine down to zero at the last step."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) on matrices and kernels."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 turns clipping off."""
    weight_ema: float = 0.0
    """Decay of a moving average of the weights, which is what is validated and kept; 0: the weights themselves."""
    patience: int = 0
    """Stop after this many validations in a row without a new best; 0: never before the last step."""
    precision: Literal["fp32", "bf16", "auto", "bf16-forced"] = "fp32"
    """Arithmetic of the training step (autocast); evaluation is always fp32. auto: bf16 where the device computes it
    itself, otherwise fp32. Where it only emulates bf16, that is refused, and bf16-forced takes many times as long."""
    compile: bool = False
    """Compile the training step (torch.compile): for long trainings; takes a minute, needs a C++ compiler."""
    pictures: bool = True
    """Every validation writes pictures, and sounds, of what the model makes of a few fixed items."""
    validate_every: int = 500
    """Steps between validations; the best model on validation data is kept."""
    checkpoint_every: int = 500
    """Steps between saved training states."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How bits/dim are measured."""

    iwae_samples: int = 64
    """k of the importance-weighted bound."""
    batch_size: int = 256
    """Items per forward pass; changes memory and speed, not results."""
    batch_samples: int = 262_144
    """The same for recordings: most samples per forward pass, padding included."""
    sampled_items: int = 100
    """Recordings, spread over the split, that a WaveNet decoder reconstructs sample by sample for the log-mel
    distance; 0: none."""
    search_items: int = 0
    """Items, spread over the split, whose codes are searched for fewer bits: a row of its own; 0: none."""
    search_candidates: int = 4
    """Nearest codes that the search tries at every position in turn."""
    search_sweeps: int = 1
    """Passes of the search over all positions."""
    coded_items: int = 0
    """Items, spread over the split, whose codes are written with a range coder and read back, of recordings with their
    lengths and labels: bytes that prove the learned rate; 0: none."""
    frechet_samples: int = 0
    """Samples and reconstructions scored by Fréchet distance (features of a network trained on the run's data), which
    on validation data chooses temperature, top-p, guidance; 0: neither."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment: data, both stages, baseline, training and evaluation."""

    # Read by pydantic, for the sections too: an unknown key is an error, never a setting that silently does nothing.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    name: str = "custom"
    """Name of the recipe; the default run folder is runs/NAME."""
    seed: int = 0
    """Seed of initialisation, batch order, noise and dropout."""
    threads: int = 0
    """CPU threads for torch; 0 leaves the choice to torch. Part of the record: other counts round differently."""
    models: tuple[str, ...] = ("vq-vae", "vq-vae-loss", "vae")
    """Models to fit, in this order: vq-vae, vq-vae-ema, vq-vae-loss, vq-vae-joint (behind vq-vae), ae, vae, beta-vae-B,
    cvae, vimco."""
    data: DataConfig = field(default_factory=DataConfig)
    recordings: RecordingsConfig = field(default_factory=RecordingsConfig)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    audio: AudioConfig = field(default_factory=AudioConfig)
    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    gaussian: GaussianConfig = field(default_factory=GaussianConfig)
    vimco: VimcoConfig = field(default_factory=VimcoConfig)
    codebook_training: TrainingConfig = field(default_factory=TrainingConfig)
    picture_decoder: PictureDecoderConfig = field(default_factory=PictureDecoderConfig)
    wavenet_decoder: WaveNetDecoderConfig = field(default_factory=WaveNetDecoderConfig)
    decoder_training: TrainingConfig = field(default_factory=TrainingConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    wavenet_prior: WaveNetPriorConfig = field(default_factory=WaveNetPriorConfig)
    prior_training: TrainingConfig = field(default_factory=TrainingConfig)
    joint_training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=2_000, learning_rate=1e-4))
    baseline_training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def has_wavenet_decoder(self) -> bool:
        """Whether a WaveNet decoder follows a codebook, as it does of sound unless it has no blocks."""
        return self.data.name in AUDIO_DATA and self.wavenet_decoder.blocks > 0

    @property
    def codebook_model_steps(self) -> int:
        """Optimiser steps of a codebook and all that follows its codes."""
        decoder = self.decoder_training.steps if self.has_wavenet_decoder else 0
        return self.codebook_training.steps + decoder + self.prior_training.steps
