"""What every trained stage one answers, whatever its data and its latents: batches in; nats, latents and items out.

Verbs know models through this file alone, so that a model of a new kind, or of new data, needs no edit in a verb. The
flat methods of the classes (`VQVAE.encode(images)` and so on) are for people; those here call them with what a batch
holds, and are spelled `..._batch` where a flat method of that name stands beside them.

Shapes: B items, S the axes of an item, G codebooks, T the axes of its codes (h x w, or positions), A of its latents.
"""

from typing import Literal, Protocol

from torch import Tensor

from stage1_vqvae.batch import Asked, Batch, Score

LatentKind = Literal["codes", "gaussian", "table", "none"]
"""What is known of a model's latents: codes for a learned prior to follow; a Gaussian; a table of probabilities of
codes that was trained along; or nothing, so that the model has no bits/dim."""


class Stage1Model(Protocol):
    """A trained stage one in eval mode."""

    @property
    def latents(self) -> LatentKind: ...

    @property
    def levels(self) -> int:
        """Size of the alphabet of a sub-pixel or sample."""

    @property
    def likelihood_is_discrete(self) -> bool:
        """Whether p(x|z) is a mass function over the levels, so that there are bits."""

    @property
    def autoregressive(self) -> bool:
        """Whether decoding draws an item rather than giving its mean."""

    @property
    def classes(self) -> int:
        """Labels that encoder and decoder are conditioned on; 0: none."""

    @property
    def speakers(self) -> int:
        """Speakers that the decoder is conditioned on; 0: none."""

    @property
    def beta(self) -> float | None:
        """Weight of the KL in training; None without one."""

    def dims_of(self, asked: Asked) -> Tensor:
        """Dimensions of every item, `[B]` int64: sub-pixels, or samples."""

    def score(self, batch: Batch, *, samples: int, seed: int) -> Score:
        """Nats of a batch from `samples` draws of the latents, where they are drawn; item i draws from (seed, i)."""

    def latents_of(self, batch: Batch, *, seed: int) -> Tensor:
        """What stands for an item, `[B, *A]`: its codes, or the mean, or the mode, of its posterior.

        Of sounds as many positions as the longest has, with zeros behind those of the others.
        """

    def sample_latents(
        self, asked: Asked, *, seed: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
    ) -> Tensor:
        """Latents of new items from the model's own distribution, `[B, *A]`: kinds `gaussian` and `table` alone."""

    def decode_batch(self, latents: Tensor, asked: Asked, /, *, seed: int) -> Tensor:
        """Items `[B, *S]`, fp32, of latents: images in levels, waveforms in -1..1 with silence behind their length.

        S of sounds is the longest of `lengths`; what latents are behind those of an item does not matter.

        The mean of p(x|z); of an autoregressive decoder a draw, that of (seed, i) for item i.
        """


class Codec(Stage1Model, Protocol):
    """A stage one of the kind `codes`, which a prior can follow."""

    @property
    def codebook_size(self) -> int: ...

    @property
    def codebooks(self) -> int: ...

    @property
    def update_rule(self) -> str:
        """How the codebook learned: `ema`, `loss`, or `fixed` where nothing does."""

    @property
    def code_vectors(self) -> Tensor:
        """Vector of every code, `[C, K, W]`, of the C codebooks of all grids together, coarsest first."""

    def positions_of(self, asked: Asked) -> Tensor:
        """Positions of the codes of every item, `[B]` int64."""

    def log_prob_batch(self, batch: Batch, codes: Tensor, /) -> Tensor:
        """log p(x|codes) in nats, `[B]` fp32, of codes `[B, G, *T]`: minus the distortion of the two-part code."""
